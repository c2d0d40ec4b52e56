# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module, shows a line every few seconds meanwhile, and the table of figures at the end."""

from __future__ import annotations

import os

from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.module_utils.load_progress import Follower, progress_line
from ansible_collections.speechops.riva.plugins.module_utils.report_page import RECORDS
from ansible_collections.speechops.riva.plugins.plugin_utils.following import run_followed

SECONDS_BETWEEN_LINES = 10


def lines_of(folder):
    """What looks into the records of a running test, and returns the line for the newest ones."""
    records = Follower(os.path.join(folder, RECORDS))
    return lambda: filter(None, [progress_line(records.look())])


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    MODULE = "speechops.riva.speech_load_test"

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        # This is a worker; its parent is the ansible-playbook that a user may end.
        return run_followed(
            self, task_vars, "report_folder", lines_of, SECONDS_BETWEEN_LINES, stop_with_process=os.getppid()
        )

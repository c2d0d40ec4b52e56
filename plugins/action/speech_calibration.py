# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module, shows a line for each level that was held, and the result at the end."""

from __future__ import annotations

import os

from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.module_utils.load_progress import Lines
from ansible_collections.speechops.riva.plugins.modules.speech_calibration import PROGRESS
from ansible_collections.speechops.riva.plugins.plugin_utils.following import run_followed

SECONDS_BETWEEN_LOOKS = 2


def lines_of(folder):
    """What looks into the records of a running calibration, and returns the lines that are new."""
    return Lines(os.path.join(folder, PROGRESS)).new


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    MODULE = "speechops.riva.speech_calibration"

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        # This is a worker; its parent is the ansible-playbook that a user may end.
        return run_followed(
            self, task_vars, "report_folder", lines_of, SECONDS_BETWEEN_LOOKS, stop_with_process=os.getppid()
        )

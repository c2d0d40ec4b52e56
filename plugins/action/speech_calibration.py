# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module, shows a line for each level that was held, and the result at the end."""

from __future__ import annotations

import os

from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.module_utils.load_progress import Lines, run_followed
from ansible_collections.speechops.riva.plugins.modules.speech_calibration import PROGRESS

SECONDS_BETWEEN_LOOKS = 2


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    MODULE = "speechops.riva.speech_calibration"

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return run_followed(
            self, task_vars, lambda folder: Lines(os.path.join(folder, PROGRESS)).new, SECONDS_BETWEEN_LOOKS
        )

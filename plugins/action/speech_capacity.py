# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module and shows what it found: a debug task would wrap the table, and the JSON."""

from __future__ import annotations

import json

from ansible.plugins.action import ActionBase

MODULE = "speechops.riva.speech_capacity"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        result = self._execute_module(module_name=MODULE, module_args=dict(self._task.args), task_vars=task_vars)
        if result.get("failed"):
            return result
        if self._task.args.get("format") == "json":
            self._display.display(json.dumps(result["capacity"]))
        else:
            self._display.display("\n".join([*result["table"], ""]))
        return result

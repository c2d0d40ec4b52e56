# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module, shows a line for each level that was held, and the result at the end."""

from __future__ import annotations

import os
from contextlib import nullcontext

from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.module_utils.load_progress import Lines, followed
from ansible_collections.speechops.riva.plugins.modules.speech_calibration import PROGRESS

MODULE = "speechops.riva.speech_calibration"
SECONDS_BETWEEN_LOOKS = 2


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        prefix = f"    [{(task_vars or {}).get('inventory_hostname', '')}] "
        progress = nullcontext()

        def show(line: str) -> None:
            self._display.display(prefix + line)

        # Progress is read from a file, so it can be shown only where the module runs on this machine.
        if self._connection.transport == "local" and args.get("report_folder"):
            args["report_folder"] = os.path.abspath(os.path.expanduser(str(args["report_folder"])))
            # This is a worker; its parent is the ansible-playbook that a user may end.
            args["stop_with_process"] = os.getppid()
            lines = Lines(os.path.join(args["report_folder"], PROGRESS))
            progress = followed(lines.new, show, SECONDS_BETWEEN_LOOKS)
        with progress:
            result = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars or {})
        for line in result.pop("table", []):
            self._display.display(f"    {line}".rstrip())
        return result

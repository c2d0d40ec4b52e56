# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module in slices, so that a line of progress shows while it waits; one deadline over all."""

from __future__ import annotations

import time

from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.module_utils.findings import summary
from ansible_collections.speechops.riva.plugins.plugin_utils import direct

MODULE = "speechops.riva.wait_for_release"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        timeout, part = int(args.get("timeout") or 300), int(args.get("slice") or 10)
        pause = int(args.get("sleep") or 3)
        release = f"{args.get('namespace')}/{args.get('release_name')}"
        host = task_vars.get("inventory_hostname", "")
        started = time.monotonic()
        while True:
            left = timeout - (time.monotonic() - started)
            args["timeout"] = max(int(min(part, left)), 0)
            result = direct.execute(self, MODULE, args, task_vars)
            waited = int(time.monotonic() - started)
            if result.get("failed") or result.get("ready") or self._task.check_mode:
                break
            if waited + pause >= timeout:
                title = f"{release} is not ready after {waited} s (its timeout is {timeout} s):"
                result = {
                    "failed": True,
                    "changed": False,
                    "msg": summary(title, result["findings"]),
                    "findings": result["findings"],
                }
                break
            self._display.display(f"    [{host}] {release}, {waited} of {timeout} s: {result['progress']}")
        result["waited"] = round(time.monotonic() - started, 1)
        return result

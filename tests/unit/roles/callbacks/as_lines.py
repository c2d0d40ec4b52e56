# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each result of a play as a line of JSON in the file that AS_LINES names."""

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase
from ansible_collections.speechops.riva.plugins.action import preflight

# Here, once, and not in the process of each host.
preflight.specs()

DOCUMENTATION = """
name: as_lines
type: aggregate
short_description: Writes each result as a line of JSON
description: For tests.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "as_lines"
    CALLBACK_NEEDS_ENABLED = True

    def write(self, status, result):
        task, host = getattr(result, "task", None) or result._task, getattr(result, "host", None) or result._host
        told = getattr(result, "result", None) or result._result
        line = {
            "host": host.get_name(),
            "task": task.get_name(),
            "action": task.action,
            "status": status,
            "changed": bool(told.get("changed")),
            "msg": str(told.get("msg", "")),
            "findings": told.get("findings") or [],
        }
        with open(os.environ["AS_LINES"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def v2_runner_on_ok(self, result):
        self.write("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.write("failed", result)

    def v2_runner_on_unreachable(self, result):
        self.write("unreachable", result)

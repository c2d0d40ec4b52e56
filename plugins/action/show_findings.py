# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints findings as they are: a debug task would hide the colours, and wrap the JSON."""

from __future__ import annotations

import json

from ansible.plugins.action import ActionBase
from ansible.utils import color
from ansible_collections.speechops.riva.plugins.module_utils.findings import document, table
from ansible_collections.speechops.riva.plugins.modules.show_findings import own_arguments


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(argument_spec=own_arguments())
        report = document(args["cluster"], args["findings"])
        if args["format"] == "json":
            self._display.display(json.dumps(report))
        else:
            heading = f"{report['cluster']}: {report['status']}"
            if color.ANSIBLE_COLOR:
                self._display.display(f"{heading}\n{table(report['findings'], color=True)}\n", screen_only=True)
            self._display.display(f"{heading}\n{table(report['findings'])}\n", log_only=bool(color.ANSIBLE_COLOR))
        return {**result, "changed": False, "report": report}

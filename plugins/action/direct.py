# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the modules that meta/runtime.yml routes to it: without a Python of their own, where that is the same."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.plugin_utils import direct


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        if self._task.async_val:
            return self._execute_module(task_vars=task_vars, wrap_async=not self._connection.has_native_async)
        return direct.execute(self, self._task.action, dict(self._task.args), task_vars)

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module, and says every few seconds how much the bundle has by now: images are gigabytes."""

from __future__ import annotations

import os
from contextlib import suppress

from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.plugin_utils.following import run_followed

SECONDS_BETWEEN_LINES = 10


def progress(folder):
    """The line that says how much is in a folder by now."""
    sizes = []
    for place, _folders, names in os.walk(folder):
        for name in names:
            # A temporary file may be gone by now.
            with suppress(FileNotFoundError):
                sizes.append(os.lstat(os.path.join(place, name)).st_size)
    return f"{folder}: {len(sizes)} files, {sum(sizes) / 2**20:.0f} MiB so far"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    MODULE = "speechops.riva.make_bundle"

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return run_followed(self, task_vars, "folder", lambda folder: lambda: [progress(folder)], SECONDS_BETWEEN_LINES)

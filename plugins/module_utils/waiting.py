# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What a module says of its wait while it waits, so that a user sees what for and how long still.

It goes to standard error, where Ansible takes no notice of it; plugin_utils/direct.py, which runs most modules of this
collection, shows the newest line every ten seconds.
"""

import sys

MARK = "waits for "


def say(what: str, waited: float, most: float) -> None:
    """Say what is awaited, and how many seconds of how many are over."""
    print(f"{MARK}{' '.join(what.split())} ({waited:.0f} of {most:.0f} s)", file=sys.stderr, flush=True)


def newest(text: str) -> str | None:
    """The newest whole line that was said; None where there is none."""
    lines = [line for line in text.splitlines(keepends=True) if line.startswith(MARK) and line.endswith("\n")]
    return lines[-1].strip() if lines else None

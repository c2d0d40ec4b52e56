# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""How rules read what others wrote, as a cluster's objects are: anything may be missing, or of another type."""

from collections.abc import Mapping, Sequence


def mapping(value: object) -> Mapping:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence:
    """The value if it is a list, else an empty one; a text is none."""
    return value if isinstance(value, list | tuple) else ()


def short_list(names: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    rest = len(names) - most
    return separator.join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

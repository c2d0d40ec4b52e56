# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Free values of the riva chart: keys that it does not have, and secrets that do not belong there. Pure rules."""

from __future__ import annotations

import re

from ansible_collections.speechops.riva.plugins.module_utils.inputs import finding, nearest


def check_chart_values(place: str, values: dict, known: dict) -> list[dict]:
    """Findings of free values against the chart's own: keys that it does not have, and groups that are none.

    Where the chart's own value is an empty mapping or nothing, anything goes.
    """
    found = []
    for key, value in values.items():
        name = f"{place}.{key}"
        if key not in known:
            like = nearest(key, known)
            remedy = f"Did you mean {like}?" if like else f"The chart has: {', '.join(sorted(map(str, known)))}."
            found.append(finding(name, f"{name} is no value of the riva chart", remedy))
        elif isinstance(known[key], dict) and known[key]:
            if isinstance(value, dict):
                found += check_chart_values(name, value, known[key])
            elif value is not None:
                found.append(
                    finding(
                        name, f"{name} is {value!r}, where the chart has a mapping", f"Set keys below {name} instead."
                    )
                )
    return found


_SECRET = re.compile(r"(password|passwd|token|api_?key|private_?key)$", re.IGNORECASE)


def secrets_in_values(place: str, values: object) -> list[dict]:
    """Warnings for texts in free values whose keys look like secrets: Helm keeps values readable in the cluster."""
    if isinstance(values, list):
        return [item for inner in values for item in secrets_in_values(place, inner)]
    if not isinstance(values, dict):
        return []
    found = []
    for key, value in values.items():
        name = f"{place}.{key}"
        if isinstance(value, str) and value and _SECRET.search(str(key)):
            found.append(
                finding(
                    name,
                    f"{name} looks like a secret, and Helm keeps values readable in the cluster",
                    "Put it into a Secret of its own, and name that in the chart's values.",
                    "warning",
                )
            )
        else:
            found += secrets_in_values(name, value)
    return found

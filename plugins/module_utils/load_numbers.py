# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the records of a load test are counted with: percentiles, changes, integrals over time."""

from __future__ import annotations

import datetime
import math
from itertools import groupby, pairwise

PERCENTILES = (50, 90, 95, 99)


def percentile(ordered: list[float], percent: float) -> float:
    """Return the nearest-rank percentile of values in ascending order: a value that was really measured."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def distribution(values: list[float], digits: int = 1) -> dict:
    """Return count, mean, percentiles and maximum; only the count where nothing was measured."""
    if not values:
        return {"count": 0, "mean": None, **{f"p{p}": None for p in PERCENTILES}, "max": None}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "mean": round(sum(ordered) / len(ordered), digits),
        **{f"p{p}": percentile(ordered, p) for p in PERCENTILES},
        "max": ordered[-1],
    }


def path_of(values: list) -> list:
    """Drop repeats that follow each other: 1 1 2 3 3 1 becomes 1 2 3 1."""
    return [value for value, _ in groupby(values)]


def turning_points(path: list[int]) -> list[int]:
    """Keep the ends of a path and the places where it turns: 1 2 3 2 1 becomes 1 3 1."""
    if len(path) < 3:
        return list(path)
    inner = [b for (a, b), (_, c) in pairwise(pairwise(path)) if (b > a) != (c > b)]
    return [path[0], *inner, path[-1]]


def changes(samples: list[dict], key: str) -> list[dict]:
    """Return when a figure of the samples changed, and how."""
    return [
        {"t_s": new["t"], "from": old[key], "to": new[key]} for old, new in pairwise(samples) if new[key] != old[key]
    ]


def integral(samples: list[dict], key: str, end: float) -> float:
    """Return the sum of a figure over time; each sample holds until the next one."""
    times = [sample["t"] for sample in samples] + [end]
    return sum(sample[key] * max(0.0, times[i + 1] - times[i]) for i, sample in enumerate(samples))


def seconds_since(start: str, moment: str | None) -> float | None:
    if not moment:
        return None
    return round((_parse(moment) - _parse(start)).total_seconds(), 1)


def _parse(moment: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))


def of_kind(records: list[dict], kind: str) -> list[dict]:
    return [record for record in records if record["kind"] == kind]

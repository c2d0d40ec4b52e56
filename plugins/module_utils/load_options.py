# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with the options of a load test, in words. Pure."""

from __future__ import annotations

import re

from ansible_collections.speechops.riva.plugins.module_utils.load_profile import profile_problems
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import path_of

# option: (least, most, unit)
RANGES = {
    "tail_seconds": (0, 3600, "seconds"),
    "stream_seconds": (1, 3600, "seconds"),
    "stream_grace_seconds": (1, 600, "seconds"),
    "chunk_duration_ms": (10, 5000, "milliseconds"),
    "objective_ms": (1, 60000, "milliseconds"),
    "sample_seconds": (1, 60, "seconds"),
    "max_streams": (1, 1000000, "streams"),
    "max_failed_streams": (0, 1000000, "streams"),
}
ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")


def option_problems(options: dict) -> list[str]:
    """Return one sentence for each option that cannot be used."""
    problems = [f"profile: {problem}" for problem in profile_problems(options["profile"])]
    for name, (least, most, unit) in RANGES.items():
        if not least <= options[name] <= most:
            problems.append(f"{name} is {options[name]:g}; it must be from {least} to {most} {unit}")
    endpoint = options.get("endpoint")
    if endpoint:
        found = ENDPOINT.fullmatch(endpoint)
        if not found or not 0 < int(found.group(2)) < 65536:
            problems.append(f"endpoint is {endpoint!r}; it must be host:port, for example 10.0.0.5:50051")
    expected = options.get("expect_replicas")
    if expected is not None and (not expected or min(expected) < 0 or path_of(expected) != expected):
        problems.append(
            f"expect_replicas is {expected}; it must be a list of numbers, each different from the one before, "
            "for example [1, 3, 1]"
        )
    return problems

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user sees while a load test runs: one line, made from the newest records."""

from __future__ import annotations

import json
import os

from ansible_collections.speechops.riva.plugins.module_utils.load_profile import schedule_of


class Follower:
    """Reads what a running load test adds to its records."""

    def __init__(self, path: str):
        self.path = path
        self.old_file = self._identity()  # the records of an earlier test
        self.read_to = 0
        self.newest: dict[str, dict] = {}

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns

    def look(self) -> dict[str, dict]:
        """Return the newest record of each kind."""
        if not self.newest and self._identity() in (None, self.old_file):
            return {}
        with open(self.path, "rb") as file:
            file.seek(self.read_to)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.read_to += len(whole)
        for line in whole.splitlines():
            record = json.loads(line)
            self.newest[record["kind"]] = record
        return self.newest


class Lines:
    """Reads the lines for people that a running module adds to its records, each once."""

    def __init__(self, path: str):
        self.records = Follower(path)
        self.shown = 0

    def new(self) -> list[str]:
        """Return the lines that were not returned yet."""
        newest = self.records.look().get("progress", {"lines": []})
        lines, self.shown = newest["lines"][self.shown :], len(newest["lines"])
        return lines


def clock(seconds: float) -> str:
    return f"{int(max(0, seconds)) // 60}:{int(max(0, seconds)) % 60:02d}"


def time_left(start: dict, seconds: float) -> str:
    """Say how long the load still lasts or, after it, how long the test still waits at the most."""
    plan = start["plan"]
    profile = schedule_of(plan).end
    if seconds < profile:
        return f"load ends in {clock(profile - seconds)}"
    longest_stream = plan["stream_seconds"] + plan["stream_grace_seconds"]
    last = profile + max(plan["tail_seconds"], longest_stream)
    return f"watching for {clock(last - seconds)} at the most"


def progress_line(newest: dict[str, dict]) -> str | None:
    """Return the line to show, or None before the load begins."""
    if not {"start", "streams"} <= newest.keys():
        return None
    streams, cluster, error = newest["streams"], newest.get("cluster"), newest.get("cluster_error")
    parts = [
        f"{clock(streams['t'])}",
        f"streams {streams['in_flight']} of {streams['level']} in flight, {streams['finished']} done, "
        f"{streams['failed']} failed" + (f", {streams['refused']} refused" if streams.get("refused") else ""),
    ]
    if error and (not cluster or error["t"] > cluster["t"]):
        # Figures of an earlier look would pass for the present.
        parts.append(f"cluster not read: {error['message']}")
    elif cluster:
        parts.append(f"replicas {cluster['desired']} desired, {cluster['ready']} ready")
        for metric in cluster["metrics"]:
            value = "<unknown>" if metric["value"] is None else f"{metric['value']:g}"
            parts.append(f"{metric['name']} {value} (target {metric['target']:g})")
    parts.append(time_left(newest["start"], streams["t"]))
    return "; ".join(parts)

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a load test gives up, to spare a service that people use. Pure: records in, a reason out."""

from __future__ import annotations

from collections import deque

from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import percentile

# What is looked back at, in seconds, and the least that must have been seen before it counts.
WINDOW_SECONDS = 30.0
LEAST_STREAMS = 20
LEAST_LATENCIES = 100


class Guard:
    """Looks at each second of a load test.

    failed_percent: the most streams, of those that ended lately, that may have failed (refused ones are no failures:
    a service that refuses protects itself). latency_ms: the most that the p95 of the latencies lately may be. None: no
    such limit.
    """

    def __init__(self, failed_percent: float | None = None, latency_ms: float | None = None):
        self.failed_percent = failed_percent
        self.latency_ms = latency_ms
        self.windows: deque[dict] = deque()
        self.before = {"finished": 0, "failed": 0, "refused": 0}

    def look(self, window: dict) -> str:
        """Take the record of one more second; return why the test has to end, or nothing."""
        self.windows.append(window)
        while self.windows[0]["t"] < window["t"] - WINDOW_SECONDS:
            gone = self.windows.popleft()
            self.before = {key: gone[key] for key in self.before}
        return self._failed(window) or self._late()

    def _failed(self, window: dict) -> str:
        ended = {key: window[key] - count for key, count in self.before.items()}
        total = sum(ended.values())
        if self.failed_percent is None or total < LEAST_STREAMS:
            return ""
        share = 100 * ended["failed"] / total
        if share <= self.failed_percent:
            return ""
        return (
            f"aborted: {share:.0f} % of the {total} streams that ended in the last {WINDOW_SECONDS:g} s failed, "
            f"{self.failed_percent:g} % may (abort_failed_percent)"
        )

    def _late(self) -> str:
        if self.latency_ms is None or sum(len(window["latency_ms"]) for window in self.windows) < LEAST_LATENCIES:
            return ""
        p95 = percentile(sorted(value for window in self.windows for value in window["latency_ms"]), 95)
        if p95 <= self.latency_ms:
            return ""
        return (
            f"aborted: the p95 latency of the last {WINDOW_SECONDS:g} s was {p95:.0f} ms, "
            f"{self.latency_ms:g} ms may be (abort_latency_ms)"
        )

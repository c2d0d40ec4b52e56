# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Streams that come and go: how many are wanted over time, and which ones come of it.

A trace says how many streams callers would have in flight if none were refused. Arrivals are random (Poisson),
with the rate that gives this number; the lengths have a heavy tail (log-normal).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Lengths:
    """Log-normal lengths in seconds, cut at the longest stream that the service allows."""

    median: float = 60
    sigma: float = 1.0
    longest: float = 900

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        lengths = np.exp(math.log(self.median) + self.sigma * random.standard_normal(count))
        return np.clip(lengths, 1.0, self.longest)

    def still_there(self, age: np.ndarray) -> np.ndarray:
        """The share of streams longer than each age."""
        with np.errstate(divide="ignore"):
            z = (np.log(np.maximum(age, 0)) - math.log(self.median)) / self.sigma
        share = 0.5 * np.array([math.erfc(value / math.sqrt(2)) for value in z])
        return np.where(age >= self.longest, 0.0, np.where(age <= 0, 1.0, share))


@dataclass(frozen=True)
class Trace:
    """Points (seconds, streams), straight lines between them; all before the first point is not counted."""

    name: str
    points: tuple[tuple[float, float], ...]
    lengths: Lengths = Lengths()
    warm_up: float = 300

    @property
    def seconds(self) -> float:
        return self.points[-1][0]

    def wanted(self, at: np.ndarray) -> np.ndarray:
        return np.interp(at, [point[0] for point in self.points], [point[1] for point in self.points])


def burst_trace(name: str, burst_seconds: float) -> Trace:
    """Ramp, burst, plateau, ebb: 20 streams, slowly 45, a burst to 110, a plateau, and ten minutes at 20 again."""
    start = 300
    end = start + burst_seconds
    return Trace(
        name,
        ((0, 20), (120, 20), (start, 45), (end, 110), (end + 180, 110), (end + 380, 20), (end + 980, 20)),
    )


# The issue with a burst is how steep it is against the time that a model takes to load.
TRACES = {
    "burst": burst_trace("burst", 60),
    "steep": burst_trace("steep", 10),
    "slow": burst_trace("slow", 180),
}


def day_trace(peak: float, hours: float = 24, seed: int = 7) -> Trace:
    """A day: quiet night, morning ramp, midday plateau, dip, evening peak, and five bursts of up to 15 % on top."""
    shape = ((0, 0.12), (5, 0.08), (8, 0.45), (9.5, 0.9), (12, 1.0), (13, 0.8), (16, 0.95), (18, 0.7), (21, 0.4),
             (24, 0.12))  # fmt: skip
    at = np.arange(0, hours * 3600 + 1, 30.0)
    level = np.interp(at, [hour * hours / 24 * 3600 for hour, _ in shape], [share for _, share in shape])
    draw = np.random.default_rng(seed)
    for hour in draw.choice(np.arange(6, 22), 5, replace=False):
        start = float(hour + draw.random()) * hours / 24 * 3600
        height = 0.05 + 0.10 * draw.random()
        level = level + height * np.interp(at, [start, start + 120, start + 900, start + 1500], [0, 1, 1, 0])
    level = level / level.max() * peak
    # Long enough before that any rule has found its number of pods.
    return Trace("day", tuple(zip(at.tolist(), level.tolist(), strict=True)), warm_up=1800)


@lru_cache(maxsize=16)
def arrival_rates(trace: Trace, step: float) -> np.ndarray:
    """Arrivals a step, from the warm-up on, so that the mean number in flight follows the trace."""
    lengths = trace.lengths
    steps = int((trace.warm_up + trace.seconds) / step)
    wanted = trace.wanted(np.arange(steps) * step - trace.warm_up)
    ages = np.arange(int(lengths.longest / step) + 1) * step
    share = lengths.still_there(ages)
    rates = np.zeros(steps)
    for now in range(steps):
        back = min(now, len(share) - 1)
        there = rates[now - back : now] @ share[1 : back + 1][::-1]
        rates[now] = max(0.0, wanted[now] - there)
    return rates


def draw_streams(trace: Trace, step: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrivals in each step, and the lengths of all streams in the order in which they come."""
    random = np.random.default_rng(seed)
    counts = random.poisson(arrival_rates(trace, step))
    return counts, trace.lengths.draw(random, int(counts.sum()))


Source = Callable[[int], tuple[np.ndarray, np.ndarray]]

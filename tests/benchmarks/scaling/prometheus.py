# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Scraped series, and the PromQL functions that the rules use, for one series or for many beside each other.

A sample is (time, value); a value may be a number or a numpy array with one entry a pod. Not a number means: the
target was not there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np


def window(samples: Sequence[tuple[float, np.ndarray]], now: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of the samples in (now - seconds, now], oldest first."""
    chosen = [sample for sample in samples if now - seconds < sample[0] <= now]
    times = np.array([at for at, _ in chosen], dtype=float)
    values = np.array([value for _, value in chosen], dtype=float)
    return times, values.reshape(len(chosen), -1 if chosen else 1)


def extrapolated(
    samples: Sequence[tuple[float, np.ndarray]], now: float, seconds: float, counter: bool, per_second: bool
) -> np.ndarray:
    """What `rate` (counter, per second) and `delta` (neither) make of a range: Prometheus' extrapolatedRate.

    Fewer than two samples give no value (not a number).
    """
    times, values = window(samples, now, seconds)
    series = values.shape[1]
    if not len(times):
        return np.full(series, np.nan)
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    first = np.argmax(there, axis=0)
    last = len(times) - 1 - np.argmax(there[::-1], axis=0)
    column = np.arange(series)
    start, end = values[first, column], values[last, column]
    increase = end - start
    if counter:
        before = values[:-1]
        drops = np.where((values[1:] < before) & there[1:] & there[:-1], before, 0.0)
        increase = increase + drops.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sampled = times[last] - times[first]
        between = sampled / (count - 1)
        to_start = times[first] - (now - seconds)
        to_end = now - times[last]
        threshold = between * 1.1
        to_start = np.where(to_start >= threshold, between / 2, to_start)
        if counter:
            to_zero = np.where((increase > 0) & (start >= 0), sampled * (start / increase), np.inf)
            to_start = np.minimum(to_start, to_zero)
        to_end = np.where(to_end >= threshold, between / 2, to_end)
        result = increase * ((sampled + to_start + to_end) / sampled)
        if per_second:
            result = result / seconds
    return np.where(count >= 2, result, np.nan)


def rate(samples: Sequence[tuple[float, np.ndarray]], now: float, seconds: float) -> np.ndarray:
    return extrapolated(samples, now, seconds, counter=True, per_second=True)


def delta(samples: Sequence[tuple[float, np.ndarray]], now: float, seconds: float) -> np.ndarray:
    return extrapolated(samples, now, seconds, counter=False, per_second=False)


def queue_time_ms(queue: Sequence, success: Sequence, now: float, seconds: float) -> np.ndarray:
    """The correct mean: rate over rate in milliseconds, 0 where nothing completed, no value without two samples."""
    waited, served = rate(queue, now, seconds), rate(success, now, seconds)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(served > 0, waited / served, waited * 0) / 1000


def article_queue_time_ms(queue: Sequence, success: Sequence, now: float, seconds: float = 30) -> np.ndarray:
    """The article's: delta over one plus delta, of counters, in a window of two scrapes."""
    return delta(queue, now, seconds) / (1 + delta(success, now, seconds)) / 1000


def deriv(samples: Sequence[tuple[float, float]], now: float, seconds: float) -> float:
    """Slope a second by least squares over the window; 0 with fewer than two samples."""
    times, values = window(samples, now, seconds)
    if len(times) < 2:
        return 0.0
    centred = times - times.mean()
    return float((centred * values[:, 0]).sum() / (centred**2).sum())


class Series:
    """The latest samples of one metric, one column a pod."""

    def __init__(self, keep_seconds: float) -> None:
        self.keep_seconds = keep_seconds
        self.samples: deque[tuple[float, np.ndarray]] = deque()

    def append(self, now: float, value: np.ndarray | float) -> None:
        self.samples.append((now, value))
        while self.samples[0][0] <= now - self.keep_seconds:
            self.samples.popleft()

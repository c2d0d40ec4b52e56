# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load profile: how many streams are wanted at each moment, and how long each stream lasts.

A profile is steps with ramps, or a trace: levels or single calls, as a file names them. Pure rules: no network, no
clock, no Ansible.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import TypeGuard

MOST_STREAMS_AT_ONCE = 1000
LONGEST_PROFILE_SECONDS = 4 * 3600
MOST_TRACE_ROWS = 200_000
GOLDEN_RATIO = 0.6180339887498949
SHORTEST_STREAM_SECONDS = 1.0

# How stream lengths are spread, up to the longest: evenly over its upper half, all the same, or with a heavy tail.
SPREAD, FIXED, LOGNORMAL = "spread", "fixed", "lognormal"
DISTRIBUTIONS = (SPREAD, FIXED, LOGNORMAL)

# Columns of a trace: the number of streams from a second on, or each call with its begin and its length.
LEVELS, CALLS = "levels", "calls"
COLUMNS = {("seconds", "streams"): LEVELS, ("start", "length"): CALLS}


class TraceError(ValueError):
    """A trace can't be used; the text says why and what would be right."""


@dataclass(frozen=True)
class Step:
    """A part of the profile. *ramp* is the part of *duration* in which the level moves to *streams*."""

    streams: int
    duration: float
    ramp: float = 0.0


@dataclass(frozen=True)
class Phase:
    """A step with its place on the time axis."""

    name: str
    start: float
    end: float
    streams_before: int
    streams: int
    ramp: float


def profile_problems(steps: list[dict], most: int = MOST_STREAMS_AT_ONCE) -> list[str]:
    """Say what is wrong with a profile as the user wrote it; an empty list means that it can be run."""
    if not steps:
        return ["the profile has no step; give at least one, for example [{streams: 4, duration: 60}]"]
    problems = []
    for number, step in enumerate(steps):
        where = f"step {number}"
        streams, duration, ramp = step.get("streams"), step.get("duration"), step.get("ramp") or 0
        if not _is_count(streams) or not 0 <= streams <= most:
            problems.append(
                f"{where}: streams is {streams!r}; it must be a whole number from 0 to {most} (max_streams_at_once)"
            )
        if not _is_number(duration) or duration <= 0:
            problems.append(f"{where}: duration is {duration!r}; it must be a number of seconds above 0")
        elif not _is_number(ramp) or not 0 <= ramp <= duration:
            problems.append(
                f"{where}: ramp is {ramp!r}; it must be a number of seconds from 0 to the step's duration, {duration:g}"
            )
    if problems:
        return problems
    if not any(step["streams"] for step in steps):
        problems.append("no step asks for a stream; at least one must have streams above 0")
    total = sum(step["duration"] for step in steps)
    if total > LONGEST_PROFILE_SECONDS:
        problems.append(f"the steps last {total:g} s together; {LONGEST_PROFILE_SECONDS} s is the most")
    return problems


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def phases_of(steps: list[Step]) -> list[Phase]:
    """Lay the steps one after the other on the time axis."""
    phases: list[Phase] = []
    start, before = 0.0, 0
    for number, step in enumerate(steps, start=1):
        end = start + step.duration
        name = f"{number}: {step.streams} stream{'' if step.streams == 1 else 's'}"
        phases.append(Phase(name, start, end, before, step.streams, step.ramp))
        start, before = end, step.streams
    return phases


def phase_at(phases: list[Phase], seconds: float) -> int:
    """Return the index of the phase at a time; len(phases) stands for the tail after the last one."""
    for index, phase in enumerate(phases):
        if seconds < phase.end:
            return index
    return len(phases)


def level_at(phases: list[Phase], seconds: float) -> int:
    """Return how many streams are wanted at a time; none after the last phase."""
    index = phase_at(phases, seconds)
    if index == len(phases):
        return 0
    phase = phases[index]
    into = seconds - phase.start
    if into >= phase.ramp:
        return phase.streams
    return round(phase.streams_before + (phase.streams - phase.streams_before) * into / phase.ramp)


@dataclass(frozen=True)
class Lengths:
    """How long streams are, in seconds.

    longest: no stream is longer. median, sigma: of the log-normal distribution, whose mean before the cut is
    median * exp(sigma**2 / 2).
    """

    distribution: str = SPREAD
    longest: float = 20.0
    median: float = 60.0
    sigma: float = 1.0


def stream_length(number: int, lengths: Lengths) -> float:
    """Return the length of a stream in seconds. The same number always gives the same length.

    The numbers go through the distribution's quantiles by steps of the golden ratio: any stretch of them has nearly
    the distribution's own shape, and neighbours differ. Streams of one length that began together would also end
    together, and the load would come in waves; `fixed` is for those who want just that.
    """
    quantile = (number + 0.5) * GOLDEN_RATIO % 1.0
    if lengths.distribution == FIXED:
        return lengths.longest
    if lengths.distribution == LOGNORMAL:
        length = math.exp(math.log(lengths.median) + lengths.sigma * NormalDist().inv_cdf(quantile))
        return min(lengths.longest, max(SHORTEST_STREAM_SECONDS, length))
    return lengths.longest * (0.5 + 0.5 * quantile)


def read_trace(lines: Iterable[str], longest: float = LONGEST_PROFILE_SECONDS) -> dict:
    """Read a trace from the lines of a CSV file, ``{"kind": ..., "rows": [[number, number], ...]}``.

    With the columns ``seconds,streams`` a row says how many streams are wanted from that second on; the last row says
    when the trace ends, too. With ``start,length`` each row is one call: when it begins, and how many seconds it
    lasts. Empty lines, and those that begin with #, are passed over. No row may be later than *longest*, in seconds.
    """
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    kept = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    table = [(number, next(csv.reader([line]))) for number, line in kept[: MOST_TRACE_ROWS + 2]]
    header = tuple(cell.strip().lower() for cell in table[0][1]) if table else ()
    if header not in COLUMNS:
        known = " or ".join(",".join(columns) for columns in COLUMNS)
        raise TraceError(f"the first line is {','.join(header)!r}; it must name the columns {known}")
    kind = COLUMNS[header]
    rows = [_trace_row(kind, header, number, cells) for number, cells in table[1:]]
    if not rows:
        raise TraceError("it has no row below its first line")
    if len(rows) > MOST_TRACE_ROWS:
        raise TraceError(f"it has more than {MOST_TRACE_ROWS} rows; give fewer")
    times = [row[0] for row in rows]
    if kind == LEVELS and times != sorted(set(times)):
        raise TraceError("its seconds must rise from row to row")
    if max(times) > longest:
        raise TraceError(f"it goes on to second {max(times):g}; {longest:g} is the most")
    if kind == LEVELS and (len(rows) < 2 or not any(level for _, level in rows)):
        raise TraceError("it needs two rows at least, one of them with streams above 0; the last says when it ends")
    return {"kind": kind, "rows": sorted(rows)}


def _trace_row(kind: str, header: tuple[str, ...], number: int, cells: list[str]) -> list[float]:
    try:
        first, second = (float(cell) for cell in cells)
    except ValueError:
        raise TraceError(
            f"line {number} is {','.join(cells)!r}; it must hold two numbers, {header[0]},{header[1]}"
        ) from None
    least = 0 if kind == LEVELS else SHORTEST_STREAM_SECONDS
    if not (math.isfinite(first) and first >= 0):
        raise TraceError(f"line {number}: {header[0]} is {cells[0]}; it must be 0 or more")
    if not (math.isfinite(second) and second >= least):
        raise TraceError(f"line {number}: {header[1]} is {cells[1]}; it must be {least:g} or more")
    return [first, int(second) if kind == LEVELS else second]


class Schedule:
    """What a plan asks for over time: its phases, its end, the level at each moment, and the single calls of a trace.

    calls: (begin, length) of each call in seconds, in order; None where a level is to be kept instead.
    """

    def __init__(self, steps: Iterable[Step], trace: Mapping | None = None):
        self.calls: list[tuple[float, float]] | None = None
        self._times: list[float] = []
        self._levels: list[int] = []
        if trace is None:
            self.phases = phases_of(list(steps))
        else:
            self._read(trace)
        self.end = self.phases[-1].end

    def _read(self, trace: Mapping) -> None:
        rows = [(float(first), second) for first, second in trace["rows"]]
        if trace["kind"] == LEVELS:
            self._times, self._levels = [row[0] for row in rows], [row[1] for row in rows]
        else:
            self.calls = rows
            # At one moment those that end go before those that begin.
            moves = sorted([(start, 1) for start, _ in rows] + [(start + length, -1) for start, length in rows])
            self._times, self._levels = [at for at, _ in moves], list(accumulate(change for _, change in moves))
        peak = max(self._levels)
        name = f"trace: up to {peak} stream{'' if peak == 1 else 's'}"
        # The last call is opened when it begins; an end at that very moment would leave it out.
        end = rows[-1][0] + (SHORTEST_STREAM_SECONDS if self.calls else 0.0)
        self.phases = [Phase(name, 0.0, end, 0, peak, 0.0)]

    @property
    def peak(self) -> int:
        """The most streams that are wanted at once."""
        return max(phase.streams for phase in self.phases)

    def level_at(self, seconds: float) -> int:
        """Return how many streams are wanted at a time; with calls, how many of them last at it."""
        if not self._times:
            return level_at(self.phases, seconds)
        if seconds >= self.end and self.calls is None:
            return 0
        place = bisect_right(self._times, seconds)
        return self._levels[place - 1] if place else 0


def schedule_of(plan: Mapping) -> Schedule:
    """Return the schedule of a plan as it stands in the records."""
    return Schedule([Step(**step) for step in plan["steps"]], plan.get("trace"))


def chunk_deadline(start: float, chunk: int, chunk_seconds: float) -> float:
    """Return when a chunk is due, counted from the start: a late chunk does not delay the next ones."""
    return start + chunk * chunk_seconds

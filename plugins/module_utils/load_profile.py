# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load profile: how many streams are wanted at each moment, and how long each stream lasts.

Pure rules: no network, no clock, no Ansible.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_STREAMS_AT_ONCE = 1000
LONGEST_PROFILE_SECONDS = 4 * 3600
GOLDEN_RATIO = 0.6180339887498949


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


def profile_problems(steps: list[dict]) -> list[str]:
    """Say what is wrong with a profile as the user wrote it; an empty list means that it can be run."""
    if not steps:
        return ["the profile has no step; give at least one, for example [{streams: 4, duration: 60}]"]
    problems = []
    for number, step in enumerate(steps):
        where = f"step {number}"
        streams, duration, ramp = step.get("streams"), step.get("duration"), step.get("ramp") or 0
        if not _is_count(streams) or not 0 <= streams <= MOST_STREAMS_AT_ONCE:
            problems.append(
                f"{where}: streams is {streams!r}; it must be a whole number from 0 to {MOST_STREAMS_AT_ONCE}"
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


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
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


def stream_length(number: int, longest: float) -> float:
    """Return the length of a stream: between half of *longest* and *longest*, evenly spread over the numbers.

    Streams of one length that began together would also end together, and the load would come in waves.
    """
    return longest * (0.5 + 0.5 * (number * GOLDEN_RATIO % 1.0))


def chunk_deadline(start: float, chunk: int, chunk_seconds: float) -> float:
    """Return when a chunk is due, counted from the start: a late chunk does not delay the next ones."""
    return start + chunk * chunk_seconds

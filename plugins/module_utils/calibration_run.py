# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a calibration: levels of streams on one pod, each held until it can be judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from ansible_collections.speechops.riva.plugins.module_utils.calibration_rules import (
    BLOCK_SECONDS,
    FAILED,
    LEAST_BLOCKS,
    OPEN,
    Judgement,
    Level,
    Objective,
    blocks_of,
    judge,
    measured_level,
    next_level,
    queue_time,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_audio import Audio
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import Step
from ansible_collections.speechops.riva.plugins.module_utils.load_run import LoadTest, Plan

JUDGED = "judged"
# A level that is too near to call is held so many times as long, and then decided as it is.
MOST_HOLDS = 3


class CalibrationError(Exception):
    """A pod can't be calibrated; the text says why and what to do."""


@dataclass(frozen=True)
class Pace:
    """Seconds of each level: *settle* at the begin are left out, *hold* are measured, *confirm* for the last one."""

    settle: float = 5.0
    hold: float = 14.0
    confirm: float = 40.0


class Notes:
    """Takes the records of a level and keeps what a judgement needs; the rest would only fill the memory."""

    def __init__(self) -> None:
        self.records: list[dict] = []
        self.windows: list[dict] = []
        self.ended: list[dict] = []

    def write(self, kind: str, at: float, /, **content) -> None:
        record = {"kind": kind, "t": round(at, 2), **content}
        self.records = [record]
        if kind == "streams":
            self.windows.append(record)
        elif kind == "stream" and record["state"] in ("failed", "refused"):
            self.ended.append(record)

    def overdue(self, seconds: float) -> int:
        """Chunks that were sent more than so many seconds ago and have no answer."""
        now = self.windows[-1]["t"] if self.windows else 0.0
        sent = sum(window["chunks_sent"] for window in self.windows if window["t"] <= now - seconds)
        return max(0, sent - sum(window["chunks_answered"] for window in self.windows))


class Calibration:
    """Holds level after level on one pod.

    plan: where the streams go and what they are; its steps are replaced. metrics: returns the pod's metrics page, or
    nothing where it can't be read. told: hears of each level when it was held.
    """

    def __init__(
        self,
        plan: Plan,
        audio: Audio,
        objective: Objective,
        pace: Pace,
        metrics: Callable[[], str] = lambda: "",
        told: Callable[[Level], None] = lambda level: None,
        keep_going: Callable[[], bool] = lambda: True,
    ):
        self.plan = plan
        self.audio = audio
        self.objective = objective
        self.pace = pace
        self.metrics = metrics
        self.told = told
        self.keep_going = keep_going
        self.levels: list[Level] = []
        # How much later than due the chunks left, on levels that passed.
        self.lags: list[float] = []

    def run(self, first: int, most: int) -> list[Level]:
        """Hold levels until the capacity is known; return them in the order in which they were held."""
        while (following := next_level(self.levels, first, most)) is not None:
            streams, confirms = following
            level = asyncio.run(self.hold(streams, confirms))
            self.levels.append(level)
            self.told(level)
            if not level.passed and streams == 1:
                raise CalibrationError(
                    f"one stream alone does not keep the objective: {level.judgement.reason}; "
                    f"its p50 latency is {level.latency_ms['p50']} ms. Set a higher objective, or look at the pod"
                )
        return self.levels

    async def hold(self, streams: int, confirms: bool) -> Level:
        """Hold one level."""
        least = self.pace.confirm if confirms else self.pace.hold
        most = least * MOST_HOLDS
        notes = Notes()
        judgement: Judgement | None = None
        first_page: asyncio.Task | None = None
        held: list[dict] = []

        def look(window: dict) -> str:
            nonlocal first_page, judgement
            if held:
                return ""  # judged already: what comes now are streams that were closed
            if first_page is None and window["t"] >= self.pace.settle:
                first_page = asyncio.create_task(asyncio.to_thread(self.metrics))
            blocks = blocks_of(notes.windows, self.pace.settle)
            seconds = window["t"] - self.pace.settle
            overdue = notes.overdue(self.objective.latency_ms / 1000)
            judgement = worse(notes.ended, judge(blocks, self.objective, seconds >= most - 1, overdue))
            # A pod that drowns is seen at once, but its throughput is measured, too: it is the saturation.
            early = judgement.state == FAILED and judgement.sure and seconds >= LEAST_BLOCKS * BLOCK_SECONDS
            if early or (judgement.state != OPEN and seconds >= least):
                held.extend(notes.windows)
            return JUDGED if held else ""

        # One step that does not end by itself, so that no stream runs out at the end of a level.
        plan = replace(self.plan, steps=[Step(streams, self.pace.settle + most + 5)], trace=None, tail_seconds=0.0)
        reason = await LoadTest(plan, self.audio, notes, None, look).run(self.keep_going)
        page = await first_page if first_page else ""
        if reason != JUDGED or judgement is None:
            raise CalibrationError(f"the calibration was {reason}" if "interrupted" in reason else reason)
        refused = [stream for stream in notes.ended if stream["state"] == "refused"]
        if refused:
            raise CalibrationError(
                f"the pod refused streams at {streams}: {refused[0]['details']}; it has a limit of its own "
                "(streams.limit of the chart), which must be off while it is calibrated"
            )
        queue = queue_time(page, await asyncio.to_thread(self.metrics)) if page else None
        begin = max((window["t"] for window in held if window["t"] <= self.pace.settle), default=0.0)
        level = measured_level(
            streams,
            held[-1]["t"] - begin,
            judgement,
            blocks_of(held, self.pace.settle),
            self.plan.chunk_duration_ms / 1000,
            queue,
            confirms,
        )
        if level.passed:
            self.lags += [lag for window in held for lag in window["pacing_lag_ms"]]
        return level


def worse(ended: list[dict], judgement: Judgement) -> Judgement:
    """A level on which streams failed has failed, however fast the others were."""
    if not ended:
        return judgement
    first = ended[0]
    reason = f"{len(ended)} streams did not end well: {first['code']} {first['details']}"
    return replace(judgement, state=FAILED, sure=True, reason=reason)

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a load test: keep the level of streams, watch the cluster, write each thing down at once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Protocol

from ansible_collections.speechops.riva.plugins.module_utils.load_audio import Audio, cut_chunks, stream_samples
from ansible_collections.speechops.riva.plugins.module_utils.load_measures import StreamMeasure, Window
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import (
    GOLDEN_RATIO,
    SPREAD,
    Lengths,
    Schedule,
    Step,
    phase_at,
    stream_length,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_streams import (
    FAILED,
    FINISHED,
    REFUSED,
    STOPPED,
    Tls,
    recognition_config,
    run_stream,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_texts import (
    ASR,
    Texts,
    run_texts,
    texts_of_length,
)

TICK_SECONDS = 0.1
WINDOW_SECONDS = 1.0
LONGEST_PAUSE_AFTER_FAILURE = 10.0


@dataclass(frozen=True)
class Plan:
    """All that a load test is asked to do. *steps* or *trace* (as `read_trace` gives it) say how many streams, when.

    Lengths are in seconds of audio, *stream_seconds* is the longest; see `Lengths` for the rest. *host* is the name
    that the load balancer's route answers to, where it is not that of the endpoint. *stream_limit* is a pod's
    calibrated capacity, *label* the name of this test among others. With *speech* tts or nmt a stream is a caller who
    gives a text every *text_seconds*, and its chunks are the texts.
    """

    endpoint: str
    namespace: str
    name: str
    steps: list[Step]
    tail_seconds: float
    chunk_duration_ms: int
    stream_seconds: float
    stream_grace_seconds: float
    objective_ms: float
    sample_seconds: float
    max_streams: int
    language_code: str
    trace: dict | None = None
    stream_distribution: str = SPREAD
    stream_median_seconds: float = 60.0
    stream_sigma: float = 1.0
    host: str = ""
    label: str = ""
    stream_limit: int | None = None
    tls: Tls | None = None
    speech: str = ASR
    text_seconds: float = 3.0

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.trace)

    @property
    def lengths(self) -> Lengths:
        return Lengths(self.stream_distribution, self.stream_seconds, self.stream_median_seconds, self.stream_sigma)

    @property
    def longest_stream(self) -> float:
        """Seconds of the longest stream that can come."""
        if self.trace and self.schedule.calls:
            return max(length for _, length in self.schedule.calls)
        return self.stream_seconds


class Records(Protocol):
    """What a load test hands its records to."""

    records: list[dict]  # the newest one at the end

    def write(self, kind: str, at: float, /, **content) -> None: ...


class Recorder:
    """Writes records as JSON lines, each flushed, so that an interrupted test keeps what it has seen."""

    def __init__(self, path: str):
        # A new file takes the place of an old one in one step, so that nobody reads a mixture.
        self._file = open(path + ".new", "w", encoding="utf-8")  # noqa: SIM115
        os.replace(path + ".new", path)
        self.records: list[dict] = []

    def write(self, kind: str, at: float, /, **content) -> None:
        record = {"kind": kind, "t": round(at, 2), **content}
        self.records.append(record)
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@dataclass
class Slot:
    """A place for one stream at a time. After a failure it pauses, longer each time, to spare the server."""

    free: bool = True
    not_before: float = 0.0
    failures: int = 0


@dataclass
class Counts:
    opened: int = 0
    ended: dict[str, int] = field(default_factory=lambda: {FINISHED: 0, FAILED: 0, STOPPED: 0, REFUSED: 0})


class LoadTest:
    """Runs a plan once. *sample* asks the cluster and returns records of it; it may block.

    *guard* sees the record of each second, and ends the test with what it returns, if it does.
    """

    def __init__(
        self,
        plan: Plan,
        material: Audio | Texts,
        recorder: Records,
        sample: Callable[[], list[dict]] | None,
        guard: Callable[[dict], str] = lambda window: "",
    ):
        self.plan = plan
        self.material = material
        self.recorder = recorder
        self.sample = sample
        self.guard = guard
        self.schedule = plan.schedule
        self.phases = self.schedule.phases
        self.profile_end = self.schedule.end
        longest_stream = plan.longest_stream + plan.stream_grace_seconds
        self.deadline = self.profile_end + max(plan.tail_seconds, longest_stream)
        self.counts = Counts()
        self.slots: list[Slot] = []
        self.streams: set[asyncio.Task] = set()
        self.calls_opened = 0
        self.window = Window()
        self.at_rest = False
        self.stop_reason = ""
        self.error: BaseException | None = None
        self._phase = 0
        # The same for all streams, and made by protobuf: once.
        self._config = None if isinstance(material, Texts) else recognition_config(material.rate, plan.language_code)

    @property
    def in_flight(self) -> int:
        return len(self.streams)

    def stop(self, reason: str) -> None:
        """End the test at the next tick."""
        self.stop_reason = self.stop_reason or reason

    async def run(self, keep_going: Callable[[], bool] = lambda: True) -> str:
        """Run to the end; return why it ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with contextlib.suppress(ValueError, RuntimeError):  # signals reach the main thread only
                loop.add_signal_handler(number, self.stop, f"interrupted by {signal.Signals(number).name}")
        self._zero = loop.time()
        self._clock = loop.time
        self._write_start()
        watcher = self._start(self._watch())
        try:
            await self._keep_level(keep_going)
        finally:
            await self._stop_streams()
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            self._write_window()
            self.recorder.write("end", self._now(), reason=self.stop_reason)
        if self.error:
            raise self.error
        return self.stop_reason

    def _start(self, work: Coroutine) -> asyncio.Task:
        """Start a task whose own errors end the test: they are mistakes in this code, not the service's."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task) -> None:
        if not task.cancelled() and task.exception():
            self.error = self.error or task.exception()
            self.stop(f"internal error: {task.exception()}")

    def _now(self) -> float:
        return self._clock() - self._zero

    def _write_start(self) -> None:
        self.recorder.write(
            "start",
            0.0,
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            plan=asdict(self.plan),
            audio=material_figures(self.material),
        )

    async def _keep_level(self, keep_going: Callable[[], bool]) -> None:
        window_ends, tick = WINDOW_SECONDS, 0
        while not self.stop_reason:
            now = self._now()
            self._open_streams(now)
            # Cut the window where a phase ends, so that each record belongs to one phase.
            if now >= window_ends or phase_at(self.phases, now) != self._phase:
                self._write_window()
                self._phase, window_ends = phase_at(self.phases, now), now + WINDOW_SECONDS
                if not keep_going():
                    self.stop("interrupted: the process that asked for the test is gone")
            if now >= self.deadline:
                self.stop("the service was not back at its minimum before the deadline")
            elif now >= self.profile_end and not self.in_flight and not self._calls_left():
                if not self.plan.tail_seconds:
                    self.stop("profile done")
                elif self.at_rest:
                    self.stop("back at the minimum")
            tick += 1
            await asyncio.sleep(max(0.0, self._zero + tick * TICK_SECONDS - self._clock()))

    def _open_streams(self, now: float) -> None:
        if self.schedule.calls is not None:
            self._open_calls(now)
            return
        level = self.schedule.level_at(now)
        while len(self.slots) < level:
            self.slots.append(Slot())
        ready = [slot for slot in self.slots[:level] if slot.free and now >= slot.not_before]
        for slot in ready[: self.plan.max_streams - self.counts.opened]:
            slot.free = False
            # Callers do not speak in step: each begins at a moment of its own within a chunk.
            delay = self.plan.chunk_duration_ms / 1000 * (self.counts.opened * GOLDEN_RATIO % 1.0)
            self._open(delay, stream_length(self.counts.opened, self.plan.lengths), slot)

    def _calls_left(self) -> bool:
        return self.schedule.calls is not None and self.calls_opened < len(self.schedule.calls)

    def _open_calls(self, now: float) -> None:
        """Open each call of the trace when it is due; a call that fails is not made again."""
        calls = self.schedule.calls or []
        while self.calls_opened < len(calls) and calls[self.calls_opened][0] <= now + TICK_SECONDS:
            start, length = calls[self.calls_opened]
            self.calls_opened += 1
            if self.counts.opened < self.plan.max_streams:
                self._open(max(0.0, start - now), length, Slot())

    def _open(self, delay: float, length: float, slot: Slot) -> None:
        task = self._start(self._stream(slot, self.counts.opened, delay, length))
        self.counts.opened += 1
        self.streams.add(task)
        task.add_done_callback(self.streams.discard)

    async def _stream(self, slot: Slot, number: int, delay: float, length: float) -> None:
        plan = self.plan
        start = self._clock() + delay
        way = (plan.host, plan.tls)
        if isinstance(self.material, Texts):
            count = texts_of_length(length, plan.text_seconds)
            seconds = count * plan.text_seconds
            measure = StreamMeasure(count, plan.text_seconds, seconds, plan.objective_ms, self.window)
            lines = self.material.of_stream(number, count)
            grace = plan.text_seconds + plan.stream_grace_seconds
            outcome = await run_texts(plan.endpoint, self.material, lines, start, grace, measure, *way)
        else:
            audio = self.material
            samples = stream_samples(audio, number, length)
            chunks = cut_chunks(samples, audio.rate, plan.chunk_duration_ms)
            seconds, count = len(samples) / 2 / audio.rate, len(chunks)
            chunk_seconds = plan.chunk_duration_ms / 1000
            measure = StreamMeasure(count, chunk_seconds, seconds, plan.objective_ms, self.window)
            timeout = delay + seconds + plan.stream_grace_seconds
            outcome = await run_stream(plan.endpoint, self._config, chunks, start, timeout, measure, *way)
        now = self._now()
        slot.free = True
        slot.failures = slot.failures + 1 if outcome.state in (FAILED, REFUSED) else 0
        slot.not_before = now + min(LONGEST_PAUSE_AFTER_FAILURE, slot.failures)
        self.counts.ended[outcome.state] += 1
        self.recorder.write(
            "stream",
            now,
            number=number,
            opened=round(start - self._zero, 2),
            seconds=round(seconds, 2),
            state=outcome.state,
            code=outcome.code,
            details=outcome.details,
            pod=outcome.pod,
            chunks=count,
            sent=len(measure.sent_at),
            answered=measure.answered,
            late=measure.late,
            first_response_ms=measure.first_response_ms,
            final_ms=measure.final_ms,
            real_time_factor=measure.real_time_factor,
        )

    async def _stop_streams(self) -> None:
        tasks = list(self.streams)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _write_window(self) -> None:
        now = self._now()
        content = asdict(self.window)
        # Streams hold the window they write to, so it is emptied and not replaced.
        fresh = Window()
        for name, value in asdict(fresh).items():
            setattr(self.window, name, value)
        self.recorder.write(
            "streams",
            now,
            phase=self._phase,
            level=self.schedule.level_at(now),
            in_flight=self.in_flight,
            opened=self.counts.opened,
            finished=self.counts.ended[FINISHED],
            failed=self.counts.ended[FAILED],
            refused=self.counts.ended[REFUSED],
            **content,
        )
        reason = self.guard(self.recorder.records[-1])
        if reason:
            self.stop(reason)

    async def _watch(self) -> None:
        sample = self.sample
        if sample is None:
            self.at_rest = True
            return
        turn = 0
        while True:
            asked = self._now()
            records = await asyncio.to_thread(_safely, sample)
            for record in records:
                content = {key: value for key, value in record.items() if key != "kind"}
                self.recorder.write(record["kind"], self._now(), t_asked=round(asked, 2), **content)
                if record["kind"] == "cluster":
                    self.at_rest = asked >= self.profile_end and is_at_rest(record)
            turn += 1
            await asyncio.sleep(max(0.0, self._zero + turn * self.plan.sample_seconds - self._clock()))


def material_figures(material: Audio | Texts) -> dict:
    """What the streams are made of, for the report."""
    if isinstance(material, Texts):
        return {"texts": len(material.lines)}
    return {
        "files": len(material.clips),
        "seconds": round(material.seconds, 1),
        "samples_per_second": material.rate,
    }


def _safely(sample: Callable[[], list[dict]]) -> list[dict]:
    try:
        return sample()
    except Exception as error:  # an answer that fails is itself a thing seen; the load goes on
        return [{"kind": "cluster_error", "message": f"{type(error).__name__}: {error}"}]


def alive(process: int | None) -> Callable[[], bool]:
    """Return a function that says whether a process of this machine is still there; without one it always says so."""

    def look() -> bool:
        if not process:
            return True
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    return look


def is_at_rest(sample: dict) -> bool:
    """Say whether the service is back at its smallest size and nothing is on its way."""
    return {sample["desired"], sample["replicas"], sample["ready"]} == {sample["min"]}

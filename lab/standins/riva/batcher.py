"""Triton's dynamic batcher as a stepped queue: no clock of its own, no threads, no I/O.

All times are whole nanoseconds that the caller gives. What happens between two calls (an execution ends,
the queue delay of the oldest request is over) is worked through at its own time, not at the time of the call.
So a caller that wakes late does not make the simulated GPU slower.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Any

NS_PER_MS = 1_000_000
# Share of an execution that Triton would count as input and as output handling. The rest is inference.
INPUT_SHARE = 100
OUTPUT_SHARE = 100
FAILURE_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


class QueueFullError(Exception):
    """The queue holds max_queue_size requests already."""


@dataclass(frozen=True)
class BatcherConfig:
    instances: int = 1
    max_batch_size: int = 8
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_ns: int = 0
    service_base_ns: int = 10 * NS_PER_MS
    service_per_item_ns: int = 4 * NS_PER_MS
    max_queue_size: int = 0
    # Measured times (batch size, ns), in order of size; where there are any, they count instead of base and item.
    service_curve: tuple[tuple[int, int], ...] = ()

    def service_ns(self, batch_size: int) -> int:
        if not self.service_curve:
            return self.service_base_ns + self.service_per_item_ns * batch_size
        return on_curve(self.service_curve, batch_size)

    @property
    def capacity_per_second(self) -> float:
        """Requests a second that all instances together can finish with full batches."""
        return 1e9 * self.instances * self.max_batch_size / self.service_ns(self.max_batch_size)


@dataclass(eq=False, slots=True)
class Request:
    # Who submitted it; only compared by identity here.
    owner: Any = None
    payload: int = 0
    arrived_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0


@dataclass(eq=False, slots=True)
class Batch:
    requests: list[Request]
    started_ns: int
    ends_ns: int
    # Input, inference and output as a real device measured them (ns); simulated ones are shares of the whole.
    parts: tuple[int, int, int] | None = None


@dataclass(slots=True)
class ModelStats:
    """What Triton counts for one model. Durations are whole microseconds, cut per request, as Triton does."""

    success: int = 0
    failure: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAILURE_REASONS, 0))
    inferences: int = 0
    executions: int = 0
    request_us: int = 0
    queue_us: int = 0
    compute_input_us: int = 0
    compute_infer_us: int = 0
    compute_output_us: int = 0
    pending: int = 0

    def count_batch(self, batch: Batch) -> None:
        """The counters move when the requests complete, all of them at once for a batch."""
        duration = batch.ends_ns - batch.started_ns
        compute_input = duration // INPUT_SHARE
        compute_output = duration // OUTPUT_SHARE
        compute_infer = duration - compute_input - compute_output
        if batch.parts:
            compute_input, compute_infer, compute_output = batch.parts
        size = len(batch.requests)
        self.executions += 1
        self.success += size
        self.inferences += size
        # Every request of a batch is counted with the whole time of its execution.
        self.compute_input_us += size * (compute_input // 1000)
        self.compute_infer_us += size * (compute_infer // 1000)
        self.compute_output_us += size * (compute_output // 1000)
        for request in batch.requests:
            self.queue_us += (request.started_ns - request.arrived_ns) // 1000
            self.request_us += (request.finished_ns - request.arrived_ns) // 1000


def on_curve(curve: tuple[tuple[int, int], ...], size: int) -> int:
    """A value on the straight lines between the points; outside of them the nearest line goes on."""
    if len(curve) == 1:
        return curve[0][1]
    after = next((place for place, point in enumerate(curve) if point[0] >= size), len(curve) - 1)
    (x0, y0), (x1, y1) = curve[max(after, 1) - 1], curve[max(after, 1)]
    return max(1, y0 + (y1 - y0) * (size - x0) // (x1 - x0))


def choose_batch(waiting: int, oldest_age_ns: int, config: BatcherConfig) -> int:
    """How many of the waiting requests a free instance takes now; 0: wait for more, or for the queue delay.

    The rule of Triton's documentation: the largest preferred size that can be formed; else as many as there
    are, up to the maximum. With a queue delay, a size that is neither preferred nor the maximum waits until
    the oldest request has waited that long; then what is there is sent as it is. Without preferred sizes the
    maximum is the preferred one.
    """
    if waiting <= 0:
        return 0
    available = min(waiting, config.max_batch_size)
    if config.max_queue_delay_ns and oldest_age_ns >= config.max_queue_delay_ns:
        return available
    preferred = config.preferred_batch_sizes or (config.max_batch_size,)
    fitting = [size for size in preferred if size <= available]
    if fitting:
        return max(fitting)
    if available == config.max_batch_size or not config.max_queue_delay_ns:
        return available
    return 0


class Batcher:
    """First-in-first-out queue in front of some instances that execute batches, for the time they are said to take."""

    def __init__(self, config: BatcherConfig) -> None:
        self.config = config
        self.stats = ModelStats()
        self._queue: deque[Request] = deque()
        self._running: list[tuple[int, int, Batch]] = []
        self._sequence = 0
        self._now = 0
        self._delay_ends: int | None = None
        self._frozen = False
        self._busy_since = 0
        self._busy_ns = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def executing(self) -> int:
        """Batches in execution now."""
        return len(self._running)

    def busy_ns(self, now: int) -> int:
        """Time until now during which at least one instance was executing."""
        return self._busy_ns + (max(0, now - self._busy_since) if self._running else 0)

    def next_event(self) -> int | None:
        """When something happens without a new request, or None."""
        if self._frozen:
            return None
        if self._running and self._delay_ends is not None:
            return min(self._running[0][0], self._delay_ends)
        return self._running[0][0] if self._running else self._delay_ends

    def advance(self, now: int) -> list[Batch]:
        """Work through everything up to and including now; returns the batches that finished, in order."""
        finished: list[Batch] = []
        while (event := self.next_event()) is not None and event <= now:
            self._now = max(self._now, event)
            while self._running and self._running[0][0] <= self._now:
                finished.append(self._finish())
            self._dispatch()
        self._now = max(self._now, now)
        return finished

    def enqueue(self, now: int, request: Request) -> list[Batch]:
        """Add a request that arrives now; returns the batches that finished until then.

        Raises QueueFullError (and counts the failure) when the queue is full. Call advance(now) first, so
        that no finished batch is lost with the exception.
        """
        finished = self.advance(now)
        if self.config.max_queue_size and len(self._queue) >= self.config.max_queue_size:
            self.stats.failure["REJECTED"] += 1
            raise QueueFullError("Exceeds maximum queue size")
        request.arrived_ns = self._now
        self._queue.append(request)
        self.stats.pending += 1
        self._dispatch()
        return finished

    def cancel(self, now: int, owner: object) -> list[Batch]:
        """Drop the owner's waiting requests. What is being executed runs to its end."""
        finished = self.advance(now)
        kept = deque(request for request in self._queue if request.owner is not owner)
        dropped = len(self._queue) - len(kept)
        if dropped:
            self._queue = kept
            self.stats.pending -= dropped
            self.stats.failure["CANCELED"] += dropped
            self._dispatch()
        return finished

    def freeze(self, now: int) -> list[Batch]:
        """From now on nothing finishes and nothing starts, as with a hanging GPU."""
        finished = self.advance(now)
        self._frozen = True
        return finished

    def _finish(self) -> Batch:
        ends, _, batch = heapq.heappop(self._running)
        if not self._running:
            self._busy_ns += ends - self._busy_since
        for request in batch.requests:
            request.finished_ns = ends
        self.stats.count_batch(batch)
        return batch

    def _dispatch(self) -> None:
        self._delay_ends = None
        if self._frozen:
            return
        while self._queue and len(self._running) < self.config.instances:
            oldest = self._queue[0].arrived_ns
            size = choose_batch(len(self._queue), self._now - oldest, self.config)
            if not size:
                self._delay_ends = oldest + self.config.max_queue_delay_ns
                return
            self._start([self._queue.popleft() for _ in range(size)])

    def _start(self, requests: list[Request]) -> None:
        for request in requests:
            request.started_ns = self._now
        self.stats.pending -= len(requests)
        if not self._running:
            self._busy_since = self._now
        ends = self._now + self.config.service_ns(len(requests))
        self._sequence += 1
        heapq.heappush(self._running, (ends, self._sequence, Batch(requests, self._now, ends)))

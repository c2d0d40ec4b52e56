# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One pod of a streaming speech service: how long audio chunks wait, given how many streams it carries.

Below saturation the waiting time comes from the stand-in's own batcher, run once for every number of streams.
Above it the queue grows as a fluid: a backlog of so many seconds of work. Both add up.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from lab.standins.riva.batcher import NS_PER_MS, Batcher, BatcherConfig, Request

JITTER_MS = 5
# Streams come and go, so the phases of their chunks against each other do not stay.
MIX_AFTER_CHUNKS = 12
DELAY_STEP_MS = 2


@dataclass(frozen=True)
class ServiceModel:
    """A batch of n chunks takes base + n * per_item milliseconds; a stream sends one chunk each chunk_ms."""

    base_ms: float = 10
    per_item_ms: float = 4
    max_batch_size: int = 8
    instances: int = 1
    chunk_ms: float = 160
    objective_ms: float = 200

    @property
    def batcher(self) -> BatcherConfig:
        return BatcherConfig(
            instances=self.instances,
            max_batch_size=self.max_batch_size,
            service_base_ns=round(self.base_ms * NS_PER_MS),
            service_per_item_ns=round(self.per_item_ms * NS_PER_MS),
        )

    @property
    def chunks_per_stream_second(self) -> float:
        return 1000 / self.chunk_ms

    @property
    def chunks_per_second(self) -> float:
        """What a pod can serve with full batches."""
        return self.batcher.capacity_per_second

    @property
    def saturation_streams(self) -> float:
        return self.chunks_per_second / self.chunks_per_stream_second

    @cached_property
    def curve(self) -> Curve:
        return measure(self)


@dataclass(frozen=True)
class Curve:
    """For 0, 1, 2 … streams, up to what a pod can just carry."""

    wait_ms: np.ndarray
    p99_ms: np.ndarray
    # late[streams, backlog in steps of DELAY_STEP_MS]: share of chunks later than the objective.
    late: np.ndarray

    @property
    def most(self) -> int:
        return len(self.wait_ms) - 1

    def late_share(self, streams: np.ndarray, backlog_seconds: np.ndarray) -> np.ndarray:
        step = np.minimum(backlog_seconds * (1000 / DELAY_STEP_MS), self.late.shape[1] - 1).astype(int)
        return self.late[np.minimum(streams, self.most), step]


def run_batcher(service: ServiceModel, streams: int, seconds: float, seed: int) -> list[Request]:
    """Chunks of so many real-time streams through the batcher core. Their phases are mixed anew now and then."""
    draw = random.Random(seed)
    arrivals = []
    for turn in range(int(seconds * 1000 / service.chunk_ms)):
        if turn % MIX_AFTER_CHUNKS == 0:
            phases = [draw.random() * service.chunk_ms for _ in range(streams)]
        start = turn * service.chunk_ms
        arrivals += [int((start + phase + draw.expovariate(1 / JITTER_MS)) * NS_PER_MS) for phase in phases]
    return serve(service, sorted(arrivals))


def serve(service: ServiceModel, arrivals: list[int]) -> list[Request]:
    """The requests that arrive at these nanoseconds, each with its start and end."""
    core = Batcher(service.batcher)
    requests = []
    for now in arrivals:
        request = Request()
        requests.append(request)
        core.enqueue(now, request)
    while (event := core.next_event()) is not None:
        core.advance(event)
    return requests


@lru_cache(maxsize=8)
def measure(service: ServiceModel, chunks: int = 12_000, seed: int = 1) -> Curve:
    most = int(service.saturation_streams)
    steps = np.arange(0, service.objective_ms + DELAY_STEP_MS, DELAY_STEP_MS)
    wait, p99, late = [0.0], [0.0], [np.append(np.zeros(len(steps) - 1), 1.0)]
    for streams in range(1, most + 1):
        requests = run_batcher(service, streams, chunks / streams / service.chunks_per_stream_second, seed)
        waits = np.array([request.started_ns - request.arrived_ns for request in requests]) / NS_PER_MS
        latency = np.sort([request.finished_ns - request.arrived_ns for request in requests]) / NS_PER_MS
        wait.append(float(waits.mean()))
        p99.append(float(np.quantile(latency, 0.99)))
        late.append(1 - np.searchsorted(latency, service.objective_ms - steps, side="right") / len(latency))
    return Curve(np.array(wait), np.array(p99), np.array(late))


def calibrated_streams(service: ServiceModel) -> int:
    """The most streams with which a pod answers 99 of 100 chunks within the objective, below saturation."""
    return int(np.flatnonzero(service.curve.p99_ms <= service.objective_ms).max())


def planned_streams(service: ServiceModel, most_utilisation: float = 0.95) -> int:
    """What to plan with: never more than 95 % of saturation."""
    return int(min(calibrated_streams(service), most_utilisation * service.saturation_streams))


def fluid_step(
    service: ServiceModel, streams: np.ndarray, backlog: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One step of many pods: new backlog (seconds of work), chunks completed, their waiting time, chunks late.

    The backlog grows by the work that arrives and shrinks by the time that passes.
    """
    curve = service.curve
    arriving = streams * service.chunks_per_stream_second * seconds
    work = backlog + arriving / service.chunks_per_second
    after = np.maximum(0.0, work - seconds)
    completed = (work - after) * service.chunks_per_second
    middle = (backlog + after) / 2
    wait_ms = middle * 1000 + curve.wait_ms[np.minimum(streams, curve.most)]
    late = arriving * curve.late_share(streams, middle)
    return after, completed, wait_ms, late

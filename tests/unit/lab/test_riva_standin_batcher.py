"""The stand-in's queue on a virtual clock, held against queueing theory and an independent replay."""

from __future__ import annotations

import bisect
import random
from statistics import fmean, stdev

import pytest

from lab.standins.riva.batcher import (
    NS_PER_MS,
    Batch,
    Batcher,
    BatcherConfig,
    QueueFullError,
    Request,
    choose_batch,
)

END = 10**18
SECOND = 1_000_000_000


def config(**changes) -> BatcherConfig:
    return BatcherConfig(**{"service_base_ns": 10 * NS_PER_MS, "service_per_item_ns": 4 * NS_PER_MS, **changes})


def poisson(rate_per_second: float, count: int, seed: int) -> list[int]:
    """Arrival times in ns, no two the same."""
    generator = random.Random(seed)
    now, arrivals = 0, []
    for _ in range(count):
        now += max(1, round(generator.expovariate(rate_per_second) * SECOND))
        arrivals.append(now)
    return arrivals


def run(batcher: Batcher, arrivals: list[int]) -> list[Batch]:
    batches = []
    for arrival in arrivals:
        batches += batcher.enqueue(arrival, Request())
    return batches + batcher.advance(END)


def waits(batches: list[Batch]) -> list[int]:
    return [request.started_ns - request.arrived_ns for batch in batches for request in batch.requests]


def replay(settings: BatcherConfig, arrivals: list[int]) -> list[tuple[int, int]]:
    """(start, size) of each batch, from the arrival list alone: no events, no queue, batch after batch."""
    preferred = sorted(settings.preferred_batch_sizes) or [settings.max_batch_size]
    free = [0] * settings.instances
    batches, served = [], 0
    while served < len(arrivals):
        free.sort()
        earliest = max(free[0], arrivals[served])
        gives_up = arrivals[served] + settings.max_queue_delay_ns
        later = bisect.bisect_right(arrivals, earliest)
        moments = [earliest, *arrivals[later : served + settings.max_batch_size]]
        if settings.max_queue_delay_ns:
            moments.append(max(gives_up, earliest))
        for moment in sorted(moments):
            there = min(bisect.bisect_right(arrivals, moment) - served, settings.max_batch_size)
            formed = bisect.bisect_right(preferred, there)
            if settings.max_queue_delay_ns and moment >= gives_up:
                size = there
            elif formed:
                size = preferred[formed - 1]
            elif not settings.max_queue_delay_ns or there == settings.max_batch_size:
                size = there
            else:
                continue
            break
        batches.append((moment, size))
        free[0] = moment + settings.service_base_ns + settings.service_per_item_ns * size
        served += size
    return batches


@pytest.mark.parametrize(
    ("waiting", "age_ms", "preferred", "delay_ms", "expected"),
    [
        # No preferred sizes, no delay: all that is there, up to the maximum.
        (0, 0, (), 0, 0),
        (1, 0, (), 0, 1),
        (7, 0, (), 0, 7),
        (8, 0, (), 0, 8),
        (20, 0, (), 0, 8),
        # Preferred 4 and 8: the largest that can be formed, else what is there.
        (3, 0, (4, 8), 0, 3),
        (4, 0, (4, 8), 0, 4),
        (7, 0, (4, 8), 0, 4),
        (9, 0, (4, 8), 0, 8),
        # The maximum may lie above the largest preferred size, which still comes first.
        (7, 0, (4,), 0, 4),
        (9, 0, (4,), 0, 4),
        # A delay: wait for the maximum, or for a preferred size, until the oldest has waited long enough.
        (3, 1, (), 5, 0),
        (8, 1, (), 5, 8),
        (3, 5, (), 5, 3),
        (3, 1, (4, 8), 5, 0),
        (5, 1, (4, 8), 5, 4),
        # The delay is over: sent as it is, preferred or not.
        (5, 5, (4, 8), 5, 5),
        (20, 9, (4,), 5, 8),
    ],
)
def test_choose_batch(waiting, age_ms, preferred, delay_ms, expected):
    settings = config(max_batch_size=8, preferred_batch_sizes=preferred, max_queue_delay_ns=delay_ms * NS_PER_MS)
    assert choose_batch(waiting, age_ms * NS_PER_MS, settings) == expected


@pytest.mark.parametrize("utilization", [0.3, 0.6, 0.8])
def test_mean_wait_of_single_requests_is_that_of_m_d_1(utilization):
    """Poisson arrivals, one server, fixed service time s: mean wait rho * s / (2 * (1 - rho)).

    Held to four standard errors, which are estimated from the means of 40 blocks.
    """
    service_ms = 14
    arrivals = poisson(utilization * 1000 / service_ms, 80_000, seed=7)
    batcher = Batcher(config(max_batch_size=1))
    seen = []
    batches = []
    for arrival in arrivals:
        batches += batcher.advance(arrival)
        seen.append(batcher.stats.pending)
        batcher.enqueue(arrival, Request())
    batches += batcher.advance(END)

    measured = [wait / NS_PER_MS for wait in waits(batches)]
    expected = utilization * service_ms / (2 * (1 - utilization))
    block = len(measured) // 40
    means = [fmean(measured[start : start + block]) for start in range(0, len(measured), block)]
    tolerance = 4 * stdev(means) / len(means) ** 0.5
    assert tolerance < 0.15 * expected
    assert fmean(measured) == pytest.approx(expected, abs=tolerance)
    # What the counters say is the same (they cut each wait to whole microseconds).
    assert batcher.stats.queue_us / batcher.stats.success / 1000 == pytest.approx(fmean(measured), abs=0.001)
    # Little's law for the gauge, as Poisson arrivals see it: mean queue length = rate * mean wait.
    length = utilization / service_ms * expected
    assert fmean(seen) == pytest.approx(length, rel=tolerance / expected + 0.03)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {"max_batch_size": 1},
        {"max_batch_size": 8},
        {"max_batch_size": 8, "instances": 3},
        {"max_batch_size": 8, "preferred_batch_sizes": (4, 8)},
        {"max_batch_size": 16, "preferred_batch_sizes": (2, 6), "instances": 2},
        {"max_batch_size": 8, "max_queue_delay_ns": 25 * NS_PER_MS},
        {"max_batch_size": 8, "max_queue_delay_ns": 25 * NS_PER_MS, "instances": 2},
        {"max_batch_size": 8, "preferred_batch_sizes": (3, 5), "max_queue_delay_ns": 40 * NS_PER_MS},
    ],
    ids=str,
)
@pytest.mark.parametrize("load", [0.2, 0.9, 1.5])
def test_batches_and_counters_equal_an_independent_replay(changes, load, seed):
    settings = config(**changes)
    arrivals = poisson(load * settings.capacity_per_second, 1500, seed)
    batcher = Batcher(settings)
    batches = sorted(run(batcher, arrivals), key=lambda batch: batch.started_ns)
    expected = replay(settings, arrivals)

    assert [(batch.started_ns, len(batch.requests)) for batch in batches] == expected
    stats = batcher.stats
    assert stats.success == stats.inferences == len(arrivals)
    assert stats.executions == len(expected)
    queue_us = request_us = compute_us = served = 0
    for start, size in expected:
        service = settings.service_base_ns + size * settings.service_per_item_ns
        for arrival in arrivals[served : served + size]:
            queue_us += (start - arrival) // 1000
            request_us += (start + service - arrival) // 1000
            compute_us += service // 1000
        served += size
    assert stats.queue_us == queue_us
    assert stats.request_us == request_us
    assert stats.compute_input_us + stats.compute_infer_us + stats.compute_output_us == compute_us
    assert stats.pending == 0


@pytest.mark.parametrize(("instances", "max_batch_size"), [(1, 1), (1, 8), (2, 8), (4, 16)])
def test_throughput_at_saturation(instances, max_batch_size):
    """Twice the load that can be carried: max_batch / (a + b * max_batch) for each instance, and no more."""
    settings = config(instances=instances, max_batch_size=max_batch_size)
    expected = instances * max_batch_size / (0.010 + 0.004 * max_batch_size)
    assert settings.capacity_per_second == pytest.approx(expected)
    batcher = Batcher(settings)
    arrivals = poisson(2 * expected, int(2 * expected * 60), seed=3)
    for arrival in arrivals:
        batcher.enqueue(arrival, Request())
    before = batcher.stats.success
    seconds = arrivals[-1] / SECOND
    assert before / seconds == pytest.approx(expected, rel=0.01)
    # The counters under-report a saturated server: half of what was asked for still waits.
    assert batcher.stats.pending == pytest.approx(len(arrivals) / 2, rel=0.05)


def test_throughput_does_not_suffer_from_a_caller_that_wakes_late():
    settings = config(preferred_batch_sizes=(3, 8), max_queue_delay_ns=20 * NS_PER_MS)
    arrivals = poisson(150, 2000, seed=5)
    prompt, late = Batcher(settings), Batcher(settings)
    for arrival in arrivals:
        while (event := prompt.next_event()) is not None and event < arrival:
            prompt.advance(event)
        prompt.enqueue(arrival, Request())
        late.enqueue(arrival, Request())
    prompt.advance(END)
    late.advance(END)
    assert prompt.stats == late.stats
    assert prompt.busy_ns(END) == late.busy_ns(END)


def test_pending_falls_when_execution_starts_as_in_the_documentation():
    """Ten requests at once, batches of four, a long queue delay: 6 pending, then 2, then none."""
    batcher = Batcher(config(max_batch_size=4, max_queue_delay_ns=20 * NS_PER_MS))
    for _ in range(10):
        batcher.enqueue(0, Request())
    service = 26 * NS_PER_MS
    assert batcher.stats.pending == 6
    batcher.advance(service)
    assert batcher.stats.pending == 2
    batcher.advance(2 * service)
    assert batcher.stats.pending == 0
    assert batcher.stats.success == 8


def test_counters_move_when_the_requests_complete_and_not_before():
    batcher = Batcher(config(max_batch_size=2))
    batcher.enqueue(0, Request())
    batcher.enqueue(0, Request())
    batcher.enqueue(0, Request())
    batcher.advance(14 * NS_PER_MS - 1)
    stats = batcher.stats
    assert (stats.success, stats.executions, stats.queue_us, stats.pending) == (0, 0, 0, 2)
    batcher.advance(14 * NS_PER_MS)
    assert (stats.success, stats.executions, stats.queue_us, stats.pending) == (1, 1, 0, 0)
    batcher.advance(14 * NS_PER_MS + 18 * NS_PER_MS)
    assert (stats.success, stats.inferences, stats.executions) == (3, 3, 2)
    assert stats.queue_us == 2 * 14_000
    assert stats.request_us == 14_000 + 2 * 32_000
    # Each request of a batch counts the whole execution.
    assert stats.compute_input_us + stats.compute_infer_us + stats.compute_output_us == 14_000 + 2 * 18_000


def test_a_full_queue_rejects_and_counts_it():
    batcher = Batcher(config(max_batch_size=1, max_queue_size=2))
    for _ in range(3):
        batcher.enqueue(0, Request())
    with pytest.raises(QueueFullError, match="Exceeds maximum queue size"):
        batcher.enqueue(0, Request())
    assert batcher.stats.failure == {"REJECTED": 1, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}
    assert batcher.stats.pending == 2
    batcher.enqueue(14 * NS_PER_MS, Request())
    assert batcher.stats.pending == 2


def test_cancel_takes_only_waiting_requests_of_that_owner():
    batcher = Batcher(config(max_batch_size=1))
    mine, other = object(), object()
    for owner in (mine, other, mine, mine, other):
        batcher.enqueue(0, Request(owner=owner))
    batcher.cancel(1, mine)
    assert batcher.stats.failure["CANCELED"] == 2
    assert batcher.stats.pending == 2
    owners = [request.owner for batch in batcher.advance(END) for request in batch.requests]
    assert owners == [mine, other, other]
    assert batcher.stats.success == 3


def test_cancel_moves_the_queue_delay_to_the_next_oldest():
    batcher = Batcher(config(max_queue_delay_ns=20 * NS_PER_MS))
    mine = object()
    batcher.enqueue(0, Request(owner=mine))
    batcher.enqueue(5 * NS_PER_MS, Request())
    assert batcher.next_event() == 20 * NS_PER_MS
    batcher.cancel(6 * NS_PER_MS, mine)
    assert batcher.next_event() == 25 * NS_PER_MS


def test_a_frozen_batcher_takes_requests_and_finishes_none():
    batcher = Batcher(config())
    batcher.enqueue(0, Request())
    batcher.freeze(NS_PER_MS)
    batcher.enqueue(2 * NS_PER_MS, Request())
    assert batcher.next_event() is None
    assert batcher.advance(END) == []
    assert (batcher.stats.pending, batcher.stats.success) == (1, 0)


def test_busy_time_is_the_time_with_at_least_one_execution():
    batcher = Batcher(config(instances=2, max_batch_size=1))
    batcher.enqueue(0, Request())
    batcher.enqueue(4 * NS_PER_MS, Request())
    assert batcher.busy_ns(10 * NS_PER_MS) == 10 * NS_PER_MS
    batcher.advance(100 * NS_PER_MS)
    assert batcher.busy_ns(100 * NS_PER_MS) == 18 * NS_PER_MS
    batcher.enqueue(200 * NS_PER_MS, Request())
    batcher.advance(END)
    assert batcher.busy_ns(END) == 32 * NS_PER_MS

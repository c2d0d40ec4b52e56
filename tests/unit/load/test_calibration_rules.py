"""Calibration: how a level is judged, which level comes next, and what follows from the capacity.

The search is held against the lab's own batcher, in its own time: a pod whose capacity is known by arithmetic.
"""

import random

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import calibration_rules as rules
from ansible_collections.speechops.riva.plugins.module_utils.calibration_rules import (
    Block,
    Capacity,
    Judgement,
    Level,
    Objective,
    blocks_of,
    capacity_of,
    cold_start_seconds,
    counters,
    entry_of,
    judge,
    model_load,
    next_level,
    planned_streams,
    queue_target,
    queue_time,
    replicas_for,
    settled_entry,
    share_bounds,
    student,
    trend,
    with_replicas,
)
from standins.riva.batcher import NS_PER_MS, Batcher, BatcherConfig, Request

CHUNK = 0.16


def blocks(shares, latency=100.0, chunks=250, rise=0.0):
    """Blocks of two seconds with these percentages of late chunks; the latency rises by so many ms a second."""
    return [
        Block(t := 6.0 + 2 * n, chunks, round(chunks * share / 100), [latency + rise * (t - 6.0)] * chunks)
        for n, share in enumerate(shares)
    ]


OBJECTIVE = Objective(300, 1.0, 600)


@pytest.mark.parametrize(
    ("found", "enough", "unanswered", "state", "sure", "said"),
    [
        ([], False, 0, "open", False, "too few"),
        (blocks([0] * 3), False, 0, "open", False, "too few"),
        (blocks([0] * 7), False, 0, "passed", True, "0.00 %"),
        (blocks([100] * 7), False, 0, "failed", True, "100.00 %"),
        (blocks([5, 4, 6, 5, 5, 4, 6]), False, 0, "failed", True, "of the chunks are late"),
        (blocks([0.4, 0.4, 0.8, 0.4, 0.4, 0.4, 0.4]), False, 0, "passed", True, ""),
        (blocks([0, 0, 6, 0, 0, 0, 0]), False, 0, "open", False, "too near"),
        (blocks([0, 0, 6, 0, 0, 0, 0]), True, 0, "passed", False, "may be chance"),
        (blocks([0, 0, 20, 0, 0, 0, 0]), True, 0, "failed", False, "may be chance"),
        # Nothing is late yet, but it falls behind: 3 ms a second are 1,800 ms in ten minutes.
        (blocks([0] * 7, rise=3.0), False, 0, "failed", True, "rises by 3.0 ms each second"),
        # A rise that no stream lives to see past the objective: 0.1 ms a second.
        (blocks([0] * 7, rise=0.1), False, 0, "passed", True, ""),
        (blocks([0] * 7), False, 1000, "failed", True, "36 % of the chunks have no answer"),
        (blocks([0] * 7), False, 20, "passed", True, ""),
        ([], True, 500, "failed", True, "100 % of the chunks have no answer"),
    ],
)
def test_how_a_level_is_judged(found, enough, unanswered, state, sure, said):
    judgement = judge(found, OBJECTIVE, enough, unanswered)
    assert (judgement.state, judgement.sure) == (state, sure)
    assert said in judgement.reason


def test_a_short_longest_stream_may_use_what_a_long_one_may_not():
    rising = blocks([0] * 7, rise=3.0)
    assert judge(rising, Objective(300, 1.0, 600), False).state == "failed"
    assert judge(rising, Objective(300, 1.0, 30), False).state == "passed"


def test_noise_is_no_rise():
    draw = random.Random(3)
    for _ in range(50):
        noisy = [Block(6.0 + 2 * n, 250, 0, [draw.gauss(100, 15) for _ in range(30)]) for n in range(7)]
        assert judge(noisy, OBJECTIVE, False).state == "passed"


def test_the_settling_seconds_do_not_count():
    windows = [
        {"t": float(t), "chunks_answered": 10, "chunks_late": 10 * (t <= 5), "latency_ms": [float(t)]}
        for t in range(1, 14)
    ]
    found = blocks_of(windows, 5.0)
    assert [block.t for block in found] == [6.0, 8.0, 10.0, 12.0]
    assert sum(block.late for block in found) == 0
    assert sum(block.chunks for block in found) == 80


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.71), (2, 4.30), (3, 3.18), (6, 2.447), (20, 2.086), (99, 1.984)]
)
def test_the_quantiles_of_student(freedom, expected):
    assert student(freedom) == pytest.approx(expected, rel=0.01)


def test_bounds_of_a_share():
    assert share_bounds([]) == (100.0, 0.0, 100.0)
    percent, low, high = share_bounds(blocks([0, 0, 0, 0]))
    assert (percent, low) == (0.0, 0.0)
    assert high == pytest.approx(0.3)  # 3 in 1000
    percent, low, high = share_bounds(blocks([0.8, 1.2, 0.8, 1.2]))
    assert low < 0.8 < percent < 1.2 < high


def test_bounds_hold_what_they_promise():
    """Of 400 measurements of a pod with 1 % late chunks, 95 in 100 have it between their bounds."""
    draw = random.Random(5)
    inside = 0
    for _ in range(400):
        late = [sum(draw.random() < 0.01 for _ in range(250)) for _ in range(10)]
        _, low, high = share_bounds([Block(2.0 * n, 250, count) for n, count in enumerate(late)])
        inside += low <= 1.0 <= high
    assert 0.90 <= inside / 400 <= 0.99


def test_a_straight_line_has_its_slope():
    slope, error = trend([(x, 5 + 2 * x) for x in range(6)])
    assert slope == pytest.approx(2)
    assert error == pytest.approx(0, abs=1e-9)
    assert trend([(0, 1), (1, 2)])[1] == float("inf")


def held(streams, passed, confirmed=False, sure=True, throughput=None, queue=None):
    verdict = Judgement("passed" if passed else "failed", "", sure, 0.0, 0.0, 0.0, 0.0)
    return Level(streams, 14.0, verdict, {}, streams if throughput is None else throughput, queue, confirmed)


@pytest.mark.parametrize(
    ("levels", "following"),
    [
        ([], (4, False)),
        ([held(4, True)], (8, False)),
        ([held(4, False)], (2, False)),
        ([held(4, False), held(2, False)], (1, False)),
        ([held(4, False), held(2, True)], (3, False)),
        ([held(4, True), held(8, True), held(16, True)], (32, False)),
        ([held(16, True), held(32, False)], (24, False)),
        ([held(16, True), held(32, False), held(24, False)], (20, False)),
        ([held(20, True), held(22, False), held(21, True)], (21, True)),
        ([held(20, True), held(22, False), held(21, True), held(21, True, True)], None),
        # The longer look says no: the next lower one that passed is looked at for longer, too.
        ([held(20, True), held(22, False), held(21, True), held(21, False, True)], (20, True)),
        ([held(18, True), held(22, False), held(21, False, True)], (19, False)),
        # A large pod: two in a hundred are near enough.
        ([held(300, True), held(306, False)], (300, True)),
        ([held(300, True), held(308, False)], (304, False)),
        # No more than may be opened.
        ([held(64, True)], (100, False)),
        ([held(64, True), held(100, True)], (100, True)),
        ([held(64, True), held(100, True), held(100, True, True)], None),
        ([held(1, False)], None),
    ],
)
def test_which_level_comes_next(levels, following):
    assert next_level(levels, 4, 100) == following


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (
            [
                held(16, True),
                held(32, False, throughput=21.3),
                held(24, False, throughput=21.4),
                held(20, True),
                held(22, False, throughput=21.5),
                held(21, True, True),
            ],
            Capacity(21, 21, 21, 21.4, False),
        ),
        # What was near is between the bounds, not at one of them.
        (
            [held(20, True), held(21, True, sure=False), held(22, False, sure=False), held(24, False)],
            Capacity(21, 20, 23, None, False),
        ),
        ([held(64, True), held(100, True, True)], Capacity(100, 100, 100, None, True)),
        ([held(1, False)], Capacity(0, 0, 0, None, False)),
    ],
)
def test_the_capacity_with_its_bounds(levels, expected):
    assert capacity_of(levels, 100) == expected


@pytest.mark.parametrize(
    ("capacity", "planned"),
    [
        (Capacity(21, 21, 21, 21.33, False), 20),
        (Capacity(30, 30, 30, 30.5, False), 28),
        (Capacity(21, 21, 21, None, False), 20),
        (Capacity(12, 12, 12, 40.0, False), 12),  # the objective ends it long before saturation
        (Capacity(1, 1, 1, 1.0, False), 1),
    ],
)
def test_what_to_plan_with(capacity, planned):
    assert planned_streams(capacity) == planned


@pytest.mark.parametrize(("queue", "target"), [(62.04, 124.1), (0.2, 1.0), (80.0, 150.0), (None, 150.0)])
def test_the_target_of_the_queue_time_is_twice_what_it_is_at_capacity(queue, target):
    levels = [held(20, True, queue=5.0), held(21, True, True, queue=queue)]
    assert queue_target(levels, capacity_of(levels, 21), OBJECTIVE) == target


@pytest.mark.parametrize(
    ("peak", "base", "spare", "expected"),
    [(100, 0, 0, (1, 5)), (101, 0, 0, (1, 6)), (100, 0, 1.75, (1, 7)), (100, 41, 0.5, (3, 6)), (1, 1, 0, (1, 1))],
)
def test_replicas_for_a_peak(peak, base, spare, expected):
    assert replicas_for(peak, base, 20, spare) == expected


LEVELS = [held(20, True), held(22, False, throughput=21.3), held(21, True, True, queue=30.5)]
ENTRY = {
    "stream_limit": 21,
    "planned_streams": 20,
    "queue_time_target_ms": 61.0,
    "latency_objective_ms": 300,
    "longest_stream_seconds": 600,
    "model_load_seconds": 12.0,
}


def test_the_entry():
    capacity = capacity_of(LEVELS, 100)
    assert entry_of(LEVELS, capacity, OBJECTIVE, 12.0) == ENTRY
    assert "model_load_seconds" not in entry_of(LEVELS, capacity, OBJECTIVE, None)
    assert "cold_start_seconds" not in entry_of(LEVELS, capacity, OBJECTIVE, 12.0)
    assert entry_of(LEVELS, capacity, OBJECTIVE, 12.0, 95.0)["cold_start_seconds"] == 95.0
    assert with_replicas(ENTRY, 100, 0, 1.75) == {**ENTRY, "min_replicas": 1, "max_replicas": 7}
    assert with_replicas({**ENTRY, "max_replicas": 9}, None, 0, 1.75) == ENTRY


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        (None, ENTRY),
        ({}, ENTRY),
        ({"stream_limit": "many"}, ENTRY),
        # One stream more or less is the same pod.
        ({**ENTRY, "stream_limit": 22, "planned_streams": 21}, {**ENTRY, "stream_limit": 22, "planned_streams": 21}),
        ({**ENTRY, "queue_time_target_ms": 55.0}, {**ENTRY, "queue_time_target_ms": 55.0}),
        ({**ENTRY, "stream_limit": 30}, ENTRY),
        ({**ENTRY, "stream_limit": 15}, ENTRY),
        # Asked something else.
        ({**ENTRY, "stream_limit": 22, "latency_objective_ms": 200}, ENTRY),
        # The models load twice as fast.
        ({**ENTRY, "stream_limit": 22, "model_load_seconds": 24.0}, {**ENTRY, "stream_limit": 22}),
        ({**ENTRY, "model_load_seconds": 13.0}, {**ENTRY, "model_load_seconds": 13.0}),
    ],
)
def test_a_second_measurement_that_says_the_same_changes_nothing(old, expected):
    assert settled_entry(old, ENTRY, capacity_of(LEVELS, 100)) == expected


PAGE = """\
# HELP nv_inference_queue_duration_us x
# TYPE nv_inference_queue_duration_us counter
nv_inference_request_success{{model="am",version="1"}} {served}
nv_inference_request_success{{model="idle",version="1"}} 0
nv_inference_queue_duration_us{{model="am",version="1"}} {queued}
nv_inference_queue_duration_us{{model="idle",version="1"}} 0
"""


def test_the_queue_time_comes_from_two_looks_at_the_metrics_page():
    before, after = PAGE.format(served=100, queued=1e6), PAGE.format(served=300, queued="5e+06")
    assert queue_time(before, after) == 20.0  # 4,000 ms over 200 requests
    assert queue_time(before, before) is None
    assert queue_time("", "") is None
    assert queue_time(after, PAGE.format(served=10, queued=1e5)) == 10.0  # counters that began anew
    assert counters(before, "nv_inference_request_success") == {"am": 100.0, "idle": 0.0}


class SimulatedPod:
    """Streams in real time on the lab's batcher, second by second in its own time."""

    def __init__(self, config, chunk=CHUNK, jitter_ms=0.0, seed=1):
        self.config, self.chunk, self.jitter, self.draw = config, chunk, jitter_ms, random.Random(seed)

    def windows(self, streams, seconds, objective_ms):
        """What is measured second by second, as far as it is asked for."""
        batcher = Batcher(self.config)
        due = [self.draw.random() * self.chunk for _ in range(streams)]
        for t in range(1, int(seconds) + 1):
            sends = []
            for stream in range(streams):
                while due[stream] < t:
                    sends.append(due[stream] + abs(self.draw.gauss(0, self.jitter / 1000)))
                    due[stream] += self.chunk
            finished = []
            for at in sorted(sends):
                now = int(at * 1e9)
                finished += batcher.enqueue(now, Request(payload=now))
            finished += batcher.advance(int(t * 1e9))
            answers = [(batch.ends_ns - r.payload) / 1e6 for batch in finished for r in batch.requests]
            late = sum(latency > objective_ms for latency in answers)
            yield {
                "t": float(t), "chunks_sent": len(sends), "chunks_answered": len(answers),
                "chunks_late": late, "latency_ms": answers,
            }  # fmt: skip


def calibrated(pod, objective, first=4, most=400, settle=5.0, hold=14.0, confirm=40.0):
    """The search as `calibration_run` does it, with the simulated pod in place of streams."""
    levels = []
    while (following := next_level(levels, first, most)) is not None:
        streams, confirms = following
        least = confirm if confirms else hold
        seen, judgement = [], None
        for window in pod.windows(streams, settle + 3 * least, objective.latency_ms):
            seen.append(window)
            held_for = window["t"] - settle
            sent = sum(w["chunks_sent"] for w in seen if w["t"] <= window["t"] - objective.latency_ms / 1000)
            overdue = max(0, sent - sum(w["chunks_answered"] for w in seen))
            judgement = judge(blocks_of(seen, settle), objective, held_for >= 3 * least - 1, overdue)
            if (judgement.state == "failed" and judgement.sure) or (judgement.state != "open" and held_for >= least):
                break
        found = blocks_of(seen, settle)
        levels.append(rules.measured_level(streams, held_for, judgement, found, pod.chunk, None, confirms))
    return levels, capacity_of(levels, most)


def config(base, per_item, batch=8, instances=1):
    return BatcherConfig(
        instances=instances,
        max_batch_size=batch,
        service_base_ns=int(base * NS_PER_MS),
        service_per_item_ns=int(per_item * NS_PER_MS),
    )


@pytest.mark.parametrize(("jitter", "seed"), [(0.0, 1), (15.0, 2)])
@pytest.mark.parametrize(
    ("service", "chunk"),
    [(config(20, 5), 0.16), (config(10, 4), 0.16), (config(20, 5, instances=2), 0.16), (config(10, 1, 32), 0.16),
     (config(30, 12, 4), 0.16)],
    ids=["lab", "default", "two instances", "large batches", "slow"],
)  # fmt: skip
def test_the_known_capacity_of_a_pod_is_found_within_ten_percent(service, chunk, seed, jitter):
    """A pod is saturated where the chunks of its streams come as fast as full batches are done."""
    saturation = service.capacity_per_second * chunk
    levels, capacity = calibrated(SimulatedPod(service, chunk, jitter, seed), Objective(500, 1.0, 600))
    assert 0.9 * saturation <= capacity.streams <= saturation
    assert capacity.low <= capacity.streams <= capacity.high
    assert capacity.saturation == pytest.approx(saturation, rel=0.05)
    assert 0.85 * saturation <= planned_streams(capacity) <= 0.96 * saturation
    assert len(levels) <= 14


def test_a_tight_objective_ends_it_before_saturation():
    """A batch of eight takes 60 ms, so a chunk that waits for one and rides in the next takes up to 120 ms."""
    pod = SimulatedPod(config(20, 5))
    _, tight = calibrated(pod, Objective(70, 1.0, 600))
    _, wide = calibrated(SimulatedPod(config(20, 5)), Objective(500, 1.0, 600))
    assert 0 < tight.streams < 0.8 * wide.streams


@pytest.mark.parametrize(("fetch", "cold"), [(90, 102.0), (1, None), (None, None)])
def test_a_start_with_an_empty_store_is_told_apart(fetch, cold):
    init = {"name": "riva-model-init", "state": {"terminated": {"startedAt": "2026-11-20T10:00:02Z"}}}
    if fetch is not None:
        minute, second = divmod(2 + fetch, 60)
        init["state"]["terminated"]["finishedAt"] = f"2026-11-20T10:{minute:02d}:{second:02d}Z"
    pod = {
        "metadata": {"creationTimestamp": "2026-11-20T10:00:00Z"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-20T10:03:12Z"}],
            "initContainerStatuses": [init],
            "containerStatuses": [{"name": "riva", "state": {"running": {"startedAt": "2026-11-20T10:03:00Z"}}}],
        },
    }
    assert cold_start_seconds(model_load(pod)) == cold
    assert cold_start_seconds(None) is None

"""From records to figures."""

import json

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import (
    changes,
    distribution,
    integral,
    path_of,
    percentile,
    turning_points,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import (
    bad_service,
    cost_figures,
    pod_streams_over_time,
    summarise,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_words import (
    console_table,
    matches_path,
    shown,
    verdict,
)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5], 50, 5),
        ([5], 99, 5),
        ([1, 2], 50, 1),
        ([1, 2, 3, 4], 50, 2),
        (list(range(1, 101)), 90, 90),
        (list(range(1, 101)), 95, 95),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 11)), 99, 10),
        ([1, 2, 3], 0, 1),
        ([1, 2, 3], 100, 3),
    ],
)
def test_percentile_is_the_nearest_rank(values, percent, expected):
    assert percentile(values, percent) == expected


def test_nothing_measured_has_no_percentiles():
    assert distribution([]) == {
        "count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None, "max": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "path", "turns"),
    [
        ([], [], []),
        ([1, 1], [1], [1]),
        ([1, 3, 3, 1, 1], [1, 3, 1], [1, 3, 1]),
        ([1, 2, 3, 2, 1], [1, 2, 3, 2, 1], [1, 3, 1]),
        ([1, 2, 3], [1, 2, 3], [1, 3]),
        ([1, 3, 2, 3, 1], [1, 3, 2, 3, 1], [1, 3, 2, 3, 1]),
        ([3, 2, 1, 2], [3, 2, 1, 2], [3, 1, 2]),
    ],
)
def test_replicas_path(values, path, turns):
    assert path_of(values) == path
    assert turning_points(path) == turns


@pytest.mark.parametrize(
    ("expected", "matches"), [([1, 3, 1], True), ([1, 2, 3, 1], True), ([1, 3], False), ([1, 2, 1], False)]
)
def test_an_expected_path_may_leave_out_steps_on_the_way(expected, matches):
    replicas = {"path": [1, 2, 3, 1], "turning_points": [1, 3, 1]}
    assert matches_path(replicas, expected) is matches


@pytest.mark.parametrize(
    ("max_failed", "expected", "said"),
    [
        (1, None, []),
        (1, [1, 3, 1], []),
        (1, [1, 3, 2, 1], []),
        (0, None, ["1 of 351 streams failed, 0 may (max_failed_streams): 1 times UNAVAILABLE connection reset"]),
        (1, [1, 4, 1], ["the replicas went 1 → 3 → 2 → 1, not 1 → 4 → 1"]),
        (0, [1, 2], ["1 of 351", "the replicas went"]),
    ],
)
def test_the_verdict(records, max_failed, expected, said):
    problems = verdict(summarise(records), max_failed, expected)
    assert len(problems) == len(said)
    assert all(text in problem for text, problem in zip(said, problems, strict=True))


def test_desired_replicas_that_never_became_ready_are_no_success(records):
    stuck = [{**record, "ready": 1} if record["kind"] == "cluster" else record for record in records]
    assert verdict(summarise(stuck), 1, [1, 3, 1]) == [
        "3 replicas were asked for, but only 1 became ready (expect_replicas)"
    ]


def test_changes_and_integral():
    samples = [{"t": 0.0, "n": 1}, {"t": 3.0, "n": 1}, {"t": 6.0, "n": 3}, {"t": 9.0, "n": 1}]
    assert changes(samples, "n") == [{"t_s": 6.0, "from": 1, "to": 3}, {"t_s": 9.0, "from": 3, "to": 1}]
    assert integral(samples, "n", 10.0) == 6 + 9 + 1
    assert integral([], "n", 10.0) == 0


def test_the_example_run(records):
    summary = summarise(records)
    assert summary["headline"].startswith("1 → 3 → 1 replicas, 1 of 351 streams failed, p95 latency ")
    assert summary["replicas"]["path"] == [1, 3, 2, 1]
    assert [(d["t_s"], d["to"]) for d in summary["hpa"]["decisions"]] == [(75.0, 3), (330.0, 2), (345.0, 1)]
    assert summary["hpa"]["metrics"][0]["unknown_samples"] == 1
    assert summary["streams"]["failures"] == [
        {"code": "UNAVAILABLE", "details": "connection reset by peer", "count": 1}
    ]
    assert summary["streams"]["errors"] == {"UNAVAILABLE": 1}
    assert summary["times"] == {
        "first_scale_up_s": 75.2,
        "first_new_pod_ready_s": 108.2,
        "all_ready_s": 111.2,
        "load_end_s": 258.0,
        "back_at_min_s": 345.2,
    }
    assert [(p["created_s"], p["ready_s"]) for p in summary["pods"]] == [
        (-600.0, -569.0),
        (75.0, 107.0),
        (75.0, 109.0),
    ]
    assert [phase["name"] for phase in summary["phases"]] == [
        "1: 6 streams",
        "2: 40 streams",
        "3: 6 streams",
        "tail",
    ]
    for key in ("sent", "late"):
        assert sum(phase["chunks"][key] for phase in summary["phases"]) == summary["chunks"][key]
    assert sum(phase["failed"] for phase in summary["phases"]) == 1
    assert json.loads(json.dumps(summary)) == summary


def test_each_cut_of_the_records_has_a_summary(records):
    """An interrupted test leaves some first part of the records; each must give a report."""
    for length in (1, 2, 3, 50, len(records) - 1):
        summary = summarise(records[:length])
        assert summary["end_reason"].startswith("cut off")
        assert console_table(summary)


def test_without_a_look_at_the_cluster_the_replicas_are_not_invented(records):
    kept = [record for record in records if record["kind"] not in ("cluster", "event")]
    summary = summarise(kept)
    assert summary["headline"].startswith("Replicas not seen, ")
    assert summary["times"]["first_scale_up_s"] is None


def test_one_size_is_said_as_such(records):
    kept = [record for record in records if record["t"] < 70]
    assert summarise(kept)["headline"].startswith("Stayed at 1 replica, ")


def test_a_sender_that_runs_late_is_said(records):
    late = [{**r, "pacing_lag_ms": [100.0] * len(r["pacing_lag_ms"])} if r["kind"] == "streams" else r for r in records]
    assert not any("sender" in note for note in summarise(records)["notes"])
    assert any("The sender itself ran late" in note for note in summarise(late)["notes"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.0, "0"),
        (12, "12"),
        (26.03, "26.03"),
        (552.0, "552"),
        ([1, 3, 1], "1 → 3 → 1"),
        ([], "-"),
    ],
)
def test_figures_for_people(value, text):
    assert shown(value) == text


def stream(state, chunks=100, answered=100, late=0):
    return {"state": state, "chunks": chunks, "answered": answered, "late": late}


@pytest.mark.parametrize(
    ("streams", "percent"),
    [
        ([], 0.0),
        ([stream("finished")], 0.0),
        ([stream("finished", late=10)], 10.0),
        ([stream("finished"), stream("refused", answered=0)], 50.0),  # with all its chunks
        ([stream("finished"), stream("failed", answered=60, late=10)], 25.0),
        ([stream("finished", answered=95)], 5.0),
        ([stream("stopped", answered=50, late=5)], 10.0),  # what the end of the test cut is no fault
    ],
)
def test_bad_service_is_what_came_late_or_not_at_all(streams, percent):
    assert bad_service(streams)["percent"] == percent


def test_a_pod_costs_from_its_creation_until_it_is_gone():
    pods = [{"name": "a"}, {"name": "b"}]
    samples = [
        {"t": 0.0, "pods": pods[:1], "gpus_per_pod": 2},
        {"t": 10.0, "pods": pods, "gpus_per_pod": 2},  # one loads, or drains
        {"t": 20.0, "pods": pods[:1], "gpus_per_pod": 2},
    ]
    assert cost_figures(samples, 30.0) == {"pod_seconds": 40, "gpu_seconds": 80, "gpus_per_pod": 2}
    assert cost_figures([], 30.0) == {"pod_seconds": 0, "gpu_seconds": 0, "gpus_per_pod": None}


def test_streams_of_each_pod(records):
    found = summarise(records)["streams_per_pod"]
    assert (found["source"], found["limit"], found["most"]) == ("counted", 20, 40)
    assert [pod["name"][-5:] for pod in found["pods"]] == ["aaaaa", "bbbbb", "ccccc"]
    assert found["pods"][1]["most"] == 20


def test_streams_that_a_server_names_are_counted_by_their_times():
    ready = [{"name": name, "ready": "x", "leaving": False} for name in "ab"]
    records = [
        *({"kind": "stream", "pod": "a", "opened": o, "t": e} for o, e in ((0, 5), (1, 9), (6, 9))),
        {"kind": "cluster", "t": 2.0, "pods": ready, "metrics": []},
        {"kind": "cluster", "t": 5.0, "pods": ready, "metrics": []},
    ]
    assert pod_streams_over_time(records) == (
        "named by the server",
        [(2.0, {"a": 2, "b": 0}), (5.0, {"a": 1, "b": 0})],
    )


def test_capacity_comes_from_the_limit_of_the_pods_else_from_the_calibration(records):
    assert summarise(records)["capacity"] == {
        "streams_per_pod": 20, "source": "limit of the pods", "at_most_ready": 60, "at_max_replicas": 80,
        "used_percent": 50.0,
    }  # fmt: skip
    bare = [{**record, "limits": {}} if record["kind"] == "cluster" else record for record in records]
    assert summarise(bare)["capacity"]["source"] == "unknown"
    bare[0] = {**bare[0], "plan": {**bare[0]["plan"], "stream_limit": 25}}
    assert summarise(bare)["capacity"]["at_max_replicas"] == 100


def test_refusals_have_an_allowance_of_their_own(records):
    refused = [{**r, "state": "refused"} if r["kind"] == "stream" and r["state"] == "failed" else r for r in records]
    summary = summarise(refused)
    assert verdict(summary, 0, None, 1) == []
    (problem,) = verdict(summary, 0, None, 0)
    assert "1 of 351 streams were refused, 0 may (max_refused_streams)" in problem
    assert "1 were refused" in summary["headline"]


def test_the_curves_of_a_summary(records):
    summary = summarise(records)
    series = summary["series"]
    count = len(series["t"])
    assert series["step_s"] == 2.0  # 385 s in at most 240 points
    assert {len(series[key]) for key in ("desired", "ready", "level", "in_flight", "failed", "gpu_seconds")} == {count}
    assert len(series["latency_ms"]["p95"]) == len(series["metrics"][0]["values"]) == count
    assert series["ready"][0] is None  # not looked at yet
    assert max(series["ready"][2:]) == 3
    assert series["failed"][-1] == 1
    assert series["gpu_seconds"][-1] == pytest.approx(summary["gpu_seconds"], rel=0.02)
    assert max(series["streams_per_pod"]["most"][2:]) == 40
    assert len(json.dumps(series)) < 40_000


def test_records_of_an_earlier_version_still_have_a_summary(records):
    new = {"refused", "pod", "real_time_factor", "gpus_per_pod", "streams", "streams_source", "limits"}
    old = [{key: value for key, value in record.items() if key not in new} for record in records]
    summary = summarise(old)
    assert summary["streams_per_pod"] == {"source": "unseen", "limit": None, "most": None, "pods": []}
    assert summary["gpu_seconds"] == 0
    assert console_table(summary)

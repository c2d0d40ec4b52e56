# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Presets, calibration, and what follows from them; what is refused; and that the chart writes the same HPA."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import riva_values, scaling_plan

from tests.unit import charts
from tests.unit.roles.test_riva_values import SETTINGS as VALUES_SETTINGS

SETTINGS = {**VALUES_SETTINGS, "calibration": {}}
KNOWN = {"stream_limit": 30, "planned_streams": 29, "model_load_seconds": 30}


def plan(preset="balanced", calibration=None, settings=None, **service):
    chosen = {**SETTINGS, "scaling_preset": preset, **(settings or {})}
    return scaling_plan.plan({"name": "riva-asr", **service}, calibration, chosen)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            KNOWN,
            {
                "stream_limit": 30,
                "planned_streams": 29,
                "horizon_seconds": 49,
                "spare_streams": 51,
                "spare_share": 0.105,
            },
        ),
        (KNOWN, {"queue_time_target_ms": 150, "metric": "avg_time_queue_ms", "chunks_per_second": 6.25}),
        ({"preset": "economy", **KNOWN}, {"spare_streams": 14, "spare_share": 0.03}),
        ({"preset": "latency", **KNOWN}, {"spare_streams": 72, "spare_share": 0.15}),
        ({"preset": "economy", "scaling_preset": "latency", **KNOWN}, {"preset": "latency", "spare_streams": 72}),
        ({**KNOWN, "spare_pods": 0}, {"spare_streams": 0, "spare_share": 0}),
        ({**KNOWN, "spare_pods": 1}, {"spare_streams": 29}),
        ({"stream_limit": 30}, {"planned_streams": 29, "horizon_seconds": 0}),
        ({"stream_limit": 1}, {"planned_streams": 1}),
        # Without a limit the streams are estimated, and the demand can still be planned for.
        ({"planned_streams": 29}, {"stream_limit": None, "planned_streams": 29, "queue_time_target_ms": 150}),
        # Nothing is known: queue time alone, with an early target.
        (
            {},
            {
                "stream_limit": None,
                "planned_streams": None,
                "spare_streams": 0,
                "spare_share": 0,
                "queue_time_target_ms": 10,
            },
        ),
        ({"queue_time_target_ms": 20, **KNOWN}, {"queue_time_target_ms": 20}),
        ({"settings": {"queue_time_target_ms": 7.0}}, {"queue_time_target_ms": 7}),
        ({"settings": {"queue_time_target_ms": 0}}, {"queue_time_target_ms": 10}),
        ({"latency_objective_ms": 200, **KNOWN}, {"queue_time_target_ms": 100}),
        # The article as printed, whatever was calibrated.
        (
            {"preset": "article", "calibration": {"riva-asr": KNOWN}},
            {
                "stream_limit": None,
                "planned_streams": None,
                "queue_time_target_ms": 0.5,
                "metric": "article_avg_time_queue_ms",
                "min_replicas": 1,
                "max_replicas": 3,
                "behavior": scaling_plan.API_DEFAULT_BEHAVIOR,
            },
        ),
        ({"preset": "article", "queue_time_target_ms": 10}, {"queue_time_target_ms": 10}),
        (
            {"preset": "article", "calibration": {"riva-asr": {"queue_time_target_ms": 9}}},
            {"queue_time_target_ms": 0.5},
        ),
        # What the service sets itself wins over what was calibrated; another service's calibration is not its own.
        ({"calibration": {"riva-asr": KNOWN}, "stream_limit": 25}, {"stream_limit": 25, "planned_streams": 29}),
        ({"calibration": {"riva-asr": {"max_replicas": 8}}}, {"max_replicas": 8, "min_replicas": 1}),
        ({"calibration": {"riva-asr": {"max_replicas": 8}}, "max_replicas": 2}, {"max_replicas": 2}),
        ({"calibration": {"riva-asr": {"queue_time_target_ms": 42.5}}}, {"queue_time_target_ms": 42.5}),
        ({"calibration": {"other": KNOWN}}, {"stream_limit": None}),
        ({"calibration": {"riva-asr": {"longest_stream_seconds": 77}}}, {"longest_stream_seconds": 77}),
        ({"settings": {"scrape_interval": 5}, **KNOWN}, {"horizon_seconds": 44}),
    ],
)
def test_plan(arguments, expected):
    found = plan(**arguments)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("load", "calm", "one", "fifth"),
    [(0, 120, 30, 60), (30, 120, 30, 60), (90, 360, 90, 180), (300, 1200, 300, 600), (3600, 1800, 300, 600)],
)
def test_what_is_given_away_slowly_when_it_takes_long_to_come_back(load, calm, one, fifth):
    down = scaling_plan.behavior(load)["scaleDown"]
    assert down["stabilizationWindowSeconds"] == calm
    assert [(p["type"], p["value"], p["periodSeconds"]) for p in down["policies"]] == [
        ("Pods", 1, one),
        ("Percent", 20, fifth),
    ]
    assert scaling_plan.behavior(load)["scaleUp"] == scaling_plan.API_DEFAULT_BEHAVIOR["scaleUp"]


@pytest.mark.parametrize("preset", scaling_plan.PRESETS)
@pytest.mark.parametrize("figures", [KNOWN, {"planned_streams": 29}, {}], ids=["limit", "no limit", "nothing known"])
def test_the_chart_writes_the_hpa_of_the_rule_set(preset, figures):
    service = {"name": "riva-asr", **({} if preset == "article" else figures)}
    settings = {**SETTINGS, "scaling_preset": preset}
    values = riva_values.chart_values(service, settings)
    objects = charts.rendered(charts.RIVA, values, namespace="speech")
    (hpa,) = [item for item in objects if item["kind"].startswith("Horizontal")]
    chosen = scaling_plan.plan(service, {}, settings)
    assert hpa["spec"]["metrics"] == scaling_plan.hpa_metrics("riva-asr", chosen)
    assert hpa["spec"]["behavior"] == chosen.behavior


def check(services, calibration=None, preset="balanced"):
    return scaling_plan.check_scaling(services, calibration, preset)


WRONG = [
    ({"planned_streams": 31, "stream_limit": 30}, {}, "planned_streams 31 is more than stream_limit 30", "30 or less"),
    ({"planned_streams": 31}, {"stream_limit": 30}, "planned_streams 31 is more than stream_limit 30", "30 or less"),
    ({"stream_limit": 0}, {}, "riva-asr: stream_limit is 0", "a whole number, 1 or more"),
    ({"spare_pods": -1}, {}, "spare_pods is -1", "or more"),
    ({"model_load_seconds": 0}, {}, "model_load_seconds is 0", "a number above 0"),
    ({"scaling_preset": "article", "stream_limit": 30}, {}, "stream_limit is set, but the preset", "Remove"),
    ({"stream_limit": 9}, {"max_replicas": 2, "min_replicas": 3}, "min_replicas 3 is more than", "riva_calibration"),
    ({}, {"stream_limt": 30}, "riva_calibration.riva-asr.stream_limt is not known", "Did you mean stream_limit?"),
    ({}, {"stream_limit": "many"}, "riva_calibration.riva-asr.stream_limit is 'many'", "a whole number, 1 or more"),
    ({}, {"stream_limit": 1.5}, "stream_limit is 1.5", "a whole number"),
    ({}, {"model_load_seconds": True}, "model_load_seconds is True", "a number above 0"),
    ({}, [], "riva_calibration.riva-asr is []", "calibrate.yml"),
]  # fmt: skip


@pytest.mark.parametrize(("service", "measured", "message", "remedy"), WRONG)
def test_what_is_refused(service, measured, message, remedy):
    found = [
        item for item in check([{"name": "riva-asr", **service}], {"riva-asr": measured}) if item["status"] == "failed"
    ]
    assert len(found) == 1, found
    assert message in found[0]["message"]
    assert remedy in found[0]["remedy"]


def test_a_calibration_of_another_service_is_a_warning():
    (found,) = check([{"name": "riva-asr", "stream_limit": 30}], {"riva-as": KNOWN})
    assert (found["status"], found["subject"]) == ("warning", "riva_calibration.riva-as")
    assert "riva-asr" in found["remedy"]


def test_a_service_without_figures_is_told_how_to_get_them():
    (found,) = check([{"name": "riva-asr"}])
    assert found["status"] == "warning"
    assert "playbooks/calibrate.yml" in found["remedy"]
    assert check([{"name": "riva-asr"}], preset="article") == []


@pytest.mark.parametrize(
    ("services", "calibration", "preset"),
    [
        ([{"name": "riva-asr", **KNOWN}], None, "balanced"),
        ([{"name": "riva-asr"}], {"riva-asr": KNOWN}, "economy"),
        ([{"name": "riva-asr", "spare_pods": 0, **KNOWN}], {}, "latency"),
        (None, None, "article"),
        ("not a list", None, "balanced"),
    ],
)
def test_nothing_is_wrong(services, calibration, preset):
    assert check(services, calibration, preset) == []


@pytest.mark.parametrize(
    ("services", "nodes", "message", "remedy"),
    [
        ([{"name": "a", "max_replicas": 4}], [2, 2], None, None),
        ([{"name": "a", "max_replicas": 5}], [2, 2], "only 4 pods of 1 GPU fit", "Set max_replicas of a to 4"),
        ([{"name": "a", "max_replicas": 2, "gpus": 2}], [3, 1], "only 1 pods of 2 GPU fit", "to 1"),
        ([{"name": "a"}, {"name": "b"}], [2, 2], "may grow to 6 GPUs, but the nodes have 4", "Lower max_replicas"),
        # No GPU yet: the GPU Operator is still to come.
        ([{"name": "a", "max_replicas": 50}], [0, 0], None, None),
        ([{"name": "a", "max_replicas": 50}], [], None, None),
    ],
)
def test_more_pods_than_gpus(services, nodes, message, remedy):
    found = scaling_plan.check_gpus(scaling_plan.gpus_needed(services), nodes)
    if message is None:
        assert found == []
    else:
        assert [item["status"] for item in found] == ["warning"]
        assert message in found[0]["message"]
        assert remedy in found[0]["remedy"]


@pytest.mark.parametrize(
    ("measured", "fetches", "seconds"),
    [
        (None, False, 3600),
        (0, False, 3600),
        # Ten loads, within what is set and what is sensible.
        (90, False, 900),
        (90.25, False, 903),
        (5, False, 300),
        (500, False, 3600),
        # A NIM may build an engine first.
        (90, True, 3600),
    ],
)
def test_a_pod_that_loads_far_longer_than_measured_is_started_anew(measured, fetches, seconds):
    assert scaling_plan.startup_seconds(3600, measured, fetches) == seconds


def test_the_measured_load_is_the_services_own_or_the_calibrated_one():
    assert scaling_plan.measured_load({"name": "a", "model_load_seconds": 7}, {"a": {"model_load_seconds": 9}}) == 7
    assert scaling_plan.measured_load({"name": "a"}, {"a": {"model_load_seconds": 9}}) == 9
    assert scaling_plan.measured_load({"name": "b"}, {"a": {"model_load_seconds": 9}}) is None

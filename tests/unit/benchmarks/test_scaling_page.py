# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Replays as load tests: the page says what the replay counted. And what the lab's comparison hands to it."""

import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.action.preflight import specs
from ansible_collections.speechops.riva.plugins.module_utils import (
    input_chart_values,
    inputs,
    report_compare,
    scaling_plan,
)

from tests.benchmarks.scaling import on_lab, page, recorded, rules, traces
from tests.benchmarks.scaling.replay import Cluster, Replay
from tests.benchmarks.scaling.service import ServiceModel

CHART_VALUES = Path(__file__).resolve().parents[3] / "roles/riva/files/chart/values.yaml"
SERVICE = ServiceModel()
CLUSTER = Cluster()
SHORT = traces.Trace("short", ((0, 20), (60, 20), (90, 90), (150, 90), (240, 10), (300, 10)), warm_up=60)


@pytest.fixture(scope="module")
def summaries():
    chosen = {"peers, 20 streams": rules.peer(20), "balanced": rules.demand(SERVICE, 30, 1.75)}
    return {name: page.summary(name, rule, SHORT, CLUSTER, SERVICE) for name, rule in chosen.items()}


def test_the_summary_says_what_the_replay_counted(summaries):
    counts, lengths = traces.draw_streams(SHORT, CLUSTER.step, 0)
    outcome = Replay(CLUSTER, SERVICE, rules.demand(SERVICE, 30, 1.75), counts, lengths, SHORT.warm_up, 0).run()
    found = summaries["balanced"]
    assert found["bad_service"]["percent"] == pytest.approx(100 * outcome.bad, abs=0.001)
    assert found["streams"]["opened"] == outcome.streams
    assert found["streams"]["refused"] == outcome.streams_refused
    # A look each five seconds, so a pod more or less for so long.
    assert found["pod_seconds"] == pytest.approx(outcome.pod_seconds, rel=0.05)
    assert found["replicas"]["max"] == CLUSTER.maximum
    assert found["replicas"]["most_desired"] > 1


def test_the_metrics_are_those_of_the_rule(summaries):
    names = [metric["name"] for metric in summaries["balanced"]["hpa"]["metrics"]]
    assert names == ["speech_streams_demand", "avg_time_queue_ms"]
    (streams,) = summaries["peers, 20 streams"]["hpa"]["metrics"]
    assert streams["target"] == 20
    assert streams["max"] > 20


def test_the_page_compares_them_without_a_doubt(summaries, tmp_path):
    text = report_compare.render(list(summaries.values()))
    assert report_compare.doubts(report_compare.prepared(list(summaries.values()))) == []
    assert "balanced" in text
    # A replay knows no latencies: no empty picture of them.
    assert "Latency p95" not in text
    assert "line-ready-1" in text
    file = report_compare.write_comparison(str(tmp_path), list(summaries.values()))
    assert file.endswith("index.html")


def test_the_page_shows_the_presets_and_the_others():
    assert list(page.shown_rules(SERVICE, 30))[3:] == list(scaling_plan.SPARE_PODS)
    assert len(page.shown_rules(SERVICE, 30)) <= report_compare.MOST_TESTS


@pytest.mark.parametrize("rule", on_lab.services())
def test_what_the_lab_gets_is_what_is_replayed(rule):
    item, settings = on_lab.item(rule), json.loads(json.dumps(on_lab.settings(rule)))
    assert not [found for found in scaling_plan.check_scaling([item]) if found["status"] == "failed"]
    plan = scaling_plan.plan(item, {}, {})
    assert plan.max_replicas == settings["cluster"]["maximum"]
    if rule.startswith("article"):
        assert settings["rule"]["queue_time"]["target_ms"] == plan.queue_time_target_ms
        assert plan.planned_streams is None
    else:
        assert settings["rule"]["demand"]["streams_per_pod"] == plan.planned_streams
        assert settings["rule"]["demand"].get("spare_streams", 0) == plan.spare_streams
        assert settings["rule"]["demand"].get("horizon", 0) == plan.horizon_seconds
    recording = {
        "settings": settings,
        "streams": [[1.0, 9.0]] * 12,
        "samples": [[float(at), 1, 1, 0] for at in range(60)],
    }
    history = recorded.replay(recording, 3, 5)
    assert max(entry["replicas"] for entry in history) > 1 or rule != "balanced"
    assert len(recorded.compare(recording, history)) == 60


@pytest.mark.parametrize("rule", on_lab.services())
def test_what_the_lab_gets_is_not_refused(rule):
    item = on_lab.item(rule)
    options, _roles = specs()
    assert inputs.check_value("riva_services", options["riva_services"], [item]) == []
    known = yaml.safe_load(CHART_VALUES.read_text())
    assert input_chart_values.check_chart_values("values", item.get("values") or {}, known) == []


def test_labs_share_the_runs_and_one_that_fails_takes_no_more(tmp_path):
    runs = [("balanced", tmp_path / f"balanced-{number}") for number in range(5)]
    made = []

    def make(lab, run):
        if lab == "broken":
            raise on_lab.RunError("no pod")
        made.append(run)

    assert on_lab.share_out(runs, ["broken", "sound"], make) == ["no pod"]
    # What the broken one took comes again when the same is typed again.
    assert len(made) == 4
    assert on_lab.share_out(runs, ["sound"], make, until="00:00") == [
        "sound: no time for more; type the same again to go on"
    ]
    assert len(made) == 4

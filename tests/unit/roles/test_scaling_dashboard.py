# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The dashboard comes from the rule set, is filled in by the chart, and its queries are PromQL."""

from __future__ import annotations

import json

import yaml
from ansible_collections.speechops.riva.plugins.module_utils import scaling_dashboard, scaling_rules

from docs import generate
from tests.unit import charts
from tests.unit.prometheus import holds, promtool


def queries(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_charts_file_is_what_the_rule_set_makes():
    assert generate.DASHBOARD.read_text(encoding="utf-8") == generate.dashboard(), "run: python docs/generate.py"


def test_the_chart_fills_it_in_for_its_release():
    values = {
        "autoscaling": {
            "maxReplicas": 5,
            "demand": {"plannedStreams": 19, "horizonSeconds": 31, "spareStreams": 33, "spareShare": 0.105},
        }
    }
    objects = charts.rendered(charts.RIVA, values, "riva-tts", "speech")
    (item,) = [item for item in objects if item["metadata"]["name"] == "riva-tts-dashboard"]
    assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = item["data"].values()
    wanted = scaling_dashboard.dashboard("speech", "riva-tts", 31, 33, 0.105, 19, 5)
    assert json.loads(text) == wanted
    assert scaling_rules.demand_query("speech", "riva-tts", 31, 33, spare_share=0.105) in queries(wanted)


def test_each_panel_has_a_place_of_its_own():
    panels = scaling_dashboard.dashboard("speech", "riva-asr", 31, 33, 0.105, 19, 5)["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len({panel["id"] for panel in panels}) == len(panels)


def test_every_query_is_promql(tmp_path):
    found = queries(scaling_dashboard.dashboard("speech", "riva-asr", 31, 33, 0.105, 19, 5))
    rules = [{"record": f"query_{at}", "expr": query} for at, query in enumerate(found)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_free_gpus_are_those_that_no_living_pod_asks_for(tmp_path):
    free, _all = scaling_dashboard.free_gpus()
    gpu, phase = 'resource="nvidia_com_gpu"', "kube_pod_status_phase"
    series = {
        f'kube_node_status_allocatable{{node="a",{gpu}}}': 4,
        f'kube_node_status_allocatable{{node="b",{gpu}}}': 4,
        'kube_node_status_allocatable{node="b",resource="cpu"}': 64,
        f'kube_pod_container_resource_requests{{namespace="riva",pod="one",container="riva",{gpu}}}': 2,
        f'kube_pod_container_resource_requests{{namespace="riva",pod="over",container="riva",{gpu}}}': 1,
        f'kube_pod_container_resource_requests{{namespace="riva",pod="waits",container="riva",{gpu}}}': 1,
        f'{phase}{{namespace="riva",pod="one",phase="Running"}}': 1,
        f'{phase}{{namespace="riva",pod="one",phase="Succeeded"}}': 0,
        f'{phase}{{namespace="riva",pod="over",phase="Running"}}': 0,
        f'{phase}{{namespace="riva",pod="over",phase="Succeeded"}}': 1,
        f'{phase}{{namespace="riva",pod="waits",phase="Pending"}}': 1,
    }
    nobody = {name: value for name, value in series.items() if "requests" not in name}

    def case(values, wanted):
        return {
            "input_series": [{"series": name, "values": f"{value}x4"} for name, value in values.items()],
            "promql_expr_test": [{"expr": free, "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": wanted}]}],
        }

    holds(tmp_path, case(series, 5), case(nobody, 8))

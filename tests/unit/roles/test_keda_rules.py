# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""KEDA's queries: those of the rule set, as the chart makes them, and what Prometheus makes of them."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import keda_rules, scaling_rules

from tests.unit import charts
from tests.unit.prometheus import holds


def rendered(values):
    return {item["kind"]: item for item in charts.rendered(charts.RIVA, values, namespace="speech")}


def scaled(minimum=1, interval="15s", **keda):
    demand = {"plannedStreams": 19, "horizonSeconds": 31, "spareStreams": 33, "spareShare": 0.1}
    found = rendered(
        {
            "serviceMonitor": {"interval": interval},
            "autoscaling": {"kind": "keda", "minReplicas": minimum, "demand": demand, "keda": keda},
        }
    )
    assert "HorizontalPodAutoscaler" not in found
    return found["ScaledObject"]["spec"]


@pytest.mark.parametrize("interval", [5, 15, 30])
def test_the_chart_asks_what_the_rule_set_asks(interval):
    queries = [trigger["metadata"]["query"] for trigger in scaled(0, f"{interval}s")["triggers"]]
    figures = {"horizon_seconds": 31, "spare_streams": 33, "spare_share": 0.1, "scrape_interval": interval}
    wanted = [
        keda_rules.queue_time("speech", "riva-asr", interval),
        keda_rules.demand("speech", "riva-asr", **figures),
    ]
    wanted = [keda_rules.at_zero(query, "speech", "riva-asr") for query in wanted]
    assert queries == [*wanted, keda_rules.wake_query("speech", "riva-asr")]


def test_with_a_pod_at_least_there_is_no_way_down_to_zero_and_no_answer_is_an_error():
    spec = scaled(2)
    assert [trigger["metadata"]["threshold"] for trigger in spec["triggers"]] == ["10", "19"]
    assert all(trigger["metadata"]["ignoreNullValues"] == "false" for trigger in spec["triggers"])
    assert all("absent" not in trigger["metadata"]["query"] for trigger in spec["triggers"])
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}


def test_the_hpa_that_keda_makes_has_the_name_and_the_behaviour_that_the_charts_own_has():
    spec = scaled()
    hpa = rendered({})["HorizontalPodAutoscaler"]
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["name"] == hpa["metadata"]["name"]
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["spec"]["behavior"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"autoscaling": {"minReplicas": 0}}, "only autoscaling.kind keda can wake"),
        ({"autoscaling": {"kind": "keda"}, "serviceMonitor": {"interval": "1m"}}, "give it in seconds"),
        ({"autoscaling": {"kind": "keda", "extraMetrics": [{"type": "Pods"}]}}, "extraTriggers"),
        ({"autoscaling": {"kind": "vpa"}}, "autoscaling.kind"),
    ],
)
def test_what_can_not_work_is_refused(values, words):
    assert words in charts.refusal(charts.RIVA, values).replace("/", ".")


# What Prometheus says: (series, minute, answer); the windows are those of 15 s scrapes.
ROUTER = 'traefik_router_requests_total{namespace="traefik",router="riva-riva-asr-0123abcd@kubernetescrd",code="%s"}'
OTHER = 'traefik_router_requests_total{namespace="traefik",router="riva-riva-tts-0123abcd@kubernetescrd",code="503"}'
UP = 'up{namespace="traefik",pod="t"}'
TARGET = 'up{namespace="riva",service="riva-asr",pod="p"}'
QUEUE = 'nv_inference_queue_duration_us{namespace="riva",service="riva-asr",pod="%s"}'
DONE = 'nv_inference_request_success{namespace="riva",service="riva-asr",pod="%s"}'
WAKE = keda_rules.wake_query("riva", "riva-asr")
GUARD = keda_rules.at_zero(keda_rules.queue_time("riva", "riva-asr"), "riva", "riva-asr")
CASES = {
    "nobody called": ({UP: "1x40", ROUTER % 503: "4x40"}, WAKE, [0]),
    "nobody ever called": ({UP: "1x40"}, WAKE, [0]),
    "the first call of all": ({UP: "1x40", ROUTER % 503: "_x36 1x4"}, WAKE, [1]),
    "one call more": ({UP: "1x40", ROUTER % 503: "4x36 5x4"}, WAKE, [1]),
    "many calls": ({UP: "1x40", ROUTER % 503: "4x36 900x4"}, WAKE, [1]),
    "a call long ago": ({UP: "1x40", ROUTER % 503: "4x10 5x30"}, WAKE, [0]),
    "a call to another service": ({UP: "1x40", OTHER: "4x36 5x4"}, WAKE, [0]),
    "Traefik started again, nobody called": ({UP: "1x40", ROUTER % 503: "9x30 _x10"}, WAKE, [0]),
    "Traefik is not scraped": ({ROUTER % 503: "4x36 5x4"}, WAKE, []),
    "Traefik is down": ({UP: "1x36 0x4", ROUTER % 503: "4x40"}, WAKE, []),
    "zero pods": ({}, GUARD, [0]),
    "a pod that exports nothing": ({TARGET: "0x40"}, GUARD, []),
    "two pods wait 3 ms and 5 ms": (
        {
            TARGET: "1x40",
            QUEUE % "a": "0+30000x40",
            DONE % "a": "0+10x40",
            QUEUE % "b": "0+50000x40",
            DONE % "b": "0+10x40",
        },
        GUARD,
        [8],
    ),
}


def test_what_prometheus_makes_of_the_queries(tmp_path):
    tests = [
        {
            "name": name,
            "input_series": [{"series": key, "values": values} for key, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f"sum({query})",
                    "eval_time": "10m",
                    "exp_samples": [{"labels": "{}", "value": value} for value in answer],
                }
            ],
        }
        for name, (series, query, answer) in CASES.items()
    ]
    holds(tmp_path, *tests)


def test_the_placeholders_are_no_part_of_another_word():
    for text in keda_rules.chart_queries().values():
        assert str(keda_rules.SCRAPE_SENTINEL) not in text
    assert scaling_rules.SCRAPES_PER_WINDOW != 7

"""Streams of each pod: the sidecar's count where there is one, else what the throughput says."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import (
    Prometheus,
    estimate_query,
    read_streams,
)

LIMIT = "sum by (pod) (haproxy_server_limit_sessions"


def vector(**pods):
    result = [{"metric": {"pod": pod.replace("_", "-")}, "value": [0, str(value)]} for pod, value in pods.items()]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def asking(answers):
    def ask(query):
        return next((answer for part, answer in answers.items() if part in query), vector())

    return ask


@pytest.mark.parametrize(
    ("answers", "source", "in_flight", "limits"),
    [
        (
            {"current_sessions": vector(a=6, b=8), LIMIT: vector(a=8, b=8), "nv_": vector(a=1)},
            "counted",
            {"a": 6, "b": 8},
            {"a": 8, "b": 8},
        ),
        ({"current_sessions": vector(a=0)}, "counted", {"a": 0}, {}),
        ({"nv_": vector(a=6.04)}, "estimated", {"a": 6.0}, {}),
        ({}, "unseen", {}, {}),
    ],
)
def test_the_best_source_is_taken(answers, source, in_flight, limits):
    found = read_streams(asking(answers), "riva", "riva-asr")
    assert (found.source, found.in_flight, found.limits) == (source, in_flight, limits)


def test_the_queries_ask_for_one_service_only():
    asked = []
    read_streams(lambda query: asked.append(query) or vector(), "riva", "riva-asr")
    assert all('namespace="riva",service="riva-asr"' in query for query in asked)
    assert estimate_query("riva", "riva-asr", 80).endswith("* 0.08")


def test_prometheus_is_asked_through_the_api_server():
    assert Prometheus().query_path == (
        "/api/v1/namespaces/monitoring/services/http:kube-prometheus-stack-prometheus:9090/proxy/api/v1/query"
    )

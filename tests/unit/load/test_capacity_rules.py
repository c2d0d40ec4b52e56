"""Capacity in sight: what a service carries, what of it is in use, and how it is told."""

import json

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.capacity_rules import (
    Gpus,
    document,
    missing_row,
    remarks,
    service_row,
    state_of,
    table,
)
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import Streams
from ansible_collections.speechops.riva.plugins.modules import speech_capacity

COUNTED = Streams("counted", {"a": 12, "b": 7}, {"a": 20, "b": 20})


def hpa(least=1, most=4, desired=2):
    return {"spec": {"minReplicas": least, "maxReplicas": most}, "status": {"desiredReplicas": desired}}


def deployment(ready=2, replicas=2, gpus=1):
    limits = {"nvidia.com/gpu": gpus}
    pod = {"spec": {"containers": [{"resources": {"limits": limits}}]}}
    return {
        "spec": {"replicas": replicas, "template": pod, "selector": {"matchLabels": {"app": "x"}}},
        "status": {"readyReplicas": ready},
    }


def pods(*phases):
    return [{"metadata": {"name": f"p{n}"}, "status": {"phase": phase}} for n, phase in enumerate(phases)]


def ready_pod(name):
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-20T10:00:00Z"}]
    return {"metadata": {"name": name}, "status": {"phase": "Running", "conditions": conditions}}


def row(streams=COUNTED, calibrated=None, fitting=2, the_hpa=None, **changed):
    there = changed.pop("pods", [ready_pod("a"), ready_pod("b")][: changed.get("ready", 2)])
    return service_row("riva", "riva-asr", the_hpa or hpa(), deployment(**changed), there, streams, calibrated, fitting)


def test_a_service_with_a_limit():
    found = row()
    assert (found["streams"], found["streams_per_pod"], found["carries_now"], found["carries_at_most"]) == (
        19,
        20,
        40,
        80,
    )
    assert (found["used_percent"], found["used_of_most_percent"], found["state"]) == (47.5, 23.8, "room")
    assert found["replicas"] == {"ready": 2, "desired": 2, "min": 1, "max": 4, "reachable": 4, "waiting": 0}
    assert found["gpus_per_pod"] == 1
    assert remarks(found) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # The pods' own limit counts more than the calibration.
        ({"calibrated": 30}, {"streams_per_pod": 20, "streams_per_pod_source": "limit of the pods"}),
        (
            {"streams": Streams("estimated", {"a": 9.7}, {}), "calibrated": 30},
            {"streams": 9.7, "streams_per_pod": 30, "streams_per_pod_source": "calibration", "carries_now": 60},
        ),
        (
            {"streams": Streams("estimated", {"a": 9.7}, {})},
            {"streams_per_pod": None, "carries_now": None, "used_percent": None, "state": "unknown"},
        ),
        ({"streams": Streams("unseen", {}, {}), "calibrated": 30}, {"streams": None, "state": "unknown"}),
        # No more pods than GPUs: one is free, so three of four.
        ({"fitting": 1}, {"carries_at_most": 60}),
        # One waits for a GPU that there is not.
        (
            {"fitting": 0, "pods": pods("Running", "Running", "Pending")},
            {"carries_at_most": 40},
        ),
        # A pod that is over holds nothing.
        ({"fitting": 0, "pods": pods("Running", "Running", "Failed")}, {"carries_at_most": 40}),
        ({"fitting": 9}, {"carries_at_most": 80}),
        # Both pods are full, and so unready; they carry what they carry.
        ({"ready": 0}, {"carries_now": 40, "used_percent": 47.5}),
        # One still loads its models: it has a limit, and nothing to serve with.
        ({"ready": 1, "streams": Streams("counted", {"a": 12, "b": 0}, {"a": 20, "b": 20})}, {"carries_now": 20}),
    ],
)
def test_what_is_known_and_what_is_not(arguments, expected):
    found = row(**arguments)
    assert {key: found[key] for key in expected} == expected


def test_a_service_without_an_hpa_has_the_pods_that_it_has():
    found = service_row("riva", "x", None, deployment(replicas=2), pods("Running", "Running"), COUNTED, None, 5)
    assert (found["replicas"]["max"], found["carries_at_most"]) == (2, 40)


@pytest.mark.parametrize(
    ("used", "at_most", "state"),
    [(None, 40, "unknown"), (3, None, "unknown"), (0, 40, "room"), (33, 40, "room"), (34, 40, "nearly full"),
     (39, 40, "nearly full"), (40, 40, "full"), (0, 0, "full")],
)  # fmt: skip
def test_the_state(used, at_most, state):
    assert state_of(used, at_most) == state


def test_the_table_and_its_remarks():
    found = document(
        "berlin",
        Gpus("nvidia.com/gpu", 4, 1, 2),
        [
            row(fitting=1, pods=pods("Running", "Running", "Pending")),
            row(streams=Streams("estimated", {"a": 9.7}, {})),
            missing_row("riva", "riva-tts", "there is no such speech service"),
        ],
    )
    lines = table(found)
    assert lines[0] == "berlin: 1 of 4 GPUs free on 2 nodes (nvidia.com/gpu)"
    assert lines[1].split("  ")[0] == "SERVICE"
    assert "19           40  48 %       60  2 ready, 2 wanted, 1 to 4  room" in lines[2]
    assert "~9.7" in lines[3]
    assert lines[4].endswith("there is no such speech service")
    text = "\n".join(lines[5:])
    for said in (
        "1 pods are pending",
        "room for 3 of at most 4 pods (1 GPU each)",
        "run playbooks/calibrate.yml",
        "are estimated",
    ):
        assert said in text
    assert json.loads(json.dumps(found)) == found


class FakeCluster:
    """An API server with a service, two GPU nodes, and a Prometheus that may be away."""

    def __init__(self, prometheus=True, exists=True):
        self.prometheus, self.exists = prometheus, exists

    def get(self, path, query=None):
        if "/proxy/" in path:
            if not self.prometheus:
                raise speech_capacity.ClusterError("no Prometheus")
            what = "limit" if query["query"].startswith("sum by (pod) (haproxy_server_limit") else "current"
            value = {"limit": "20", "current": "12"}[what]
            return {"data": {"result": [{"metric": {"pod": "a"}, "value": [0, value]}]}}
        if not self.exists:
            raise speech_capacity.NotFound("gone")
        if "horizontalpodautoscalers" in path:
            return hpa(desired=1)
        return deployment(ready=1) if "deployments" in path else {"items": [ready_pod("a")]}

    def find(self, path):
        return self.get(path)

    def list_all(self, path, project, query=None, fields=None):
        if path.endswith("nodes"):
            items = [
                {
                    "metadata": {
                        "name": name,
                        "labels": {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": "2"},
                    },
                    "spec": {},
                    "status": {
                        "allocatable": {"nvidia.com/gpu": "2"},
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                }
                for name in ("gpu-1", "gpu-2")
            ]
        else:
            container = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
            items = [{"spec": {"nodeName": "gpu-1", "containers": [container]}, "status": {"phase": "Running"}}]
        return [kept for item in items if (kept := project(item)) is not None]


PARAMS = {
    "cluster": "lab", "namespace": "riva", "services": [{"name": "riva-asr", "stream_limit": 25}], "chunk_ms": 160,
    "resource": "nvidia.com/gpu", "prometheus_namespace": "monitoring", "prometheus_service": "p",
    "prometheus_port": 9090,
}  # fmt: skip


def test_one_look_at_a_cluster():
    found = speech_capacity.examine(FakeCluster(), PARAMS)
    assert found["gpus"] == {"resource": "nvidia.com/gpu", "allocatable": 4, "free": 3, "nodes": 2}
    (service,) = found["services"]
    assert (service["streams"], service["carries_now"], service["carries_at_most"]) == (12, 20, 80)


def test_without_prometheus_the_rest_is_still_shown():
    (service,) = speech_capacity.examine(FakeCluster(prometheus=False), PARAMS)["services"]
    assert (service["streams"], service["carries_now"], service["state"]) == (None, 25, "unknown")


def test_a_service_that_is_not_there_is_told_in_its_row():
    (service,) = speech_capacity.examine(FakeCluster(exists=False), PARAMS)["services"]
    assert service["error"] == "there is no such speech service"

"""What is read of the cluster: HPA metrics, pods, events, the balancer's address."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_cluster import (
    EndpointError,
    Watched,
    cluster_record,
    endpoint_of,
    gpus_per_pod,
    metric_values,
    pod_facts,
)
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import Prometheus


def hpa(metrics=(), current=(), desired=1):
    return {
        "spec": {
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": list(metrics),
            "scaleTargetRef": {"kind": "Deployment", "name": "riva-asr"},
        },
        "status": {"desiredReplicas": desired, "currentMetrics": list(current)},
    }


def pods_metric(**values):
    return {"type": "Pods", "pods": {"metric": {"name": "avg_time_queue_ms"}, **values}}


def external_metric(**values):
    return {"type": "External", "external": {"metric": {"name": "riva_streams"}, **values}}


@pytest.mark.parametrize(
    ("metrics", "current", "expected"),
    [
        ([], [], []),
        (
            [pods_metric(target={"type": "AverageValue", "averageValue": "10"})],
            [pods_metric(current={"averageValue": "1500m"})],
            [("avg_time_queue_ms", "averageValue", 10.0, 1.5)],
        ),
        (
            [pods_metric(target={"type": "AverageValue", "averageValue": "10"})],
            [],
            [("avg_time_queue_ms", "averageValue", 10.0, None)],
        ),
        (
            [pods_metric(target={"averageValue": "10"}), external_metric(target={"value": "2k"})],
            [{"type": ""}, external_metric(current={"value": "0"})],
            [("avg_time_queue_ms", "averageValue", 10.0, None), ("riva_streams", "value", 2000.0, 0.0)],
        ),
        (
            [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }
            ],
            [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "current": {"averageUtilization": 35, "averageValue": "35m"}},
                }
            ],
            [("cpu", "averageUtilization", 80.0, 35.0)],
        ),
    ],
)
def test_metrics_are_paired_with_their_targets(metrics, current, expected):
    found = metric_values(hpa(metrics, current))
    assert [(m["name"], m["kind"], m["target"], m["value"]) for m in found] == expected


def test_a_pod_without_status_is_not_ready():
    facts = pod_facts({"metadata": {"name": "a", "creationTimestamp": "2026-11-20T10:00:00Z"}})
    assert (facts["ready"], facts["node"], facts["leaving"]) == (None, "", False)


class FakeApi:
    """Answers by the last part of the path."""

    def __init__(self):
        self.events = [self.event("1", "New size: 2; reason: before the test")]
        self.asked = []

    @staticmethod
    def event(uid, message, count=1):
        meta = {"uid": uid, "creationTimestamp": "2026-11-20T10:00:00Z"}
        return {"metadata": meta, "reason": "SuccessfulRescale", "message": message, "count": count}

    def get(self, path, query):
        self.asked.append((path, query))
        if "horizontalpodautoscalers" in path:
            return hpa(desired=2)
        if "deployments" in path:
            labels = {"app.kubernetes.io/name": "riva", "app.kubernetes.io/instance": "riva-asr"}
            status = {"replicas": 2, "readyReplicas": 1}
            return {"spec": {"replicas": 2, "selector": {"matchLabels": labels}}, "status": status}
        return {"items": self.events if path.endswith("/events") else []}


def test_a_look_reads_four_things_and_only_new_events():
    api = FakeApi()
    watched = Watched(api.get, "riva", "riva-asr")
    (state,) = watched.sample()
    assert (state["min"], state["max"], state["desired"], state["replicas"], state["ready"]) == (1, 3, 2, 2, 1)
    assert api.asked[2][1] == {"labelSelector": "app.kubernetes.io/instance=riva-asr,app.kubernetes.io/name=riva"}
    api.events = [api.event("1", "New size: 2; again", 2), api.event("2", "New size: 3; reason: more")]
    assert [record["message"] for record in watched.sample()[1:]] == [
        "New size: 2; again",
        "New size: 3; reason: more",
    ]
    assert len(watched.sample()) == 1
    assert len(api.asked) == 12


def deployment(*limits):
    containers = [{"resources": {"limits": limit} if limit is not None else {}} for limit in limits]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


@pytest.mark.parametrize(
    ("limits", "gpus"),
    [
        ([], 0),
        ([None], 0),
        ([{"cpu": "2"}], 0),
        ([{"nvidia.com/gpu": "1", "memory": "8Gi"}], 1),
        ([{"nvidia.com/gpu": 2}, {"cpu": "1"}], 2),
        ([{"nvidia.com/mig-1g.10gb": "1"}], 1),
    ],
)
def test_gpus_of_a_pod(limits, gpus):
    assert gpus_per_pod(deployment(*limits)) == gpus
    assert gpus_per_pod({"spec": {}}) == 0


def test_streams_come_from_prometheus_and_a_silent_one_is_left_alone_for_a_while():
    api, asked = FakeApi(), []

    def get(path, query):
        if "/proxy/" not in path:
            return api.get(path, query)
        asked.append(query["query"])
        if len(asked) == 1:
            raise OSError("away")
        return {"data": {"result": [{"metric": {"pod": "a"}, "value": [0, "7"]}]}}

    watched = Watched(get, "riva", "riva-asr", Prometheus())
    looks = [watched.sample()[0] for _ in range(12)]
    assert "away" in looks[0]["streams_error"]
    assert all("streams" not in look and "streams_error" not in look for look in looks[1:11])
    assert looks[11]["streams"] == {"a": 7}
    assert looks[11]["streams_source"] == "counted"


def test_a_pod_that_is_over_holds_nothing():
    pods = [{"metadata": {"name": n}, "status": {"phase": p}} for n, p in (("a", "Running"), ("b", "Failed"))]
    deployed = {"spec": {"replicas": 1}}
    assert [pod["name"] for pod in cluster_record(hpa(), deployed, pods)["pods"]] == ["a"]


def service(ingress, ports=({"name": "web", "port": 80}, {"name": "riva-grpc", "port": 50051})):
    return {
        "metadata": {"namespace": "traefik", "name": "traefik"},
        "spec": {"type": "LoadBalancer", "ports": list(ports)},
        "status": {"loadBalancer": {"ingress": ingress} if ingress is not None else {}},
    }


@pytest.mark.parametrize(
    ("ingress", "port", "expected"),
    [
        ([{"ip": "172.30.0.200"}], "riva-grpc", "172.30.0.200:50051"),
        ([{"hostname": "lb.example.com"}], "80", "lb.example.com:80"),
        ([{"ip": "fd00::1"}], "riva-grpc", "[fd00::1]:50051"),
    ],
)
def test_the_address_comes_from_the_balancer(ingress, port, expected):
    assert endpoint_of(service(ingress), port) == expected


@pytest.mark.parametrize(
    ("ingress", "port", "said"),
    [
        (None, "riva-grpc", "no external address"),
        ([], "riva-grpc", "MetalLB"),
        ([{"ip": "172.30.0.200"}], "grpc", "it has: web, riva-grpc"),
    ],
)
def test_a_balancer_without_address_is_explained(ingress, port, said):
    with pytest.raises(EndpointError, match=said):
        endpoint_of(service(ingress), port)

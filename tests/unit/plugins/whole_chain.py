# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A cluster in which the whole chain of the metric works, played by a real HTTP server; tests break it."""

from __future__ import annotations

import json

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import cluster as door
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules

METRIC, SERIES = "avg_time_queue_ms", "nv_inference_queue_duration_us"
APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = "v1beta1.custom.metrics.k8s.io"
CUSTOM = "/apis/custom.metrics.k8s.io/v1beta1"
VALUES = f"{CUSTOM}/namespaces/riva/pods/*/{METRIC}"
HPA = "/apis/autoscaling/v2/namespaces/riva/horizontalpodautoscalers/riva-asr"
DEPLOYMENT = "/apis/apps/v1/namespaces/riva/deployments/riva-asr"
PODS = "/api/v1/namespaces/riva/pods"
SERVICES = "/api/v1/namespaces/riva/services"
MONITORS = "/apis/monitoring.coreos.com/v1/namespaces/riva/servicemonitors"
ALL_MONITORS = "/apis/monitoring.coreos.com/v1/servicemonitors"
PROMETHEUSES = "/apis/monitoring.coreos.com/v1/namespaces/monitoring/prometheuses"
QUERY = "/api/v1/namespaces/monitoring/services/http:kube-prometheus-stack-prometheus:9090/proxy/api/v1"
CONFIG = "/api/v1/namespaces/monitoring/configmaps/prometheus-adapter"
ADAPTER = "/apis/apps/v1/namespaces/monitoring/deployments/prometheus-adapter"
ADAPTER_PODS = "/api/v1/namespaces/monitoring/pods"
PROMETHEUS = "kube-prometheus-stack-prometheus"
TRUST = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
PAGE = f'# TYPE {SERIES} counter\n{SERIES}{{model="asr"}} 5\n'
PODS_ALL = ("riva-asr-1", "riva-asr-2")


def forbidden(what):
    return 403, {"kind": "Status", "reason": "Forbidden", "message": f"{what} is forbidden"}


def apiservice(available="True", reason="Passed", service="prometheus-adapter"):
    return {
        "metadata": {"name": NAME},
        "spec": {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta1",
            "service": {"namespace": "monitoring", "name": service},
        },
        "status": {"conditions": [{"type": "Available", "status": available, "reason": reason, "message": "words"}]},
    }


def pod(name):
    return {
        "metadata": {"name": name, "namespace": "riva", "labels": {"app": "riva"}},
        "spec": {"containers": [{"name": "riva", "ports": [{"name": "metrics", "containerPort": 8002}]}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def hpa(metric=METRIC, active=("True", "ValidMetricFound"), able=("True", "ReadyForNewScale")):
    conditions = [
        {"type": "AbleToScale", "status": able[0], "reason": able[1]},
        {"type": "ScalingActive", "status": active[0], "reason": active[1]},
    ]
    return {
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "riva-asr"},
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": metric}}}],
        },
        "status": {"currentReplicas": 2, "desiredReplicas": 2, "conditions": conditions},
    }


class Prometheus:
    """Answers the few queries that the chain asks."""

    def __init__(self, api):
        self.ages = dict.fromkeys(PODS_ALL, 7.0)
        self.up = dict.fromkeys(PODS_ALL, 1)
        self.elsewhere = [{"pod": name, "namespace": "riva"} for name in PODS_ALL]
        self.count = 2
        api.routes[f"{QUERY}/query"] = lambda query, _count: self.answer(query["query"])
        targets = [{"labels": {"namespace": "riva", "pod": name}, "lastError": "it was refused"} for name in PODS_ALL]
        self.exist = [scaling_rules.QUEUE_SERIES, scaling_rules.SUCCESS_SERIES]
        tree = [{"type": "vectorSelector", "name": name} for name in self.exist]
        api.routes[f"{QUERY}/parse_query"] = {"data": {"type": "binaryExpr", "lhs": tree[0], "rhs": tree[1]}}
        api.routes[f"{QUERY}/targets"] = {"data": {"activeTargets": targets}}

    def answer(self, query):
        if query.startswith("time()"):
            found = [({"pod": name}, age) for name, age in self.ages.items()]
        elif query.startswith("up{"):
            found = [({"pod": name}, state) for name, state in self.up.items()]
        elif query.startswith("count by (__name__)"):
            found = [({"__name__": name}, 1) for name in self.exist]
        elif query.startswith("count by"):
            found = [(labels, 1) for labels in self.elsewhere]
        elif query.startswith(f"count(time() - timestamp({SERIES}"):
            found = [({}, self.count)] if self.count else []
        else:
            return 400, {"error": f"unknown query {query}"}
        return {"data": {"result": [{"metric": labels, "value": [1, str(value)]} for labels, value in found]}}


@pytest.fixture
def chain(api):
    """A cluster in which everything works."""
    api.prometheus = Prometheus(api)
    port = {"name": "metrics", "port": 8002, "targetPort": "metrics"}
    metadata = {"name": "riva-asr", "namespace": "riva", "labels": {"app": "riva"}}
    service = {"metadata": metadata, "spec": {"selector": {"app": "riva"}, "ports": [port]}}
    monitor = {
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": {"app": "riva"}}, "endpoints": [{"port": "metrics"}]},
    }
    prometheus = {
        "metadata": {"name": "kps", "namespace": "monitoring"},
        "spec": {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}},
    }
    rules = yaml.safe_dump({"rules": scaling_rules.adapter_rules()})
    argument = "--prometheus-url=http://kube-prometheus-stack-prometheus.monitoring.svc:9090"
    api.routes |= {
        HPA: hpa(),
        DEPLOYMENT: {"spec": {"selector": {"matchLabels": {"app": "riva"}}}},
        PODS: {"items": [pod(name) for name in PODS_ALL]},
        f"{APISERVICES}/{NAME}": apiservice(),
        CUSTOM: {"resources": [{"name": f"pods/{METRIC}"}]},
        VALUES: {"items": [{"describedObject": {"name": name}, "value": "2500m"} for name in PODS_ALL]},
        CONFIG: {"data": {"config.yaml": rules}},
        ADAPTER: {"spec": {"template": {"spec": {"containers": [{"args": [argument]}]}}}},
        SERVICES: {"items": [service]},
        MONITORS: {"items": [monitor]},
        ALL_MONITORS: {"items": [monitor]},
        PROMETHEUSES: {"items": [prometheus]},
        "/api/v1/namespaces/riva": {"metadata": {"labels": {"kubernetes.io/metadata.name": "riva"}}},
    }
    for name in PODS_ALL:
        api.routes[f"{PODS}/http:{name}:8002/proxy/metrics"] = (200, PAGE)
    return api


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(door, "FIRST_PAUSE", 0.001)


def check_custom_metric(run_module, api, **options):
    return run_module("validate_custom_metric", api, **{"namespace": "riva", "hpa": "riva-asr", **options})


def edit(api, path, function):
    """Changes one object of a route."""
    item = json.loads(json.dumps(api.routes[path]))
    function(item["items"][0] if "items" in item else item)
    api.routes[path] = item

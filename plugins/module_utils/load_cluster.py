# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read of the cluster during a load test: the HPA, the Deployment, its pods, the HPA's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from ansible_collections.speechops.riva.plugins.module_utils.scaling_rules import parse_quantity
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import Prometheus, read_streams

# get(path, query) returns the decoded answer of the apiserver.
Get = Callable[[str, dict], dict]

METRIC_SOURCES = {
    "Pods": "pods",
    "External": "external",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
GPU = "nvidia.com/"
# What is over holds no GPU, though it may still be listed.
OVER = ("Succeeded", "Failed")
# So many looks pass before a Prometheus that did not answer is asked again: the others must not wait for it.
SAMPLES_WITHOUT_PROMETHEUS = 10
VALUE_KINDS = ("averageValue", "value", "averageUtilization")


class EndpointError(Exception):
    """The address of the load balancer cannot be found; the text says why and what to do."""


def metric_values(hpa: dict) -> list[dict]:
    """Pair each metric of an HPA with its current value; the value is None while the HPA shows <unknown>."""
    current = {}
    for metric in hpa.get("status", {}).get("currentMetrics") or []:
        name, source = _metric_source(metric)
        current[name] = source.get("current", {})
    values = []
    for metric in hpa["spec"].get("metrics") or []:
        name, source = _metric_source(metric)
        target = source["target"]
        kind = next((kind for kind in VALUE_KINDS if kind in target), "averageValue")
        values.append(
            {
                "name": name,
                "kind": kind,
                "target": _number(target.get(kind)),
                "value": _number(current.get(name, {}).get(kind)),
            }
        )
    return values


def _metric_source(metric: dict) -> tuple[str, dict]:
    source = metric.get(METRIC_SOURCES.get(str(metric.get("type")), ""), {}) or {}
    return source.get("metric", {}).get("name") or source.get("name") or metric.get("type") or "?", source


def _number(value) -> float | None:
    return None if value in (None, "") else parse_quantity(value)


def pod_facts(pod: Mapping) -> dict:
    """Keep of a pod what the report shows."""
    status = pod.get("status") or {}
    ready = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {"status": "Unknown"})
    return {
        "name": pod["metadata"]["name"],
        "node": pod.get("spec", {}).get("nodeName") or "",
        "created": pod["metadata"].get("creationTimestamp"),
        "ready": ready.get("lastTransitionTime") if ready["status"] == "True" else None,
        "leaving": bool(pod["metadata"].get("deletionTimestamp")),
        "restarts": sum(c.get("restartCount", 0) for c in status.get("containerStatuses") or []),
    }


def gpus_per_pod(deployment: Mapping) -> int:
    """The GPUs, or slices of them, that each pod of a Deployment holds."""
    containers = deployment["spec"].get("template", {}).get("spec", {}).get("containers") or []
    limits = [container.get("resources", {}).get("limits") or {} for container in containers]
    amounts = [parse_quantity(value) for limit in limits for name, value in limit.items() if name.startswith(GPU)]
    return int(sum(amount or 0 for amount in amounts))


def cluster_record(hpa: dict, deployment: dict, pods: list[dict]) -> dict:
    """Put one look at the cluster into one record."""
    status = hpa.get("status") or {}
    return {
        "kind": "cluster",
        "min": hpa["spec"].get("minReplicas", 1),
        "max": hpa["spec"]["maxReplicas"],
        "desired": status.get("desiredReplicas") or deployment["spec"].get("replicas", 1),
        "replicas": deployment.get("status", {}).get("replicas", 0),
        "ready": deployment.get("status", {}).get("readyReplicas", 0),
        "gpus_per_pod": gpus_per_pod(deployment),
        "metrics": metric_values(hpa),
        "pods": sorted(
            (pod_facts(pod) for pod in pods if (pod.get("status") or {}).get("phase") not in OVER),
            key=lambda pod: (pod["created"] or "", pod["name"]),
        ),
    }


def event_record(event: dict) -> dict:
    made = event["metadata"].get("creationTimestamp")
    return {
        "kind": "event",
        "time": event.get("lastTimestamp") or event.get("eventTime") or made,
        "reason": event.get("reason", ""),
        "message": event.get("message", ""),
        "count": event.get("count") or 1,
    }


def selector_text(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


class Watched:
    """Reads the HPA, its Deployment, the pods and the events, one request each, and the streams of the pods."""

    def __init__(self, get: Get, namespace: str, name: str, prometheus: Prometheus | None = None, chunk_ms: int = 160):
        self.get = get
        self.namespace = namespace
        self.name = name
        self.prometheus = prometheus
        self.chunk_ms = chunk_ms
        self.pause = 0
        within = f"namespaces/{quote(namespace)}"
        self.core = f"/api/v1/{within}"
        self.hpa_path = f"/apis/autoscaling/v2/{within}/horizontalpodautoscalers/{quote(name)}"
        self.apps = f"/apis/apps/v1/{within}/deployments"
        self.seen: set[tuple[str, int]] = set()
        self.past_events_read = False

    def sample(self) -> list[dict]:
        """Return one record of the state and one for each event that is new since the last call."""
        hpa = self.get(self.hpa_path, {})
        deployment = self.get(f"{self.apps}/{quote(hpa['spec']['scaleTargetRef']['name'])}", {})
        labels = deployment["spec"]["selector"].get("matchLabels") or {}
        pods = self.get(f"{self.core}/pods", {"labelSelector": selector_text(labels)})["items"]
        return [cluster_record(hpa, deployment, pods) | self._streams(), *self._new_events()]

    def _streams(self) -> dict:
        """Streams of the pods. Prometheus may be away or not there at all: the load test goes on without it."""
        if self.prometheus is None:
            return {}
        path = self.prometheus.query_path
        if self.pause:
            self.pause -= 1
            return {}
        try:
            found = read_streams(
                lambda query: self.get(path, {"query": query}),
                self.namespace,
                self.name,
                self.chunk_ms,
            )
        except Exception as error:
            self.pause = SAMPLES_WITHOUT_PROMETHEUS
            return {"streams_error": f"{type(error).__name__}: {error}"}
        return {"streams": found.in_flight, "streams_source": found.source, "limits": found.limits}

    def _new_events(self) -> list[dict]:
        selector = f"involvedObject.kind=HorizontalPodAutoscaler,involvedObject.name={self.name}"
        events = self.get(f"{self.core}/events", {"fieldSelector": selector})["items"]
        new = []
        for event in events:
            key = (event["metadata"]["uid"], event.get("count") or 1)
            if key not in self.seen:
                self.seen.add(key)
                new.append(event_record(event))
        first, self.past_events_read = not self.past_events_read, True
        return [] if first else new  # what happened before the test is not part of it


def endpoint_of(service: dict, port: str) -> str:
    """Return host:port under which a Service of type LoadBalancer is reached from outside the cluster."""
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    ports = service["spec"].get("ports") or []
    number = next((entry["port"] for entry in ports if port in (entry.get("name"), str(entry["port"]))), None)
    if number is None:
        has = ", ".join(str(entry.get("name") or entry["port"]) for entry in ports) or "none"
        raise EndpointError(f"Service {namespace}/{name} has no port {port}; it has: {has}")
    addresses = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    host = next((entry.get("ip") or entry.get("hostname") for entry in addresses), None)
    if host is None:
        kind = service["spec"].get("type", "ClusterIP")
        raise EndpointError(
            f"Service {namespace}/{name} (type {kind}) has no external address; "
            "a load balancer such as MetalLB gives one, or name the address yourself"
        )
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"

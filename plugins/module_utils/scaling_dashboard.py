# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard of a speech service for Grafana, made from the rule set. Pure: names in, a mapping out.

`docs/generate.py` writes it into the riva chart with the placeholders below, which the chart fills in.
"""

from __future__ import annotations

from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules as rules

# Stand for the release's own, in the file of the chart.
NAMESPACE, SERVICE, PLANNED, MOST_PODS = "NAMESPACE_", "SERVICE_", "PLANNED_", "MOST_PODS_"
HORIZON, SPARE, SHARE = "HORIZON_", "SPARE_", "SHARE_"
WIDTH, HEIGHT = 12, 8
SOURCE = {"type": "prometheus", "uid": "${source}"}


def target(expression, legend, letter):
    return {"datasource": SOURCE, "expr": expression, "legendFormat": legend, "refId": letter}


def panel(place, title, unit, description, *queries):
    """One picture over time; queries are (PromQL, legend)."""
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"x": place % 2 * WIDTH, "y": place // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [target(expression, legend, chr(ord("A") + at)) for at, (expression, legend) in enumerate(queries)],
    }


def free_gpus():
    """PromQL over kube-state-metrics: GPUs of all nodes that no pod asks for, and all that there are.

    It writes nvidia.com/gpu as nvidia_com_gpu. Pods that are over hold none, but keep their series:
    https://github.com/kubernetes/kube-state-metrics, docs/metrics/workload/pod-metrics.md.
    """
    resource = 'resource=~"nvidia_com_(gpu|gpu_shared|mig_.*)"'
    taken = f"sum by (namespace, pod) (kube_pod_container_resource_requests{{{resource}}})"
    alive = 'max by (namespace, pod) (kube_pod_status_phase{phase=~"Pending|Running"} == 1)'
    allocatable = f"sum(kube_node_status_allocatable{{{resource}}})"
    return f"{allocatable} - (sum({taken} * on (namespace, pod) {alive}) or vector(0))", allocatable


def dashboard(
    namespace=NAMESPACE, service=SERVICE, horizon=HORIZON, spare=SPARE, share=SHARE, planned=PLANNED, most=MOST_PODS
):
    """Grafana's JSON model: streams and room, pods, waiting time, refused streams, chunks, requests that wait, GPUs."""
    where = rules.service_matchers(namespace, service)
    by_service = "namespace,service"
    wanted = rules.demand(where, by_service, horizon, spare, share, f"{1000 / rules.CHUNK_MS:g}")
    free, all_gpus = free_gpus()
    panels = [
        (
            "Streams and room",
            "short",
            "Streams that run, what the pods may carry, and the room that the HPA wants.",
            (rules.streams_query(namespace, service, by=()), "streams in flight"),
            (rules.limit_query(namespace, service), "limit of all pods"),
            (wanted, "demand"),
        ),
        (
            "Pods",
            "short",
            "Pods that are scraped, those that the demand asks for, the most there may be, and pods at their limit.",
            (f"count(count by (pod) ({rules.SUCCESS_SERIES}{{{where}}}))", "pods"),
            (f"ceil(({wanted}) / {planned})", "pods for the demand"),
            (f"vector({most})", "pods at most"),
            (
                f"count({rules.STREAMS_SERIES}{{{rules.SPEECH},{where}}} >= {rules.LIMIT_SERIES}) or vector(0)",
                "full pods",
            ),
        ),
        (
            "Streams of each pod",
            "short",
            "A pod takes no more than its limit; a stream stays on its pod until it ends.",
            (rules.streams_query(namespace, service), "{{pod}}"),
        ),
        (
            "Streams refused in a minute",
            "short",
            "With RESOURCE_EXHAUSTED. They count as demand.",
            (rules.refused_query(namespace, service, by=("pod",)), "{{pod}}"),
        ),
        (
            "Time in the queue",
            "ms",
            "How long a request waited for the GPU: the guard of the HPA.",
            (rules.queue_time_query(namespace, service=service), "{{pod}}"),
        ),
        (
            "Chunks a second",
            "short",
            "What the GPUs complete; it stops rising where a pod is saturated.",
            (f"sum by (pod) (rate({rules.SUCCESS_SERIES}{{{where}}}[{rules.window_seconds()}s]))", "{{pod}}"),
        ),
        (
            "Requests that wait",
            "short",
            "It moves at once, where the waiting time moves only when a request completes.",
            (f"sum by (pod) (nv_inference_pending_request_count{{{where}}})", "{{pod}}"),
        ),
        (
            "Failed requests a second",
            "short",
            "By the reason that Triton gives.",
            (
                f"sum by (reason) (rate(nv_inference_request_failure{{{where}}}[{rules.window_seconds()}s]))",
                "{{reason}}",
            ),
        ),
        (
            "GPUs of the cluster",
            "short",
            "Free ones are what new pods can get; those of other products count too. From kube-state-metrics.",
            (free, "free"),
            (all_gpus, "allocatable"),
        ),
    ]
    return {
        "title": f"Speech service {namespace}/{service}",
        "tags": ["riva"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": [panel(place, *content) for place, content in enumerate(panels)],
    }

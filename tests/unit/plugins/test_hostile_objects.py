# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every rule on objects of which any part is missing, null, of another type or nonsense: no traceback, no false ok.

Each test takes a right object, spoils it, and holds the verdict against what the spoilt object still says by itself.
"""

import json
import math
from datetime import UTC, datetime

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import (
    aggregation,
    chain_links,
    cluster_errors,
    custom_metrics,
    findings,
    gpu_findings,
    gpu_labels,
    gpu_requirement,
    metric_chain,
    scaling_rules,
    scraping,
)
from hypothesis import given
from hypothesis import strategies as some

METRIC, SERIES = "avg_time_queue_ms", "nv_inference_queue_duration_us"

# Texts that were numbers, versions or states once.
TEXTS = ("", " ", "-1", "1e3", "1e400", "NaN", "Inf", "9" * 400, "true", "True", "0x10", "\u0661", "1.2.3.4.5", "%s{}",
         "(", "1k", "\ud7ff\x00", "x" * 2000)  # fmt: skip
SCALARS = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(-(10**20), 10**20),
    some.floats(),
    some.sampled_from(TEXTS),
    some.text(max_size=8),
)
JUNK = some.recursive(
    SCALARS,
    lambda inner: some.one_of(
        some.lists(inner, max_size=3), some.dictionaries(some.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


@some.composite
def spoilt(draw, thing, most=3):
    """The thing with up to `most` of its parts taken away or replaced."""
    thing = json.loads(json.dumps(thing))
    for _ in range(draw(some.integers(0, most))):
        places = [((), None), *places_of(thing)]
        path, _value = draw(some.sampled_from(places))
        if not path:
            continue
        parent = thing
        for key in path[:-1]:
            parent = parent[key]
        if draw(some.booleans()):
            parent[path[-1]] = draw(JUNK)
        else:
            del parent[path[-1]]
    return thing


def places_of(thing, path=()):
    pairs = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for key, value in pairs:
        yield (*path, key), value
        yield from places_of(value, (*path, key))


def mapping(value):
    return value if isinstance(value, dict) else {}


def within(thing, *keys):
    """The value at a path, None where there is no such place."""
    for key in keys:
        thing = mapping(thing).get(key)
    return thing


def listed(value):
    return value if isinstance(value, list) else []


def text_of(things):
    """Findings end up as JSON and as text."""
    table = findings.table(things, color=True, width=100)
    json.dumps([thing.to_dict() for thing in things])
    findings.summary("title", things)
    return table


# GPU nodes

NODE = {
    "metadata": {
        "name": "n",
        "annotations": {"huge": "x" * 1000},
        "labels": {
            "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
            "nvidia.com/gpu.count": "2",
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/gpu.memory": "40960",
            "nvidia.com/gpu.compute.major": "8",
            "nvidia.com/gpu.compute.minor": "0",
            "nvidia.com/cuda.driver-version.full": "580.159.04",
            "nvidia.com/cuda.runtime-version.full": "13.0",
            "nvidia.com/mig.capable": "true",
            "nvidia.com/gfd.timestamp": "1763817215",
            "feature.node.kubernetes.io/pci-10de.present": "true",
        },
    },
    "spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}], "unschedulable": False},
    "status": {
        "allocatable": {"nvidia.com/gpu": "2", "cpu": "4"},
        "capacity": {"nvidia.com/gpu": "2", "cpu": "4"},
        "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
    },
}
TOLERATION = {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
WANTED = gpu_requirement.Requirement(
    min_gpus=1,
    min_free_gpus=1,
    min_fitting_pods=1,
    products=("*A100*",),
    families=("ampere",),
    min_memory=40000,
    min_compute_capability="8.0",
    min_driver="535.1",
    min_cuda="12.0",
    mig="capable",
    sharing="none",
    max_sharing_factor=1,
    tolerations=(TOLERATION,),
)


def digits(value):
    """A plain number in a label; None for anything else."""
    text = str(value).strip()
    plain = not isinstance(value, bool) and text.isascii() and text.isdigit() and len(text) <= 18
    return int(text) if plain else None


@given(spoilt(NODE))
def test_a_node_meets_nothing_that_it_does_not_say(item):
    node = gpu_labels.project_node(item)
    verdict = gpu_requirement.judge(node, WANTED, {"n": 0})
    found = gpu_findings.findings_of([verdict], WANTED, discovered=[])
    text_of(found)
    json.dumps(verdict.to_dict())
    assert gpu_requirement.judge(gpu_labels.project_node(item, {}), WANTED, {"n": 0}) == verdict
    if not verdict.matches:
        assert verdict.reasons
        assert findings.worst(found) == "failed"
        return
    labels = within(item, "metadata", "labels")
    states = [
        mapping(entry).get("status")
        for entry in listed(within(item, "status", "conditions"))
        if mapping(entry).get("type") == "Ready"
    ]
    assert states
    assert states[-1] == "True"
    assert within(item, "spec", "unschedulable") is not True
    assert "a100" in str(within(labels, "nvidia.com/gpu.product")).lower()
    assert digits(within(labels, "nvidia.com/gpu.memory")) >= 40000 * (1 - WANTED.memory_tolerance)
    assert digits(within(labels, "nvidia.com/gpu.compute.major")) >= 8
    assert str(within(labels, "nvidia.com/mig.capable")).strip() == "true"
    amount = str(within(item, "status", "allocatable", "nvidia.com/gpu")).strip().removesuffix("k")
    assert digits(amount) >= 1
    for taint in listed(within(item, "spec", "taints")):
        effect = mapping(taint).get("effect")
        assert effect not in ("NoSchedule", "NoExecute") or (
            mapping(taint).get("key") == "gpu" and mapping(taint).get("value") == "yes"
        )


@given(some.lists(spoilt(NODE), max_size=4))
def test_nodes_that_share_their_parts_are_judged_as_if_they_did_not(items):
    known = {}
    shared = [gpu_labels.project_node(item, known) for item in items]
    alone = [gpu_requirement.judge(gpu_labels.project_node(item), WANTED, {}) for item in items]
    assert gpu_requirement.judge_all(shared, WANTED, {}) == alone


CONTAINER = {
    "name": "nvidia-gpu-feature-discovery",
    "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}},
}
POD = {
    "metadata": {"name": "p", "namespace": "riva", "labels": {"app": "asr"}},
    "spec": {
        "nodeName": "n",
        "containers": [CONTAINER],
        "initContainers": [CONTAINER, CONTAINER | {"restartPolicy": "Always"}],
    },
    "status": {"phase": "Running"},
}


@given(spoilt(POD), some.sampled_from([(), ({"namespace": "riva", "labels": {"app": "asr"}},)]))
def test_a_pod_holds_no_negative_and_no_unreadable_number(item, own):
    held = gpu_labels.project_pod(item, gpu_labels.RESOURCE, own)
    gpu_labels.discovery_node(item)
    assert held is None or (held[1] > 0 and within(item, "spec", "nodeName"))


@given(spoilt({"key": "gpu", "value": "yes", "effect": "NoSchedule"}), spoilt(TOLERATION))
def test_a_toleration_that_makes_no_sense_takes_nothing(taint, toleration):
    if gpu_labels.tolerated(taint, [toleration]):
        everything = toleration.get("operator") == "Exists" and not toleration.get("key")
        assert everything or toleration.get("key") == taint.get("key")


# The aggregation layer

NAME = custom_metrics.APISERVICE
APISERVICE = {
    "metadata": {"name": NAME},
    "spec": {
        "group": custom_metrics.GROUP,
        "version": "v1beta1",
        "service": {"namespace": "monitoring", "name": "prometheus-adapter"},
    },
    "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Passed", "message": "fine"}]},
}
CONFIGMAP = {"data": {aggregation.TRUST_KEY: "-----BEGIN CERTIFICATE-----"}}


@given(spoilt(APISERVICE), spoilt(CONFIGMAP), some.sampled_from([0, 200, 401, 403, 404, 500, 503]), some.text())
def test_only_an_answer_proves_the_layer(item, configmap, code, message):
    service = aggregation.project_apiservice(item)
    state = aggregation.trust_state(configmap)
    probes = {service.name: aggregation.Probe(code, message)}
    found = aggregation.findings_of((state, ""), [service], probes, [NAME])
    text_of(found)
    if state == "present":
        assert "BEGIN CERTIFICATE" in configmap["data"][aggregation.TRUST_KEY]
    if findings.worst(found) == "ok" and service.service:
        assert code == 200
        assert service.available == "True"


@given(JUNK)
def test_any_answer_is_taken_for_an_object(junk):
    if isinstance(junk, dict):
        aggregation.project_apiservice(junk)
    assert aggregation.trust_state(junk) == "absent"


# The custom metric

HPA = {
    "spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "riva-asr"},
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": METRIC}}}],
    },
    "status": {
        "currentReplicas": 2,
        "desiredReplicas": 2,
        "conditions": [
            {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "fine"},
            {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "fine"},
        ],
    },
}
READY_POD = {
    "metadata": {"name": "riva-1", "namespace": "riva", "labels": {"app": "riva"}},
    "spec": {"containers": [{"name": "riva", "ports": [{"name": "metrics", "containerPort": 8002}]}]},
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T12:00:00Z"}],
        "containerStatuses": [{"name": "riva", "state": {"running": {}}}],
    },
}
VALUES = {"items": [{"describedObject": {"name": "riva-1"}, "value": "2500m"}]}
PORT = {"name": "metrics", "port": 8002, "targetPort": "metrics"}
LABELLED = {"name": "riva-asr", "namespace": "riva", "labels": {"app": "riva"}}
SERVICE = {"metadata": LABELLED, "spec": {"selector": {"app": "riva"}, "ports": [PORT]}}
MONITOR = {
    "metadata": LABELLED,
    "spec": {
        "selector": {"matchLabels": {"app": "riva"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]},
        "namespaceSelector": {"matchNames": ["riva"]},
        "endpoints": [{"port": "metrics", "path": "/metrics"}],
    },
}
PROMETHEUS = {
    "metadata": {"name": "kps", "namespace": "monitoring"},
    "spec": {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}},
}
DEPLOYMENT = {
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "riva"}},
        "template": {
            "spec": {"containers": [{"args": ["--prometheus-url=http://prometheus.monitoring.svc:9090"]}]},
        },
    },
}
VECTOR = {"data": {"result": [{"metric": {"pod": "riva-1", "namespace": "riva"}, "value": [1, "7"]}]}}
TARGETS = {"data": {"activeTargets": [{"labels": {"namespace": "riva", "pod": "riva-1"}, "lastError": "refused"}]}}
NOW = datetime(2026, 11, 22, 13, tzinfo=UTC)


@given(spoilt(HPA))
def test_an_hpa_is_ok_only_if_it_says_so(item):
    verdict = custom_metrics.hpa_verdict("riva-asr", item, METRIC)
    if verdict.finding.status == "ok":
        states = {entry["type"]: entry["status"] for entry in custom_metrics.conditions_of(item)}
        assert states["AbleToScale"] == states["ScalingActive"] == "True"
        assert str(item["status"]["conditions"]).count("True") >= 2


@given(spoilt(READY_POD))
def test_a_pod_is_ready_only_if_it_says_so(item):
    pod = chain_links.project_pod(item)
    asked = chain_links.settled([pod], NOW, 60)
    verdict = chain_links.pods_verdict("Deployment riva-asr", [pod], asked)
    text_of([verdict.finding])
    if verdict.finding.status == "ok":
        states = [
            entry for entry in item["status"]["conditions"] if isinstance(entry, dict) and entry.get("type") == "Ready"
        ]
        assert states[0]["status"] == "True"


@given(spoilt(VALUES), spoilt({"resources": [{"name": f"pods/{METRIC}"}]}))
def test_a_value_is_ok_only_if_it_is_a_number(answer, resources):
    values = custom_metrics.values_of(answer)
    offered = custom_metrics.offers(mapping(resources), METRIC)
    verdict = custom_metrics.values_verdict(METRIC, offered, values, ["riva-1"])
    text_of([verdict.finding])
    if verdict.finding.status == "ok":
        assert math.isfinite(values["riva-1"])
        assert values["riva-1"] >= 0


@given(spoilt(VECTOR))
def test_samples_are_fresh_only_if_they_say_so(answer):
    samples = scraping.samples_of(answer)
    ages = {labels.get("pod", ""): age for labels, age in samples if isinstance(labels.get("pod", ""), str)}
    verdict = scraping.series_verdict(SERIES, ages, ["riva-1"], 60, [labels for labels, _age in samples], "riva")
    text_of([verdict.finding])
    if verdict.finding.status == "ok":
        assert ages["riva-1"] <= 60
    text_of([scraping.target_verdict(ages, ["riva-1"], {}).finding])


@given(spoilt(TARGETS))
def test_errors_of_targets_are_texts(answer):
    assert all(isinstance(error, str) and error for error in scraping.target_errors(answer, "riva").values())


@given(spoilt(SERVICE), spoilt(MONITOR), spoilt(PROMETHEUS), spoilt(READY_POD), spoilt({"app": "riva"}))
def test_the_scrape_path_is_whole_only_if_every_part_fits(service, monitor, prometheus, item, labels):
    pod = chain_links.project_pod(item)
    chosen = scraping.services_of([service], [pod])
    verdict, found, through = scraping.service_monitor_verdict(chosen, [monitor], [prometheus], mapping(labels))
    text_of([verdict.finding])
    if verdict.finding.status == "ok":
        assert within(prometheus, "spec", "serviceMonitorSelector") is not None
    if found is None or through is None:
        return
    verdict, port, endpoint = scraping.service_port_verdict(found, through)
    text_of([verdict.finding])
    assert isinstance(endpoint, dict)
    if port is None:
        return
    verdict, numbers = scraping.pod_port_verdict(port, [pod])
    text_of([verdict.finding])
    assert (verdict.finding.status == "ok") is (pod.name in numbers)
    assert all(isinstance(number, int) for number in numbers.values())


@given(spoilt({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}))
def test_any_selector_is_text(selector):
    assert isinstance(chain_links.selector_text(selector), str)
    chain_links.selector_matches(selector, {"a": "b"})


@given(
    spoilt({"rules": scaling_rules.adapter_rules()}),
    some.sampled_from([None, 0, 2]),
    some.sampled_from(["", "http://prometheus.monitoring.svc:9090", "http://[", "ftp://x:y@z"]),
    some.booleans(),
)
def test_a_rule_is_ok_only_if_the_metric_is_there(config, found, url, offered):
    rules = custom_metrics.adapter_rules(config)
    verdict = custom_metrics.adapter_verdict("a", rules, METRIC, offered, found, url, "prometheus.monitoring:9090")
    text_of([verdict.finding])
    if verdict.finding.status == "ok":
        assert offered


@given(spoilt(DEPLOYMENT), some.text(max_size=30))
def test_any_address_of_prometheus_is_held_against_ours(deployment, url):
    assert isinstance(custom_metrics.prometheus_url(mapping(deployment)), str)
    assert not custom_metrics.points_to(url, "prometheus.monitoring:9090") or url.strip().startswith("http")


@given(JUNK)
def test_a_quantity_is_a_number_or_nothing(junk):
    number = scaling_rules.parse_quantity(junk)
    assert number is None or isinstance(number, float)


# The walk over the whole chain

OBJECTS = {
    "/apis/autoscaling/v2/namespaces/riva/horizontalpodautoscalers/riva-asr": HPA,
    "/apis/apps/v1/namespaces/riva/deployments/riva-asr": DEPLOYMENT,
    "/apis/apps/v1/namespaces/monitoring/deployments/prometheus-adapter": DEPLOYMENT,
    f"{aggregation.APISERVICES_PATH}/{NAME}": APISERVICE,
    custom_metrics.API_PATH: {"resources": [{"name": f"pods/{METRIC}"}]},
    f"{custom_metrics.API_PATH}/namespaces/riva/pods/*/{METRIC}": VALUES,
    "/api/v1/namespaces/riva": {"metadata": {"labels": {"a": "b"}}},
    "/api/v1/namespaces/monitoring/configmaps/prometheus-adapter": {"data": {"config.yaml": "rules: []"}},
    "/api/v1/namespaces/monitoring/services/prometheus-adapter": SERVICE,
}
AWAY = {
    "metadata": {"name": "gpu-2"},
    "status": {
        "conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "gone"}]
    },
}
LISTS = {"pods": READY_POD, "services": SERVICE, "servicemonitors": MONITOR, "prometheuses": PROMETHEUS, "nodes": AWAY}
ERRORS = (
    cluster_errors.NotFound,
    cluster_errors.Forbidden,
    cluster_errors.Unavailable,
    cluster_errors.BadAnswer,
    cluster_errors.Silent,
)
OPTIONS = metric_chain.Options(
    METRIC, "riva", "riva-asr", None, SERIES, "monitoring", "prometheus", 9090, "http", "monitoring",
    "prometheus-adapter", 15,
)  # fmt: skip


class HostileCluster:
    """Answers every question with a spoilt object or with an error."""

    def __init__(self, data):
        self.data = data

    def drawn(self, right, **more):
        error = self.data.draw(some.sampled_from((None,) * 12 + ERRORS))
        if error:
            raise error("an error")
        return self.data.draw(spoilt(right, most=2, **more))

    def get(self, path, query=None, listing=False, text=False):
        if text:
            return f'{SERIES}{{model="asr"}} 5\n'
        if path.endswith("/api/v1/query"):
            return self.drawn(VECTOR)
        if path.endswith("/api/v1/targets"):
            return self.drawn(TARGETS)
        return self.drawn(OBJECTS.get(path, SERVICE))

    def list_all(self, path, project=lambda item: item, query=None, page=None, fields=None):
        items = [self.drawn(LISTS[path.rsplit("/", 1)[1]])]
        return [kept for item in items if isinstance(item, dict) and (kept := project(item)) is not None]

    def now(self):
        return NOW


@given(some.data())
def test_the_whole_walk(data):
    cluster = HostileCluster(data)
    chain = metric_chain.Chain(cluster, OPTIONS)
    try:
        found, facts = chain.examine()
    except cluster_errors.ClusterError:
        return  # The validators tell it as one finding.
    text_of(found)
    json.dumps(facts)
    assert found
    if findings.worst(found) == "ok":
        assert facts["first_broken"] is None
        assert facts["pods"]
        for pod in chain.ready:
            assert math.isfinite(facts["pod_values"][pod])
            assert facts["pod_values"][pod] >= 0
        states = {entry["type"]: entry["status"] for entry in facts["hpa"]["conditions"]}
        assert states["ScalingActive"] == "True"


# Findings

FINDING = {"check": "api", "subject": "x", "status": "ok", "message": "fine", "remedy": ""}


@given(some.lists(spoilt(FINDING), max_size=3), some.sampled_from(["failed", "warning", "never"]))
def test_findings_of_others_are_shown_whatever_they_are(things, level):
    assert isinstance(findings.table(things, color=True, width=60), str)
    assert isinstance(findings.summary("title", things, level), str)
    worst = findings.worst(things)
    if worst == "ok":
        assert all(thing["status"] == "ok" for thing in things)
    assert findings.fails(things, level) is (
        level != "never" and findings.SEVERITY.index(worst if things else "ok") >= findings.SEVERITY.index(level)
    )


def test_a_giant_annotation_is_dropped():
    item = json.loads(json.dumps(NODE))
    item["metadata"]["annotations"]["huge"] = "x" * (1 << 20)
    assert len(repr(gpu_labels.project_node(item))) < 4000


def test_a_status_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match="status is"):
        findings.Finding("check", "subject", "fine", "message")

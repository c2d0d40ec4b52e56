# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The validators as modules, against a real HTTP server that plays a cluster, whole and broken."""

import json
import time
from datetime import UTC, datetime, timedelta

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


def node(name, gpus=2, product="Tesla-T4", memory="15360"):
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus), "nvidia.com/gpu.memory": memory}
    return {
        "metadata": {"name": name, "labels": labels if product else {}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "4", **({"nvidia.com/gpu": str(gpus)} if product else {})},
            "capacity": {"nvidia.com/gpu": str(gpus)} if product else {},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


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


# validate_custom_metric


def test_a_whole_chain_is_ok_and_the_links_near_the_pods_are_not_even_read(chain, run_module):
    result = check_custom_metric(run_module, chain)
    assert result["ok"]
    assert result["status"] == "ok"
    assert not result["changed"]
    assert result["first_broken"] is None
    assert result["pod_values"] == dict.fromkeys(PODS_ALL, 2.5)
    assert result["hpa"]["current_replicas"] == 2
    assert [finding["check"] for finding in result["findings"]] == [
        "hpa", "api", "adapter_rule", "prometheus", "series", "target", "service_monitor", "service_port", "pod_port",
        "exporter", "pods",
    ]  # fmt: skip
    asked = {path for path, _query, _headers in chain.requests}
    assert asked.isdisjoint({SERVICES, MONITORS, f"{PODS}/http:riva-asr-1:8002/proxy/metrics"})


def lacks(*names):
    return lambda api: [api.prometheus.exist.remove(name) for name in names]


@pytest.mark.parametrize(
    ("breaks", "status", "text"),
    [
        (lacks(scaling_rules.SUCCESS_SERIES), "warning", f"names {scaling_rules.SUCCESS_SERIES}, which Prometheus"),
        (lacks(scaling_rules.QUEUE_SERIES, scaling_rules.SUCCESS_SERIES), "failed", "is no measurement"),
        (lambda api: api.routes.pop(f"{QUERY}/parse_query"), "ok", "a rule offers"),
        (lambda api: api.routes.update({CONFIG: forbidden(CONFIG)}), "ok", "a rule offers"),
    ],
    ids=["one series", "all series", "a Prometheus that parses for nobody", "no permission"],
)
def test_values_that_are_computed_from_nothing(chain, run_module, breaks, status, text):
    """The API has a value for each pod all the same."""
    breaks(chain)
    result = check_custom_metric(run_module, chain, fail_on="never")
    found = next(finding for finding in result["findings"] if finding["check"] == "adapter_rule")
    assert (found["status"], text in found["message"]) == (status, True), found
    assert result["first_broken"] == ("adapter_rule" if status == "failed" else None)


def no_values(api):
    api.routes[CUSTOM] = {"resources": []}
    api.routes[VALUES] = (404, {"message": "the server could not find the metric"})
    api.routes[HPA] = hpa(active=("False", "FailedGetPodsMetric"))


def no_samples(api):
    no_values(api)
    api.prometheus.ages, api.prometheus.elsewhere, api.prometheus.count = {}, [], 0


def no_targets(api):
    no_samples(api)
    api.prometheus.up = {}


def dead_targets(api):
    no_samples(api)
    api.prometheus.up = dict.fromkeys(PODS_ALL, 0)


def edit(api, path, function):
    """Changes one object of a route."""
    item = json.loads(json.dumps(api.routes[path]))
    function(item["items"][0] if "items" in item else item)
    api.routes[path] = item


def exporter(api, answer):
    for name in PODS_ALL:
        api.routes[f"{PODS}/http:{name}:8002/proxy/metrics"] = answer


def crashing(name):
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {"terminated": {"exitCode": 255, "reason": "Error"}}
    container = {"name": "adapter", "ready": False, "restartCount": 4, "state": state, "lastState": last}
    return {"metadata": {"name": name}, "status": {"phase": "Running", "containerStatuses": [container]}}


def adapter_pods(api, pods, replicas=1):
    """The adapter has no endpoints, and these pods."""
    edit(api, ADAPTER, lambda item: item["spec"].update(replicas=replicas))
    api.routes |= {
        f"{APISERVICES}/{NAME}": apiservice("False", "MissingEndpoints"),
        CUSTOM: (503, {"message": "service unavailable"}),
        "/api/v1/namespaces/monitoring/services/prometheus-adapter": {"spec": {"selector": {"app": "adapter"}}},
        ADAPTER_PODS: {"items": pods},
    }


REFUSED = (503, {"message": "error trying to reach service: dial tcp 10.0.0.1:8002: connect: connection refused"})
BROKEN = {
    "HPA on another metric": (lambda api: api.routes.update({HPA: hpa("other")}), "hpa", "uses: other"),
    "HPA is gone": (lambda api: api.routes.pop(HPA), "hpa", "does not exist"),
    "the HPA's target is gone": (lambda api: api.routes.pop(DEPLOYMENT), "hpa", "its target Deployment riva-asr"),
    "HPA without scale": (
        lambda api: api.routes.update({HPA: hpa(able=("False", "FailedGetScale"))}),
        "hpa",
        "FailedGetScale",
    ),
    "APIService absent": (lambda api: api.routes.pop(f"{APISERVICES}/{NAME}"), "api", "is not registered"),
    "APIService of someone else": (
        lambda api: api.routes.update({f"{APISERVICES}/{NAME}": apiservice(service="keda")}),
        "api",
        "belongs to monitoring/keda",
    ),
    "adapter without endpoints": (
        lambda api: api.routes.update(
            {
                f"{APISERVICES}/{NAME}": apiservice("False", "MissingEndpoints"),
                CUSTOM: (503, {"message": "service unavailable"}),
            }
        ),
        "api",
        "no pod behind its Service is ready",
    ),
    "adapter scaled to 0": (
        lambda api: adapter_pods(api, [], replicas=0),
        "api",
        "Deployment prometheus-adapter is scaled to 0",
    ),
    "adapter crash-looping": (
        lambda api: adapter_pods(api, [crashing("prometheus-adapter-1")]),
        "api",
        "prometheus-adapter-1 Running (adapter: CrashLoopBackOff ended with exit code 255, 4 restarts)",
    ),
    "adapter whose pods can't be seen": (
        lambda api: (
            adapter_pods(api, []),
            api.routes.update({ADAPTER_PODS: forbidden("pods")}),
        ),
        "api",
        "list pods (apiGroup '') in namespace monitoring",
    ),
    "adapter without trust": (
        lambda api: api.routes.update({CUSTOM: (401, {"message": "Unauthorized"})}),
        "api",
        "does not trust the API server's headers",
    ),
    "impossible value": (
        lambda api: api.routes.update(
            {
                VALUES: {
                    "items": [
                        {"describedObject": {"name": name}, "value": "-9223372036854775808m"} for name in PODS_ALL
                    ]
                }
            }
        ),
        "api",
        "impossible value",
    ),
    "wrong Prometheus URL": (
        lambda api: (
            no_values(api),
            edit(
                api,
                ADAPTER,
                lambda item: item["spec"]["template"]["spec"]["containers"][0].update(
                    args=["--prometheus-url=http://prometheus.default.svc:9090"]
                ),
            ),
        ),
        "adapter_rule",
        "asks http://prometheus.default.svc:9090",
    ),
    "no rule": (
        lambda api: (no_values(api), api.routes.update({CONFIG: {"data": {"config.yaml": "rules: []"}}})),
        "adapter_rule",
        "no rule offers",
    ),
    "rule that matches nothing": (
        lambda api: (no_values(api), setattr(api.prometheus, "count", 0)),
        "adapter_rule",
        "finds nothing",
    ),
    "Prometheus down": (
        lambda api: (
            no_values(api),
            api.routes.update({f"{QUERY}/query": (503, {"message": "no endpoints available for service"})}),
        ),
        "prometheus",
        "no endpoints available",
    ),
    "Prometheus crash-looping": (
        lambda api: (
            no_values(api),
            api.routes.update(
                {
                    f"{QUERY}/query": (503, {"message": "no endpoints available for service"}),
                    f"/api/v1/namespaces/monitoring/services/{PROMETHEUS}": {"spec": {"selector": {"app": "p"}}},
                    ADAPTER_PODS: {"items": [crashing("prometheus-0")]},
                }
            ),
        ),
        "prometheus",
        "none of its pods is Ready: prometheus-0 Running (adapter: CrashLoopBackOff",
    ),
    "Prometheus' Service is another": (
        lambda api: api.routes.pop(f"{QUERY}/query"),
        "prometheus",
        "does not exist",
    ),
    "series without pod label": (
        lambda api: (
            no_samples(api),
            setattr(api.prometheus, "elsewhere", [{"namespace": "riva"}]),
        ),
        "series",
        "without the label pod",
    ),
    "series without pod label beside another service": (
        lambda api: (
            no_targets(api),
            setattr(api.prometheus, "elsewhere", [{"namespace": "riva"}, {"namespace": "riva", "pod": "other-1"}]),
        ),
        "series",
        "without the label pod",
    ),
    "network between Prometheus and pods": (dead_targets, "target", "it was refused"),
    "target not there yet": (no_targets, "target", "no target for"),
    "ServiceMonitor absent": (
        lambda api: (no_targets(api), api.routes.update({MONITORS: {"items": []}, ALL_MONITORS: {"items": []}})),
        "service_monitor",
        "no ServiceMonitor selects",
    ),
    "ServiceMonitor not selected": (
        lambda api: (
            no_targets(api),
            edit(
                api,
                PROMETHEUSES,
                lambda item: item["spec"].update(serviceMonitorSelector={"matchLabels": {"release": "kps"}}),
            ),
        ),
        "service_monitor",
        "is not selected by Prometheus",
    ),
    "no operator": (
        lambda api: (no_targets(api), api.routes.pop(MONITORS), api.routes.pop(ALL_MONITORS)),
        "service_monitor",
        "monitoring.coreos.com/v1 is not there",
    ),
    "Service without that port": (
        lambda api: (no_targets(api), edit(api, SERVICES, lambda item: item["spec"]["ports"][0].update(name="http"))),
        "service_port",
        "no port named metrics",
    ),
    "targetPort names no container port": (
        lambda api: (
            no_targets(api),
            edit(api, SERVICES, lambda item: item["spec"]["ports"][0].update(targetPort="metrics-triton")),
        ),
        "pod_port",
        "names no container port",
    ),
    "nothing listens": (lambda api: (dead_targets(api), exporter(api, REFUSED)), "pod_port", "nothing listens"),
    "exporter answers 500": (
        lambda api: (dead_targets(api), exporter(api, (500, "boom"))),
        "exporter",
        "HTTP 500",
    ),
    "exporter lacks the series": (
        lambda api: (no_samples(api), exporter(api, (200, "other 1\n"))),
        "exporter",
        f"has no {SERIES}",
    ),
    "stale samples": (
        lambda api: (setattr(api.prometheus, "ages", dict.fromkeys(PODS_ALL, 200.0)), dead_targets_up(api)),
        "target",
        "can't read",
    ),
    "no Ready pod": (
        lambda api: (
            no_samples(api),
            api.routes.update({PODS: {"items": [pod("riva-asr-1") | {"status": {"phase": "Pending"}}]}}),
        ),
        "pods",
        "none of 1 pods is Ready",
    ),
}


def dead_targets_up(api):
    api.prometheus.up = dict.fromkeys(PODS_ALL, 0)


@pytest.mark.parametrize(("breaks", "link", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_chain_names_its_first_broken_link(chain, run_module, breaks, link, text):
    breaks(chain)
    result = check_custom_metric(run_module, chain)
    assert result["failed"]
    assert result["first_broken"] == link
    found = next(finding for finding in result["findings"] if finding["check"] == link)
    assert found["status"] == "failed"
    assert text in found["message"]
    assert found["remedy"]
    assert f"first broken link: {link}" in result["msg"]
    assert found["remedy"] in result["msg"]


PERMISSIONS = {
    "HPA": (lambda _api: None, HPA, "get horizontalpodautoscalers (apiGroup 'autoscaling') in namespace riva"),
    "Deployment": (lambda _api: None, DEPLOYMENT, "get deployments (apiGroup 'apps') in namespace riva"),
    "pods": (lambda _api: None, PODS, "list pods (apiGroup '') in namespace riva"),
    "APIService": (lambda _api: None, f"{APISERVICES}/{NAME}", "get apiservices (apiGroup 'apiregistration.k8s.io')"),
    "values": (lambda _api: None, VALUES, f"get pods/{METRIC} (apiGroup 'custom.metrics.k8s.io') in namespace riva"),
    "Prometheus": (lambda _api: None, f"{QUERY}/query", "get services/proxy (apiGroup '') in namespace monitoring"),
    "adapter": (no_values, CONFIG, "get configmaps (apiGroup '') in namespace monitoring"),
    "services": (no_targets, SERVICES, "list services (apiGroup '') in namespace riva"),
    "monitors": (no_targets, MONITORS, "list servicemonitors (apiGroup 'monitoring.coreos.com') in namespace riva"),
    "metrics page": (
        no_targets,
        f"{PODS}/http:riva-asr-1:8002/proxy/metrics",
        "get pods/proxy (apiGroup '') in namespace riva",
    ),
}


@pytest.mark.parametrize(("breaks", "path", "permission"), PERMISSIONS.values(), ids=PERMISSIONS.keys())
def test_a_missing_permission_is_named(chain, run_module, breaks, path, permission):
    breaks(chain)
    chain.routes[path] = forbidden(path)
    result = check_custom_metric(run_module, chain)
    assert result["failed"]
    assert f"lacks the permission: {permission}" in result["msg"]


def ready_since(seconds):
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    return {"type": "Ready", "status": "True", "lastTransitionTime": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}


@pytest.mark.parametrize(("seconds", "ok"), [(5, True), (600, False)])
def test_a_new_pod_is_not_asked_for_yet(chain, run_module, seconds, ok):
    new = pod("riva-asr-3")
    new["status"]["conditions"] = [ready_since(seconds)]
    chain.routes[PODS]["items"].append(new)
    result = check_custom_metric(run_module, chain, fail_on="never")
    assert result["ok"] is ok
    assert len(result["pods"]) == 3
    assert ("too new to have a value" in result["table"]) is ok


def test_fail_on_never_returns_the_findings(chain, run_module):
    no_targets(chain)
    result = check_custom_metric(run_module, chain, fail_on="never")
    assert "failed" not in result
    assert not result["ok"]
    assert result["status"] == "failed"
    assert result["table"].splitlines()[0].split() == ["STATUS", "CHECK", "SUBJECT", "MESSAGE"]


def test_wait_looks_again_until_the_chain_is_whole(chain, run_module, monkeypatch):
    monkeypatch.setattr(door.Cluster, "__init__", patient(door.Cluster.__init__))
    whole = chain.routes[VALUES]
    chain.routes[VALUES] = lambda _query, count: {"items": []} if count < 3 else whole
    result = check_custom_metric(run_module, chain, wait=True, wait_timeout=30, wait_sleep=1)
    assert result["ok"]
    assert len(chain.asked(VALUES)) == 3


def patient(init):
    """Sleeps a thousandth of what is asked for."""

    def create(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.sleep = lambda seconds: time.sleep(seconds / 1000)

    return create


def test_wait_ends_at_the_deadline_with_what_was_seen_last(chain, run_module):
    no_targets(chain)
    before = time.monotonic()
    result = check_custom_metric(run_module, chain, wait=True, wait_timeout=2, wait_sleep=1)
    assert time.monotonic() - before < 4
    assert result["first_broken"] == "target"
    assert "(waited 2 s)" in result["msg"]


def test_a_deployment_without_hpa(chain, run_module):
    result = run_module("validate_custom_metric", chain, namespace="riva", deployment="riva-asr")
    assert result["ok"]
    assert result["hpa"] is None
    assert "hpa" not in [finding["check"] for finding in result["findings"]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hpa": "a", "deployment": "b"}, "mutually exclusive"),
        ({}, "one of the following is required: hpa, deployment"),
        ({"hpa": "a", "scrape_interval": 0}, "scrape_interval is 0"),
        ({"hpa": "a", "prometheus_port": 99999}, "prometheus_port is 99999"),
        ({"hpa": "a", "wait_timeout": 0}, "wait_timeout is 0"),
        ({"hpa": "a", "fail_on": "always"}, "fail_on"),
    ],
)
def test_wrong_input_of_the_custom_metric(run_module, options, text):
    result = run_module("validate_custom_metric", "http://127.0.0.1:1", namespace="riva", **options)
    assert result["failed"]
    assert text in result["msg"]


# validate_gpu_nodes


@pytest.fixture
def nodes(api):
    pods = [
        {
            "metadata": {"name": f"p{i}", "namespace": "riva", "labels": {"app": app}},
            "spec": {"nodeName": "gpu-1", "containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
            "status": {"phase": "Running"},
        }
        for i, app in enumerate(("riva-asr", "other"))
    ]
    api.routes["/api/v1/nodes"] = {
        "items": [node("gpu-1"), node("gpu-2", 4, "NVIDIA-A100-PCIE-40GB", "39538"), node("control-plane", 0, None)]
    }
    api.routes["/api/v1/pods"] = {"items": pods}
    return api


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"matching_nodes": 2, "gpus": 6, "nodes_total": 3, "free_gpus": None, "ok": True}),
        ({"products": ["*a100*"]}, {"matching_nodes": 1, "gpus": 4}),
        ({"min_memory": 40960}, {"matching_nodes": 1}),
        ({"min_free_gpus": 4}, {"free_gpus": 4, "ok": True}),
        (
            {"min_free_gpus": 0, "count_as_free": [{"namespace": "riva", "labels": {"app": "riva-asr"}}]},
            {"free_gpus": 5},
        ),
        ({"min_fitting_pods": 2, "gpus_per_pod": 2}, {"fitting_pods": 2, "ok": True}),
    ],
)
def test_gpu_nodes(nodes, run_module, options, expected):
    result = run_module("validate_gpu_nodes", nodes, **options)
    assert {key: result[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_nodes": 3}, "2 of 3 nodes meet the requirement, 3 needed"),
        ({"min_gpus": 7}, "6 GPUs on these nodes, 7 needed (min_gpus)"),
        ({"min_free_gpus": 5}, "4 GPUs free, 5 needed"),
        ({"min_fitting_pods": 3, "gpus_per_pod": 2}, "2 more pods of 2 GPU(s) fit, 3 needed"),
        ({"products": ["*H100*"]}, "product is Tesla-T4, not *H100*"),
        ({"min_compute_capability": "x"}, "min_compute_capability is 'x'"),
    ],
)
def test_gpu_nodes_that_fall_short(nodes, run_module, options, text):
    result = run_module("validate_gpu_nodes", nodes, **options)
    assert result["failed"]
    assert text in result["msg"]


def test_labels_that_nobody_keeps_right_are_doubted(nodes, run_module):
    pods = nodes.routes["/api/v1/pods"]["items"]
    ctr = {"name": "gpu-feature-discovery-ctr"}
    pods += [
        {"spec": {"nodeName": "gpu-1", "containers": [ctr]}, "status": {"phase": "Running"}},
        {"spec": {"nodeName": "gpu-2", "containers": [ctr]}, "status": {"phase": "Pending"}},
    ]
    nodes.routes["/api/v1/nodes"]["items"][1]["metadata"]["labels"]["nvidia.com/gfd.timestamp"] = "1767225600"
    result = run_module("validate_gpu_nodes", nodes, check_discovery=True)
    doubted = [finding for finding in result["findings"] if finding["check"] == "gpu_labels"]
    assert [(finding["subject"], finding["status"]) for finding in doubted] == [("gpu-2", "warning")]
    assert "its labels of 2026-01-01 00:00 UTC may be stale" in doubted[0]["message"]
    assert result["free_gpus"] is None


def test_pods_are_only_read_for_free_gpus(nodes, run_module):
    run_module("validate_gpu_nodes", nodes, node_selector={"pool": "gpu"})
    assert nodes.asked("/api/v1/pods") == []
    assert nodes.asked("/api/v1/nodes")[0]["labelSelector"] == "pool=gpu"


@pytest.mark.parametrize(
    ("path", "permission"), [("/api/v1/nodes", "list nodes"), ("/api/v1/pods", "list pods")], ids=["nodes", "pods"]
)
def test_gpu_nodes_without_permission(nodes, run_module, path, permission):
    nodes.routes[path] = forbidden(path)
    result = run_module("validate_gpu_nodes", nodes, min_free_gpus=0)
    assert f"lacks the permission: {permission} (apiGroup '')" in result["msg"]


# validate_aggregation_layer


@pytest.fixture
def layer(api):
    pem = "-----BEGIN CERTIFICATE-----"
    local = {"metadata": {"name": "v1.apps"}, "spec": {"group": "apps", "version": "v1"}}
    api.routes[TRUST] = {"data": {"requestheader-client-ca-file": pem}}
    api.routes[APISERVICES] = {"items": [apiservice(), local]}
    api.routes[CUSTOM] = {"resources": []}
    return api


def test_aggregation_layer(layer, run_module):
    result = run_module("validate_aggregation_layer", layer)
    assert result["ok"]
    assert result["requestheader"] == "present"
    assert result["apiservices"] == [
        {
            "name": NAME,
            "service": "monitoring/prometheus-adapter",
            "available": "True",
            "reason": "Passed",
            "http_status": 200,
        }
    ]


@pytest.mark.parametrize(
    ("changes", "options", "status", "text"),
    [
        ({TRUST: {"data": {}}, CUSTOM: (401, {})}, {}, "failed", "requestheader-client-ca-file is absent"),
        ({CUSTOM: (401, {"message": "Unauthorized"})}, {}, "failed", "does not trust the API server's headers"),
        ({CUSTOM: (503, {"message": "service unavailable"})}, {}, "failed", "requests fail with 503"),
        ({CUSTOM: forbidden("path")}, {}, "failed", "the caller may not ask it"),
        ({APISERVICES: forbidden("apiservices")}, {}, "failed", "list apiservices"),
        ({TRUST: forbidden("configmap")}, {}, "unknown", "proves it all the same"),
        ({APISERVICES: {"items": []}}, {"apiservices": [NAME]}, "failed", "is not registered"),
        (
            {APISERVICES: {"items": []}},
            {"apiservices": [NAME], "require_apiservices": False},
            "ok",
            "not registered yet",
        ),
        ({APISERVICES: {"items": []}}, {}, "unknown", "no APIService is backed by a Service"),
        ({CUSTOM: (503, {})}, {"leave_out": [NAME]}, "unknown", "no APIService is backed by a Service"),
        ({CUSTOM: (503, {})}, {"leave_out": ["v1.other"]}, "failed", "requests fail with 503"),
    ],
)
def test_a_broken_layer(layer, run_module, changes, options, status, text):
    layer.routes |= changes
    result = run_module("validate_aggregation_layer", layer, fail_on="never", **options)
    assert result["status"] == status
    assert text in result["table"]
    assert result["ok"] is (status != "failed")


# All of them


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("validate_gpu_nodes", {}),
        ("validate_aggregation_layer", {}),
        ("validate_custom_metric", {"namespace": "riva", "hpa": "riva-asr"}),
    ],
)
class TestEveryValidator:
    def test_no_api_is_one_finding(self, run_module, module, options):
        result = run_module(module, "http://127.0.0.1:1", **options)
        assert result["failed"]
        assert [finding["check"] for finding in result["findings"]] == ["api"]
        assert "not reachable" in result["msg"]

    def test_refused_credentials_are_one_finding(self, api, run_module, module, options):
        for path in ("/api/v1/nodes", APISERVICES, HPA):
            api.routes[path] = (401, {"message": "Unauthorized"})
        result = run_module(module, api, fail_on="never", **options)
        assert [finding["check"] for finding in result["findings"]] == ["api"]
        assert "does not accept these credentials" in result["table"]

    def test_a_missing_kubeconfig_is_named(self, run_module, module, options):
        result = run_module(module, kubeconfig="/nowhere/config", **options)
        assert "/nowhere/config does not exist" in result["msg"]

    def test_a_silent_api_ends_at_the_deadline(self, api, run_module, module, options):
        for path in ("/api/v1/nodes", APISERVICES, HPA):
            api.routes[path] = ("hang", 3)
        before = time.monotonic()
        result = run_module(module, api, wait=True, wait_timeout=1, **options)
        assert time.monotonic() - before < 3
        assert "within 1 s" in result["msg"]

    def test_check_mode_answers_the_same(self, api, run_module, module, options):
        expected = run_module(module, api, fail_on="never", **options)
        assert run_module(module, api, fail_on="never", _ansible_check_mode=True, **options) == expected

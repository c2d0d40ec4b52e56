# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The check of the custom metric as a module, against a real HTTP server that plays a cluster, whole and broken."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import cluster as door
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules

from tests.unit.plugins.whole_chain import (
    ADAPTER,
    ADAPTER_PODS,
    ALL_MONITORS,
    APISERVICES,
    CONFIG,
    CUSTOM,
    DEPLOYMENT,
    HPA,
    METRIC,
    MONITORS,
    NAME,
    PODS,
    PODS_ALL,
    PROMETHEUS,
    PROMETHEUSES,
    QUERY,
    SERIES,
    SERVICES,
    VALUES,
    apiservice,
    chain,
    check_custom_metric,
    edit,
    forbidden,
    hpa,
    pod,
    quick,
)

__all__ = ["chain", "quick"]  # Fixtures.


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


def a_node(name, ready, **more):
    return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready, **more}]}}


def test_a_broken_chain_names_the_node_that_is_away(chain, run_module):
    away = {"message": "Kubelet stopped posting node status.", "lastTransitionTime": "2026-11-23T10:44:00Z"}
    chain.routes["/api/v1/nodes"] = {"items": [a_node("gpu-1", "True"), a_node("gpu-2", "Unknown", **away)]}
    assert "node_away" not in check_custom_metric(run_module, chain)["table"], "it is whole"
    chain.routes.pop(VALUES)
    result = check_custom_metric(run_module, chain, fail_on="never")
    (told,) = [finding for finding in result["findings"] if finding["check"] == "node_away"]
    assert (told["subject"], told["status"]) == ("gpu-2", "warning")
    assert "since 2026-11-23T10:44:00Z (Kubelet stopped posting node status.)" in told["message"]
    assert result["first_broken"] != "node_away"


def test_who_may_not_see_nodes_is_told_of_the_chain_all_the_same(chain, run_module):
    chain.routes["/api/v1/nodes"] = forbidden("nodes")
    chain.routes.pop(VALUES)
    result = check_custom_metric(run_module, chain, fail_on="never")
    assert result["status"] == "failed"
    assert "nodes" not in str(result["findings"])

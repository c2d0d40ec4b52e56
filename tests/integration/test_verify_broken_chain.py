"""The chain of the metric, broken on purpose at each link of a real cluster: the one finding that names it.

A small speech service of its own, `frail`, takes the blows: a copy of the installed one, without a GPU, that starts
and stops at once. What belongs to the whole cluster (the adapter, Prometheus, the APIService) is broken for all, and
mended. These tests come after test_site.py, which installs what they break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
import yaml

from tests.integration.frail import PROMETHEUS, Frail, prometheus, select_another_release
from tests.integration.validators import causes, until, validate

APISERVICE = "v1beta1.custom.metrics.k8s.io"
FLAG = "--requestheader-client-ca-file"
BROKEN_PAGE = """
import http.server, threading
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if self.server.server_port == 8002 else 200)
        self.end_headers()
        self.wfile.write(b"out of order")
servers = [http.server.ThreadingHTTPServer(("", port), Page) for port in (8000, 8002, 50051)]
threads = [threading.Thread(target=server.serve_forever) for server in servers]
[thread.start() for thread in threads]
"""


# How each link is broken. A context manager: what it did is taken back at its end.


@contextmanager
def apiservice_absent(service: Frail) -> Iterator[None]:
    item = service.lab.get("apiservice", APISERVICE)
    service.lab.kubectl("delete", "apiservice", APISERVICE)
    try:
        yield
    finally:
        item["metadata"] = {key: item["metadata"][key] for key in ("name", "labels", "annotations")}
        item.pop("status")
        service.create(item)


def owned_by_someone_else(service: Frail):
    other = {"name": PROMETHEUS, "namespace": "monitoring", "port": 9090}
    return service.changed("apiservice", "", APISERVICE, lambda spec: spec.update(service=other))


def adapter(service: Frail, change: Callable[[dict], object]):
    """The adapter's Deployment changed; its old pod ends before the new one starts."""

    def with_recreate(spec: dict) -> None:
        spec["strategy"] = {"type": "Recreate"}
        change(spec)

    return service.changed("deployment", "monitoring", "prometheus-adapter", with_recreate)


def adapter_argument(service: Frail, name: str, value: str):
    def change(spec: dict) -> None:
        container = spec["template"]["spec"]["containers"][0]
        container["args"] = [
            f"{name}={value}" if argument.startswith(f"{name}=") else argument for argument in container["args"]
        ]
        spec["template"]["spec"]["terminationGracePeriodSeconds"] = 0

    return adapter(service, change)


def adapter_rules(service: Frail, query: str, old: str, new: str):
    """A text in one query of all the adapter's rules replaced."""

    def change(rules: list[dict]) -> None:
        for rule in rules:
            rule[query] = rule[query].replace(old, new)

    return other_rules(service, change)


@contextmanager
def other_rules(service: Frail, of_rules: Callable[[list[dict]], object]) -> Iterator[None]:
    """The adapter with other rules."""

    def change(data: dict) -> None:
        config = yaml.safe_load(data["config.yaml"])
        of_rules(config["rules"])
        data["config.yaml"] = yaml.safe_dump(config)

    try:
        with service.changed("configmap", "monitoring", "prometheus-adapter", change, "data"):
            service.restart_adapter()  # It reads its rules at its start only.
            yield
    finally:
        service.restart_adapter()


def prometheus_down(service: Frail):
    return service.changed("prometheus", "monitoring", PROMETHEUS, lambda spec: spec.update(replicas=0))


def monitor(service: Frail, change: Callable[[dict], object]):
    return service.configured("servicemonitor", "riva", "frail", lambda spec: change(spec["endpoints"][0]))


def service_port(service: Frail, target: str):
    def change(spec: dict) -> None:
        next(port for port in spec["ports"] if port["name"] == "metrics")["targetPort"] = target

    return service.changed("service", "riva", "frail", change)


def server(service: Frail, change: Callable[[dict], object]):
    """The pod of the speech service changed."""
    return service.changed(
        "deployment", "riva", "frail", lambda spec: change(spec["template"]["spec"]["containers"][0])
    )


def other_metrics_port(service: Frail):
    setting = {"name": "RIVA_STANDIN_METRICS_PORT", "value": "8003"}
    return server(service, lambda container: container["env"].append(setting))


def exporter_with_500(service: Frail):
    return server(service, lambda container: container.update(command=["python3", "-c", BROKEN_PAGE], args=[]))


def hpa(service: Frail, change: Callable[[dict], object]):
    return service.changed("hpa", "riva", "frail", change)


def other_metric(spec: dict) -> None:
    spec["metrics"][0]["pods"]["metric"]["name"] = "queue_time"


@contextmanager
def nothing(service: Frail) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Case:
    breaks: Callable[[Frail], object]
    link: str
    text: str
    options: dict | None = None


CASES = {
    "HPA aimed at another metric name": Case(
        lambda service: hpa(service, other_metric),
        "hpa",
        "does not scale on the Pods metric avg_time_queue_ms (uses: queue_time)",
    ),
    "HPA's target gone": Case(
        lambda service: hpa(service, lambda spec: spec["scaleTargetRef"].update(name="gone")),
        "hpa",
        "its target Deployment gone does not exist",
    ),
    "caller without RBAC": Case(
        nothing,
        "hpa",
        "the caller lacks the permission: get horizontalpodautoscalers (apiGroup 'autoscaling') in namespace riva",
        {"impersonate_user": "system:serviceaccount:riva:default"},
    ),
    "APIService owned by someone else": Case(
        owned_by_someone_else, "api", f"belongs to monitoring/{PROMETHEUS}, not to the adapter"
    ),
    "APIService absent": Case(apiservice_absent, "api", "is not registered"),
    "Service port name without a container port": Case(
        lambda service: service_port(service, "metrics-http"),
        "pod_port",
        "the Service's targetPort 'metrics-http' names no container port (has: ",
    ),
    "series without pod label": Case(
        lambda service: monitor(
            service, lambda endpoint: endpoint.update(metricRelabelings=[{"action": "labeldrop", "regex": "pod"}])
        ),
        "series",
        "without the label pod",
    ),
    "target without pod label": Case(
        lambda service: monitor(
            service, lambda endpoint: endpoint.update(relabelings=[{"action": "labeldrop", "regex": "pod"}])
        ),
        "series",
        "without the label pod",
    ),
    "ServiceMonitor not selected": Case(
        lambda service: prometheus(service, select_another_release),
        "service_monitor",
        f"is not selected by Prometheus {PROMETHEUS}",
    ),
    "pod not listening on 8002": Case(other_metrics_port, "pod_port", "nothing listens on port 8002"),
    "exporter answering 500": Case(exporter_with_500, "exporter", "answers with HTTP 500"),
    "adapter without endpoints": Case(
        lambda service: adapter(service, lambda spec: spec.update(replicas=0)),
        "api",
        "Deployment prometheus-adapter is scaled to 0",
    ),
    "adapter crash-looping": Case(
        lambda service: adapter_argument(service, "--config", "/etc/adapter/nothing.yaml"),
        "api",
        "CrashLoopBackOff",
    ),
    "wrong Prometheus URL in the adapter": Case(
        lambda service: adapter_argument(service, "--prometheus-url", "http://prometheus.default.svc:9090"),
        "adapter_rule",
        "the adapter asks http://prometheus.default.svc:9090",
    ),
    "adapter rule that matches nothing": Case(
        lambda service: adapter_rules(service, "seriesQuery", "nv_inference", "nv_other"),
        "adapter_rule",
        "its seriesQuery finds nothing in Prometheus: ",
    ),
    "Prometheus down": Case(prometheus_down, "prometheus", "its Service selects no pod"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_broken_link_is_named(frail, case):
    """Exactly one finding names a cause, and it is the right one."""
    frail.whole()

    def named(seen: dict) -> bool:
        found = causes(seen)
        return len(found) == 1 and found[0]["check"] == case.link and case.text in found[0]["message"]

    with ExitStack() as stack:
        stack.enter_context(case.breaks(frail))
        result = until(lambda: frail.look(**case.options or {}), named)
    assert named(result), result["table"]
    assert result["first_broken"] == case.link
    assert not result["ok"]


def test_a_value_computed_without_its_series_is_no_ok(frail):
    """The rule gives 0 for a series that does not exist, and every other link is whole."""
    frail.whole()
    wrong = "nv_inference_request_succeeded"
    with adapter_rules(frail, "metricsQuery", "nv_inference_request_success", wrong):
        found = until(frail.look, lambda seen: not causes(seen) and wrong in seen["table"])
    told = [entry for entry in found["findings"] if entry["check"] == "adapter_rule" and wrong in entry["message"]]
    assert [entry["status"] for entry in told] == ["warning"], found["table"]


def test_aggregation_flags_missing(frail):
    """The API server without requestheader flags: the layer's own check names them.

    The ConfigMap that published the CA outlives the flags; so at first only the server behind says what is wrong.
    """
    lab = frail.lab

    def look() -> dict:
        return validate("validate_aggregation_layer", lab, apiservices=[APISERVICE])

    def named(check: str) -> dict:
        return until(look, lambda seen: [cause["check"] for cause in causes(seen)] == [check] and FLAG in str(seen))

    lab.up("--no-aggregation")
    frail.restart_adapter()  # Its pod, killed with the node, would be held back.
    try:
        outlived = named("apiservice")
        lab.kubectl("delete", "configmap", "extension-apiserver-authentication", "-n", "kube-system")
        absent = named("requestheader_ca")
    finally:
        lab.up()
        frail.restart_adapter()
    assert [cause["check"] for cause in causes(outlived)] == ["apiservice"], outlived["table"]
    assert FLAG in causes(outlived)[0]["remedy"]
    assert [cause["check"] for cause in causes(absent)] == ["requestheader_ca"], absent["table"]
    assert FLAG in causes(absent)[0]["remedy"]

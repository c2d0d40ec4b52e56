"""A small speech service to break: a copy of the installed one that needs no GPU and starts and stops at once."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.integration.running_lab import RunningLab
from tests.integration.validators import until, validate

INTERVAL = 5
PROMETHEUS = "kube-prometheus-stack-prometheus"


class Frail:
    """The speech service that is broken, and the cluster around it."""

    def __init__(self, lab: RunningLab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder

    def create(self, *items: dict) -> None:
        file = self.folder / "items.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        self.lab.kubectl("apply", "-f", file)

    def look(self, **options) -> dict:
        asked = {"namespace": "riva", "hpa": "frail", "scrape_interval": INTERVAL, **options}
        return validate("validate_custom_metric", self.lab, **asked)

    def whole(self, timeout: float = 90) -> None:
        result = until(self.look, lambda seen: seen["status"] == "ok", timeout)
        assert result["status"] == "ok", result["table"]

    @contextmanager
    def changed(self, kind: str, namespace: str, name: str, change: Callable[[dict], object], part: str = "spec"):
        """An object with another spec (or data), until the block ends."""
        where = [f"{kind}/{name}", *(["-n", namespace] if namespace else [])]
        old = self.lab.get(*where)[part]
        new = copy.deepcopy(old)
        change(new)
        self.put(where, part, new)
        try:
            yield
        finally:
            self.put(where, part, old)

    def put(self, where: list[str], part: str, value: dict) -> None:
        patch = json.dumps([{"op": "replace", "path": f"/{part}", "value": value}])
        self.lab.kubectl("patch", *where, "--type=json", "-p", patch)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """What the block does changes Prometheus' configuration, which is read at once.

        The operator writes it into a Secret; by itself the kubelet would look at that within its next minute.
        """
        secret = ("secret", f"prometheus-{PROMETHEUS}", "-n", "monitoring")
        before = self.lab.get(*secret)["data"]
        yield
        until(lambda: {"changed": self.lab.get(*secret)["data"] != before}, lambda seen: seen["changed"], 30)
        pod = f"pod/prometheus-{PROMETHEUS}-0"
        self.lab.kubectl("annotate", pod, "-n", "monitoring", f"looked-at={time.monotonic_ns()}", "--overwrite")

    @contextmanager
    def configured(self, kind: str, namespace: str, name: str, change: Callable[[dict], object]) -> Iterator[None]:
        """An object changed that Prometheus' configuration is made of."""
        with ExitStack() as stack:
            with self.reloading():
                stack.enter_context(self.changed(kind, namespace, name, change))
            try:
                yield
            finally:
                with self.reloading():
                    stack.close()

    def restart_adapter(self) -> None:
        label = "app.kubernetes.io/name=prometheus-adapter"
        self.lab.kubectl("delete", "pod", "-n", "monitoring", "-l", label, "--now")


def small_copy(lab: RunningLab) -> list[dict]:
    """The installed speech service's objects under another name, quick to start and to stop."""
    items = []
    for kind in ("deployment", "service", "servicemonitor", "hpa"):
        item = json.loads(json.dumps(lab.get(kind, "riva-asr", "-n", "riva")).replace("riva-asr", "frail"))
        item.pop("status", None)
        metadata = item["metadata"]
        item["metadata"] = {key: metadata[key] for key in ("name", "namespace")}
        item["metadata"]["labels"] = {"app.kubernetes.io/instance": "frail", "app.kubernetes.io/name": "riva"}
        items.append(item)
    deployment, service, monitor, hpa = (item["spec"] for item in items)
    deployment["strategy"] = {"type": "Recreate"}
    pod = deployment["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 0
    # Without the limit of the installed one, so that its chain is one metric's.
    pod.pop("initContainers", None)
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "stream-limit"]
    service["ports"] = [port for port in service["ports"] if port["name"] != "limit-metrics"]
    service["ports"][0]["targetPort"] = "grpc"
    monitor["endpoints"] = monitor["endpoints"][:1]
    hpa["metrics"] = [metric for metric in hpa["metrics"] if metric["type"] == "Pods"]
    pod.pop("topologySpreadConstraints", None)
    container = pod["containers"][0]
    for key in ("lifecycle", "livenessProbe", "resources"):
        container.pop(key)
    container["env"] = [{"name": "RIVA_STANDIN_MODEL_LOAD_SECONDS", "value": "0"}]
    for probe in ("startupProbe", "readinessProbe"):
        container[probe] = {"tcpSocket": {"port": 50051}, "periodSeconds": 1, "failureThreshold": 60}
    for key in ("clusterIP", "clusterIPs"):
        service.pop(key, None)
    monitor["endpoints"][0]["interval"] = f"{INTERVAL}s"
    hpa["minReplicas"] = hpa["maxReplicas"] = 1
    return items


def prometheus(service: Frail, change: Callable[[dict], object]):
    """Prometheus with another configuration."""
    return service.configured("prometheus", "monitoring", PROMETHEUS, change)


def select_another_release(spec: dict) -> None:
    """The selector that kube-prometheus-stack sets unless it is told not to."""
    spec["serviceMonitorSelector"] = {"matchLabels": {"release": "other"}}


@contextmanager
def frail_service(lab: RunningLab, folder: Path) -> Iterator[Frail]:
    service = Frail(lab, folder)
    with service.reloading():
        service.create(*small_copy(lab))
    yield service
    lab.kubectl("delete", "deployment,service,servicemonitor,hpa", "frail", "-n", "riva", "--wait=false")

    def installed() -> dict:
        return validate("validate_custom_metric", lab, namespace="riva", hpa="riva-asr")

    # The installed service, too, is as it was.
    assert until(installed, lambda seen: seen["ok"], 240)["status"] == "ok"

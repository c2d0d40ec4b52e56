"""Pods come and go under load, through the load balancer: no stream is lost."""

from __future__ import annotations

import json

import pytest

from tests.integration.callers import Callers
from tests.integration.running_lab import RunningLab, eventually

LABEL = "app.kubernetes.io/instance=riva-asr"


class Service:
    """The installed speech service, and what makes its pods come and go."""

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab
        self.settings = lab.get("hpa", "riva-asr", "-n", "riva")["spec"]
        address = lab.get("service", "traefik", "-n", "traefik")["status"]["loadBalancer"]["ingress"][0]["ip"]
        self.endpoint = f"{address}:50051"

    def size(self, low: int, high: int) -> None:
        patch = json.dumps({"spec": {"minReplicas": low, "maxReplicas": high}})
        self.lab.kubectl("patch", "hpa", "riva-asr", "-n", "riva", "--type=merge", "-p", patch)

    def pods(self) -> list[dict]:
        """The pods that are not on their way out."""
        pods = self.lab.get("pods", "-n", "riva", "-l", LABEL)["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def settled(self, count: int, timeout: float = 120) -> None:
        """So many pods, all ready."""

        def there() -> bool:
            pods = self.pods()
            conditions = [entry for pod in pods for entry in pod["status"].get("conditions", ())]
            ready = [entry for entry in conditions if entry["type"] == "Ready" and entry["status"] == "True"]
            return len(pods) == len(ready) == count

        eventually(there, timeout)

    def scale_down(self) -> None:
        self.size(2, 2)
        self.settled(2)
        self.size(1, 1)
        self.settled(1)

    def update(self) -> None:
        before = {pod["metadata"]["name"] for pod in self.pods()}
        self.lab.kubectl("rollout", "restart", "deployment/riva-asr", "-n", "riva")
        eventually(lambda: not before & {pod["metadata"]["name"] for pod in self.pods()}, 180)

    def drain_a_node(self) -> None:
        """The node that has a pod is emptied of the service's pods, as for a repair."""
        self.size(2, 2)
        self.settled(2)
        node = self.pods()[0]["spec"]["nodeName"]
        options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={LABEL}", "--timeout=120s")
        try:
            self.lab.kubectl("drain", node, *options, timeout=150)
            self.settled(2)
        finally:
            self.lab.kubectl("uncordon", node)


@pytest.fixture
def service(installed):
    """The service with one pod; afterwards its HPA is as it was."""
    service = Service(installed)
    service.size(1, 1)
    service.settled(1)
    yield service
    service.size(service.settings["minReplicas"], service.settings["maxReplicas"])


def test_no_stream_is_lost_when_pods_go(service):
    """Scale-down, rolling update and node drain under ten callers."""
    with Callers(service.endpoint, 10) as callers:
        for change in (service.update, service.drain_a_node, service.scale_down):
            before = len(callers.streams)
            change()
            callers.until(more=10)
            assert not callers.lost, change.__name__
            assert len(callers.streams) > before
    assert not callers.lost
    assert len(callers.ended) > 100
    # The pods that went had streams: else nothing was tried.
    assert len({stream.pod for stream in callers.ended}) >= 4

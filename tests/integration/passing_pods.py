"""The installed speech service, and what makes its pods come and go while callers speak."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator

from tests.integration.callers import Callers
from tests.integration.running_lab import RunningLab, eventually

LABEL = "app.kubernetes.io/instance=riva-asr"
# Calls as short as one word, so that there are many; in whole chunks of 0.16 s.
SHORT = (0.48, 0.32, 0.64)


class PassingPods:
    """The pods of the service `riva-asr`."""

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

    @property
    def names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods()}

    def settled(self, count: int, without: Collection[str] = (), timeout: float = 120) -> None:
        """So many pods, all ready, and none of those."""

        def there() -> bool:
            pods = self.pods()
            conditions = [entry for pod in pods for entry in pod["status"].get("conditions", ())]
            ready = [entry for entry in conditions if entry["type"] == "Ready" and entry["status"] == "True"]
            return len(pods) == len(ready) == count and not {pod["metadata"]["name"] for pod in pods} & set(without)

        eventually(there, timeout)

    @contextlib.contextmanager
    def callers(self) -> Iterator[Everyone]:
        """Nine callers of short streams, and four of long ones: not more than one pod takes."""
        with Callers(self.endpoint, 9, SHORT) as short, Callers(self.endpoint, 4) as long:
            yield Everyone(short, long)

    def scale_down(self) -> None:
        self.size(2, 2)
        self.settled(2)
        self.size(1, 1)
        self.settled(1)

    def update(self) -> None:
        before = self.names
        self.lab.kubectl("rollout", "restart", "deployment/riva-asr", "-n", "riva")
        self.settled(len(before), without=before, timeout=180)

    def drain_a_node(self) -> None:
        """The node that has all the pods is emptied of them, as for a repair."""
        self.size(2, 2)
        self.settled(2)
        first = self.pods()[0]["spec"]["nodeName"]
        nodes = {node["metadata"]["name"] for node in self.lab.get("nodes", "-l", "nvidia.com/gpu.present")["items"]}
        for node in nodes - {first}:
            self.lab.kubectl("cordon", node)
        try:
            elsewhere = [pod["metadata"]["name"] for pod in self.pods() if pod["spec"]["nodeName"] != first]
            for name in elsewhere:
                self.lab.kubectl("delete", "pod", name, "-n", "riva", "--wait=false")
            self.settled(2, without=set(elsewhere))
        finally:
            for node in nodes - {first}:
                self.lab.kubectl("uncordon", node)
        assert {pod["spec"]["nodeName"] for pod in self.pods()} == {first}
        before = self.names
        options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={LABEL}", "--timeout=150s")
        try:
            self.lab.kubectl("drain", first, *options, timeout=180)
            self.settled(2, without=before)
        finally:
            self.lab.kubectl("uncordon", first)


class Everyone:
    """The callers of short and of long streams together."""

    def __init__(self, *callers: Callers) -> None:
        self.parts = callers

    @property
    def ended(self) -> list:
        return [stream for part in self.parts for stream in part.ended]

    @property
    def lost(self) -> dict:
        """What became of the streams that did not end well."""
        return {outcome: count for part in self.parts for outcome, count in part.lost.items()}

    def until(self, more: int, timeout: float = 120) -> None:
        """Wait until so many more streams have ended."""
        wanted = len(self.ended) + more
        eventually(lambda: len(self.ended) >= wanted, timeout)

"""GPU nodes broken on purpose on a real cluster: the one finding that names what is wrong with which node.

The first GPU node is broken; the second one stays, so that the requirement for one node is met and the broken one is a
warning. Asked for both nodes, the check fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.integration.running_lab import RunningLab
from tests.integration.validators import until, validate

DEPLOY = "nvidia.com/gpu.deploy"
# What GPU Feature Discovery writes, as far as the checks read it.
GFD = ("gpu.product", "gpu.count", "gpu.memory", "gpu.family", "gpu.replicas")
HOG = """
apiVersion: v1
kind: Pod
metadata: {{name: hog-{number}, namespace: default, labels: {{app: hog}}}}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  containers:
    - name: hog
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [sleep, "3600"]
      resources: {{limits: {{nvidia.com/gpu: "1"}}}}
"""


class Nodes:
    """The lab's nodes, and what the check says of them."""

    def __init__(self, lab: RunningLab, folder) -> None:
        self.lab = lab
        self.folder = folder
        self.first = f"{lab.name}-gpu-1"
        self.control_plane = f"{lab.name}-control-plane"

    def look(self, **options) -> dict:
        return validate("validate_gpu_nodes", self.lab, **{"check_discovery": True, **options})

    def whole(self, timeout: float = 90) -> None:
        result = until(lambda: self.look(min_nodes=2), lambda seen: seen["status"] == "ok", timeout)
        assert result["status"] == "ok", result["table"]

    def labels(self, node: str = "") -> dict:
        return self.lab.get("node", node or self.first)["metadata"]["labels"]

    def label(self, labels: dict, node: str = "") -> None:
        self.lab.kubectl(
            "patch", "node", node or self.first, "--type=merge", "-p", json.dumps({"metadata": {"labels": labels}})
        )

    @contextmanager
    def labelled(self, labels: dict, node: str = "") -> Iterator[None]:
        """A node with these labels (None takes one away), until the block ends."""
        before = self.labels(node)
        self.label(labels, node)
        try:
            yield
        finally:
            self.label({name: before.get(name) for name in labels}, node)

    def operand_off(self, name: str):
        """One part of the GPU Operator switched off on the first node, as an administrator would."""
        return self.labelled({f"{DEPLOY}.{name}": "false"})


@pytest.fixture(scope="module")
def nodes(installed, tmp_path_factory):
    return Nodes(installed, tmp_path_factory.mktemp("nodes"))


@contextmanager
def cordoned(nodes: Nodes) -> Iterator[None]:
    nodes.lab.kubectl("cordon", nodes.first)
    try:
        yield
    finally:
        nodes.lab.kubectl("uncordon", nodes.first)


@contextmanager
def tainted(nodes: Nodes) -> Iterator[None]:
    nodes.lab.kubectl("taint", "node", nodes.first, "team=vision:NoSchedule")
    try:
        yield
    finally:
        nodes.lab.kubectl("taint", "node", nodes.first, "team-")


@contextmanager
def cut_off(nodes: Nodes) -> Iterator[None]:
    nodes.lab.command("fault", "node-cut", nodes.first)
    try:
        yield
    finally:
        nodes.lab.command("fault", "node-plug", nodes.first)


@contextmanager
def nothing(nodes: Nodes) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Case:
    breaks: Callable[[Nodes], object]
    text: str
    check: str = "gpu_node"
    options: dict = field(default_factory=dict)
    # A node that matches all the same, with a doubt.
    matches: bool = False
    status: str = "warning"


CASES = {
    "too little memory": Case(
        nothing, "memory is 15360 MiB a GPU, less than 24576 MiB (tolerance 8%)", options={"min_memory": 24576}
    ),
    "wrong product": Case(nothing, "product is Tesla-T4, not *A100*", options={"products": ["*A100*"]}),
    "cordoned": Case(cordoned, "is cordoned (spec.unschedulable)"),
    "tainted": Case(tainted, "has the taint team=vision:NoSchedule, not tolerated"),
    "no GFD labels": Case(
        lambda nodes: nodes.labelled({f"nvidia.com/{name}": None for name in GFD}),
        "has GPUs to allocate but no GFD labels",
        check="gpu_labels",
        matches=True,
        status="unknown",
    ),
    "MIG invalid": Case(
        lambda nodes: nodes.labelled(
            {
                "nvidia.com/gpu.product": "NVIDIA-A100-PCIE-40GB-MIG-INVALID",
                "nvidia.com/gpu.count": "0",
                "nvidia.com/gpu.replicas": "0",
                "nvidia.com/gpu.memory": "0",
                "nvidia.com/mig.strategy": "single",
            }
        ),
        "MIG layout is invalid (product NVIDIA-A100-PCIE-40GB-MIG-INVALID)",
    ),
    "GFD stopped, so its labels are stale": Case(
        lambda nodes: nodes.operand_off("gpu-feature-discovery"),
        "GPU Feature Discovery does not run there: its labels of ",
        check="gpu_labels",
        matches=True,
    ),
    "no device plugin: capacity without anything allocatable": Case(
        lambda nodes: nodes.operand_off("device-plugin"),
        "has nvidia.com/gpu in its capacity but 0 allocatable",
    ),
    "NotReady": Case(cut_off, "is not Ready (condition Ready is Unknown)"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_node_and_its_fault_are_named(nodes, case):
    nodes.whole()

    def named(seen: dict) -> bool:
        found = [finding for finding in seen["findings"] if finding["status"] != "ok"]
        return [(entry["check"], entry["subject"], entry["status"]) for entry in found] == [
            (case.check, nodes.first, case.status)
        ] and case.text in found[0]["message"]

    with case.breaks(nodes):
        result = until(lambda: nodes.look(**case.options), named, 120)
        both = nodes.look(min_nodes=2, **case.options)
    assert named(result), result["table"]
    assert result["ok"]
    assert both["ok"] is case.matches, both["table"]


def test_a_node_without_any_labels(nodes):
    """Neither NFD nor GFD labels: the check can't tell whether there is a GPU, and says what is missing."""
    selector = {"kubernetes.io/hostname": nodes.control_plane}
    found = nodes.look(node_selector=selector)
    assert "has no NVIDIA device that NFD can see" in found["table"]
    labels = nodes.labels(nodes.control_plane)
    with nodes.labelled({name: None for name in labels if "feature.node" in name}, nodes.control_plane):
        found = nodes.look(node_selector=selector)
    assert [finding["check"] for finding in found["findings"] if finding["status"] == "failed"] == ["gpu_nodes"]
    assert "no GPU labels and no NFD labels" in found["findings"][0]["message"]
    assert "install the driver and the GPU Operator" in found["findings"][0]["remedy"]


def test_capacity_0_with_labels_present(nodes):
    """After the kubelet has forgotten a plugin that went, the labels are all that is left of the GPUs."""
    nodes.whole()
    # The kubelet writes the true figures again within seconds.
    gone = json.dumps({"status": {part: {"nvidia.com/gpu": "0"} for part in ("capacity", "allocatable")}})

    def look() -> dict:
        nodes.lab.kubectl("patch", "node", nodes.first, "--subresource=status", "--type=merge", "-p", gone)
        return nodes.look()

    text = "offers no nvidia.com/gpu though its labels name Tesla-T4 (the device plugin does not run there, or"
    result = until(look, lambda seen: text in seen["table"], 30)
    found = [finding for finding in result["findings"] if finding["status"] != "ok"]
    assert [(entry["check"], entry["subject"]) for entry in found] == [("gpu_node", nodes.first)], result["table"]
    assert text in found[0]["message"]
    nodes.whole()


def test_all_gpus_taken(nodes):
    nodes.whole()
    before = nodes.look(min_free_gpus=1)
    assert before["ok"], before["table"]
    file = nodes.folder / "hogs.yaml"
    file.write_text("---".join(HOG.format(number=number) for number in range(before["free_gpus"])))
    nodes.lab.kubectl("apply", "-f", file)
    try:
        result = until(lambda: nodes.look(min_free_gpus=1), lambda seen: not seen["ok"])
        fitting = nodes.look(min_fitting_pods=1)
    finally:
        nodes.lab.kubectl("delete", "-f", file, "--wait=false")
    failed = [finding for finding in result["findings"] if finding["status"] != "ok"]
    assert [finding["check"] for finding in failed] == ["free_gpus"], result["table"]
    assert "0 GPUs free, 1 needed (min_free_gpus)" in failed[0]["message"]
    assert [finding["check"] for finding in fitting["findings"] if finding["status"] != "ok"] == ["fitting_pods"]
    assert until(lambda: nodes.look(min_free_gpus=1), lambda seen: seen["ok"])["ok"]


def test_the_speech_service_is_whole_again(nodes):
    def look() -> dict:
        return validate("validate_custom_metric", nodes.lab, namespace="riva", hpa="riva-asr")

    assert until(look, lambda seen: seen["ok"], 180)["status"] == "ok"

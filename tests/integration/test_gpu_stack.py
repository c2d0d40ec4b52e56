# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pains of GPU clusters made on purpose on a real cluster: each found by its name, and nothing changed by site.yml."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import gpu_hardware

from tests.integration.running_lab import REPOSITORY
from tests.integration.validators import until, validate
from tests.unit.plugins.gpu_cases import gpu

HARDWARE = json.loads((REPOSITORY / "tests/fixtures/gpu/h100-hardware-info.json").read_text())["hardware"]
STUCK = """
apiVersion: v1
kind: Pod
metadata: {name: pain, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
    - name: toolkit-validation
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [sleep, "600"]
  containers:
    - {name: main, image: "docker.io/library/busybox:1.36", imagePullPolicy: IfNotPresent, command: [sleep, "600"]}
"""
EXPORTER = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: pain, namespace: default}
spec:
  selector: {matchLabels: {app: pain}}
  template:
    metadata: {labels: {app: pain}}
    spec:
      nodeSelector: {no-node: "has-this"}
      containers:
        - {name: nvidia-dcgm-exporter, image: "docker.io/library/busybox:1.36", command: [sleep, "600"]}
"""
CLASS = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: pain}
handler: runc
"""


@pytest.fixture
def applied(installed, tmp_path):
    """Objects that are there until the block ends."""

    @contextmanager
    def apply(text):
        file = tmp_path / "objects.yaml"
        file.write_text(text)
        installed.kubectl("apply", "-f", file)
        try:
            yield
        finally:
            installed.kubectl("delete", "-f", file, "--wait=false", "--ignore-not-found")

    return apply


def bad(lab, **options):
    result = validate("validate_gpu_stack", lab, fail_on="never", **options)
    return {finding["check"]: finding for finding in result["findings"] if finding["status"] != "ok"}


def test_the_way_that_is_there_fits(installed):
    assert bad(installed, driver=False) == {}


def test_the_other_way_is_refused_before_anything_is_changed(installed):
    other = {"gpu_stack": "manual", "nvidia_device_plugin_chart_ref": f"{REPOSITORY}/lab/charts/nvidia-device-plugin"}
    done = installed.play("site.yml", "--tags", "gpu", "-e", json.dumps(other), check=False)
    assert done.returncode != 0
    assert "two_stacks" in done.stdout
    assert "set gpu_stack to operator" in " ".join(done.stdout.split())
    assert "changed=0" in done.stdout
    assert "/nvidia-device-plugin\n" not in installed.kubectl("get", "daemonsets", "-A", "-o", "name") + "\n"


def test_a_driver_on_the_hosts_and_one_of_the_operator(installed):
    found = bad(installed, driver=True, hardware={"gpu-1": HARDWARE})
    assert set(found) == {"two_drivers"}
    assert "gpu-1" in found["two_drivers"]["subject"]


def test_a_second_node_feature_discovery(installed):
    found = bad(installed, driver=False, nfd=True, release_name="another")
    assert set(found) == {"feature_discovery"}
    assert "runs already" in found["feature_discovery"]["message"]


def test_a_runtime_class_of_another_runtime(installed, applied):
    with applied(CLASS):
        assert set(bad(installed, driver=False, runtime_class="pain")) == {"runtime_class"}


def test_k3s_with_the_socket_of_another_containerd(installed):
    version = json.dumps({"status": {"nodeInfo": {"kubeletVersion": "v1.36.3+k3s1"}}})
    node = f"{installed.name}-gpu-1"

    def look():
        installed.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", version)
        return bad(
            installed, driver=False, toolkit_environment={"CONTAINERD_SOCKET": "/run/containerd/containerd.sock"}
        )

    assert set(until(look, lambda seen: seen, 30)) == {"containerd_path"}


def test_a_pod_that_stands_in_init(installed, applied):
    with applied(STUCK):
        found = until(lambda: bad(installed, driver=False, init_timeout=1), lambda seen: seen, 60)
    assert set(found) == {"stuck_in_init"}
    assert found["stuck_in_init"]["subject"] == "default/pain"
    assert "the container toolkit" in found["stuck_in_init"]["message"]


def test_metrics_that_nobody_reads(installed, applied):
    with applied(EXPORTER):
        assert set(bad(installed, driver=False)) == {"gpu_metrics"}


def test_labels_are_those_that_the_rules_foretell(installed):
    """The lab's nodes are labelled by a stand-in; the rules come from what NVIDIA's GFD wrote on a real card."""
    node = f"{installed.name}-gpu-1"
    told = gpu_hardware.predict(
        [gpu("T4"), gpu("T4", number=1)], "580.159.04", "13.0", "speechops-lab", mig_strategy="single"
    )

    def look():
        result = validate("validate_gpu_nodes", installed, expected_hardware={node: told}, fail_on="never")
        (finding,) = (f for f in result["findings"] if f["check"] == "gpu_labels" and f["subject"] == node)
        return finding

    assert look()["status"] == "ok", look()["message"]
    installed.kubectl("label", "node", node, "--overwrite", "nvidia.com/gpu.memory=40960")
    try:
        stale = look()
    finally:
        installed.kubectl("label", "node", node, "--overwrite", "nvidia.com/gpu.memory=15360")
    assert stale["status"] == "failed"
    assert "gpu.memory is 40960, its hardware is 15360" in stale["message"]

"""What of the engines needs a cluster and no minutes: GPUs from ResourceClaims, filled caches, a NIM in a pod."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.integration.running_lab import eventually
from tests.integration.validators import validate
from tests.integration.way_in import Service

CLASS = "gpu.nvidia.com"
DEVICES = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "DeviceClass",
    "metadata": {"name": CLASS},
    "spec": {
        "selectors": [
            {"cel": {"expression": f"device.driver == '{CLASS}' && device.attributes['{CLASS}'].type == 'gpu'"}}
        ]
    },
}


def device(name: str, product: str, architecture: str, capability: str, memory: str) -> dict:
    """A device as NVIDIA's DRA driver publishes it."""
    return {
        "name": name,
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{name}"},
            "productName": {"string": product},
            "brand": {"string": "Nvidia"},
            "architecture": {"string": architecture},
            "cudaComputeCapability": {"version": capability},
            "driverVersion": {"version": "580.159.4"},
            "cudaDriverVersion": {"version": "13.0.0"},
        },
        "capacity": {"memory": {"value": memory}},
    }


def slice_of(node: str, devices: list[dict]) -> dict:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-{CLASS}"},
        "spec": {
            "driver": CLASS,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": devices,
        },
    }


@pytest.fixture
def claimed(installed, tmp_path):
    """The slices of two nodes: a T4 that is too old, and two A100."""
    old = device("gpu-0", "Tesla T4", "Turing", "7.5.0", "15Gi")
    young = [device(f"gpu-{number}", "NVIDIA A100-PCIE-40GB", "Ampere", "8.0.0", "40Gi") for number in (0, 1)]
    items = [
        DEVICES,
        slice_of(f"{installed.name}-gpu-1", [old]),
        slice_of(f"{installed.name}-gpu-2", young),
    ]
    file = tmp_path / "devices.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    installed.kubectl("apply", "-f", str(file))
    yield installed
    installed.kubectl("delete", "-f", str(file))


def nodes(lab, **options) -> dict:
    return validate("validate_gpu_nodes", lab, device_class=CLASS, **options)


def test_gpus_come_from_a_resource_claim(claimed, tmp_path):
    """Nodes are judged by their slices; the scheduler meets the chart's claim, and what it holds is not free."""
    seen = nodes(claimed, min_compute_capability="8.0", min_free_gpus=2)
    assert (seen["ok"], seen["gpus"], seen["free_gpus"]) == (True, 2, 2), seen["table"]
    by_name = {node["name"]: node for node in seen["nodes"]}
    assert by_name[f"{claimed.name}-gpu-2"]["product"] == "NVIDIA-A100-PCIE-40GB"
    assert nodes(claimed, min_gpus=3)["gpus"] == 3
    assert nodes(claimed, min_compute_capability="9.0")["status"] == "failed"

    service = Service(claimed, "claims")
    values = {
        "gpus": 1,
        "autoscaling": {"enabled": False},
        "serviceMonitor": {"enabled": False},
        "route": {"enabled": False},
        "modelStore": {"type": "emptyDir"},
        "resourceClaim": {
            "deviceClassName": CLASS,
            "selectors": [f"device.attributes['{CLASS}'].cudaComputeCapability.compareTo(semver('8.0.0')) >= 0"],
        },
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    # No DRA driver is here, so the pod never starts; the scheduler gives it a device all the same.
    service.helm("upgrade", "--install", "claims", "roles/riva/files/chart", "-f", str(file))
    try:

        def results() -> list[dict]:
            claims = claimed.get("resourceclaims", "-n", "riva")["items"]
            found = [item.get("status", {}).get("allocation", {}).get("devices", {}).get("results") for item in claims]
            return found[0] if len(found) == 1 and found[0] else []

        held = eventually(results, 60)
        assert [(entry["driver"], entry["pool"]) for entry in held] == [(CLASS, f"{claimed.name}-gpu-2")]
        assert nodes(claimed, min_compute_capability="8.0", min_free_gpus=0)["free_gpus"] == 1
        own = [{"namespace": "riva", "labels": {"app.kubernetes.io/instance": "claims"}}]
        assert nodes(claimed, min_compute_capability="8.0", min_free_gpus=2, count_as_free=own)["free_gpus"] == 2
    finally:
        service.remove()
        eventually(lambda: not claimed.get("resourceclaims", "-n", "riva")["items"], 60)

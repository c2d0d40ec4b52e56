"""ResourceSlices of NVIDIA's DRA driver: which devices count, and what they say in the labels' words."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import (
    gpu_findings,
    gpu_labels,
    gpu_requirement,
    gpu_slices,
)

A100 = {
    "type": "gpu",
    "productName": "NVIDIA A100-PCIE-40GB",
    "architecture": "Ampere",
    "cudaComputeCapability": "8.0.0",
    "driverVersion": "580.159.4",
    "cudaDriverVersion": "13.0.0",
    "uuid": "GPU-1",
}
T4 = {**A100, "productName": "Tesla T4", "architecture": "Turing", "cudaComputeCapability": "7.5.0"}


def device(name, about=None, memory="40Gi", taints=(), domain=""):
    found = A100 if about is None else about
    kinds = {key: "version" if "ersion" in key or "Capability" in key else "string" for key in found}
    item = {
        "name": name,
        "attributes": {f"{domain}{key}": {kinds[key]: text} for key, text in found.items()},
        "capacity": {f"{domain}memory": {"value": memory}},
    }
    return {**item, "taints": list(taints)} if taints else item


def piece(devices, node="gpu-1", generation=1, slices=1, driver="gpu.nvidia.com", pool=None):
    return {
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": pool or node, "generation": generation, "resourceSliceCount": slices},
            "devices": devices,
        }
    }


def read(*items):
    return [one for one in map(gpu_slices.project_slice, items) if one]


def count(*items, kind="gpu"):
    return {node: len(found) for node, found in gpu_slices.usable_devices(read(*items), kind).items()}


def test_the_driver_says_what_labels_would():
    assert gpu_slices.labels_of([device("gpu-0"), device("gpu-1")]) == {
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.product": "NVIDIA-A100-PCIE-40GB",
        "nvidia.com/gpu.memory": "40960",
        "nvidia.com/gpu.family": "ampere",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "0",
        "nvidia.com/cuda.driver-version.full": "580.159.4",
        "nvidia.com/cuda.runtime-version.full": "13.0.0",
    }


def test_a_qualified_name_is_the_same_attribute():
    assert gpu_slices.labels_of([device("gpu-0", domain="gpu.nvidia.com/")]) == gpu_slices.labels_of([device("gpu-0")])


@pytest.mark.parametrize(
    ("memory", "told"),
    [("16106127360", "15360"), ("15Gi", "15360"), ("16G", "15258"), ("1.5Gi", None), ("500m", None), ("Gi", None)],
)
def test_memory_is_a_whole_amount_of_bytes(memory, told):
    assert gpu_slices.labels_of([device("gpu-0", memory=memory)]).get("nvidia.com/gpu.memory") == told


def test_of_different_gpus_the_least_counts():
    labels = gpu_slices.labels_of([device("gpu-0"), device("gpu-1", T4, "15Gi")])
    assert labels["nvidia.com/gpu.compute.major"] == "7"
    assert labels["nvidia.com/gpu.memory"] == "15360"


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([piece([device("gpu-0"), device("gpu-1")])], {"gpu-1": 2}),
        ([piece([device("gpu-0")], driver="nic.example.com")], {}),
        ([piece([device("gpu-0")], node="")], {}),
        # An old generation, of a driver that was restarted.
        ([piece([device("gpu-0"), device("gpu-1")]), piece([device("gpu-0")], generation=2)], {"gpu-1": 1}),
        # The second slice of the pool is still to come.
        ([piece([device("gpu-0")], slices=2)], {}),
        ([piece([device("gpu-0")], slices=2), piece([device("gpu-1")], slices=2)], {"gpu-1": 2}),
        ([piece([device("gpu-0", taints=[{"key": "xid", "effect": "NoExecute"}])])], {"gpu-1": 0}),
        ([piece([device("gpu-0", taints=[{"key": "hm", "effect": "None"}])])], {"gpu-1": 1}),
        ([piece([device("gpu-0"), device("gpu-0-mig-1", {**A100, "type": "mig"})])], {"gpu-1": 1}),
        ([{}], {}),
        ([{"spec": {"driver": "gpu.nvidia.com", "nodeName": "n", "devices": ["?", {}]}}], {"n": 0}),
    ],
)
def test_which_devices_can_be_handed_out(items, found):
    assert count(*items) == found


def test_slices_of_mig_are_another_class():
    assert count(piece([device("a", {**A100, "type": "mig"}), device("b")]), kind="mig") == {"gpu-1": 1}


def node(name, **labels):
    item = {
        "metadata": {"name": name, "labels": {f"nvidia.com/{key}": text for key, text in labels.items()}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"nvidia.com/gpu": "2"},
        },
    }
    return gpu_labels.project_node(item)


def judge(slices, claims=None, **wanted):
    requirement = gpu_requirement.Requirement(resource="gpu.nvidia.com", **wanted)
    assert gpu_requirement.requirement_errors(requirement) == []
    nodes = gpu_slices.with_slices([node("gpu-1", **{"gpu.count": "8"}), node("gpu-2")], slices, "gpu.nvidia.com")
    held = gpu_slices.held_by_node(map(gpu_slices.project_claim, claims), slices) if claims is not None else None
    verdicts = gpu_requirement.judge_all(nodes, requirement, held)
    return {verdict.node.name: verdict for verdict in verdicts}


def test_a_node_is_judged_by_its_slices_alone():
    verdicts = judge(read(piece([device("gpu-0")])), min_compute_capability="8.0", families=("ampere",))
    assert verdicts["gpu-1"].matches
    assert verdicts["gpu-1"].gpus == 1
    assert not verdicts["gpu-2"].matches
    assert "in a ResourceSlice" in verdicts["gpu-2"].reasons[0]
    assert "kubectl get resourceslices" in gpu_findings.node_remedy(verdicts["gpu-2"])


def test_a_gpu_that_is_too_old_is_told():
    verdicts = judge(read(piece([device("gpu-0", T4)])), min_compute_capability="8.0")
    assert "7.5" in verdicts["gpu-1"].reasons[0]


def claim(*devices, labels=None, **result):
    results = [{"driver": "gpu.nvidia.com", "pool": "gpu-1", "device": name, **result} for name in devices]
    return {
        "metadata": {"namespace": "riva", "labels": labels or {}},
        "status": {"allocation": {"devices": {"results": results}}},
    }


@pytest.mark.parametrize(
    ("claims", "free"),
    [
        ([], 2),
        ([claim("gpu-0")], 1),
        ([claim("gpu-0"), claim("gpu-0")], 1),
        ([claim("gpu-0"), claim("gpu-1")], 0),
        ([claim("gpu-0", adminAccess=True)], 2),
        ([claim("gpu-0", driver="nic.example.com")], 2),
        ([{"metadata": {}}], 2),
    ],
)
def test_what_claims_hold_is_not_free(claims, free):
    slices = read(piece([device("gpu-0"), device("gpu-1")]))
    assert judge(slices, claims, min_free_gpus=0)["gpu-1"].free == free


def test_own_claims_count_as_free():
    own = [{"namespace": "riva", "labels": {"app.kubernetes.io/instance": "riva-asr"}}]
    mine = claim("gpu-0", labels={"app.kubernetes.io/instance": "riva-asr"})
    assert gpu_slices.project_claim(mine, own) == []
    assert gpu_slices.project_claim(mine, []) == [("gpu-1", "gpu-0")]

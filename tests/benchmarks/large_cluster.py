"""Objects of a large cluster as one finds them: nodes of about 35 KB with 100 labels and 50 images, and pods."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

# (product, GPUs, memory MiB, major, minor, family); None is a node without a GPU.
MODELS = (
    ("NVIDIA-A100-SXM4-80GB", 8, 81920, 8, 0, "ampere"),
    ("Tesla-T4", 4, 15360, 7, 5, "turing"),
    ("NVIDIA-H100-80GB-HBM3", 8, 81559, 9, 0, "hopper"),
    None,
)
LABELS = 100
IMAGES = 50
IMAGE = "artifacts.internal.example.com:5000/platform-production-releases/europe-central"


def digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def gpu_labels(model: tuple) -> dict[str, str]:
    product, count, memory, major, minor, family = model
    labels = {
        "cuda.driver-version.full": "580.159.04",
        "cuda.driver-version.major": "580",
        "cuda.driver-version.minor": "159",
        "cuda.driver-version.revision": "04",
        "cuda.runtime-version.full": "13.0",
        "cuda.runtime-version.major": "13",
        "cuda.runtime-version.minor": "0",
        "gpu.compute.major": major,
        "gpu.compute.minor": minor,
        "gpu.count": count,
        "gpu.family": family,
        "gpu.machine": "PowerEdge-XE9680",
        "gpu.memory": memory,
        "gpu.mode": "compute",
        "gpu.present": "true",
        "gpu.product": product,
        "gpu.replicas": 1,
        "gpu.sharing-strategy": "none",
        "mig.capable": "true" if major >= 8 else "false",
        "mig.strategy": "none",
        "mps.capable": "false",
    }
    return {f"nvidia.com/{name}": str(value) for name, value in labels.items()}


def condition(kind: str, status: str, reason: str, message: str) -> dict:
    times = {"lastHeartbeatTime": "2026-11-22T12:53:46Z", "lastTransitionTime": "2026-11-20T12:53:35Z"}
    return {"type": kind, "status": status, "reason": reason, "message": message, **times}


def node_name(index: int) -> str:
    return f"node-{index:05d}.cluster.example.com"


def node(index: int) -> dict:
    """One node; the index decides its GPU, every 50th is not Ready, every 40th is cordoned."""
    name = node_name(index)
    model = MODELS[index % len(MODELS)]
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": f"row-{index % 40}",
        "feature.node.kubernetes.io/kernel-version.full": "6.8.0-85-generic",
        **({"feature.node.kubernetes.io/pci-10de.present": "true", **gpu_labels(model)} if model else {}),
    }
    for number in range(LABELS - len(labels)):
        labels[f"feature.node.kubernetes.io/cpu-cpuid.FEATURE{number:03d}"] = "true"
    resources = {
        "cpu": "128",
        "memory": "1056392528Ki",
        "ephemeral-storage": "1843269236Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": "250",
        **({"nvidia.com/gpu": str(model[1])} if model else {}),
    }
    ready = "Unknown" if index % 50 == 49 else "True"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {
                "csi.volume.kubernetes.io/nodeid": f'{{"csi.example.com":"{name}"}}',
                "node.alpha.kubernetes.io/ttl": "0",
                "nfd.node.kubernetes.io/feature-labels": ",".join(sorted(labels)),
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": {
            "podCIDR": f"10.{index // 256}.{index % 256}.0/24",
            **({"unschedulable": True} if index % 40 == 39 else {}),
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [{"type": "Hostname", "address": name}],
            "nodeInfo": {
                "machineID": digest(name)[:32],
                "systemUUID": digest(name, "system")[:32],
                "bootID": digest(name, "boot")[:32],
                "kernelVersion": "6.8.0-85-generic",
                "osImage": "Ubuntu 24.04.3 LTS",
                "containerRuntimeVersion": "containerd://2.2.0",
                "kubeletVersion": "v1.36.3",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", ready, "KubeletReady", "kubelet is posting ready status"),
            ],
            "images": [
                {
                    "names": [
                        f"{IMAGE}/team-{number:02d}/application@sha256:{digest(index % 7, number)}",
                        f"{IMAGE}/team-{number:02d}/application:v1.{number}.0-{digest(number)[:12]}",
                    ],
                    "sizeBytes": 150_000_000 + number,
                }
                for number in range(IMAGES)
            ],
        },
    }


def nodes(start: int, end: int) -> Iterator[dict]:
    return (node(index) for index in range(start, end))


def pods(start: int, end: int) -> Iterator[dict]:
    """A pod of one GPU on every tenth node that has some."""
    for index in range(start, end):
        if index % 10 or MODELS[index % len(MODELS)] is None:
            continue
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"job-{index:05d}", "labels": {"app": "job"}},
            "spec": {
                "nodeName": node_name(index),
                "containers": [
                    {
                        "name": "job",
                        "image": "registry.example.com/job:v1",
                        "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "4", "memory": "16Gi"}},
                    }
                ],
            },
        }

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What the labels, resources and pods of a node say about its GPUs.

The labels are those of GPU Feature Discovery (GFD), in their old and their new form. Everything in a label is
text, written by someone else: what does not parse counts as absent, never as met.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.speechops.riva.plugins.module_utils import protobuf
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence

PREFIX = "nvidia.com/"
RESOURCE = "nvidia.com/gpu"
# DeviceClasses of NVIDIA's DRA driver, and the type that their devices carry.
DEVICE_CLASSES = {"gpu.nvidia.com": "gpu", "mig.nvidia.com": "mig"}
SHARED_SUFFIX = "-SHARED"
INVALID_SUFFIX = "-MIG-INVALID"
FAMILIES = ("volta", "turing", "ampere", "ada-lovelace", "hopper", "blackwell", "rubin")
# NFD labels every PCI device of class 0300 or 0302 by its vendor; 10de is NVIDIA.
NFD_PREFIX = "feature.node.kubernetes.io/"
PCI_PREFIX = f"{NFD_PREFIX}pci-"
TIMESTAMP = "nvidia.com/gfd.timestamp"
NFD_NVIDIA = re.compile(r"feature\.node\.kubernetes\.io/pci-(?:03[0-9a-f]{2}_)?10de(?:_[0-9a-f_]+)?\.present")
# The GPU Operator names the container so, the device plugin's chart with -ctr at its end. The chart's pods carry the
# plugin's own labels, so names are all there is to tell them by.
DISCOVERY = "gpu-feature-discovery"


def as_int(value: object) -> int | None:
    """A whole number of at most 18 digits, or None."""
    text = str(value).strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) and not isinstance(value, bool) else None


def as_version(value: object) -> tuple[int, ...] | None:
    """A dotted version as numbers, so that 9.10 is above 9.9; None where it is none."""
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", text):
        return None
    return tuple(int(part) for part in text.split("."))


def family_of(major: int, minor: int) -> str | None:
    """The name that GFD gives to a compute capability."""
    if major == 7:
        return "turing" if minor >= 5 else "volta"
    if major == 8:
        return "ada-lovelace" if minor >= 9 else "ampere"
    return {9: "hopper", 10: "blackwell", 12: "blackwell", 13: "rubin"}.get(major)


@dataclass(frozen=True)
class Gpus:
    """The GPUs of one node as its labels describe them. None means: not said, or not readable."""

    product: str | None = None
    model: str | None = None
    count: int | None = None
    memory_mib: int | None = None
    family: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    cuda: str | None = None
    mig_capable: bool | None = None
    mig_strategy: str | None = None
    mig_invalid: bool = False
    mig_profiles: tuple[str, ...] = ()
    sharing: str = "none"
    sharing_factor: int | None = None


def label(labels: Mapping, *names: str) -> str | None:
    """The first of these labels that is there and not empty."""
    for name in names:
        value = labels.get(PREFIX + name)
        if value is not None and str(value).strip():
            return str(value).strip()
    return None


def joined(labels: Mapping, *parts: tuple[str, ...]) -> str | None:
    """A version from the labels of its parts, as far as they go; None without the first."""
    found = []
    for names in parts:
        value = label(labels, *names)
        if value is None:
            break
        found.append(value)
    version = ".".join(found)
    return version if as_version(version) else None


def driver_version(labels: Mapping) -> str | None:
    full = label(labels, "cuda.driver-version.full")
    if full and as_version(full):
        return full
    return joined(
        labels,
        ("cuda.driver-version.major", "cuda.driver.major"),
        ("cuda.driver-version.minor", "cuda.driver.minor"),
        ("cuda.driver-version.revision", "cuda.driver.rev"),
    )


def cuda_version(labels: Mapping) -> str | None:
    full = label(labels, "cuda.runtime-version.full")
    if full and as_version(full):
        return full
    return joined(
        labels,
        ("cuda.runtime-version.major", "cuda.runtime.major"),
        ("cuda.runtime-version.minor", "cuda.runtime.minor"),
    )


def mig_resources(names: Iterable[str]) -> tuple[str, ...]:
    """The MIG profiles in resource or label names of the mixed strategy, nvidia.com/mig-1g.10gb[.count]."""
    found = set()
    for name in names:
        match = re.match(r"nvidia\.com/mig-(\d+g\.\d+gb(?:\.me|\.all)?)(?:\.|$)", str(name))
        if match:
            found.add(match.group(1))
    return tuple(sorted(found))


def read_labels(labels: Mapping) -> Gpus:
    """Everything the labels say, in whichever form."""
    labels = mapping(labels)
    product = label(labels, "gpu.product")
    model, sharing, invalid = product, "none", False
    profiles: tuple[str, ...] = ()
    if model and model.endswith(SHARED_SUFFIX):
        model, sharing = model.removesuffix(SHARED_SUFFIX), "time-slicing"
    if model and model.endswith(INVALID_SUFFIX):
        model, invalid = model.removesuffix(INVALID_SUFFIX), True
    elif model and (slice_ := re.search(r"-MIG-(\d+g\.\d+gb(?:\.me|\.all)?)$", model)):
        model, profiles = model[: slice_.start()], (slice_.group(1),)
    declared = label(labels, "gpu.sharing-strategy")
    if declared in ("time-slicing", "mps", "none"):
        sharing = declared if declared != "none" else sharing
    replicas = as_int(label(labels, "gpu.replicas"))
    if sharing == "none" and replicas is not None and replicas > 1:
        sharing = "time-slicing"
    major, minor = as_int(label(labels, "gpu.compute.major")), as_int(label(labels, "gpu.compute.minor"))
    capability = f"{major}.{minor or 0}" if major is not None and major > 0 else None
    family = label(labels, "gpu.family")
    if family not in FAMILIES:
        family = family_of(major, minor or 0) if major and capability else None
    memory = as_int(label(labels, "gpu.memory"))
    strategy = label(labels, "mig.strategy")
    capable = label(labels, "mig.capable")
    return Gpus(
        product=product,
        model=model,
        count=as_int(label(labels, "gpu.count")),
        memory_mib=memory if memory and memory > 0 else None,
        family=family,
        compute_capability=capability,
        driver=driver_version(labels),
        cuda=cuda_version(labels),
        mig_capable=None if capable is None else capable == "true",
        mig_strategy=strategy if strategy in ("single", "mixed", "none") else None,
        mig_invalid=invalid,
        mig_profiles=profiles or mig_resources(labels),
        sharing=sharing,
        sharing_factor=replicas if replicas and replicas > 0 else None,
    )


# What a Node is given where its labels are still to be read.
UNREAD = read_labels({})


@dataclass(frozen=True, slots=True)
class Node:
    """What of a node object the rules need; the rest is dropped as it comes in."""

    name: str
    labels: Mapping = field(default_factory=dict)
    taints: tuple[Mapping, ...] = ()
    unschedulable: bool = False
    ready: str = "Unknown"
    allocatable: Mapping = field(default_factory=dict)
    capacity: Mapping = field(default_factory=dict)
    labelled: int | None = None  # When GFD wrote the labels, in seconds of the epoch.
    gpus: Gpus = UNREAD

    def __post_init__(self) -> None:
        if self.gpus is UNREAD:
            object.__setattr__(self, "gpus", read_labels(self.labels))


def kept_labels(labels: object) -> dict:
    """The labels that the rules read: NVIDIA's, NFD's of NVIDIA devices, and one more of NFD as a sign that it runs.

    The time of GFD's last run is kept apart: it differs on each node.
    """
    kept: dict = {}
    sign = False
    for key, value in mapping(labels).items():
        key = str(key)
        if key.startswith(PCI_PREFIX):
            kept[key] = value
        elif key.startswith(NFD_PREFIX):
            if not sign:
                kept[key] = value
            sign = True
        elif key.startswith(PREFIX) and key != TIMESTAMP:
            kept[key] = value
    return kept


def node_fields() -> protobuf.Fields:
    """What project_node reads, for a list in protobuf form."""
    return protobuf.node_fields((PREFIX, PCI_PREFIX), NFD_PREFIX, PREFIX)


def pod_fields(resource: str) -> protobuf.Fields:
    """What project_pod reads, for a list in protobuf form."""
    return protobuf.pod_fields(resource)


def project_node(item: Mapping, known: dict | None = None) -> Node:
    """A node without its 30 KB of images and conditions. Anything may be missing or null.

    Nodes that differ in nothing but their names share what `known` holds, so that 20,000 of them take little memory.
    """
    metadata, spec, status = (mapping(item.get(key)) for key in ("metadata", "spec", "status"))
    ready = "Unknown"
    for condition in sequence(status.get("conditions")):
        if mapping(condition).get("type") == "Ready":
            said = mapping(condition).get("status")
            ready = said if said in ("True", "False") else "Unknown"
    parts = (
        kept_labels(metadata.get("labels")),
        tuple(
            {key: taint[key] for key in ("key", "value", "effect") if key in taint}
            for taint in sequence(spec.get("taints"))
            if isinstance(taint, Mapping)
        ),
        spec.get("unschedulable") is True,
        ready,
        nvidia_only(status.get("allocatable")),
        nvidia_only(status.get("capacity")),
    )
    name = str(metadata.get("name") or "?")
    labelled = as_int(mapping(metadata.get("labels")).get(TIMESTAMP))
    if known is None:
        return Node(name, *parts, labelled)
    labels, taints, unschedulable, _ready, allocatable, capacity = parts
    key = (
        tuple(labels.items()),
        tuple(tuple(taint.items()) for taint in taints),
        (unschedulable, ready),
        tuple(allocatable.items()),
        tuple(capacity.items()),
    )
    try:
        same = known.get(key)
    except TypeError:  # A list or a mapping where text belongs.
        return Node(name, *parts, labelled)
    if same is None:
        same = known[key] = Node(name, *parts)
    shared = (same.labels, same.taints, unschedulable, same.ready, same.allocatable, same.capacity)
    return Node(name, *shared, labelled, same.gpus)


def nvidia_only(resources: object) -> dict:
    return {str(key): value for key, value in mapping(resources).items() if str(key).startswith(PREFIX)}


def offered(resources: Mapping, resource: str) -> int:
    """How many of a resource; what is absent, negative or unreadable is zero. 2000 is written `2k`."""
    text = str(resources.get(resource)).strip()
    number = as_int(text.removesuffix("k"))
    return max(number or 0, 0) * (1000 if text.endswith("k") else 1)


def gpu_resources(resources: Mapping) -> dict[str, int]:
    """Every GPU resource of a node under whatever name: gpu, gpu.shared, mig-1g.10gb, a renamed one."""
    return {name: number for name in sorted(resources) if (number := offered(resources, name))}


def tolerated(taint: Mapping, tolerations: Sequence[Mapping]) -> bool:
    """Kubernetes' own rule: key, operator, value and effect; an empty key with Exists takes everything."""
    for toleration in tolerations:
        toleration = mapping(toleration)
        if toleration.get("effect") and toleration.get("effect") != taint.get("effect"):
            continue
        operator = toleration.get("operator") or "Equal"
        key = toleration.get("key")
        if not key:
            if operator == "Exists":
                return True
            continue
        if key != taint.get("key"):
            continue
        if operator == "Exists" or str(toleration.get("value") or "") == str(taint.get("value") or ""):
            return True
    return False


def sees_gpu(node: Node) -> bool:
    """Whether anything at all speaks for a GPU on this node."""
    return (
        bool(node.gpus.product)
        or bool(gpu_resources(node.capacity))
        or label(node.labels, "gpu.present") == "true"
        or any(NFD_NVIDIA.fullmatch(name) for name in node.labels)
    )


def promised(gpus: Gpus, resource: str, labels: Mapping) -> int | None:
    """How many of the resource the labels promise, or None where they don't say."""
    if resource.startswith("nvidia.com/mig-"):
        count = as_int(labels.get(f"{resource}.count"))
        replicas = as_int(labels.get(f"{resource}.replicas")) or 1
        return None if count is None else count * replicas
    if gpus.count is None:
        return None
    if resource == RESOURCE and gpus.mig_strategy == "mixed" and gpus.sharing_factor is None:
        return None  # A MIG parent in mixed mode: replicas 0, its slices are other resources.
    return gpus.count * (gpus.sharing_factor or 1)


def used_by(pod: Mapping, resource: str) -> int:
    """How many of the resource a pod holds on its node; 0 once it has ended.

    As the scheduler counts: the containers and the sidecars together, or the largest init container with the
    sidecars started before it, whichever is more.
    """
    if mapping(pod.get("status")).get("phase") in ("Succeeded", "Failed"):
        return 0
    spec = mapping(pod.get("spec"))

    def amount(container: object) -> int:
        resources = mapping(mapping(container).get("resources"))
        requests, limits = mapping(resources.get("requests")), mapping(resources.get("limits"))
        return offered(requests if resource in requests else limits, resource)

    sidecars = peak = 0
    for container in sequence(spec.get("initContainers")):
        if mapping(container).get("restartPolicy") == "Always":
            sidecars += amount(container)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + amount(container))
    return max(peak, sidecars + sum(amount(container) for container in sequence(spec.get("containers"))))


def counts_as_free(pod: Mapping, own: Sequence[Mapping]) -> bool:
    """Whether a pod is one of those whose GPUs count as free."""
    metadata = mapping(pod.get("metadata"))
    labels = mapping(metadata.get("labels"))
    for selector in own:
        if selector.get("namespace") not in (None, "", metadata.get("namespace")):
            continue
        if all(labels.get(key) == str(value) for key, value in mapping(selector.get("labels")).items()):
            return True
    return False


def project_pod(pod: Mapping, resource: str, own: Sequence[Mapping] = ()) -> tuple[str, int] | None:
    """(node, GPUs held) of a pod that holds some there, else None."""
    node = mapping(pod.get("spec")).get("nodeName")
    held = used_by(pod, resource) if node else 0
    return (str(node), held) if held and not counts_as_free(pod, own) else None


def discovery_node(pod: Mapping) -> str | None:
    """The node on which this pod runs GPU Feature Discovery, None for any other pod."""
    spec = mapping(pod.get("spec"))
    if mapping(pod.get("status")).get("phase") != "Running" or not spec.get("nodeName"):
        return None
    names = [mapping(container).get("name") for container in sequence(spec.get("containers"))]
    return str(spec["nodeName"]) if any(str(name).startswith(DISCOVERY) for name in names) else None

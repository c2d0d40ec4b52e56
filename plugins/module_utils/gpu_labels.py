# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What a node's labels and resources say about its GPUs, and whether that meets a requirement.

The labels are those of GPU Feature Discovery (GFD), in their old and their new form. Everything in a label is
text, written by someone else: what does not parse counts as absent, never as met.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from ansible_collections.speechops.riva.plugins.module_utils import gpu_hardware, protobuf
from ansible_collections.speechops.riva.plugins.module_utils.findings import (
    FAILED,
    OK,
    SEVERITY,
    UNKNOWN,
    WARNING,
    Finding,
)

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

# More findings than this about single nodes are counted, not listed.
MOST_NODE_FINDINGS = 50

# NVML reports less than the figure on the box: a T4 of 16384 MiB has 15360 (6 %), with ECC 15109 (8 %).
MEMORY_TOLERANCE = 0.08


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


def at_least(actual: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a version is the wanted one or above it; missing parts count as zero."""
    length = max(len(actual), len(wanted))
    return actual + (0,) * (length - len(actual)) >= wanted + (0,) * (length - len(wanted))


def family_of(major: int, minor: int) -> str | None:
    """The name that GFD gives to a compute capability."""
    if major == 7:
        return "turing" if minor >= 5 else "volta"
    if major == 8:
        return "ada-lovelace" if minor >= 9 else "ampere"
    return {9: "hopper", 10: "blackwell", 12: "blackwell", 13: "rubin"}.get(major)


def mapping(value: object) -> Mapping:
    """The value if it is a mapping, else an empty one: a cluster may hold anything."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence:
    return value if isinstance(value, list | tuple) else ()


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


@dataclass(frozen=True)
class Requirement:
    """What is asked of the nodes. Empty or None asks for nothing."""

    min_nodes: int = 1
    min_gpus: int | None = None
    min_gpus_per_node: int = 1
    min_free_gpus: int | None = None
    min_fitting_pods: int | None = None
    gpus_per_pod: int = 1
    products: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    min_memory: int | None = None
    memory_tolerance: float = MEMORY_TOLERANCE
    min_compute_capability: str | None = None
    min_driver: str | None = None
    min_cuda: str | None = None
    mig: str = "any"
    mig_profiles: tuple[str, ...] = ()
    sharing: str = "any"
    max_sharing_factor: int | None = None
    resource: str = RESOURCE
    tolerations: tuple[Mapping, ...] = ()

    @property
    def asks_for_free(self) -> bool:
        return self.min_free_gpus is not None or self.min_fitting_pods is not None


def requirement_errors(wanted: Requirement) -> list[str]:
    """What is wrong with the requirement itself, each with the option's name."""
    errors = []
    for option, least in (
        ("min_nodes", 0),
        ("min_gpus", 0),
        ("min_gpus_per_node", 1),
        ("min_free_gpus", 0),
        ("min_fitting_pods", 0),
        ("gpus_per_pod", 1),
        ("min_memory", 1),
        ("max_sharing_factor", 1),
    ):
        value = getattr(wanted, option)
        if value is not None and value < least:
            errors.append(f"{option} is {value}; expected {least} or more")
    for option in ("min_compute_capability", "min_driver", "min_cuda"):
        value = getattr(wanted, option)
        if value is not None and as_version(value) is None:
            errors.append(f"{option} is {value!r}; expected a version in quotes, for example '8.0'")
    if not 0 <= wanted.memory_tolerance < 1:
        errors.append(f"memory_tolerance is {wanted.memory_tolerance}; expected 0 or more and below 1")
    known = wanted.resource in DEVICE_CLASSES
    if not known and not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", wanted.resource):
        errors.append(f"resource is {wanted.resource!r}; expected a name such as {RESOURCE}")
    for profile in wanted.mig_profiles:
        if not re.fullmatch(r"\d+g\.\d+gb(\.me|\.all)?", profile):
            errors.append(f"mig_profiles names {profile!r}; expected profiles such as 1g.10gb")
    return errors


def without_labels(node: Node) -> str | None:
    """Why a node says nothing about a GPU: no NFD, no GPU, no GFD, or no device plugin. None if it does."""
    gpus = node.gpus
    if gpus.product or gpus.count is not None:
        return None
    no_gfd = "no GFD labels (GPU Feature Discovery does not run there)"
    if gpu_resources(node.allocatable) or gpu_resources(node.capacity):
        return f"has GPUs to allocate but {no_gfd}"
    if label(node.labels, "gpu.present") == "true":
        return f"is marked nvidia.com/gpu.present but {no_gfd}"
    nfd = [name for name in node.labels if name.startswith(NFD_PREFIX)]
    if any(NFD_NVIDIA.fullmatch(name) for name in nfd):
        return f"has an NVIDIA device (seen by NFD) but {no_gfd}"
    if nfd:
        return "has no NVIDIA device that NFD can see"
    return "has no GPU labels and no NFD labels (no GPU, or Node Feature Discovery does not run there)"


def without_slices(wanted: Requirement) -> str:
    """Why a node without a device offers none, where GPUs are handed out by ResourceClaim."""
    missing = "no such GPU, or NVIDIA's DRA driver is not there"
    return f"has no device of class {wanted.resource} in a ResourceSlice ({missing})"


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


def reasons_against(node: Node, wanted: Requirement) -> list[str]:
    """Why a node does not meet the requirement; empty if it does."""
    gpus = node.gpus
    amount = offered(node.allocatable, wanted.resource)
    absent = without_slices(wanted) if wanted.resource in DEVICE_CLASSES else without_labels(node)
    if absent and not amount:
        return [absent]
    reasons = []
    if gpus.mig_invalid:
        reasons.append(f"MIG layout is invalid (product {gpus.product})")
    reasons += scheduling_reasons(node, wanted)
    reasons += amount_reasons(node, gpus, amount, wanted)
    reasons += model_reasons(gpus, wanted)
    reasons += mig_reasons(gpus, mig_resources(gpu_resources(node.allocatable)), wanted)
    reasons += sharing_reasons(gpus, wanted)
    return reasons


def scheduling_reasons(node: Node, wanted: Requirement) -> list[str]:
    reasons = []
    if node.ready != "True":
        reasons.append(f"is not Ready (condition Ready is {node.ready})")
    if node.unschedulable:
        reasons.append("is cordoned (spec.unschedulable)")
    for taint in node.taints:
        if taint.get("effect") not in ("NoSchedule", "NoExecute") or tolerated(taint, wanted.tolerations):
            continue
        if node.unschedulable and taint.get("key") == "node.kubernetes.io/unschedulable":
            continue
        value = f"={taint.get('value')}" if taint.get("value") else ""
        reasons.append(f"has the taint {taint.get('key')}{value}:{taint.get('effect')}, not tolerated")
    return reasons


def amount_reasons(node: Node, gpus: Gpus, amount: int, wanted: Requirement) -> list[str]:
    if amount >= wanted.min_gpus_per_node:
        return []
    if amount:
        return [f"offers {amount} {wanted.resource}, fewer than {wanted.min_gpus_per_node}"]
    others = gpu_resources(node.allocatable)
    if others:
        names = ", ".join(f"{name}: {number}" for name, number in others.items())
        return [f"offers no {wanted.resource} but {names}"]
    if offered(node.capacity, wanted.resource):
        return [
            f"has {wanted.resource} in its capacity but 0 allocatable"
            " (its GPUs are unhealthy, or the device plugin has stopped)"
        ]
    if gpus.count == 0:
        return [f"its labels count 0 GPUs (product {gpus.product})"]
    return [
        f"offers no {wanted.resource} though its labels name {gpus.product or 'a GPU'}"
        " (the device plugin does not run there, or the labels are stale)"
    ]


def model_reasons(gpus: Gpus, wanted: Requirement) -> list[str]:
    reasons = []
    if wanted.products:
        names = {name.lower() for name in (gpus.product, gpus.model) if name}
        patterns = [pattern.lower() for pattern in wanted.products]
        if not any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
            reasons.append(f"product is {gpus.product or 'not labelled'}, not {' or '.join(wanted.products)}")
    if wanted.families and gpus.family not in wanted.families:
        reasons.append(f"family is {gpus.family or 'not labelled'}, not {' or '.join(wanted.families)}")
    if wanted.min_memory:
        if gpus.memory_mib is None:
            reasons.append("memory is not labelled")
        elif gpus.memory_mib < wanted.min_memory * (1 - wanted.memory_tolerance):
            reasons.append(
                f"memory is {gpus.memory_mib} MiB a GPU, less than {wanted.min_memory}"
                f" MiB (tolerance {wanted.memory_tolerance:.0%})"
            )
    for name, actual, least in (
        ("compute capability", gpus.compute_capability, wanted.min_compute_capability),
        ("driver", gpus.driver, wanted.min_driver),
        ("CUDA version of the driver", gpus.cuda, wanted.min_cuda),
    ):
        if least is None:
            continue
        version = as_version(actual) if actual else None
        if version is None:
            reasons.append(f"{name} is not labelled")
        elif not at_least(version, as_version(least) or ()):
            reasons.append(f"{name} is {actual}, below {least}")
    return reasons


def mig_reasons(gpus: Gpus, allocatable_profiles: Sequence[str], wanted: Requirement) -> list[str]:
    profiles = sorted({*gpus.mig_profiles, *allocatable_profiles})
    sliced = bool(profiles) or gpus.mig_invalid
    if wanted.mig == "disabled" and sliced:
        return [f"its GPUs are split by MIG ({', '.join(profiles) or 'invalid layout'})"]
    if wanted.mig == "capable" and not gpus.mig_capable:
        return ["is not labelled as able to use MIG (nvidia.com/mig.capable)"]
    if wanted.mig in ("single", "mixed") and not (sliced and gpus.mig_strategy == wanted.mig):
        what = f"{gpus.mig_strategy} with {', '.join(profiles) or 'no'} slices" if gpus.mig_strategy else "none"
        return [f"MIG strategy is {what}, not {wanted.mig}"]
    missing = [profile for profile in wanted.mig_profiles if profile not in profiles]
    if missing:
        return [f"has no MIG profile {', '.join(missing)} (has {', '.join(profiles) or 'none'})"]
    return []


def sharing_reasons(gpus: Gpus, wanted: Requirement) -> list[str]:
    factor = gpus.sharing_factor or 1
    if wanted.sharing != "any" and gpus.sharing != wanted.sharing:
        shared = f"shared by {gpus.sharing} (factor {gpus.sharing_factor or 'unknown'})"
        return [f"its GPUs are {'not shared' if gpus.sharing == 'none' else shared}, wanted: {wanted.sharing}"]
    if wanted.max_sharing_factor is not None:
        if gpus.sharing != "none" and gpus.sharing_factor is None:
            return ["its GPUs are shared, by a factor that is not labelled"]
        if factor > wanted.max_sharing_factor:
            return [f"each GPU is shared by {factor}, more than {wanted.max_sharing_factor}"]
    return []


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """One node against the requirement."""

    node: Node
    reasons: tuple[str, ...]
    gpus: int
    free: int | None

    @property
    def matches(self) -> bool:
        return not self.reasons

    def to_dict(self) -> dict:
        gpus = self.node.gpus
        return {
            "name": self.node.name,
            "matches": self.matches,
            "reasons": list(self.reasons),
            "gpus": self.gpus,
            "free_gpus": self.free,
            "product": gpus.product,
            "family": gpus.family,
            "memory_mib": gpus.memory_mib,
            "compute_capability": gpus.compute_capability,
            "driver": gpus.driver,
            "cuda": gpus.cuda,
            "mig_strategy": gpus.mig_strategy,
            "mig_profiles": sorted({*gpus.mig_profiles, *mig_resources(gpu_resources(self.node.allocatable))}),
            "sharing": gpus.sharing,
            "sharing_factor": gpus.sharing_factor,
        }


def judge_all(nodes: Iterable[Node], wanted: Requirement, used: Mapping[str, int] | None = None) -> list[Verdict]:
    """The verdict on each node. Nodes that share their parts (see project_node) are judged once."""
    known: dict[tuple, Verdict] = {}
    verdicts = []
    for node in nodes:
        key = tuple(
            id(part)
            for part in (node.labels, node.taints, node.unschedulable, node.ready, node.allocatable, node.capacity)
        )
        same = known.get(key)
        if same is None:
            same = known[key] = judge(node, wanted, used)
        verdicts.append(Verdict(node, same.reasons, same.gpus, free_of(node, same.gpus, used)))
    return verdicts


def free_of(node: Node, amount: int, used: Mapping[str, int] | None) -> int | None:
    return None if used is None else max(amount - used.get(node.name, 0), 0)


def judge(node: Node, wanted: Requirement, used: Mapping[str, int] | None = None) -> Verdict:
    amount = offered(node.allocatable, wanted.resource)
    return Verdict(node, tuple(reasons_against(node, wanted)), amount, free_of(node, amount, used))


def fitting_pods(verdicts: Iterable[Verdict], gpus_per_pod: int) -> int:
    """How many more pods find their GPUs; a pod's GPUs have to be on one node."""
    return sum((verdict.free or 0) // gpus_per_pod for verdict in verdicts if verdict.matches)


def findings_of(
    verdicts: Sequence[Verdict], wanted: Requirement, discovered: Collection[str] | None = None
) -> list[Finding]:
    """The verdict over all nodes: totals first, then each GPU node that falls short and why.

    `discovered` are the nodes on which GPU Feature Discovery runs, None where nobody looked.
    """
    matching = [verdict for verdict in verdicts if verdict.matches]
    total = sum(verdict.gpus for verdict in matching)
    met = len(matching) >= wanted.min_nodes
    seen = [verdict for verdict in verdicts if sees_gpu(verdict.node)]
    findings = [
        Finding(
            "gpu_nodes",
            wanted.resource,
            OK if met else FAILED,
            f"{len(matching)} of {len(verdicts)} nodes meet the requirement"
            + ("" if met else f", {wanted.min_nodes} needed")
            + (f": {short_list([verdict.node.name for verdict in matching])}" if matching else "")
            + ("" if met or seen or not verdicts else f"; no node shows a GPU: {most_common_reason(verdicts)}")
            + ("" if verdicts else "; no node is selected (node_selector)"),
            "" if met else nodes_remedy(verdicts),
        )
    ]
    if wanted.min_gpus is not None:
        findings.append(
            amount_finding("gpus", wanted.resource, "GPUs on these nodes", total, wanted.min_gpus, "min_gpus")
        )
    if wanted.min_free_gpus is not None:
        free = sum(verdict.free or 0 for verdict in matching)
        findings.append(
            amount_finding("free_gpus", wanted.resource, "GPUs free", free, wanted.min_free_gpus, "min_free_gpus")
        )
    if wanted.min_fitting_pods is not None:
        fit = fitting_pods(matching, wanted.gpus_per_pod)
        what = f"more pods of {wanted.gpus_per_pod} GPU(s) fit"
        findings.append(
            amount_finding("fitting_pods", wanted.resource, what, fit, wanted.min_fitting_pods, "min_fitting_pods")
        )
    return findings + capped(single_findings(seen, matching, met, wanted, discovered), MOST_NODE_FINDINGS)


def single_findings(
    seen: Sequence[Verdict],
    matching: Sequence[Verdict],
    met: bool,
    wanted: Requirement,
    discovered: Collection[str] | None,
) -> Iterator[Finding]:
    """What is to be said of each node."""
    for verdict in seen:
        if not verdict.matches:
            yield node_finding(verdict, met)
    for verdict in matching:
        yield from doubts(verdict, wanted)
    if discovered is not None:
        for verdict in seen:
            if not without_labels(verdict.node) and verdict.node.name not in discovered:
                yield old_labels(verdict.node)


def capped(findings: Iterable[Finding], most: int) -> list[Finding]:
    """The first findings, the worst first, and one line that counts the rest. Never holds more than it may need."""
    kept: dict[str, list[Finding]] = {status: [] for status in reversed(SEVERITY)}
    total = 0
    for finding in findings:
        total += 1
        if len(kept[finding.status]) <= most:
            kept[finding.status].append(finding)
    ordered = [finding for group in kept.values() for finding in group]
    if total <= most:
        return ordered
    first = ordered[most]
    return [
        *ordered[:most],
        Finding(first.check, "other nodes", first.status, f"{total - most} more findings are not listed"),
    ]


def amount_finding(check: str, subject: str, what: str, actual: int, least: int, option: str) -> Finding:
    if actual >= least:
        return Finding(check, subject, OK, f"{actual} {what}, {least} needed")
    return Finding(
        check,
        subject,
        FAILED,
        f"{actual} {what}, {least} needed ({option})",
        f"add GPU nodes or free GPUs (kubectl get pods -A -o wide shows who holds them), or lower {option}",
    )


def node_finding(verdict: Verdict, met: bool) -> Finding:
    """A GPU node that falls short: a fault only where nodes are missing."""
    return Finding(
        "gpu_node",
        verdict.node.name,
        WARNING if met else FAILED,
        "; ".join(verdict.reasons),
        node_remedy(verdict),
    )


def doubts(verdict: Verdict, wanted: Requirement) -> list[Finding]:
    """What a matching node should still be looked at for: labels and resources that disagree."""
    node, gpus = verdict.node, verdict.node.gpus
    findings = []
    expected = promised(gpus, wanted.resource, node.labels)
    if without_labels(node):
        findings.append(
            Finding(
                "gpu_labels",
                node.name,
                UNKNOWN,
                f"{without_labels(node)}; its model, memory and driver can't be told",
                "run GPU Feature Discovery (gfd.enabled in the device plugin's chart, or the GPU Operator)",
            )
        )
    elif expected is not None and expected != verdict.gpus:
        findings.append(
            Finding(
                "gpu_labels",
                node.name,
                WARNING,
                f"labels promise {expected} {wanted.resource}, {verdict.gpus} allocatable"
                " (unhealthy GPUs, a second GPU model, or stale labels)",
                f"compare nvidia-smi on {node.name} with kubectl describe node {node.name};"
                " restart GPU Feature Discovery there if the labels are old",
            )
        )
    return findings


def old_labels(node: Node) -> Finding:
    """Labels that nobody keeps right any more."""
    written = node.labelled or 0
    since = f" of {datetime.fromtimestamp(written, UTC):%Y-%m-%d %H:%M} UTC" if 0 < written < 1 << 36 else ""
    return Finding(
        "gpu_labels",
        node.name,
        WARNING,
        f"GPU Feature Discovery does not run there: its labels{since} may be stale",
        f"kubectl get daemonsets -A shows whether it is wanted on {node.name}; where it runs outside Kubernetes, do"
        " not ask for check_discovery",
    )


def hardware_findings(nodes: Iterable[Node], expected: Mapping[str, Mapping]) -> list[Finding]:
    """Labels against the hardware: `expected` is what gpu_hardware_info says each node should be labelled with."""
    labels = {node.name: node.labels for node in nodes}
    return [label_finding(name, labels.get(name), mapping(wanted)) for name, wanted in sorted(expected.items())]


def hardware_errors(expected: Mapping) -> list[str]:
    """What is wrong with the expected hardware itself."""
    return [
        f"expected_hardware.{name} is {str(wanted)[:60]!r}; expected what gpu_hardware_info returns as labels"
        for name, wanted in sorted(expected.items())
        if not isinstance(mapping(wanted).get("labels"), Mapping)
    ]


def label_finding(name: str, labels: Mapping | None, wanted: Mapping) -> Finding:
    """One node's labels against its hardware."""
    if labels is None:
        return Finding(
            "gpu_labels",
            name,
            FAILED,
            "its hardware was looked at, and the cluster has no node of this name",
            "name the host as its node is named (nvidia_driver_node_name), or join it to the cluster",
        )
    # What pods are scheduled by comes first; not all may be told.
    found = sorted(gpu_hardware.differences(labels, wanted), key=lambda item: not gpu_hardware.matter([item]))
    if not found:
        return Finding(
            "gpu_labels", name, OK, f"its {len(wanted.get('labels') or {})} labels are those of its hardware"
        )
    words = [
        f"{item['label'].removeprefix(PREFIX)} is {item['found'] or 'missing' if item['found'] != '' else 'empty'},"
        f" its hardware {'has none' if item['expected'] is None else 'is ' + (item['expected'] or 'empty')}"
        for item in found
    ]
    return Finding(
        "gpu_labels",
        name,
        FAILED if gpu_hardware.matter(found) else WARNING,
        f"labels differ from the hardware: {short_list(words, 4, '; ')}",
        f"restart GPU Feature Discovery on {name}: kubectl delete pod -A --field-selector spec.nodeName={name} -l"
        " app=gpu-feature-discovery (app.kubernetes.io/name=nvidia-device-plugin without the GPU Operator)",
    )


def node_remedy(verdict: Verdict) -> str:
    """What to type for the first reason."""
    name = verdict.node.name
    reason = verdict.reasons[0] if verdict.reasons else ""
    for text, remedy in (
        (
            "ResourceSlice",
            f"kubectl get resourceslices -o yaml --field-selector spec.nodeName={name}: does the driver run there?",
        ),
        ("not Ready", f"kubectl describe node {name}; journalctl -u kubelet there"),
        ("cordoned", f"kubectl uncordon {name}"),
        ("taint", "give the toleration to the service and to `tolerations`, or remove the taint"),
        (
            "MIG layout is invalid",
            f"repair the layout on {name}: nvidia-mig-parted, or label nvidia.com/mig.config",
        ),
        (
            "device plugin",
            f"kubectl get pods -A -o wide --field-selector spec.nodeName={name}: is the plugin there?",
        ),
        ("Feature Discovery", "run GPU Feature Discovery and NFD there (the GPU Operator brings both)"),
        ("0 allocatable", f"nvidia-smi on {name}; kubectl logs of the device plugin there"),
        (
            "but nvidia.com/",
            "name that resource in `resource`, or switch renaming and MIG off in the plugin's config",
        ),
    ):
        if text in reason:
            return remedy
    return "use other nodes, or change the requirement"


def nodes_remedy(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "check node_selector against kubectl get nodes --show-labels"
    if not any(sees_gpu(verdict.node) for verdict in verdicts):
        return (
            "install the driver and the GPU Operator (it brings NFD, GFD and the device plugin), then look at"
            " kubectl get nodes -L nvidia.com/gpu.present,nvidia.com/gpu.product"
        )
    return "repair the nodes listed below, or change the requirement"


def most_common_reason(verdicts: Sequence[Verdict]) -> str:
    reasons = [reason for verdict in verdicts for reason in verdict.reasons[:1]]
    return (
        f"each {max(set(reasons), key=reasons.count)}"
        if len(set(reasons)) == 1
        else short_list(
            [f"{verdict.node.name} {verdict.reasons[0]}" for verdict in verdicts if verdict.reasons], 3, "; "
        )
    )


def short_list(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    rest = len(names) - most
    return separator.join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What is asked of GPU nodes, and which nodes meet it. Pure rules."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ansible_collections.speechops.riva.plugins.module_utils.gpu_labels import (
    DEVICE_CLASSES,
    NFD_NVIDIA,
    NFD_PREFIX,
    RESOURCE,
    Gpus,
    Node,
    as_version,
    gpu_resources,
    label,
    mig_resources,
    offered,
    tolerated,
)

# NVML reports less than the figure on the box: a T4 of 16384 MiB has 15360 (6 %), with ECC 15109 (8 %).
MEMORY_TOLERANCE = 0.08


def at_least(actual: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a version is the wanted one or above it; missing parts count as zero."""
    length = max(len(actual), len(wanted))
    return actual + (0,) * (length - len(actual)) >= wanted + (0,) * (length - len(wanted))


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

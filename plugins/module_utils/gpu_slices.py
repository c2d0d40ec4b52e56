# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GPUs that are handed out by ResourceClaim (DRA, resource.k8s.io/v1): what NVIDIA's driver publishes of them. Pure.

A ResourceSlice names the devices of a node with attributes such as `cudaComputeCapability`; it is told here in the
labels of GPU Feature Discovery, so that the rules over labels hold for it too. The attributes are those of
NVIDIA/k8s-dra-driver-gpu, cmd/gpu-kubelet-plugin/deviceinfo.go. Of each pool the newest generation counts, and only
when all of its slices are there, as the scheduler sees it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.speechops.riva.plugins.module_utils.gpu_labels import (
    DEVICE_CLASSES,
    PREFIX,
    UNREAD,
    Node,
    as_int,
    as_version,
    counts_as_free,
)
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence
from ansible_collections.speechops.riva.plugins.module_utils.scaling_rules import parse_quantity

API = "/apis/resource.k8s.io/v1"
DRIVER = "gpu.nvidia.com"
# A whole amount of bytes; what else a quantity may be is no size of memory.
BYTES = re.compile(r"\d+(Ki|Mi|Gi|Ti|k|M|G|T|)")


@dataclass(frozen=True)
class Slice:
    """One ResourceSlice of NVIDIA's driver, as far as the rules need it."""

    node: str
    pool: str
    generation: int
    slices: int
    devices: tuple[Mapping, ...]


def project_slice(item: Mapping) -> Slice | None:
    """The slice, or None for another driver's, or one that is no single node's."""
    spec = mapping(item.get("spec"))
    pool = mapping(spec.get("pool"))
    if spec.get("driver") != DRIVER or not spec.get("nodeName"):
        return None
    return Slice(
        str(spec["nodeName"]),
        str(pool.get("name")),
        as_int(pool.get("generation")) or 0,
        as_int(pool.get("resourceSliceCount")) or 1,
        tuple(device for device in sequence(spec.get("devices")) if isinstance(device, Mapping)),
    )


def value_of(device: Mapping, name: str) -> str | None:
    """An attribute of a device as text; names may carry the driver's domain."""
    attributes = mapping(device.get("attributes"))
    found = mapping(attributes.get(name) or attributes.get(f"{DRIVER}/{name}"))
    for kind in ("string", "version", "int", "bool"):
        if found.get(kind) is not None:
            return str(found[kind])
    return None


def memory_mib(device: Mapping) -> int | None:
    capacity = mapping(device.get("capacity"))
    text = str(mapping(capacity.get("memory") or capacity.get(f"{DRIVER}/memory")).get("value") or "")
    size = parse_quantity(text) if BYTES.fullmatch(text) else None
    return None if size is None else int(size) // 2**20


def is_tainted(device: Mapping) -> bool:
    """Whether the driver keeps a device from being handed out, as it does with a broken one."""
    effects = {mapping(taint).get("effect") for taint in sequence(device.get("taints"))}
    return bool(effects & {"NoSchedule", "NoExecute"})


def usable_devices(slices: Iterable[Slice], kind: str) -> dict[str, list[Mapping]]:
    """The devices of a type that can be handed out, by node."""
    pools: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for one in slices:
        pools[one.node, one.pool].append(one)
    found: dict[str, list[Mapping]] = defaultdict(list)
    for (node, _pool), members in pools.items():
        newest = max(one.generation for one in members)
        current = [one for one in members if one.generation == newest]
        if len(current) < current[0].slices:
            continue
        for one in current:
            found[node] += [
                device for device in one.devices if value_of(device, "type") == kind and not is_tainted(device)
            ]
    return dict(found)


def least(values: Iterable[str | None]) -> str | None:
    """The lowest of some versions; each device of a node meets what that one meets."""
    read = [text for text in values if text and as_version(text)]
    return min(read, key=lambda text: as_version(text) or ()) if read else None


def labels_of(devices: Sequence[Mapping]) -> dict[str, str]:
    """The labels that GPU Feature Discovery would write of these devices, the least of them counting."""
    products = [text for device in devices if (text := value_of(device, "productName"))]
    capability = least(value_of(device, "cudaComputeCapability") for device in devices)
    memories = [size for device in devices if (size := memory_mib(device))]
    architecture = value_of(devices[0], "architecture") if devices else None
    labels = {
        "gpu.count": str(len(devices)),
        "gpu.product": products[0].replace(" ", "-") if products else None,
        "gpu.memory": str(min(memories)) if memories else None,
        "gpu.family": architecture.lower().replace(" ", "-") if architecture else None,
        "gpu.compute.major": capability.split(".")[0] if capability else None,
        "gpu.compute.minor": [*capability.split("."), "0"][1] if capability else None,
        "cuda.driver-version.full": least(value_of(device, "driverVersion") for device in devices),
        "cuda.runtime-version.full": least(value_of(device, "cudaDriverVersion") for device in devices),
    }
    return {PREFIX + name: value for name, value in labels.items() if value}


def with_slices(nodes: Iterable[Node], slices: Iterable[Slice], device_class: str) -> list[Node]:
    """The nodes, each with what the slices say of it and nothing of what labels and device plugin say."""
    devices = usable_devices(slices, DEVICE_CLASSES[device_class])
    return [
        replace(
            node,
            labels=labels_of(devices[node.name]) if devices.get(node.name) else without_gpus(node.labels),
            allocatable={device_class: len(devices.get(node.name, ()))},
            capacity={device_class: len(devices.get(node.name, ()))},
            labelled=None,
            gpus=UNREAD,
        )
        for node in nodes
    ]


def without_gpus(labels: Mapping) -> dict:
    """Labels of NFD say that there is a GPU; those of GFD would speak of the device plugin's."""
    return {key: value for key, value in labels.items() if not str(key).startswith(PREFIX)}


def project_claim(claim: Mapping, own: Sequence[Mapping] = ()) -> list[tuple[str, str]]:
    """(pool, device) of all that a claim holds of NVIDIA's driver; none of a claim that counts as free."""
    allocation = mapping(mapping(mapping(claim.get("status")).get("allocation")).get("devices"))
    if counts_as_free(claim, own):
        return []
    return [
        (str(result.get("pool")), str(result.get("device")))
        for result in map(mapping, sequence(allocation.get("results")))
        if result.get("driver") == DRIVER and not result.get("adminAccess")
    ]


def held_by_node(claims: Iterable[Sequence[tuple[str, str]]], slices: Iterable[Slice]) -> Counter:
    """How many devices claims hold on each node; one that several claims share counts once."""
    nodes = {one.pool: one.node for one in slices}
    held = {pair for claim in claims for pair in claim}
    return Counter(nodes[pool] for pool, _device in held if pool in nodes)

"""The GPUs that a node says it has, and the node labels that NVIDIA's GPU Feature Discovery would give it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DESCRIPTION = Path(os.environ.get("SPEECHOPS_GPU_FILE", "/run/speechops-lab/gpu.json"))

# First compute capability (major, minor) of each family, newest first.
FAMILIES = (
    ((14, 0), "undefined"),
    ((13, 0), "rubin"),
    ((12, 0), "blackwell"),
    ((11, 0), "undefined"),
    ((10, 0), "blackwell"),
    ((9, 0), "hopper"),
    ((8, 9), "ada-lovelace"),
    ((8, 0), "ampere"),
    ((7, 5), "turing"),
    ((7, 0), "volta"),
    ((6, 0), "pascal"),
    ((5, 0), "maxwell"),
    ((3, 0), "kepler"),
    ((2, 0), "fermi"),
    ((1, 0), "tesla"),
)


class DescriptionError(ValueError):
    """The file that describes the GPUs cannot be used."""


@dataclass(frozen=True)
class Hardware:
    """The GPUs of one node: all of one model."""

    product: str
    count: int
    memory_mib: int
    compute_major: int
    compute_minor: int
    driver_version: str
    cuda_version: str
    machine: str = "unknown"
    mig_capable: bool = False

    @property
    def family(self) -> str:
        capability = (self.compute_major, self.compute_minor)
        return next((family for first, family in FAMILIES if capability >= first), "undefined")

    @property
    def device_ids(self) -> tuple[str, ...]:
        """One id a GPU, in the driver's form. They are the same each time, as a real card's are."""
        return tuple(f"GPU-00000000-0000-4000-8000-{number:012x}" for number in range(self.count))


def hardware_from(description: Mapping) -> Hardware:
    """Read a description. Keys that are not known are left alone: other parts of the lab may use them."""
    kinds = {"count": int, "memory_mib": int, "compute_major": int, "compute_minor": int, "mig_capable": bool}
    optional = {"machine", "mig_capable"}
    values = {}
    for name in Hardware.__dataclass_fields__:
        if name not in description:
            if name in optional:
                continue
            raise DescriptionError(f"the key {name!r} is missing")
        kind = kinds.get(name, str)
        if type(description[name]) is not kind:
            raise DescriptionError(f"{name!r} is {description[name]!r}, it must be of type {kind.__name__}")
        values[name] = description[name]
    if values["count"] < 0:
        raise DescriptionError(f"'count' is {values['count']}, it must be 0 or more")
    return Hardware(**values)


def read_hardware(path: Path = DESCRIPTION) -> Hardware | None:
    """Read the node's description; None where the node has none, so no GPU."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        return hardware_from(json.loads(text))
    except (ValueError, AttributeError, TypeError) as error:
        raise DescriptionError(f"{path}: {error}") from error


def feature_labels(hardware: Hardware, mig_strategy: str = "none", timestamp: int | None = None) -> dict[str, str]:
    """The labels of GPU Feature Discovery, in its exact form, for unshared GPUs that are not cut into MIG slices."""
    driver = [*hardware.driver_version.split("."), "", ""]
    cuda = [*hardware.cuda_version.split("."), ""]
    labels = {
        "cuda.driver-version.full": hardware.driver_version,
        "cuda.driver-version.major": driver[0],
        "cuda.driver-version.minor": driver[1],
        "cuda.driver-version.revision": driver[2],
        "cuda.driver.major": driver[0],
        "cuda.driver.minor": driver[1],
        "cuda.driver.rev": driver[2],
        "cuda.runtime-version.full": hardware.cuda_version,
        "cuda.runtime-version.major": cuda[0],
        "cuda.runtime-version.minor": cuda[1],
        "cuda.runtime.major": cuda[0],
        "cuda.runtime.minor": cuda[1],
        "gpu.compute.major": hardware.compute_major,
        "gpu.compute.minor": hardware.compute_minor,
        "gpu.count": hardware.count,
        "gpu.family": hardware.family,
        "gpu.machine": hardware.machine.replace(" ", "-"),
        "gpu.memory": hardware.memory_mib,
        "gpu.mode": "compute",
        "gpu.product": hardware.product.replace(" ", "-"),
        "gpu.replicas": 1,
        "gpu.sharing-strategy": "none",
        "mig.capable": str(hardware.mig_capable).lower(),
        "mps.capable": "false",
        "vgpu.present": "false",
    }
    if mig_strategy != "none":
        labels["mig.strategy"] = mig_strategy
    if timestamp is not None:
        labels["gfd.timestamp"] = timestamp
    return {f"nvidia.com/{name}": str(value) for name, value in labels.items()}


def label_changes(hardware: Hardware, mig_strategy: str, timestamp: int) -> dict[str, str | None]:
    """What to write to the node: its labels, and None for a label that another setting left behind."""
    return {"nvidia.com/mig.strategy": None, **feature_labels(hardware, mig_strategy, timestamp)}

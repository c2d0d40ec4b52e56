# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What nvidia-smi and PCI say of a node's GPUs, and the labels that GPU Feature Discovery (GFD) sets for them.

Runs on the nodes too, so Python 3.9 has to be enough. The rules of the labels are those of GFD v0.19 and v0.20
(NVIDIA/k8s-device-plugin, internal/lm); tests hold them against what GFD wrote on a real H100.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.speechops.riva.plugins.module_utils.gpu_generations import family_of, generation_of

PREFIX = "nvidia.com/"
RESOURCE = "nvidia.com/gpu"
NVIDIA_VENDOR = "0x10de"
VGA_CONTROLLER = 0x030000
CONTROLLER_3D = 0x030200
# NVSwitches are bridges of the class «other».
NVSWITCH_CLASS = 0x068000
NONE = {"", "N/A", "None", "[N/A]", "Requested functionality has been deprecated"}

# GFD's label for each attribute of a MIG device, and the element of `nvidia-smi -q -x` that has it.
MIG_ENGINES = {
    "engines.copy": "copy_engine_count",
    "engines.decoder": "decoder_count",
    "engines.encoder": "encoder_count",
    "engines.jpeg": "jpg_count",
    "engines.ofa": "ofa_count",
}


class UnreadableError(ValueError):
    """What a program printed is not what it prints."""


def text_of(element: ET.Element, path: str) -> str | None:
    """The text at a path, None where there is none or it says that there is none."""
    found = element.findtext(path)
    found = found.strip() if found else ""
    return None if found in NONE else found


def number_of(text: str | None) -> int | None:
    """The first number of a text such as `81559 MiB`."""
    match = re.match(r"\s*([0-9]{1,15})\b", text or "")
    return int(match.group(1)) if match else None


def pci_class(element: ET.Element) -> str | None:
    """The PCI class in the kernel's form: base class 3 and sub-class 2 are 0x030200."""
    base, sub = text_of(element, "pci/pci_base_class"), text_of(element, "pci/pci_sub_class")
    try:
        return f"0x{int(base or '', 16):02x}{int(sub or '', 16):02x}00"
    except ValueError:
        return None


def device_id(text: str | None) -> str | None:
    """The device's half of nvidia-smi's PCI id: 233010DE is device 0x2330 of vendor 0x10de."""
    return f"0x{text[:4].lower()}" if text and re.fullmatch(r"(0x)?[0-9A-Fa-f]{8}", text) else None


def address_of(text: str) -> str:
    """The kernel's form of a PCI address: nvidia-smi writes the domain with eight digits."""
    domain, _colon, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def read_mig_device(element: ET.Element) -> dict:
    shared = "device_attributes/shared"
    return {
        "index": number_of(text_of(element, "index")),
        "profile": None,
        "memory_mib": number_of(text_of(element, "fb_memory_usage/total")),
        "multiprocessors": number_of(text_of(element, f"{shared}/multiprocessor_count")),
        "engines": {
            label.partition(".")[2]: number_of(text_of(element, f"{shared}/{name}")) or 0
            for label, name in MIG_ENGINES.items()
        },
    }


def read_gpu(element: ET.Element) -> dict:
    mig = text_of(element, "mig_mode/current_mig")
    identity = device_id(text_of(element, "pci/pci_device_id"))
    known = generation_of(int(identity, 16)) if identity else None
    return {
        "address": address_of(element.get("id") or ""),
        "device_id": identity,
        "pci_class": pci_class(element),
        "name": text_of(element, "product_name"),
        "generation": known.name if known else None,
        "compute_capability": None,
        "memory_mib": number_of(text_of(element, "fb_memory_usage/total")),
        "persistence": text_of(element, "persistence_mode") == "Enabled",
        "vgpu": "vgpu" in (text_of(element, "gpu_virtualization_mode/virtualization_mode") or "").lower(),
        "mig": {
            "capable": mig is not None,
            "enabled": mig == "Enabled",
            "pending": text_of(element, "mig_mode/pending_mig") == "Enabled",
            "devices": [read_mig_device(device) for device in element.findall("mig_devices/mig_device")],
        },
        "fabric": {
            "state": text_of(element, "fabric/state"),
            "status": text_of(element, "fabric/status"),
            "cluster": text_of(element, "fabric/clusterUUID") or text_of(element, "fabric/cluster_uuid"),
            "clique": text_of(element, "fabric/cliqueId") or text_of(element, "fabric/clique_id"),
        },
    }


def read_smi(xml: str) -> dict:
    """`nvidia-smi -q -x`: driver and CUDA version, and the GPUs in nvidia-smi's order."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise UnreadableError(f"nvidia-smi -q -x printed no XML: {error}") from error
    if root.tag != "nvidia_smi_log":
        raise UnreadableError(f"nvidia-smi -q -x printed <{root.tag}>, expected <nvidia_smi_log>")
    return {
        "driver": text_of(root, "driver_version"),
        "cuda": text_of(root, "cuda_version"),
        "gpus": [read_gpu(element) for element in root.findall("gpu")],
    }


def add_capabilities(gpus: Sequence[dict], csv: str) -> None:
    """`nvidia-smi --query-gpu=pci.bus_id,compute_cap --format=csv,noheader`: 00000000:00:06.0, 9.0"""
    found = {}
    for line in csv.splitlines():
        place, _comma, capability = (part.strip() for part in line.partition(","))
        if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", capability):
            found[address_of(place)] = capability
    for gpu in gpus:
        gpu["compute_capability"] = found.get(gpu["address"])


def add_mig_profiles(gpus: Sequence[dict], listing: str) -> None:
    """`nvidia-smi -L` alone names the profiles, `  MIG 1g.10gb     Device  0: (UUID: …)` below each GPU."""
    position = -1
    for line in listing.splitlines():
        if re.match(r"GPU\s+[0-9]+:", line):
            position += 1
        match = re.match(r"\s+MIG\s+(\S+)\s+Device\s+([0-9]+):", line)
        if match and 0 <= position < len(gpus):
            for device in gpus[position]["mig"]["devices"]:
                if device["index"] == int(match.group(2)):
                    device["profile"] = match.group(1)


def read_pci(devices: Iterable[Mapping]) -> dict:
    """What sysfs says, with or without a driver: {address, vendor, device, class, driver} of each PCI device."""
    gpus, switches = [], 0
    for device in devices:
        if device.get("vendor") != NVIDIA_VENDOR:
            continue
        try:
            number, kind = int(device["device"], 16), int(device["class"], 16)
        except (KeyError, TypeError, ValueError):
            continue
        if kind in (VGA_CONTROLLER, CONTROLLER_3D):
            known = generation_of(number)
            gpus.append(
                {
                    "address": device["address"],
                    "device_id": f"0x{number:04x}",
                    "pci_class": f"0x{kind:06x}",
                    "generation": known.name if known else None,
                    "driver": device.get("driver"),
                }
            )
        elif kind == NVSWITCH_CLASS:
            switches += 1
    return {"gpus": sorted(gpus, key=lambda gpu: gpu["address"]), "nvswitches": switches}


# --- the labels that GFD sets


def sanitise(text: str) -> str:
    """As GFD does: what a label can't hold is dropped, blanks become one dash."""
    return "-".join(re.sub(r"[^A-Za-z0-9\-_. ]", "", text).split())


def sharing_of(sharing: Mapping | None, resource: str) -> tuple[int, str, bool]:
    """(replicas of a resource, the strategy's name, whether the product's name gets -SHARED)."""
    sharing = sharing or {}
    replicas = int((sharing.get("resources") or {}).get(resource) or 0)
    if sharing.get("strategy") in ("time-slicing", "mps") and replicas > 0:
        shared = replicas > 1
        return replicas, sharing["strategy"] if shared else "none", shared and not sharing.get("rename")
    return 1, "none", False


def resource_labels(resource: str, count: int, parts: Sequence[str], sharing: Mapping | None) -> dict:
    replicas, strategy, suffix = sharing_of(sharing, resource)
    return {
        f"{resource}.product": "-".join([sanitise(part) for part in parts if part] + (["SHARED"] if suffix else [])),
        f"{resource}.count": count,
        f"{resource}.replicas": replicas,
        f"{resource}.sharing-strategy": strategy,
    }


def whole_gpu_labels(gpu: Mapping, count: int, sharing: Mapping | None) -> dict:
    labels = resource_labels(RESOURCE, count, [gpu["name"] or ""], sharing)
    if gpu["mig"]["enabled"]:
        labels[f"{RESOURCE}.product"] = sanitise(gpu["name"] or "")
        labels.update({f"{RESOURCE}.replicas": 0, f"{RESOURCE}.sharing-strategy": "none"})
    if gpu["memory_mib"]:
        labels[f"{RESOURCE}.memory"] = gpu["memory_mib"]
    if gpu["compute_capability"]:
        major, minor = (int(part) for part in gpu["compute_capability"].split("."))
        labels[f"{RESOURCE}.family"] = family_of(major, minor)
        labels[f"{RESOURCE}.compute.major"] = major
        labels[f"{RESOURCE}.compute.minor"] = minor
    return labels


def slices(profile: str) -> tuple[int, int]:
    """(GPU instance slices, compute instance slices) of a profile: 1c.3g.40gb has 3 and 1, 3g.40gb has 3 and 3."""
    whole = re.search(r"([0-9]+)g\.", profile)
    part = re.match(r"([0-9]+)c\.", profile)
    number = int(whole.group(1)) if whole else 0
    return number, int(part.group(1)) if part else number


def mig_labels(resource: str, gpu: Mapping, device: Mapping, count: int, sharing: Mapping | None) -> dict:
    profile = device["profile"].replace("+", ".")
    labels = resource_labels(resource, count, [gpu["name"] or "", "MIG", profile], sharing)
    instance, compute = slices(device["profile"])
    attributes = {
        "memory": device["memory_mib"],
        "multiprocessors": device["multiprocessors"],
        "slices.gi": instance,
        "slices.ci": compute,
        **{f"engines.{name}": number for name, number in device["engines"].items()},
    }
    labels.update({f"{resource}.{name}": value for name, value in attributes.items() if value is not None})
    return labels


def profiles_of(gpus: Iterable[Mapping]) -> dict:
    """Each MIG profile with the first GPU and device of it and how many there are."""
    found: dict = {}
    for gpu in gpus:
        for device in gpu["mig"]["devices"]:
            if device["profile"]:
                first_gpu, first, count = found.get(device["profile"], (gpu, device, 0))
                found[device["profile"]] = (first_gpu, first, count + 1)
    return found


def invalid_mig(gpu: Mapping) -> dict:
    return {
        f"{RESOURCE}.product": f"{sanitise(gpu['name'] or '')}-MIG-INVALID",
        f"{RESOURCE}.count": 0,
        f"{RESOURCE}.replicas": 0,
        f"{RESOURCE}.sharing-strategy": "",
        f"{RESOURCE}.memory": 0,
    }


def single_strategy_labels(gpus: Sequence[Mapping], sharing: Mapping | None) -> dict:
    enabled = [gpu for gpu in gpus if gpu["mig"]["enabled"]]
    if not enabled:
        return {}
    profiles = profiles_of(enabled)
    uneven = len(enabled) < len(gpus) or any(not gpu["mig"]["devices"] for gpu in enabled) or len(profiles) != 1
    if uneven:
        return invalid_mig(enabled[0])
    gpu, device, count = next(iter(profiles.values()))
    return mig_labels(RESOURCE, gpu, device, count, sharing)


def mixed_strategy_labels(gpus: Sequence[Mapping], sharing: Mapping | None) -> dict:
    labels = {}
    for profile, (gpu, device, count) in profiles_of(gpus).items():
        name = profile.replace("+", ".")
        labels.update(mig_labels(f"{PREFIX}mig-{name}", gpu, device, count, sharing))
    return labels


def version_labels(driver: str, cuda: str) -> dict:
    parts = [*driver.split("."), "", ""]
    major, minor = [*cuda.split("."), ""][:2]
    return {
        f"{PREFIX}{name}": value
        for name, value in {
            "cuda.driver.major": parts[0],
            "cuda.driver.minor": parts[1],
            "cuda.driver.rev": parts[2],
            "cuda.driver-version.major": parts[0],
            "cuda.driver-version.minor": parts[1],
            "cuda.driver-version.revision": parts[2],
            "cuda.driver-version.full": driver,
            "cuda.runtime.major": major,
            "cuda.runtime.minor": minor,
            "cuda.runtime-version.major": major,
            "cuda.runtime-version.minor": minor,
            "cuda.runtime-version.full": cuda,
        }.items()
    }


def mode_of(gpus: Iterable[Mapping]) -> str:
    classes = {gpu["pci_class"] for gpu in gpus}
    if len(classes) != 1:
        return "unknown"
    modes = {f"0x{VGA_CONTROLLER:06x}": "graphics", f"0x{CONTROLLER_3D:06x}": "compute"}
    return modes.get(next(iter(classes)) or "", "unknown")


def clique_of(gpus: Iterable[Mapping]) -> str | None:
    """The NVLink clique, where the fabric is complete and the same for all."""
    attached = [gpu["fabric"] for gpu in gpus if gpu["fabric"]["state"] == "Completed"]
    cliques = {(fabric["cluster"], fabric["clique"]) for fabric in attached if fabric["status"] == "Success"}
    cliques = {pair for pair in cliques if all(pair) and set(pair[0]) - set("0-")}
    if len(cliques) != 1:
        return None
    return ".".join(next(iter(cliques)))


def predict(
    gpus: Sequence[Mapping],
    driver: str | None,
    cuda: str | None,
    machine: str | None,
    mig_strategy: str = "none",
    sharing: Mapping | None = None,
) -> dict:
    """The labels that GFD sets for this hardware, as {labels, either}.

    sharing is {strategy: time-slicing | mps, resources: {resource name: replicas}, rename: whether the resource gets
    another name}. `either` holds labels of which only the possible values are known: where GPUs of several models are
    in one node, GFD labels one of them, now this, now that one. Without a driver there is no GFD, so no label.
    """
    if not gpus or not driver or not cuda:
        return {"labels": {}, "either": {}}
    models: dict = {}
    for gpu in gpus:
        models.setdefault(gpu["name"], []).append(gpu)
    labels = {
        f"{PREFIX}gpu.machine": sanitise(machine) if machine is not None else "unknown",
        f"{PREFIX}gpu.mode": mode_of(gpus),
        f"{PREFIX}mig.capable": any(gpu["mig"]["capable"] for gpu in gpus),
        f"{PREFIX}mps.capable": (sharing or {}).get("strategy") == "mps",
        f"{PREFIX}vgpu.present": any(gpu["vgpu"] for gpu in gpus),
        **version_labels(driver, cuda),
    }
    candidates = []
    for group in models.values():
        # One without MIG speaks for its model, if there is one.
        speaker = sorted(group, key=lambda gpu: gpu["mig"]["enabled"])[0]
        candidates.append(whole_gpu_labels(speaker, len(group), sharing))
    either = {}
    for name in sorted({name for candidate in candidates for name in candidate}):
        values = sorted({shown(candidate[name]) for candidate in candidates if name in candidate})
        if len(values) == 1:
            labels[name] = values[0]
        else:
            either[name] = values
    if mig_strategy != "none":
        labels[f"{PREFIX}mig.strategy"] = mig_strategy
        strategy = single_strategy_labels if mig_strategy == "single" else mixed_strategy_labels
        of_slices = strategy(gpus, sharing)
        either = {name: values for name, values in either.items() if name not in of_slices}
        labels.update(of_slices)
    clique = clique_of(gpus)
    if clique:
        labels[f"{PREFIX}gpu.clique"] = clique
    return {"labels": {name: shown(value) for name, value in sorted(labels.items())}, "either": either}


def shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- expected labels against those that a node has

# Set by the operator, by administrators and by NFD, or different at each start: no business of the comparison.
FOREIGN = re.compile(
    r"nvidia\.com/(gpu\.present|gpu\.deploy\..*|gfd\.timestamp|mig\.config.*|device-plugin\.config|vgpu\.host.*)"
)
# GFD's own, which it takes away again when they no longer hold.
GFD = re.compile(r"nvidia\.com/(gpu\.[a-z.-]+|mig\.(strategy|capable)|mig-[0-9c].*|mps\.capable)")
# Where one of these is wrong, pods land on the wrong GPU or on none.
SCHEDULING = re.compile(
    r"nvidia\.com/(gpu|mig-[^/]*)\.(product|count|memory|family|compute\..*|replicas|sharing-strategy)|nvidia\.com/mig\..*"
)


def differences(labels: Mapping, expected: Mapping) -> list[dict]:
    """Labels that are not as the hardware wants them: {label, found, expected}; None stands for no such label."""
    wanted, either = expected.get("labels") or {}, expected.get("either") or {}
    found = []
    for name, value in sorted(wanted.items()):
        if labels.get(name) != value:
            found.append({"label": name, "found": labels.get(name), "expected": value})
    for name, values in sorted(either.items()):
        if labels.get(name) not in values:
            found.append({"label": name, "found": labels.get(name), "expected": " or ".join(values)})
    for name in sorted(labels):
        if name not in wanted and name not in either and GFD.fullmatch(name) and not FOREIGN.fullmatch(name):
            found.append({"label": name, "found": labels[name], "expected": None})
    return found


def matter(found: Iterable[Mapping]) -> bool:
    """Whether pods may land on the wrong GPU because of these differences."""
    return any(SCHEDULING.fullmatch(item["label"]) for item in found)

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What a node's facts say about the well-known pains of GPU nodes, before they cost an evening.

Runs on the nodes too, so Python 3.9 has to be enough. The facts are those of the module gpu_hardware_info. What only
the cluster can tell (RuntimeClass, feature discovery, pods stuck in Init, metrics) is in gpu_stack.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, UNKNOWN, WARNING, Finding
from ansible_collections.speechops.riva.plugins.module_utils.gpu_generations import (
    GENERATIONS,
    flavour_problem,
    upstream_version,
)

# check, status, message, remedy
Verdict = tuple[str, str, str, str]

# Where each runtime reads its configuration, and the service that reads it again.
RUNTIMES = {
    "containerd": ("/etc/containerd/config.toml", "containerd"),
    "k3s": ("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "k3s or k3s-agent"),
    "rke2": ("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", "rke2-server or rke2-agent"),
    "crio": ("/etc/crio/crio.conf.d", "crio"),
}
# How a runtime learns of NVIDIA's. k3s and RKE2 find it by themselves when they start.
CONFIGURE = {
    "containerd": ["nvidia-ctk", "runtime", "configure", "--runtime=containerd"],
    # Its own default, /etc/crio/conf.d, is a folder that CRI-O does not read (NVIDIA/nvidia-container-toolkit#1829).
    "crio": [
        "nvidia-ctk",
        "runtime",
        "configure",
        "--runtime=crio",
        "--drop-in-config=/etc/crio/crio.conf.d/99-nvidia.toml",
    ],
}
# A driver with its modules takes 1.2 GiB, and DKMS builds in /var.
LEAST_FREE_MIB = 2048

SECURE_BOOT_REMEDY = (
    "switch Secure Boot off in the firmware; or make a key, enrol it (mokutil --import KEY.der; the blue screen at"
    " the next boot asks for its password) and set nvidia_driver_mok_key and nvidia_driver_mok_certificate"
)

# Packages of the kernel modules and of the libraries, by whichever repository they come from.
MODULE_PACKAGES = re.compile(
    r"(nvidia-(kernel|dkms|driver-[0-9]|open)|kmod-nvidia|nvidia-kernel-open|linux-modules-nvidia|nvidia-tesla)"
)
DRIVER_PACKAGES = re.compile(
    r"(nvidia-(kernel|dkms|driver|open|utils|compute-utils|persistenced|modprobe|settings|smi)|libnvidia-(?!container)"
    r"|libcuda1$|kmod-nvidia|cuda-drivers|linux-modules-nvidia|firmware-nvidia|nvidia-tesla|xserver-xorg-video-nvidia)"
)
FABRIC_PACKAGES = re.compile(r"nvidia-fabric-?manager(-[0-9]+)?$")


def driver_package_version(packages: Mapping[str, str]) -> str | None:
    """The driver's version according to the packages of its kernel modules, the newest of them."""
    found = [upstream_version(version) for name, version in packages.items() if MODULE_PACKAGES.match(name)]
    found = [version for version in found if len(version) >= 2]
    if not found:
        return None
    newest = max(found)
    text = [version for name, version in sorted(packages.items()) if MODULE_PACKAGES.match(name)]
    for version in text:
        if upstream_version(version) == newest:
            return version.split(":", 1)[-1].split("-", 1)[0]
    return None


def origin_of(driver: Mapping) -> str:
    """Where the driver comes from: container, runfile, packages, other, none; two of them joined by +."""
    found = []
    if driver.get("container"):
        found.append("container")
    if driver.get("runfile"):
        found.append("runfile")
    if driver.get("package_version"):
        found.append("packages")
    if not found:
        found.append("other" if driver.get("module", {}).get("loaded") or driver.get("version") else "none")
    return "+".join(found)


def verdict(check: str, status: str, message: str, remedy: str = "") -> Verdict:
    return check, status, message, remedy


def findings_of(facts: Mapping) -> list[Finding]:
    """All findings of one node, in the order in which one would look."""
    parts = (hardware, driver, two_drivers, nouveau, secure_boot, kernel_headers, fabric_manager, containerd_path)
    said = [part(facts) for part in parts] + list(packages(facts)) + list(disk_space(facts))
    return [Finding(check, facts["node"], status, message, remedy) for check, status, message, remedy in said]


def named(gpus: Iterable[Mapping]) -> str:
    """`2 x Tesla T4, 1 x NVIDIA A10`; by the PCI id where no driver names them."""
    counts: dict = {}
    for gpu in gpus:
        by_bus = f"{gpu.get('generation') or 'unknown'} GPU (PCI 10de:{(gpu.get('device_id') or '0x?')[2:]})"
        name = gpu.get("name") or by_bus
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in counts.items())


def hardware(facts: Mapping) -> Verdict:
    on_bus, seen = facts["pci"]["gpus"], facts["gpus"]
    if not on_bus and not seen:
        return verdict(
            "gpu_hardware",
            FAILED,
            "no NVIDIA GPU on its PCI bus",
            "is it the right host in gpu_nodes? In a virtual machine: is the GPU passed through? lspci -d 10de:",
        )
    if seen and on_bus and len(seen) < len(on_bus):
        gone = sorted({gpu["address"] for gpu in on_bus} - {gpu["address"] for gpu in seen})
        return verdict(
            "gpu_hardware",
            FAILED,
            f"{len(on_bus)} GPUs on its PCI bus, the driver shows {len(seen)}: not {', '.join(gone)}",
            "dmesg | grep -iE 'NVRM|Xid' says why; often the power cable, the riser, or a dead GPU",
        )
    return verdict("gpu_hardware", OK, named(seen or on_bus))


def driver(facts: Mapping) -> Verdict:
    about, module = facts["driver"], facts["driver"]["module"]
    if not module["loaded"]:
        if about["origin"] == "none":
            remedy = "run the nvidia_driver role, or let the GPU Operator bring it"
            return verdict("gpu_driver", WARNING, "no NVIDIA driver", remedy)
        return verdict(
            "gpu_driver",
            FAILED,
            f"the driver is there ({about['origin']}), its kernel module is not loaded",
            "modprobe nvidia; dmesg | tail says why not: Secure Boot, nouveau, or another kernel (dkms status)",
        )
    if about.get("error"):
        return verdict(
            "gpu_driver",
            FAILED,
            f"nvidia-smi fails: {about['error']}",
            "module and libraries differ in version until the next reboot, or the GPU hangs: dmesg | grep -i NVRM",
        )
    names = {gpu.get("generation") for gpu in facts["pci"]["gpus"]}
    known = [generation for generation in GENERATIONS if generation.name in names]
    problem = flavour_problem(known, module["flavour"]) if module["flavour"] else ""
    if problem:
        return verdict(
            "gpu_driver", FAILED, problem, "set nvidia_driver_modules to auto, and run the nvidia_driver role"
        )
    installed = about.get("package_version")
    if installed and module["version"] and installed != module["version"]:
        return verdict(
            "gpu_driver",
            WARNING,
            f"the module loaded is {module['version']}, the packages are {installed}",
            "reboot the node; the nvidia_driver role does, one node after another",
        )
    flavour = f", {module['flavour']} modules" if module["flavour"] else ""
    return verdict("gpu_driver", OK, f"driver {about['version'] or module['version']}{flavour}, from {about['origin']}")


def two_drivers(facts: Mapping) -> Verdict:
    origin = facts["driver"]["origin"]
    if "+" in origin:
        return verdict(
            "two_drivers",
            FAILED,
            f"drivers of two kinds are on this node: {origin.replace('+', ' and ')}",
            "keep one. Packages: the role's uninstall entry point. Run file: nvidia-uninstall. Container: "
            "gpu_operator_driver_enabled false, then a reboot",
        )
    return verdict("two_drivers", OK, f"one driver at most ({origin})")


def nouveau(facts: Mapping) -> Verdict:
    if facts["kernel"]["nouveau"]:
        return verdict(
            "nouveau",
            FAILED,
            "the kernel's own driver nouveau is loaded and holds the GPU",
            "the nvidia_driver role blocks it, makes the initramfs anew and reboots; by hand: blacklist nouveau and"
            " options nouveau modeset=0 in /etc/modprobe.d, update-initramfs -u (dracut -f), reboot",
        )
    return verdict("nouveau", OK, "nouveau is not loaded")


def secure_boot(facts: Mapping) -> Verdict:
    kernel, module = facts["kernel"], facts["driver"]["module"]
    if kernel["secure_boot"] is None:
        return verdict("secure_boot", OK, "the machine has no UEFI Secure Boot")
    if not kernel["secure_boot"]:
        return verdict("secure_boot", OK, "Secure Boot is off")
    if module["loaded"]:
        by = f" (signed by {module['signer']})" if module.get("signer") else ""
        return verdict("secure_boot", OK, f"Secure Boot is on, and the kernel took the module{by}")
    return verdict(
        "secure_boot",
        FAILED,
        "Secure Boot is on: the kernel refuses modules that DKMS builds, unless a key that it knows signs them",
        SECURE_BOOT_REMEDY,
    )


def kernel_headers(facts: Mapping) -> Verdict:
    kernel, about = facts["kernel"], facts["driver"]
    if kernel["headers"]:
        return verdict("kernel_headers", OK, f"the headers of {kernel['release']} are there")
    remedy = (
        f"install linux-headers-{kernel['release']} (RHEL: kernel-devel-{kernel['release']}); where no repository has"
        " it any more, boot the newest kernel first"
    )
    if about["origin"] in ("container", "other", "runfile") and about["module"]["loaded"]:
        words = f"no headers of {kernel['release']}; this driver ({about['origin']}) does without"
        return verdict("kernel_headers", OK, words)
    status = WARNING if about["module"]["loaded"] else FAILED
    return verdict(
        "kernel_headers", status, f"the headers of the running kernel {kernel['release']} are missing", remedy
    )


def needs_fabric_manager(facts: Mapping) -> bool:
    """NVSwitches on the bus, or GPUs whose NVLink fabric waits for somebody."""
    waiting = [gpu for gpu in facts["gpus"] if gpu["fabric"]["state"] in ("In Progress", "Not Started")]
    return facts["pci"]["nvswitches"] > 0 or bool(waiting)


def fabric_manager(facts: Mapping) -> Verdict:
    if not needs_fabric_manager(facts):
        return verdict("fabric_manager", OK, "no NVSwitch, so no Fabric Manager is needed")
    about = facts["fabric_manager"]
    driver_ = facts["driver"]
    version = driver_["version"] or driver_["module"]["version"] or driver_.get("package_version")
    what = f"{facts['pci']['nvswitches']} NVSwitches"
    if not about["version"]:
        return verdict(
            "fabric_manager",
            FAILED,
            f"{what}, and no Fabric Manager: CUDA programs fail with «system not yet initialized»",
            f"install nvidia-fabricmanager of the driver's exact version ({version}); the nvidia_driver role does",
        )
    if version and upstream_version(about["version"]) != upstream_version(version):
        return verdict(
            "fabric_manager",
            FAILED,
            f"Fabric Manager is {about['version']}, the driver {version}: it does not start with another version",
            "install the driver's exact version and hold both; the nvidia_driver role does",
        )
    if about["running"] is False:
        return verdict(
            "fabric_manager",
            FAILED,
            f"{what}, and nvidia-fabricmanager does not run",
            "systemctl enable --now nvidia-fabricmanager; journalctl -u nvidia-fabricmanager",
        )
    return verdict("fabric_manager", OK, f"Fabric Manager {about['version']} for {what}")


def containerd_path(facts: Mapping) -> Verdict:
    runtime, toolkit = facts["runtime"], facts["toolkit"]
    name = runtime["name"]
    if name is None:
        return verdict("containerd_path", UNKNOWN, "no container runtime found (containerd, k3s, RKE2, CRI-O)")
    path, service = RUNTIMES[name]
    if runtime["configured"]:
        return verdict("containerd_path", OK, f"{name} knows the runtime nvidia ({runtime['config']})")
    if runtime["elsewhere"]:
        return verdict(
            "containerd_path",
            FAILED,
            f"the runtime nvidia stands in {runtime['elsewhere']}, which {name} does not read; it reads {path}",
            f"k3s and RKE2 find /usr/bin/nvidia-container-runtime when {service} starts; with the GPU Operator"
            " set CONTAINERD_SOCKET to /run/k3s/containerd/containerd.sock (the gpu_operator role does)"
            if name in ("k3s", "rke2")
            else f"{' '.join(CONFIGURE[name])}, then restart {service}",
        )
    if not toolkit["version"]:
        return verdict(
            "containerd_path",
            WARNING,
            f"{name} does not know the runtime nvidia, and there is no NVIDIA Container Toolkit",
            "run the nvidia_driver role, or let the GPU Operator bring the toolkit",
        )
    return verdict(
        "containerd_path",
        FAILED,
        f"the NVIDIA Container Toolkit {toolkit['version']} is there, and {name} does not know the runtime nvidia",
        f"restart {service}: it finds the runtime when it starts"
        if name in ("k3s", "rke2")
        else f"{' '.join(CONFIGURE[name])}, then restart {service}; the nvidia_driver role does",
    )


def packages(facts: Mapping) -> Iterator[Verdict]:
    broken = facts["packages"]["broken"]
    if broken:
        rest = f" and {len(broken) - 8} more" if len(broken) > 8 else ""
        yield verdict(
            "node_packages",
            FAILED,
            f"packages are half installed: {', '.join(broken[:8])}{rest}",
            "dpkg --configure -a, then apt-get -f install; the nvidia_driver role does the first before it installs",
        )


def disk_space(facts: Mapping) -> Iterator[Verdict]:
    for place in facts["space"]:
        if place["free_mib"] < LEAST_FREE_MIB:
            yield verdict(
                "disk_space",
                WARNING,
                f"{place['free_mib']} MiB free on {place['path']}; a driver needs {LEAST_FREE_MIB}",
                f"make room on {place['path']} (old kernels: apt-get autoremove, dnf remove --oldinstallonly)",
            )

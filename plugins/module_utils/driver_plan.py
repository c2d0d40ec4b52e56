# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What the nvidia_driver role has to do on one node, and why it must not. Data in, a plan out."""

import re
from collections.abc import Mapping

from ansible_collections.speechops.riva.plugins.module_utils import gpu_generations as rules
from ansible_collections.speechops.riva.plugins.module_utils import gpu_pains
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, Finding

# Packages of kernel modules, whose names tell the flavour.
FLAVOURED = re.compile(r"(nvidia-dkms|nvidia-kernel-(open-)?dkms|kmod-nvidia-(open|latest)-dkms)")
# Where dkms takes another key only since 3.0.4 (dkms-project/dkms#162), and Ubuntu 22.04 has 2.8: key and certificate.
FIXED_KEYS = {"ubuntu2204": ("/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der")}
SERVICES = {"containerd": "containerd", "crio": "crio", "k3s": "k3s", "rke2": "rke2-server"}


def plan(hardware: Mapping, settings: Mapping) -> dict:
    """The plan for a node: `hardware` is gpu_hardware_info's, `settings` the role's variables without their prefix.

    `refusals` are findings that forbid any change; `changes` says whether driver packages will change; `driver` is
    false where a driver is there that the role leaves alone. `needs_packages` says whether the package manager has
    anything to do at all: where not, a repository that is away does not matter.
    """
    system, node = hardware["os"], hardware["node"]
    folder = rules.repository_of(system["id"], system["version"])
    architecture = rules.ARCHITECTURES.get(system["architecture"])
    generations = generations_of(hardware)
    branch = branch_of(settings)
    possible = rules.modules_for(generations)
    flavour = settings["modules"] if settings["modules"] != "auto" else (possible or (rules.OPEN,))[0]
    kept = keeps_existing(hardware, settings)
    made = {
        "node": node,
        "driver": not kept,
        "kept": kept,
        "flavour": flavour,
        "branch": branch,
        "manager": "dnf" if (folder or "").startswith("rhel") else "apt",
        "repository": "",
        "repository_key": "",
        "toolkit_repository": "",
        "packages": [],
        "headers": [],
        "stream": "",
        "fabric_manager": "",
        "toolkit": [],
        "changes": False,
        "upgrade": False,
        "needs_packages": False,
        "runtime": runtime_plan(hardware, settings),
    }
    found = refusals(hardware, settings, folder, architecture, generations, kept)
    if folder and architecture:
        made["repository"] = filled(settings["repository_url"], folder, architecture)
        made["repository_key"] = filled(settings["repository_key"], folder, architecture)
        deb = "arm64" if architecture == "sbsa" else "amd64"
        made["toolkit_repository"] = (
            settings["toolkit_repository_url"]
            .replace("{kind}", "rpm" if made["manager"] == "dnf" else "deb")
            .replace("{arch}", system["architecture"] if made["manager"] == "dnf" else deb)
        )
        names = rules.driver_packages(folder, branch, flavour, settings["compute_only"])
        if not kept:
            made["packages"] = rules.at_version(names, settings["version"], folder)
            made["stream"] = rules.module_stream(branch, flavour) if made["manager"] == "dnf" else ""
            if settings["kernel_headers"]:
                made["headers"] = rules.header_packages(folder, hardware["kernel"]["release"])
            if fabric_manager_wanted(hardware, settings):
                made["fabric_manager"] = rules.fabric_manager_package(folder, branch)
            made["changes"] = driver_changes(hardware, settings, names, branch)
            made["upgrade"] = is_of_another_branch(hardware, branch)
        if settings["toolkit"]:
            made["toolkit"] = rules.at_version(rules.TOOLKIT, settings["toolkit_version"], folder)
        made["needs_packages"] = made["changes"] or lacks_packages(hardware, settings, made)
    if made["changes"]:
        found += disk_refusals(hardware, settings)
    made["refusals"] = [finding.to_dict() for finding in found]
    return made


def filled(text: str, folder: str, architecture: str) -> str:
    filled_in = text.replace("{distribution}", folder).replace("{arch}", architecture)
    return filled_in.replace("{key}", rules.signing_key(folder))


def branch_of(settings: Mapping) -> int:
    """The branch is the first part of an exact version."""
    version = rules.upstream_version(str(settings["version"]))
    return version[0] if version else int(settings["branch"])


def generations_of(hardware: Mapping) -> list[rules.Generation]:
    found = [rules.generation_of(int(gpu["device_id"], 16)) for gpu in hardware["pci"]["gpus"]]
    return [generation for generation in found if generation is not None]


def keeps_existing(hardware: Mapping, settings: Mapping) -> str:
    """Where the driver that is there comes from, if the role leaves it alone: a run file, or some other way."""
    origin = hardware["driver"]["origin"]
    return origin if origin in ("runfile", "other") and settings["existing"] == "keep" else ""


def fabric_manager_wanted(hardware: Mapping, settings: Mapping) -> bool:
    if settings["fabric_manager"] == "auto":
        return gpu_pains.needs_fabric_manager(hardware)
    return settings["fabric_manager"] == "always"


def driver_changes(hardware: Mapping, settings: Mapping, names: list[str], branch: int) -> bool:
    """Whether packages of the driver will be installed, upgraded or repaired."""
    packages = hardware["packages"]
    if packages["broken"] or any(name not in packages["nvidia"] for name in names):
        return True
    installed = rules.upstream_version(hardware["driver"]["package_version"] or "")
    wanted = rules.upstream_version(str(settings["version"]))
    return installed != wanted if wanted else installed[:1] != (branch,)


def lacks_packages(hardware: Mapping, settings: Mapping, made: Mapping) -> bool:
    """Whether anything beside the driver's own packages is missing: headers, Fabric Manager, the wanted toolkit."""
    toolkit = hardware["toolkit"]["version"]
    return (
        bool(made["headers"] and not hardware["kernel"]["headers"])
        or bool(made["fabric_manager"] and made["fabric_manager"] not in hardware["packages"]["nvidia"])
        or bool(made["toolkit"] and toolkit != str(settings["toolkit_version"]).partition("-")[0])
    )


def is_of_another_branch(hardware: Mapping, branch: int) -> bool:
    """Whether the packages have to be raised to the newest of a branch: being there is not enough."""
    installed = rules.upstream_version(hardware["driver"]["package_version"] or "")
    return bool(installed) and installed[0] != branch


def runtime_plan(hardware: Mapping, settings: Mapping) -> dict:
    """How the container runtime gets to know NVIDIA's; `command` is empty where a restart is enough."""
    found = hardware["runtime"]
    name = found["name"] if settings["runtime"] == "auto" else settings["runtime"]
    if not settings["toolkit"] or name in (None, "none"):
        return {"name": None, "command": [], "service": "", "configured": True}
    command = list(gpu_pains.CONFIGURE.get(name, []))
    # CRI-O has it on by itself.
    if name == "containerd" and settings["cdi"]:
        command.append("--cdi.enabled")
    configured = bool(found["configured"]) and found["name"] == name
    service = found.get("service") or SERVICES[name]
    return {"name": name, "command": command, "service": service, "configured": configured}


def refusals(hardware: Mapping, settings: Mapping, folder, architecture, generations, kept: str) -> list[Finding]:
    """What forbids any change on this node."""
    system, node = hardware["os"], hardware["node"]
    found = []

    def add(check: str, message: str, remedy: str) -> None:
        found.append(Finding(check, node, FAILED, message, remedy))

    if not folder or not architecture:
        known = ", ".join(sorted({f"{name} {version}" for name, version in rules.REPOSITORIES}))
        what = f"{system['id'] or 'unknown'} {system['version']} on {system['architecture']}"
        add(
            "node_system",
            f"{what} has no packages in NVIDIA's repository that the role knows ({known})",
            "install the driver another way and set gpu_stack to preinstalled, or let the GPU Operator bring it",
        )
    if not hardware["pci"]["gpus"] and not hardware["gpus"]:
        check, _status, message, remedy = gpu_pains.hardware(hardware)
        add(check, message, remedy)
    origin = hardware["driver"]["origin"]
    if "container" in origin:
        add(
            "two_drivers",
            "the GPU Operator's driver container is on this node; a driver of packages beside it would fight it",
            "set gpu_stack to operator, or first set driver.enabled to false in the GPU Operator and reboot the node",
        )
    elif origin in ("runfile", "other", "packages+runfile", "runfile+packages") and not kept:
        add(
            "two_drivers",
            f"a driver is there that no package brought ({origin})",
            "take it away first (nvidia-uninstall), or let the role leave it alone: nvidia_driver_existing keep",
        )
    if kept:
        return found
    problem = rules.flavour_problem(generations, settings["modules"])
    if problem:
        add("gpu_driver", problem, "set nvidia_driver_modules to auto, or take one of the GPUs out")
    problem = rules.branch_problem(generations, branch_of(settings))
    if problem:
        add("gpu_driver", problem, "set nvidia_driver_branch or nvidia_driver_version to one that knows all its GPUs")
    signed = settings["mok_key"] and settings["mok_certificate"]
    module = hardware["driver"]["module"]
    if hardware["kernel"]["secure_boot"] and not signed and not (module["loaded"] and module["signer"]):
        remedy = gpu_pains.SECURE_BOOT_REMEDY
        add("secure_boot", "Secure Boot is on, and there is no key to sign the modules with", remedy)
    given = (settings["mok_key"], settings["mok_certificate"])
    fixed = FIXED_KEYS.get(folder, given)
    if hardware["kernel"]["secure_boot"] and signed and given != fixed:
        add(
            "secure_boot",
            f"Secure Boot is on, and the DKMS of {system['id']} {system['version']} signs with {fixed[0]} alone",
            f"put key and certificate there, enrol it (mokutil --import {fixed[1]}), and set nvidia_driver_mok_key to"
            f" {fixed[0]} and nvidia_driver_mok_certificate to {fixed[1]}",
        )
    installed = rules.upstream_version(hardware["driver"]["package_version"] or "")
    wanted = rules.upstream_version(str(settings["version"])) or (branch_of(settings),)
    if installed and installed[: len(wanted)] > wanted and not settings["allow_downgrade"]:
        add(
            "gpu_driver",
            f"driver {hardware['driver']['package_version']} is installed, newer than what is wanted"
            f" ({settings['version'] or settings['branch']})",
            "raise nvidia_driver_version or nvidia_driver_branch, or allow it: nvidia_driver_allow_downgrade true",
        )
    return found


def disk_refusals(hardware: Mapping, settings: Mapping) -> list[Finding]:
    return [
        Finding(
            "disk_space",
            hardware["node"],
            FAILED,
            f"{place['free_mib']} MiB free on {place['path']}, {settings['min_free_mib']} needed"
            " (nvidia_driver_min_free_mib)",
            f"make room on {place['path']}: apt-get clean, apt-get autoremove, dnf remove --oldinstallonly",
        )
        for place in hardware["space"]
        if place["free_mib"] < settings["min_free_mib"]
    ]


def to_hold(hardware: Mapping) -> list[str]:
    """The packages to hold: a driver that the next unattended upgrade changes is one that fails until a reboot."""
    names = hardware["packages"]["nvidia"]
    wanted = {
        name
        for name in names
        if gpu_pains.DRIVER_PACKAGES.match(name) or gpu_pains.FABRIC_PACKAGES.match(name) or name in rules.TOOLKIT
    }
    return sorted(wanted - set(hardware["packages"]["held"]))


def ours(hardware: Mapping) -> list[str]:
    """The packages that uninstall takes away."""
    return sorted(set(to_hold(hardware)) | set(hardware["packages"]["held"]))


def reboot_reasons(hardware: Mapping) -> list[str]:
    """Why a reboot is needed after the packages are there; empty where none is."""
    reasons = []
    if hardware["kernel"]["nouveau"]:
        reasons.append("nouveau is loaded")
    installed, module = hardware["driver"]["package_version"], hardware["driver"]["module"]
    if installed and not module["loaded"]:
        reasons.append("the kernel module nvidia is not loaded")
    elif installed and module["version"] and module["version"] != installed:
        reasons.append(f"the module loaded is {module['version']}, the packages are {installed}")
    elif installed and module["flavour"] and installed_flavour(hardware) not in (None, module["flavour"]):
        reasons.append(f"the module loaded is {module['flavour']}, the packages' are {installed_flavour(hardware)}")
    return reasons


def installed_flavour(hardware: Mapping) -> str | None:
    """The flavour of the kernel modules by their packages' names; None where these do not tell."""
    names = [name for name in hardware["packages"]["nvidia"] if FLAVOURED.match(name)]
    flavours = {rules.OPEN if "open" in name else rules.PROPRIETARY for name in names}
    return flavours.pop() if len(flavours) == 1 else None

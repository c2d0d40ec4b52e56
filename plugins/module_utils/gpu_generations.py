# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Which GPU is of which generation, which kernel modules drive it, and how the driver's packages are called.

Runs on the nodes too, so Python 3.9 has to be enough.

Sources: PCI device ids and the rule for the open modules from NVIDIA/open-gpu-kernel-modules (README, "Compatible
GPUs"); which flavour a generation needs and the package names from NVIDIA's Driver Installation Guide; 580 is the
last branch for Maxwell, Pascal and Volta.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OPEN = "open"
PROPRIETARY = "proprietary"


@dataclass(frozen=True)
class Generation:
    """One generation of GPUs."""

    name: str
    # GPU Feature Discovery's word for it (nvidia.com/gpu.family).
    family: str
    # First and last PCI device id of each range.
    device_ids: tuple[tuple[int, int], ...]
    # Kernel modules that drive it, the recommended ones first.
    modules: tuple[str, ...]
    # Driver branches that know it; None where there is no last one yet.
    first_branch: int
    last_branch: int | None = None

    def holds(self, device_id: int) -> bool:
        return any(first <= device_id <= last for first, last in self.device_ids)


GENERATIONS = (
    # Before the whole of Hopper, whose range holds it: on Grace only the open modules work.
    Generation("grace-hopper", "hopper", ((0x2342, 0x2348),), (OPEN,), 535),
    Generation("maxwell", "maxwell", ((0x1340, 0x15EF), (0x1600, 0x17FF)), (PROPRIETARY,), 343, 580),
    Generation("pascal", "pascal", ((0x15F0, 0x15FF), (0x1B00, 0x1D7F)), (PROPRIETARY,), 367, 580),
    Generation("volta", "volta", ((0x1D80, 0x1DFF),), (PROPRIETARY,), 384, 580),
    Generation("turing", "turing", ((0x1E00, 0x1FFF), (0x2180, 0x21FF)), (OPEN, PROPRIETARY), 410),
    Generation("ampere", "ampere", ((0x2080, 0x20FF), (0x2200, 0x22FF), (0x2400, 0x25FF)), (OPEN, PROPRIETARY), 450),
    Generation("hopper", "hopper", ((0x2300, 0x23FF),), (OPEN, PROPRIETARY), 525),
    Generation("ada-lovelace", "ada-lovelace", ((0x2600, 0x28FF),), (OPEN, PROPRIETARY), 525),
    Generation("blackwell", "blackwell", ((0x2900, 0x29FF), (0x2B00, 0x2FFF), (0x3180, 0x31FF)), (OPEN,), 570),
)


def generation_of(device_id: int) -> Generation | None:
    """The generation of a GPU by the second half of its PCI id (0x2330 is an H100); None for one not known here."""
    for generation in GENERATIONS:
        if generation.holds(device_id):
            return generation
    return None


def family_of(major: int, minor: int) -> str:
    """The name that GPU Feature Discovery gives to a compute capability."""
    if major == 7:
        return "turing" if minor >= 5 else "volta"
    if major == 8:
        return "ada-lovelace" if minor >= 9 else "ampere"
    others = {1: "tesla", 2: "fermi", 3: "kepler", 5: "maxwell", 6: "pascal"}
    others.update({9: "hopper", 10: "blackwell", 12: "blackwell", 13: "rubin"})
    return others.get(major, "undefined")


def modules_for(generations: Iterable[Generation]) -> tuple[str, ...]:
    """The flavours that drive all of these GPUs at once, the recommended one first; empty where there is none."""
    generations = list(generations)
    return tuple(
        flavour for flavour in (OPEN, PROPRIETARY) if all(flavour in generation.modules for generation in generations)
    )


def flavour_problem(generations: Sequence[Generation], wanted: str) -> str:
    """Why the wanted flavour (open, proprietary or auto) can't be; empty where it can."""
    possible = modules_for(generations)
    names = ", ".join(sorted({generation.name for generation in generations}))
    if not possible:
        return f"no flavour of the kernel modules drives all of its GPUs at once ({names})"
    if wanted != "auto" and wanted not in possible:
        return f"{wanted} kernel modules do not drive {names}; {possible[0]} ones do"
    return ""


def branch_problem(generations: Sequence[Generation], branch: int) -> str:
    """Why this driver branch does not know these GPUs; empty where it does."""
    for generation in generations:
        if branch < generation.first_branch:
            return f"branch {branch} does not know {generation.name}; {generation.first_branch} is the first that does"
        if generation.last_branch is not None and branch > generation.last_branch:
            return f"branch {branch} has dropped {generation.name}; {generation.last_branch} is the last that knows it"
    return ""


# --- packages

# NVIDIA's folder for each distribution that the roles know: (ID of os-release, major version) to its name.
REPOSITORIES = {
    ("ubuntu", "22.04"): "ubuntu2204",
    ("ubuntu", "24.04"): "ubuntu2404",
    ("debian", "12"): "debian12",
    ("rhel", "9"): "rhel9",
    ("rocky", "9"): "rhel9",
    ("almalinux", "9"): "rhel9",
}
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "sbsa"}
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


def repository_of(os_id: str, os_version: str) -> str | None:
    """NVIDIA's folder name for a distribution; None for one that it does not have or the roles do not know."""
    version = os_version if os_id == "ubuntu" else os_version.split(".")[0]
    return REPOSITORIES.get((os_id, version))


def signing_key(repository: str) -> str:
    """The name of the key's file in NVIDIA's repository: another one for deb than for rpm."""
    return "D42D0685" if repository.startswith("rhel") else "3bf863cc"


def driver_packages(repository: str, branch: int, flavour: str, compute_only: bool = True) -> list[str]:
    """The packages to name to the package manager; the others follow from their dependencies.

    Ubuntu's packages carried the branch in their names until 575.
    """
    is_open = flavour == OPEN
    if not compute_only:
        return ["nvidia-open" if is_open else "cuda-drivers", "nvidia-persistenced"]
    if repository.startswith("ubuntu"):
        if branch < 580:
            modules = f"nvidia-dkms-{branch}-open" if is_open else f"nvidia-dkms-{branch}"
            return [f"libnvidia-compute-{branch}", modules, f"nvidia-utils-{branch}", f"nvidia-compute-utils-{branch}"]
        modules = "nvidia-dkms-open" if is_open else "nvidia-dkms"
        return ["libnvidia-compute", modules, "nvidia-persistenced"]
    if repository.startswith("debian"):
        modules = "nvidia-kernel-open-dkms" if is_open else "nvidia-kernel-dkms"
        return ["nvidia-driver-cuda", modules, "nvidia-persistenced"]
    modules = "kmod-nvidia-open-dkms" if is_open else "kmod-nvidia-latest-dkms"
    return ["nvidia-driver-cuda", modules, "nvidia-persistenced"]


def module_stream(branch: int, flavour: str) -> str:
    """The dnf module stream that pins RHEL's packages to a branch."""
    return f"nvidia-driver:{branch}-{'open' if flavour == OPEN else 'dkms'}"


def fabric_manager_package(repository: str, branch: int) -> str:
    """Its name lost the branch, and RPM's its second dash, with 580."""
    if branch >= 580:
        return "nvidia-fabricmanager"
    return "nvidia-fabric-manager" if repository.startswith("rhel") else f"nvidia-fabricmanager-{branch}"


def header_packages(repository: str, kernel: str) -> list[str]:
    """What DKMS builds against: the headers of the running kernel, not of the newest."""
    if repository.startswith("rhel"):
        return [f"kernel-devel-{kernel}", "kernel-headers"]
    return [f"linux-headers-{kernel}"]


def at_version(names: Iterable[str], version: str, repository: str) -> list[str]:
    """Package names with a version, as apt or dnf take them; the packager's own suffix stays open."""
    if not version:
        return list(names)
    if "-" in version:
        sign, end = ("-", "") if repository.startswith("rhel") else ("=", "")
    else:
        sign, end = ("-", "-*") if repository.startswith("rhel") else ("=", "-*")
    return [f"{name}{sign}{version}{end}" for name in names]


def upstream_version(version: str) -> tuple[int, ...]:
    """The driver's version in a package's: 580.159.04 of 3:580.159.04-1.el9; () where there is none."""
    text = version.split(":", 1)[-1].split("-", 1)[0]
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()

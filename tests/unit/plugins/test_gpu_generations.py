# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPU generation to kernel modules, branch and package names, for the GPUs that people have."""

import ast
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import gpu_generations as rules
from ansible_collections.speechops.riva.plugins.module_utils import gpu_labels

UTILS = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"

# GPU, PCI device id (of NVIDIA/open-gpu-kernel-modules; V100's of the PCI id database), family, modules, first branch
GPUS = {
    "T4": (0x1EB8, "turing", ("open", "proprietary"), 410, None),
    "V100 SXM2 16GB": (0x1DB1, "volta", ("proprietary",), 384, 580),
    "V100 PCIe 32GB": (0x1DB6, "volta", ("proprietary",), 384, 580),
    "P100": (0x15F8, "pascal", ("proprietary",), 367, 580),
    "P4": (0x1BB3, "pascal", ("proprietary",), 367, 580),
    "M60": (0x13F2, "maxwell", ("proprietary",), 343, 580),
    "A100 SXM4 40GB": (0x20B0, "ampere", ("open", "proprietary"), 450, None),
    "A100 PCIe 40GB": (0x20F1, "ampere", ("open", "proprietary"), 450, None),
    "A100 SXM4 80GB": (0x20B2, "ampere", ("open", "proprietary"), 450, None),
    "A100 PCIe 80GB": (0x20B5, "ampere", ("open", "proprietary"), 450, None),
    "A10": (0x2236, "ampere", ("open", "proprietary"), 450, None),
    "A30": (0x20B7, "ampere", ("open", "proprietary"), 450, None),
    "A2": (0x25B6, "ampere", ("open", "proprietary"), 450, None),
    "L4": (0x27B8, "ada-lovelace", ("open", "proprietary"), 525, None),
    "L40S": (0x26B9, "ada-lovelace", ("open", "proprietary"), 525, None),
    "H100 PCIe": (0x2331, "hopper", ("open", "proprietary"), 525, None),
    "H100 SXM": (0x2330, "hopper", ("open", "proprietary"), 525, None),
    "H100 NVL": (0x2321, "hopper", ("open", "proprietary"), 525, None),
    "H200": (0x2335, "hopper", ("open", "proprietary"), 525, None),
    "H200 NVL": (0x233B, "hopper", ("open", "proprietary"), 525, None),
    "GH200 120GB": (0x2342, "hopper", ("open",), 535, None),
    "GH200 144G": (0x2348, "hopper", ("open",), 535, None),
    "B200": (0x2901, "blackwell", ("open",), 570, None),
    "GB200": (0x2941, "blackwell", ("open",), 570, None),
    "B300": (0x3182, "blackwell", ("open",), 570, None),
    "RTX PRO 6000 Blackwell": (0x2BB5, "blackwell", ("open",), 570, None),
}


@pytest.mark.parametrize(("device", "family", "modules", "first", "last"), GPUS.values(), ids=GPUS.keys())
def test_generation(device, family, modules, first, last):
    found = rules.generation_of(device)
    assert (found.family, found.modules, found.first_branch, found.last_branch) == (family, modules, first, last)


@pytest.mark.parametrize("device", [0, 0x0FFF, 0x2000, 0x3300, 0xFFFF])
def test_an_unknown_gpu_has_no_generation(device):
    assert rules.generation_of(device) is None


def of(*names):
    return [rules.generation_of(GPUS[name][0]) for name in names]


@pytest.mark.parametrize(
    ("names", "wanted", "says"),
    [
        (["T4"], "auto", ""),
        (["T4"], "proprietary", ""),
        (["V100 PCIe 32GB"], "auto", ""),
        (["V100 PCIe 32GB"], "open", "open kernel modules do not drive volta; proprietary ones do"),
        (["B200"], "proprietary", "proprietary kernel modules do not drive blackwell; open ones do"),
        (["GH200 120GB"], "proprietary", "proprietary kernel modules do not drive grace-hopper; open ones do"),
        (["V100 PCIe 32GB", "H100 PCIe"], "auto", ""),
        (["V100 PCIe 32GB", "H100 PCIe"], "open", "do not drive hopper, volta; proprietary ones do"),
        (["V100 PCIe 32GB", "B200"], "auto", "no flavour of the kernel modules drives all of its GPUs at once"),
        ([], "auto", ""),
    ],
)
def test_flavour(names, wanted, says):
    found = rules.flavour_problem(of(*names), wanted)
    assert says in found
    assert bool(says) == bool(found)


@pytest.mark.parametrize(
    ("names", "branch", "says"),
    [
        (["T4"], 580, ""),
        (["V100 PCIe 32GB"], 580, ""),
        (["V100 PCIe 32GB"], 590, "branch 590 has dropped volta; 580 is the last"),
        (["B200"], 550, "branch 550 does not know blackwell; 570 is the first"),
        (["L4"], 515, "525 is the first"),
        (["T4", "B200"], 590, ""),
    ],
)
def test_branch(names, branch, says):
    found = rules.branch_problem(of(*names), branch)
    assert says in found
    assert bool(says) == bool(found)


@pytest.mark.parametrize(
    ("os_id", "version", "folder"),
    [
        ("ubuntu", "22.04", "ubuntu2204"),
        ("ubuntu", "24.04", "ubuntu2404"),
        ("ubuntu", "20.04", None),
        ("debian", "12", "debian12"),
        ("debian", "12.11", "debian12"),
        ("debian", "11", None),
        ("rhel", "9.5", "rhel9"),
        ("rocky", "9", "rhel9"),
        ("almalinux", "9.4", "rhel9"),
        ("fedora", "41", None),
        ("", "", None),
    ],
)
def test_repository(os_id, version, folder):
    assert rules.repository_of(os_id, version) == folder


@pytest.mark.parametrize(
    ("repository", "branch", "flavour", "compute_only", "names"),
    [
        ("debian12", 580, "open", True, ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"]),
        ("debian12", 580, "proprietary", True, ["nvidia-driver-cuda", "nvidia-kernel-dkms", "nvidia-persistenced"]),
        ("debian12", 580, "open", False, ["nvidia-open", "nvidia-persistenced"]),
        ("debian12", 580, "proprietary", False, ["cuda-drivers", "nvidia-persistenced"]),
        ("ubuntu2404", 580, "open", True, ["libnvidia-compute", "nvidia-dkms-open", "nvidia-persistenced"]),
        ("ubuntu2204", 590, "proprietary", True, ["libnvidia-compute", "nvidia-dkms", "nvidia-persistenced"]),
        (
            "ubuntu2204",
            570,
            "open",
            True,
            ["libnvidia-compute-570", "nvidia-dkms-570-open", "nvidia-utils-570", "nvidia-compute-utils-570"],
        ),
        ("rhel9", 580, "open", True, ["nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced"]),
        ("rhel9", 580, "proprietary", True, ["nvidia-driver-cuda", "kmod-nvidia-latest-dkms", "nvidia-persistenced"]),
        ("rhel9", 580, "open", False, ["nvidia-open", "nvidia-persistenced"]),
    ],
)
def test_driver_packages(repository, branch, flavour, compute_only, names):
    assert rules.driver_packages(repository, branch, flavour, compute_only) == names


@pytest.mark.parametrize(
    ("repository", "branch", "name"),
    [
        ("debian12", 580, "nvidia-fabricmanager"),
        ("ubuntu2404", 570, "nvidia-fabricmanager-570"),
        ("rhel9", 570, "nvidia-fabric-manager"),
        ("rhel9", 590, "nvidia-fabricmanager"),
    ],
)
def test_fabric_manager_package(repository, branch, name):
    assert rules.fabric_manager_package(repository, branch) == name


@pytest.mark.parametrize(
    ("repository", "version", "named"),
    [
        ("debian12", "", "p"),
        ("debian12", "580.159.04", "p=580.159.04-*"),
        ("ubuntu2404", "580.159.04-1ubuntu1", "p=580.159.04-1ubuntu1"),
        ("rhel9", "580.159.04", "p-580.159.04-*"),
        ("rhel9", "1.20.0-1", "p-1.20.0-1"),
    ],
)
def test_a_package_with_its_version(repository, version, named):
    assert rules.at_version(["p"], version, repository) == [named]


def test_streams_and_headers():
    assert rules.module_stream(580, "open") == "nvidia-driver:580-open"
    assert rules.module_stream(580, "proprietary") == "nvidia-driver:580-dkms"
    assert rules.header_packages("debian12", "6.1.0-37-amd64") == ["linux-headers-6.1.0-37-amd64"]
    assert rules.header_packages("rhel9", "5.14.0-570.el9.x86_64") == [
        "kernel-devel-5.14.0-570.el9.x86_64",
        "kernel-headers",
    ]


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("580.159.04-1", (580, 159, 4)),
        ("3:580.159.04-1.el9", (580, 159, 4)),
        ("580.159.04-1ubuntu1", (580, 159, 4)),
        ("580.159.04", (580, 159, 4)),
        ("rubbish", ()),
        ("", ()),
    ],
)
def test_upstream_version(package, version):
    assert rules.upstream_version(package) == version


@pytest.mark.parametrize("major", range(1, 15))
@pytest.mark.parametrize("minor", [0, 5, 9])
def test_both_places_that_name_families_agree(major, minor):
    of_labels = gpu_labels.family_of(major, minor)
    assert of_labels in (None, rules.family_of(major, minor))


# Nodes have older Pythons than the controller: RHEL 9 has 3.9, Ubuntu 22.04 has 3.10.
@pytest.mark.parametrize("name", ["findings", "gpu_generations", "gpu_hardware", "gpu_pains"])
def test_what_runs_on_the_nodes_is_python_3_9(name):
    tree = ast.parse((UTILS / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 9))
    newer = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and any(alias.name in ("UTC", "StrEnum", "Self") for alias in node.names))
        or (isinstance(node, ast.keyword) and node.arg in ("slots", "kw_only", "strict"))
        or (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "isinstance"
            and isinstance(node.args[1], ast.BinOp)
        )
    ]
    assert newer == []

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the nvidia_driver role will do on a node, by distribution, hardware and what is there; and what it refuses."""

import copy
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import driver_plan as rules

from tests.unit.plugins.test_gpu_pains import GONE, HEALTHY, changed

ROLE = Path(__file__).resolve().parents[3] / "roles" / "nvidia_driver"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
SETTINGS = {
    name: DEFAULTS[f"nvidia_driver_{name}"]
    for name in yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__nvidia_driver_settings"]
}
BARE = changed(
    HEALTHY,
    {
        "driver": {
            **HEALTHY["driver"],
            "version": None,
            "cuda": None,
            "module": GONE,
            "package_version": None,
            "origin": "none",
        },
        "gpus": [],
        "toolkit.version": None,
        "runtime": {
            "name": "containerd",
            "configured": False,
            "config": None,
            "elsewhere": None,
            "service": "containerd",
        },
    },
)
# A node that has what it is to have.
DONE = changed(
    HEALTHY,
    {
        "packages.nvidia": {
            name: "580.159.04-1" for name in ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced")
        },
        "runtime.service": "containerd",
    },
)


def plan(facts=BARE, changes=None, **settings):
    return rules.plan(changed(facts, changes or {}), {**copy.deepcopy(SETTINGS), **settings})


def card(device):
    return [{"address": "0000:00:00.0", "device_id": device, "generation": None, "driver": None}]


def system(name, version, architecture="x86_64"):
    return {"os": {"id": name, "version": version, "architecture": architecture}}


UBUNTU, ROCKY = system("ubuntu", "24.04"), system("rocky", "9.5")
ARM = system("ubuntu", "22.04", "aarch64")


@pytest.mark.parametrize(
    ("changes", "settings", "expected"),
    [
        (
            {},
            {},
            {
                "flavour": "open",
                "manager": "apt",
                "packages": ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"],
                "headers": ["linux-headers-6.1.0-37-amd64"],
                "repository": "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/",
                "repository_key": "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/3bf863cc.pub",
                "toolkit_repository": "https://nvidia.github.io/libnvidia-container/stable/deb/amd64/",
                "changes": True,
                "refusals": [],
            },
        ),
        ({"pci.gpus": card("0x1db1")}, {}, {"flavour": "proprietary", "refusals": []}),
        (
            {},
            {"version": "580.95.05"},
            {
                "packages": [
                    f"{name}=580.95.05-*"
                    for name in ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced")
                ]
            },
        ),
        (UBUNTU, {}, {"packages": ["libnvidia-compute", "nvidia-dkms-open", "nvidia-persistenced"]}),
        (
            ARM,
            {},
            {
                "repository": "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/sbsa/",
                "toolkit_repository": "https://nvidia.github.io/libnvidia-container/stable/deb/arm64/",
            },
        ),
        (
            ROCKY,
            {},
            {
                "manager": "dnf",
                "stream": "nvidia-driver:580-open",
                "packages": ["nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced"],
                "headers": ["kernel-devel-6.1.0-37-amd64", "kernel-headers"],
                "repository": "https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/",
                "repository_key": "https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/D42D0685.pub",
                "toolkit_repository": "https://nvidia.github.io/libnvidia-container/stable/rpm/x86_64/",
            },
        ),
        ({"pci.nvswitches": 4}, {}, {"fabric_manager": "nvidia-fabricmanager"}),
        ({"pci.nvswitches": 4}, {"fabric_manager": "never"}, {"fabric_manager": ""}),
        ({"pci.nvswitches": 4}, {"branch": 570}, {"fabric_manager": "nvidia-fabricmanager-570"}),
        ({}, {"repository_url": "file:///srv/{distribution}/"}, {"repository": "file:///srv/debian12/"}),
        ({}, {"kernel_headers": False, "toolkit": False}, {"headers": [], "toolkit": []}),
    ],
)
def test_plan(changes, settings, expected):
    made = plan(changes=changes, **settings)
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "command", "service"),
    [
        ("containerd", ["nvidia-ctk", "runtime", "configure", "--runtime=containerd", "--cdi.enabled"], "containerd"),
        # CRI-O does not read /etc/crio/conf.d, where nvidia-ctk writes by itself.
        (
            "crio",
            [
                "nvidia-ctk",
                "runtime",
                "configure",
                "--runtime=crio",
                "--drop-in-config=/etc/crio/crio.conf.d/99-nvidia.toml",
            ],
            "crio",
        ),
        ("k3s", [], "k3s-agent"),
        ("rke2", [], "rke2-server"),
    ],
)
def test_runtime(name, command, service):
    made = plan(changes={"runtime.name": name, "runtime.service": service})["runtime"]
    assert (made["command"], made["service"], made["configured"]) == (command, service, False)


@pytest.mark.parametrize(
    ("settings", "changes"), [({"runtime": "none"}, {}), ({"toolkit": False}, {}), ({}, {"runtime.name": None})]
)
def test_a_runtime_that_is_left_alone(settings, changes):
    assert plan(changes=changes, **settings)["runtime"]["name"] is None


def test_nothing_is_left_to_do():
    made = plan(DONE)
    assert (made["changes"], made["runtime"]["configured"], made["refusals"]) == (False, True, [])
    assert not plan(DONE, version="580.159.04")["changes"]


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"version": "580.173.02"}, {}),
        ({"branch": 590}, {}),
        ({}, {"packages.broken": ["dkms"]}),
        ({"version": "580.95.05", "allow_downgrade": True}, {}),
    ],
)
def test_what_changes_the_driver(settings, changes):
    assert plan(DONE, changes, **settings)["changes"]


@pytest.mark.parametrize(
    ("settings", "changes", "expected"),
    [
        ({}, {}, False),
        ({"version": "580.173.02"}, {}, True),
        ({}, {"kernel.headers": False}, True),
        ({"kernel_headers": False}, {"kernel.headers": False}, False),
        ({"toolkit_version": "1.21.0-1"}, {}, True),
        ({"toolkit_version": "1.21.0-1", "toolkit": False}, {}, False),
        ({}, {"pci.nvswitches": 4}, True),
        ({}, {"pci.nvswitches": 4, "packages.nvidia.nvidia-fabricmanager": "580.159.04-1"}, False),
    ],
)
def test_whether_the_package_manager_has_anything_to_do(settings, changes, expected):
    assert plan(DONE, changes, **settings)["needs_packages"] is expected


def test_another_branch_is_an_upgrade():
    assert plan(DONE, branch=590)["upgrade"]
    assert not plan(DONE)["upgrade"]
    assert not plan(BARE)["upgrade"]


REFUSALS = {
    "an unknown distribution": (BARE, system("fedora", "41"), {}, "node_system", "fedora 41"),
    "an unknown architecture": (BARE, system("debian", "12", "riscv64"), {}, "node_system", "riscv64"),
    "no GPU": (BARE, {"pci.gpus": []}, {}, "gpu_hardware", "no NVIDIA GPU"),
    "open modules for a V100": (BARE, {"pci.gpus": card("0x1db1")}, {"modules": "open"}, "gpu_driver", "volta"),
    "proprietary ones for a B200": (
        BARE,
        {"pci.gpus": card("0x2901")},
        {"modules": "proprietary"},
        "gpu_driver",
        "blackwell",
    ),
    "a branch that dropped a V100": (BARE, {"pci.gpus": card("0x1db1")}, {"branch": 590}, "gpu_driver", "590"),
    "a version that dropped a V100": (
        BARE,
        {"pci.gpus": card("0x1db1")},
        {"version": "590.44.01"},
        "gpu_driver",
        "branch 590 has dropped volta",
    ),
    "Secure Boot without a key": (BARE, {"kernel.secure_boot": True}, {}, "secure_boot", "no key"),
    "a key that this DKMS does not take": (
        BARE,
        {"kernel.secure_boot": True, **system("ubuntu", "22.04")},
        {"mok_key": "/root/mok.key", "mok_certificate": "/root/mok.der"},
        "secure_boot",
        "the DKMS of ubuntu 22.04 signs with /var/lib/shim-signed/mok/MOK.priv alone",
    ),
    "the operator's container": (BARE, {"driver.origin": "container"}, {}, "two_drivers", "GPU Operator"),
    "the operator's container beside packages": (
        DONE,
        {"driver.origin": "container+packages"},
        {},
        "two_drivers",
        "fight",
    ),
    "a run file, not wanted": (BARE, {"driver.origin": "runfile"}, {"existing": "refuse"}, "two_drivers", "runfile"),
    "a downgrade": (DONE, {}, {"version": "580.95.05"}, "gpu_driver", "newer than what is wanted (580.95.05)"),
    "a downgrade of the branch": (DONE, {}, {"branch": 570}, "gpu_driver", "(570)"),
    "a full disk": (BARE, {"space": [{"path": "/var", "free_mib": 10}]}, {}, "disk_space", "10 MiB free on /var"),
}


@pytest.mark.parametrize(("facts", "changes", "settings", "check", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(facts, changes, settings, check, words):
    (found,) = plan(facts, changes, **settings)["refusals"]
    assert (found["check"], found["status"]) == (check, "failed")
    assert words in found["message"]
    assert found["remedy"]


ALLOWED = {
    "Secure Boot with a key": (BARE, {"kernel.secure_boot": True}, {"mok_key": "/k", "mok_certificate": "/c"}),
    "Secure Boot with the one key that this DKMS takes": (
        BARE,
        {"kernel.secure_boot": True, **system("ubuntu", "22.04")},
        {"mok_key": "/var/lib/shim-signed/mok/MOK.priv", "mok_certificate": "/var/lib/shim-signed/mok/MOK.der"},
    ),
    "Secure Boot with a key, where DKMS takes any": (
        BARE,
        {"kernel.secure_boot": True, **UBUNTU},
        {"mok_key": "/k", "mok_certificate": "/c"},
    ),
    "Secure Boot, and a module that the kernel took": (
        DONE,
        {"kernel.secure_boot": True, "driver.module.signer": "Canonical"},
        {},
    ),
    "a downgrade that is allowed": (DONE, {}, {"version": "580.95.05", "allow_downgrade": True}),
    "a full disk with nothing to install": (DONE, {"space": [{"path": "/var", "free_mib": 10}]}, {}),
}


@pytest.mark.parametrize(("facts", "changes", "settings"), ALLOWED.values(), ids=ALLOWED.keys())
def test_what_is_no_reason_to_refuse(facts, changes, settings):
    assert plan(facts, changes, **settings)["refusals"] == []


@pytest.mark.parametrize("origin", ["runfile", "other"])
def test_a_driver_that_no_package_brought_stays(origin):
    made = plan(DONE, {"driver.origin": origin, "packages.nvidia": {}, "driver.package_version": None})
    assert (made["driver"], made["kept"], made["packages"], made["changes"]) == (False, origin, [], False)
    assert made["toolkit"]
    assert made["refusals"] == []


def test_packages_to_hold():
    facts = changed(DONE, {"packages.held": ["nvidia-driver-cuda"]})
    facts["packages"]["nvidia"].update(
        {"nvidia-container-toolkit": "1.20.0-1", "cuda-keyring": "1.1", "libnvidia-container1": "1"}
    )
    assert rules.to_hold(facts) == [
        "libnvidia-container1",
        "nvidia-container-toolkit",
        "nvidia-kernel-open-dkms",
        "nvidia-persistenced",
    ]
    assert "nvidia-driver-cuda" in rules.ours(facts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"kernel.nouveau": True}, ["nouveau is loaded"]),
        ({"driver.module": GONE}, ["the kernel module nvidia is not loaded"]),
        ({"driver.package_version": "580.173.02"}, ["the module loaded is 580.159.04, the packages are 580.173.02"]),
        ({"driver.module": GONE, "driver.package_version": None}, []),
        (
            {"packages.nvidia": {"nvidia-kernel-dkms": "580.159.04-1"}},
            ["the module loaded is open, the packages' are proprietary"],
        ),
        ({"packages.nvidia": {"nvidia-dkms-open": "580.159.04-0ubuntu1"}}, []),
        ({"packages.nvidia": {"kmod-nvidia-latest-dkms": "580.159.04-1.el9"}, "driver.module.flavour": None}, []),
    ],
)
def test_reboot_reasons(changes, words):
    assert rules.reboot_reasons(changed(DONE, changes)) == words

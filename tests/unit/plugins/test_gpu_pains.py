# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each pain of a GPU node has a finding of its own, and a healthy node has none."""

import copy

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import gpu_pains as rules

from tests.unit.plugins.gpu_cases import gpu

HEALTHY = {
    "node": "gpu-1",
    "os": {"id": "debian", "version": "12", "architecture": "x86_64"},
    "kernel": {"release": "6.1.0-37-amd64", "headers": True, "nouveau": False, "secure_boot": False},
    "pci": {
        "gpus": [{"address": "0000:00:00.0", "device_id": "0x2330", "generation": "hopper", "driver": "nvidia"}],
        "nvswitches": 0,
    },
    "gpus": [gpu("H100-SXM")],
    "driver": {
        "version": "580.159.04",
        "cuda": "13.0",
        "module": {"loaded": True, "version": "580.159.04", "flavour": "open", "signer": None},
        "package_version": "580.159.04",
        "runfile": False,
        "container": False,
        "error": "",
        "origin": "packages",
    },
    "fabric_manager": {"version": None, "running": None},
    "packages": {"manager": "dpkg", "nvidia": {}, "held": [], "broken": []},
    "toolkit": {"version": "1.20.0"},
    "runtime": {"name": "containerd", "configured": True, "config": "/etc/containerd/config.toml", "elsewhere": None},
    "space": [{"path": "/usr", "free_mib": 40000}],
}
GONE = {"loaded": False, "version": None, "flavour": None, "signer": None}
K3S = {"name": "k3s", "configured": False, "config": None, "elsewhere": "/etc/containerd/config.toml"}


def changed(facts, changes):
    """The healthy facts with some of them changed, by dotted paths."""
    facts = copy.deepcopy(facts)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = facts
        for parent in parents:
            place = place[parent]
        place[last] = value
    return facts


def bad(changes):
    found = rules.findings_of(changed(HEALTHY, changes))
    return [(finding.check, finding.status) for finding in found if finding.status != "ok"]


def test_a_healthy_node_has_no_complaint():
    assert bad({}) == []
    checks = [finding.check for finding in rules.findings_of(HEALTHY)]
    assert len(checks) == len(set(checks)) == 8


SWITCHES = {"pci.nvswitches": 4}
V100 = [{"address": "0000:00:00.0", "device_id": "0x1db1", "generation": "volta", "driver": "nvidia"}]
PAINS = {
    "nouveau": ({"kernel.nouveau": True}, [("nouveau", "failed")], "nouveau is loaded"),
    "secure boot, module refused": (
        {"kernel.secure_boot": True, "driver.module": GONE},
        [("gpu_driver", "failed"), ("secure_boot", "failed")],
        "mokutil --import",
    ),
    "secure boot, module signed": ({"kernel.secure_boot": True, "driver.module.signer": "us"}, [], "signed by us"),
    "two drivers": (
        {"driver.origin": "container+packages"},
        [("two_drivers", "failed")],
        "container and packages",
    ),
    "k3s, configured at the wrong place": ({"runtime": K3S}, [("containerd_path", "failed")], "/var/lib/rancher/k3s"),
    "rke2, configured at the wrong place": (
        {"runtime": {**K3S, "name": "rke2"}},
        [("containerd_path", "failed")],
        "CONTAINERD_SOCKET",
    ),
    "toolkit there, containerd not told": (
        {"runtime.configured": False},
        [("containerd_path", "failed")],
        "nvidia-ctk runtime configure --runtime=containerd",
    ),
    "no toolkit": (
        {"runtime.configured": False, "toolkit.version": None},
        [("containerd_path", "warning")],
        "no NVIDIA Container Toolkit",
    ),
    "no runtime": ({"runtime.name": None}, [("containerd_path", "unknown")], "no container runtime"),
    "headers missing, driver runs": ({"kernel.headers": False}, [("kernel_headers", "warning")], "linux-headers-6.1.0"),
    "headers missing, no driver": (
        {"kernel.headers": False, "driver.module": GONE, "driver.origin": "none"},
        [("gpu_driver", "warning"), ("kernel_headers", "failed")],
        "boot the newest kernel",
    ),
    "headers missing, a container brings the driver": (
        {"kernel.headers": False, "driver.origin": "container"},
        [],
        "does without",
    ),
    "fabric manager missing": (SWITCHES, [("fabric_manager", "failed")], "exact version (580.159.04)"),
    "fabric manager of another version": (
        {**SWITCHES, "fabric_manager": {"version": "580.95.05", "running": True}},
        [("fabric_manager", "failed")],
        "does not start with another version",
    ),
    "fabric manager stopped": (
        {**SWITCHES, "fabric_manager": {"version": "580.159.04", "running": False}},
        [("fabric_manager", "failed")],
        "systemctl enable --now",
    ),
    "fabric manager fine": ({**SWITCHES, "fabric_manager": {"version": "580.159.04", "running": True}}, [], "4 NVSw"),
    "no GPU": ({"pci.gpus": [], "gpus": []}, [("gpu_hardware", "failed")], "passed through"),
    "a GPU fell off the bus": (
        {"pci.gpus": [*HEALTHY["pci"]["gpus"], {**HEALTHY["pci"]["gpus"][0], "address": "0000:01:00.0"}]},
        [("gpu_hardware", "failed")],
        "not 0000:01:00.0",
    ),
    "module and libraries differ": (
        {"driver.error": "Failed to initialize NVML: Driver/library version mismatch"},
        [("gpu_driver", "failed")],
        "version mismatch",
    ),
    "packages newer than the module": (
        {"driver.package_version": "590.1.1"},
        [("gpu_driver", "warning")],
        "reboot the node",
    ),
    "open modules on a V100": ({"pci.gpus": V100}, [("gpu_driver", "failed")], "proprietary ones do"),
    "driver installed, not loaded": ({"driver.module": GONE}, [("gpu_driver", "failed")], "not loaded"),
    "half-installed packages": (
        {"packages.broken": ["nvidia-kernel-open-dkms"]},
        [("node_packages", "failed")],
        "dpkg --configure -a",
    ),
    "disk nearly full": (
        {"space": [{"path": "/var", "free_mib": 100}]},
        [("disk_space", "warning")],
        "100 MiB free on /var",
    ),
}


@pytest.mark.parametrize(("changes", "expected", "words"), PAINS.values(), ids=PAINS.keys())
def test_a_pain_is_named(changes, expected, words):
    assert bad(changes) == expected
    told = [
        f"{finding.message} {finding.remedy}"
        for finding in rules.findings_of(changed(HEALTHY, changes))
        if finding.check == (expected[-1][0] if expected else finding.check)
    ]
    assert any(words in text for text in told), told


def test_what_is_broken_has_a_remedy():
    for changes, _expected, _words in PAINS.values():
        for finding in rules.findings_of(changed(HEALTHY, changes)):
            assert finding.remedy or finding.status in ("ok", "unknown")


@pytest.mark.parametrize(
    ("driver", "origin"),
    [
        ({"module": {"loaded": False}}, "none"),
        ({"module": {"loaded": True}}, "other"),
        ({"module": {"loaded": True}, "package_version": "580.1"}, "packages"),
        ({"module": {"loaded": True}, "runfile": True}, "runfile"),
        ({"module": {"loaded": True}, "container": True}, "container"),
        ({"module": {"loaded": True}, "container": True, "package_version": "580.1"}, "container+packages"),
    ],
)
def test_origin(driver, origin):
    assert rules.origin_of(driver) == origin


@pytest.mark.parametrize(
    ("packages", "version"),
    [
        ({}, None),
        ({"nvidia-container-toolkit": "1.20.0-1", "libnvidia-container1": "1.20.0-1"}, None),
        ({"nvidia-kernel-open-dkms": "580.159.04-1", "nvidia-driver-cuda": "580.159.04-1"}, "580.159.04"),
        ({"kmod-nvidia-open-dkms": "3:580.95.05-1.el9"}, "580.95.05"),
        ({"nvidia-dkms-570-open": "570.1.1-0", "nvidia-dkms-open": "580.2.2-1ubuntu1"}, "580.2.2"),
    ],
)
def test_driver_version_of_the_packages(packages, version):
    assert rules.driver_package_version(packages) == version

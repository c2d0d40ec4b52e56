# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nvidia_driver role on a Debian 12 host with a pretended H100 and a signed repository of stub packages.

The tests of the first class build on each other, in the order in which they stand; each of the others has a fresh host.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.gpu_host.host import changed, fine, fingerprint, installed_by_proxy, said
from tests.gpu_host.packages import NEW, NEXT_BRANCH, OLD
from tests.gpu_host.systems import make_base

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting the host's file system needs root")

SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_base(folder / "base")
    return folder / "base"


class TestLifeOfADriver:
    def test_check_mode_tells_what_would_be_done_and_does_nothing(self, host):
        output = fine(host.play("--check", "--diff", nvidia_driver_version=OLD))
        assert {"The repositories are known to apt", "It is told what would be installed", "Nouveau is blocked"} <= set(
            changed(output)
        )
        assert host.packages() == {}
        assert host.shell("ls /etc/apt/sources.list.d /etc/modprobe.d | grep -c nvidia || true").strip() == "0"

    def test_it_is_installed_pinned_and_held(self, host):
        fine(host.play(nvidia_driver_version=OLD))
        packages = host.packages()
        assert packages["nvidia-driver-cuda"] == packages["nvidia-kernel-open-dkms"] == f"{OLD}-1"
        assert packages["nvidia-container-toolkit"] == "1.20.0-1"
        held = set(host.shell("apt-mark showhold").split())
        assert held == set(packages)
        assert f"\n  Candidate: {OLD}-1" in host.shell("apt-cache policy nvidia-driver-cuda")

    def test_nouveau_is_gone_and_the_node_was_rebooted_once(self, host):
        assert host.shell("cat /proc/modules").startswith("nvidia ")
        assert host.shell("cat /var/log/reboots") == "reboot\n"
        assert OLD in host.shell("nvidia-smi -q -x")

    def test_the_runtime_is_configured_and_the_daemons_are_enabled(self, host):
        assert "conf.d" in host.shell("cat /etc/containerd/config.toml")
        enabled = host.shell("ls /etc/systemd/system/multi-user.target.wants")
        assert "nvidia-persistenced.service" in enabled
        assert "nvidia-cdi-refresh.path" in enabled

    def test_a_second_run_and_check_mode_change_nothing(self, host):
        assert changed(fine(host.play(nvidia_driver_version=OLD))) == []
        assert changed(fine(host.play("--check", "--diff", nvidia_driver_version=OLD))) == []

    def test_check_mode_tells_of_another_version(self, host):
        output = fine(host.play("--check", "--diff", nvidia_driver_version=NEW))
        assert "It is told what would be installed" in changed(output)
        assert host.packages()["nvidia-kernel-open-dkms"] == f"{OLD}-1"

    def test_another_version_is_an_upgrade_with_a_reboot(self, host):
        output = fine(host.play(nvidia_driver_version=NEW))
        assert host.packages()["nvidia-kernel-open-dkms"] == f"{NEW}-1"
        assert host.shell("cat /var/log/reboots") == "reboot\nreboot\n"
        assert f"the module loaded is {OLD}, the packages are {NEW}" in " ".join(output.split())

    @pytest.mark.parametrize(
        "setting", [{"nvidia_driver_version": OLD}, {"nvidia_driver_version": "", "nvidia_driver_branch": 570}]
    )
    def test_a_downgrade_is_refused(self, host, setting):
        before = host.packages()
        words = said(host.play(**setting))
        assert "newer than what is wanted" in words
        assert "nvidia_driver_allow_downgrade" in words
        assert host.packages() == before

    def test_a_driver_that_is_newer_in_the_repository_is_left_there(self, host):
        """590 is in the repository, and `upgrade` stays within 580; only the pin of the exact version gives way."""
        pin = ["Preferences and proxy are set for apt"]
        assert changed(fine(host.play(entry="upgrade", nvidia_driver_version=""))) == pin
        assert changed(fine(host.play(entry="upgrade", nvidia_driver_version=""))) == []
        assert host.packages()["nvidia-driver-cuda"] == f"{NEW}-1"

    def test_the_next_branch_comes_when_it_is_wanted(self, host):
        fine(host.play(nvidia_driver_version="", nvidia_driver_branch=590))
        assert host.packages()["nvidia-driver-cuda"] == f"{NEXT_BRANCH}-1"

    def test_all_of_it_can_be_taken_away(self, host):
        fine(host.play(entry="uninstall"))
        assert host.packages() == {}
        assert (
            host.shell(
                "ls /etc/apt/sources.list.d /etc/modprobe.d /etc/apt/preferences.d | grep -c nvidia || true"
            ).strip()
            == "0"
        )
        assert changed(fine(host.play(entry="uninstall"))) == []


def test_keys_with_the_right_fingerprints_are_taken(base, fresh):
    right = fingerprint(base / "srv" / "key.asc")
    names = ("nvidia_driver_repository_fingerprint", "nvidia_driver_toolkit_repository_fingerprint")
    wished = dict.fromkeys(names, right)
    fine(fresh.play(**wished))
    assert fresh.packages()
    assert changed(fine(fresh.play(**wished))) == []


def test_an_upgrade_takes_the_newest_of_the_branch(fresh):
    fine(fresh.play(nvidia_driver_version=OLD))
    assert "Preferences and proxy are set for apt" in changed(
        fine(fresh.play("--check", entry="upgrade", nvidia_driver_version=""))
    )
    fine(fresh.play(entry="upgrade", nvidia_driver_version=""))
    assert fresh.packages()["nvidia-driver-cuda"] == f"{NEW}-1"
    assert changed(fine(fresh.play(entry="upgrade", nvidia_driver_version=""))) == []


def test_an_upgrade_that_cannot_ask_apt_says_so(fresh):
    fine(fresh.play(nvidia_driver_version=OLD))
    fresh.shell("rm -r /usr/lib/python3/dist-packages/apt")
    assert "python3-apt must be installed" in said(fresh.play(entry="upgrade", nvidia_driver_version=""))
    assert fresh.packages()["nvidia-driver-cuda"] == f"{OLD}-1"


def test_what_an_interrupted_run_left_half_installed_is_repaired(fresh):
    fresh.file("/etc/break-the-build", "")
    words = said(fresh.play())
    assert "can be run again as it is" in words
    assert "nvidia-kernel-open-dkms" in fresh.shell("dpkg --audit")
    fresh.file("/etc/break-the-build", None)
    output = fine(fresh.play())
    assert "Nothing is half installed" in changed(output)
    assert fresh.shell("dpkg --audit") == ""
    assert changed(fine(fresh.play())) == []


REFUSED = {
    "repository down": (
        {"nvidia_driver_repository_url": "file:///nowhere/"},
        ["nvidia_driver_repository_url is file:///nowhere/", "nvidia_driver_proxy"],
    ),
    "key cannot be had": ({"nvidia_driver_repository_key": "file:///nowhere.asc"}, ["nvidia_driver_repository_url"]),
    "wrong key": ({"nvidia_driver_repository_key": "file:///srv/stranger.asc"}, ["another key", "NO_PUBKEY"]),
    "key at the right address, another fingerprint": (
        {"nvidia_driver_repository_fingerprint": "EB693B3035CD5710E231E123A4B469963BF863CC"},
        ["another key", "does not have the fingerprint EB693B3035CD5710E231E123A4B469963BF863CC"],
    ),
    "no such version": ({"nvidia_driver_version": "580.1.1"}, ["nvidia_driver_version 580.1.1"]),
}


@pytest.mark.parametrize(("variables", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_packages_that_cannot_be_had_are_explained(fresh, variables, words):
    told = said(fresh.play(**variables))
    assert [word for word in words if word not in told] == [], told
    assert fresh.packages() == {}


def test_a_disk_that_fills_up_on_the_way_is_named(fresh):
    """There is room enough by the first look, and none where dpkg unpacks."""
    mounts = "mkdir -p $root/usr/lib/nvidia && mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs $root/usr/lib/nvidia"
    told = said(fresh.play(mounts=mounts))
    assert "No space left" in told
    assert "A disk is full" in told
    fine(fresh.play())


BEFORE = {
    "disk full": ({}, {}, "mount -t tmpfs -o size=1m tmpfs $root/var/cache/apt", "disk_space"),
    "Secure Boot without a key": ({}, {SECURE_BOOT: "secure"}, "", "secure_boot"),
    "GPU Operator's driver container": ({}, {"/run/nvidia/driver/usr/bin/nvidia-smi": ""}, "", "two_drivers"),
    "driver by run file, refused": (
        {"nvidia_driver_existing": "refuse"},
        {"/usr/bin/nvidia-uninstall": ""},
        "",
        "two_drivers",
    ),
    "open modules for a V100": (
        {"nvidia_driver_modules": "open"},
        {"/sys/bus/pci/devices/0000:00:06.0/device": "0x1db1"},
        "",
        "gpu_driver",
    ),
    "no GPU": ({}, {"/sys/bus/pci/devices/0000:00:06.0": None}, "", "gpu_hardware"),
    "another distribution": ({}, {"/etc/os-release": "ID=arch"}, "", "node_system"),
}


@pytest.mark.parametrize(("variables", "files", "mounts", "check"), BEFORE.values(), ids=BEFORE.keys())
def test_a_pain_is_named_before_anything_is_changed(fresh, variables, files, mounts, check):
    for name, text in files.items():
        if text == "secure":
            fresh.shell(f"mkdir -p $(dirname {name}); printf '\\006\\000\\000\\000\\001' > {name}")
        else:
            fresh.file(name, text)
    done = fresh.play(mounts=mounts, **variables)
    assert "Nothing was changed on gpu-1" in said(done)
    assert re.search(rf"failed +{check} +gpu-1 ", done.stdout), done.stdout
    assert changed(done.stdout) == []
    assert fresh.packages() == {}


def test_secure_boot_with_a_key_that_the_firmware_knows(fresh):
    fresh.shell(f"mkdir -p $(dirname {SECURE_BOOT}); printf '\\006\\000\\000\\000\\001' > {SECURE_BOOT}")
    keys = {"nvidia_driver_mok_key": "/root/mok.key", "nvidia_driver_mok_certificate": "/root/mok.der"}
    told = said(fresh.play(**keys))
    assert "mokutil --import /root/mok.der" in told
    assert fresh.packages() == {}
    fresh.file("/etc/mok", "/root/mok.der is already enrolled")
    fine(fresh.play(**keys))
    assert "mok_signing_key=/root/mok.key" in fresh.shell("cat /etc/dkms/framework.conf.d/nvidia-driver.conf")


def test_fabric_manager_is_of_the_exact_version(fresh):
    for name, value in (("vendor", "0x10de"), ("device", "0x22a3"), ("class", "0x068000")):
        fresh.file(f"/sys/bus/pci/devices/0000:07:00.0/{name}", value)
    fine(fresh.play(nvidia_driver_version=OLD))
    assert fresh.packages()["nvidia-fabricmanager"] == f"{OLD}-1"
    assert "nvidia-fabricmanager" in fresh.shell("apt-mark showhold")
    assert "nvidia-fabricmanager.service" in fresh.shell("ls /etc/systemd/system/multi-user.target.wants")


@pytest.mark.parametrize(
    ("service", "config"),
    [
        ("crio", "/etc/crio/crio.conf.d/99-nvidia.toml"),
        ("k3s", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
        ("k3s-agent", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
        ("rke2-server", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
        ("rke2-agent", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
    ],
)
def test_another_runtime_knows_nvidias_where_it_reads_and_was_restarted_once(fresh, service, config):
    fresh.runtime(service)
    assert f"The configuration has been read by {service}" in changed(fine(fresh.play()))
    assert "nvidia-container-runtime" in fresh.shell(f"cat {config}")
    # Where the others read, nothing is left that nobody reads.
    assert fresh.shell("test ! -e /etc/containerd && test ! -e /etc/crio/conf.d && echo gone") == "gone\n"
    assert changed(fine(fresh.play())) == []
    assert fresh.shell("cat /var/log/restarts") == f"{service}\n"


def test_a_proxy_that_alone_knows_the_way_is_taken(fresh, proxy):
    assert installed_by_proxy(fresh, proxy)["nvidia-driver-cuda"] == f"{NEW}-1"


def test_a_driver_of_a_run_file_stays_and_the_toolkit_comes(fresh):
    module = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.1.2  Release Build"
    fresh.file("/usr/bin/nvidia-uninstall", "")
    fresh.file("/proc/modules", "nvidia 1 0 - Live 0x0")
    fresh.file("/proc/driver/nvidia/version", module)
    fine(fresh.play())
    assert set(fresh.packages()) == {
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container1",
        "libnvidia-container-tools",
    }


def test_a_reboot_that_is_not_wanted_is_left_to_the_user(fresh):
    done = fresh.play(nvidia_driver_reboot=False)
    assert "has to be rebooted: nouveau is loaded" in " ".join(done.stdout.split())
    assert "nouveau " in fresh.shell("cat /proc/modules")
    assert fresh.shell("test ! -e /var/log/reboots && echo none") == "none\n"


def test_a_node_of_a_cluster_is_drained_and_takes_pods_again(installed, fresh):
    """The host stands for a node of the lab: cordoned and drained by its real API server, and schedulable after."""
    fresh.name = f"{installed.name}-gpu-1"
    fresh.clusters = {"lab": {"cluster_kubeconfig": installed.kubeconfig, "ansible_connection": "local"}}
    done = changed(fine(fresh.play()))
    assert {"The node is drained", "The node is schedulable"} <= set(done)
    node = installed.get("node", fresh.name)
    assert not node["spec"].get("unschedulable")
    assert not [name for name in node["metadata"]["annotations"] if "speechops" in name]
    assert changed(fine(fresh.play())) == []


def test_a_cordon_of_somebody_else_stays(installed, fresh):
    fresh.name = f"{installed.name}-gpu-1"
    fresh.clusters = {"lab": {"cluster_kubeconfig": installed.kubeconfig, "ansible_connection": "local"}}
    installed.kubectl("cordon", fresh.name)
    try:
        fine(fresh.play())
        assert installed.get("node", fresh.name)["spec"]["unschedulable"]
    finally:
        installed.kubectl("uncordon", fresh.name)


KEPT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: kept, namespace: default}
spec:
  selector: {matchLabels: {app: kept}}
  template:
    metadata: {labels: {app: kept}}
    spec:
      nodeSelector: {kubernetes.io/hostname: NODE}
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers: [{name: kept, image: "registry.k8s.io/pause:3.10.1"}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: kept, namespace: default}
spec: {minAvailable: 1, selector: {matchLabels: {app: kept}}}
"""


def test_a_node_that_keeps_a_pod_is_left_alone(installed, fresh, tmp_path):
    fresh.name = f"{installed.name}-gpu-1"
    fresh.clusters = {"lab": {"cluster_kubeconfig": installed.kubeconfig, "ansible_connection": "local"}}
    file = tmp_path / "kept.yml"
    file.write_text(KEPT.replace("NODE", fresh.name))
    installed.kubectl("apply", "-f", str(file))
    try:
        installed.kubectl("rollout", "status", "deployment/kept", "--timeout=60s", timeout=70)
        done = fresh.play(nvidia_driver_drain_timeout=20)
        told = " ".join(done.stdout.split())
        assert done.returncode
        assert "The node is drained (2 retries left)" in told
        assert f"Node {fresh.name} still has pods after 20 s, so its driver was left alone" in told
        assert "disruption budget" in told
        assert fresh.packages() == {}
        assert installed.get("node", fresh.name)["spec"]["unschedulable"]
    finally:
        installed.kubectl("delete", "-f", str(file), "--now")
    # The next run goes on, and lifts the cordon.
    fine(fresh.play())
    assert fresh.packages()
    assert not installed.get("node", fresh.name)["spec"].get("unschedulable")

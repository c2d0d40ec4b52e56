# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nvidia_driver role by dnf: module streams, version locks and rpm's database, on a host made as Rocky Linux 9 is.

What of the host is real, and what is not, stands in tests/gpu_host/systems.py. The tests of the class build on each
other, in the order in which they stand; each of the others has a fresh host.
"""

from __future__ import annotations

import os

import pytest

from tests.gpu_host.host import changed, fine, fingerprint, installed_by_proxy, said
from tests.gpu_host.packages import NEW, NEXT_BRANCH, OLD
from tests.gpu_host.rpm_packages import KERNEL
from tests.gpu_host.systems import ROCKY9, make_base

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting the host's file system needs root")

DRIVER = {"nvidia-driver-cuda", "nvidia-driver-cuda-libs", "kmod-nvidia-open-dkms", "nvidia-persistenced"}
TOOLKIT = {
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("base") / "base"
    make_base(root, ROCKY9)
    return root


def stream(host):
    text = host.shell("cat /etc/dnf/modules.d/nvidia-driver.module 2>/dev/null || true")
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return lines.get("stream", ""), lines.get("state", "")


def locked(host):
    """What dnf's own list of locks says, name and version of each."""
    lines = host.shell("dnf -q versionlock list").split()
    return {line.partition("-3:")[0] if "-3:" in line else line.partition("-0:")[0] for line in lines}


class TestLifeOfADriver:
    def test_check_mode_tells_what_would_be_done_and_does_nothing(self, host):
        output = fine(host.play("--check", "--diff", nvidia_driver_version=OLD))
        assert {
            "The repositories are known to dnf",
            "It is told what would be installed by dnf",
            "Nouveau is blocked",
        } <= set(changed(output))
        assert host.packages() == {}
        assert host.shell("ls /etc/yum.repos.d") == "baseos.repo\n"
        assert stream(host) == ("", "")

    def test_it_is_installed_from_its_stream_and_locked(self, host):
        fine(host.play(nvidia_driver_version=OLD))
        packages = host.packages()
        assert set(packages) == DRIVER | TOOLKIT
        assert {packages[name] for name in DRIVER} == {f"{OLD}-1.el9"}
        assert {packages[name] for name in TOOLKIT} == {"1.20.0-1"}
        assert stream(host) == ("580-open", "enabled")
        assert locked(host) == set(packages)
        assert host.shell(f"rpm -q kernel-devel-{KERNEL}").strip() == f"kernel-devel-{KERNEL}"

    def test_an_upgrade_of_the_whole_system_leaves_the_driver_alone(self, host):
        """580.159.04 is in the repository: without the locks dnf would take it."""
        host.shell("dnf -y -q upgrade")
        assert host.packages()["nvidia-driver-cuda"] == f"{OLD}-1.el9"

    def test_nouveau_is_gone_and_the_node_was_rebooted_once(self, host):
        assert host.shell("cat /proc/modules").startswith("nvidia ")
        assert host.shell("cat /var/log/reboots") == "reboot\n"
        assert OLD in host.shell("nvidia-smi -q -x")
        assert "nvidia-persistenced.service" in host.shell("ls /etc/systemd/system/multi-user.target.wants")

    def test_a_second_run_and_check_mode_change_nothing(self, host):
        assert changed(fine(host.play(nvidia_driver_version=OLD))) == []
        assert changed(fine(host.play("--check", "--diff", nvidia_driver_version=OLD))) == []

    def test_a_repository_that_is_away_does_not_matter_to_a_host_that_has_all(self, host):
        assert changed(fine(host.play(nvidia_driver_version=OLD, mounts="mount -t tmpfs tmpfs $root/srv"))) == []

    def test_another_toolkit_comes_though_the_old_one_is_locked(self, host):
        fine(host.play(nvidia_driver_version=OLD, nvidia_driver_toolkit_version="1.21.0-1"))
        packages = host.packages()
        assert {packages[name] for name in TOOLKIT} == {"1.21.0-1"}
        assert packages["nvidia-driver-cuda"] == f"{OLD}-1.el9"
        assert "1.21.0" in host.shell("dnf -q versionlock list")
        assert "1.20.0" not in host.shell("dnf -q versionlock list")

    def test_check_mode_tells_of_another_version(self, host):
        wanted = {"nvidia_driver_version": NEW, "nvidia_driver_toolkit_version": "1.21.0-1"}
        output = fine(host.play("--check", "--diff", **wanted))
        assert "It is told what would be installed by dnf" in changed(output)
        assert host.packages()["nvidia-driver-cuda"] == f"{OLD}-1.el9"

    def test_another_version_is_an_upgrade_with_a_reboot(self, host):
        fine(host.play(nvidia_driver_version=NEW, nvidia_driver_toolkit_version="1.21.0-1"))
        assert {host.packages()[name] for name in DRIVER} == {f"{NEW}-1.el9"}
        assert host.shell("cat /var/log/reboots") == "reboot\nreboot\n"
        assert OLD not in host.shell("dnf -q versionlock list")

    @pytest.mark.parametrize(
        "setting", [{"nvidia_driver_version": OLD}, {"nvidia_driver_version": "", "nvidia_driver_branch": 570}]
    )
    def test_a_downgrade_is_refused(self, host, setting):
        before = host.packages()
        words = said(host.play(nvidia_driver_toolkit_version="1.21.0-1", **setting))
        assert "newer than what is wanted" in words
        assert "nvidia_driver_allow_downgrade" in words
        assert host.packages() == before
        assert stream(host) == ("580-open", "enabled")

    def test_an_upgrade_stays_in_the_stream(self, host):
        done = host.play(entry="upgrade", nvidia_driver_version="", nvidia_driver_toolkit_version="1.21.0-1")
        assert changed(fine(done)) == []
        assert host.packages()["nvidia-driver-cuda"] == f"{NEW}-1.el9"

    def test_the_next_branch_is_another_stream(self, host):
        fine(host.play(nvidia_driver_version="", nvidia_driver_branch=590, nvidia_driver_toolkit_version="1.21.0-1"))
        assert {host.packages()[name] for name in DRIVER} == {f"{NEXT_BRANCH}-1.el9"}
        assert stream(host) == ("590-open", "enabled")

    def test_a_downgrade_that_is_allowed_goes_back(self, host):
        fine(
            host.play(
                nvidia_driver_version=NEW,
                nvidia_driver_allow_downgrade=True,
                nvidia_driver_toolkit_version="1.21.0-1",
            )
        )
        assert {host.packages()[name] for name in DRIVER} == {f"{NEW}-1.el9"}
        assert stream(host) == ("580-open", "enabled")

    def test_the_other_flavour_takes_the_place_of_the_first(self, host):
        fine(
            host.play(
                nvidia_driver_version=NEW,
                nvidia_driver_modules="proprietary",
                nvidia_driver_toolkit_version="1.21.0-1",
            )
        )
        packages = host.packages()
        assert packages["kmod-nvidia-latest-dkms"] == f"{NEW}-1.el9"
        assert "kmod-nvidia-open-dkms" not in packages
        assert stream(host) == ("580-dkms", "enabled")

    def test_all_of_it_can_be_taken_away(self, host):
        fine(host.play(entry="uninstall"))
        assert host.packages() == {}
        assert locked(host) == set()
        assert stream(host)[1] != "enabled"
        assert host.shell("ls /etc/yum.repos.d") == "baseos.repo\n"
        assert changed(fine(host.play(entry="uninstall"))) == []


def test_keys_with_the_right_fingerprints_are_taken(base, fresh):
    right = fingerprint(base / "srv" / "key.asc")
    names = ("nvidia_driver_repository_fingerprint", "nvidia_driver_toolkit_repository_fingerprint")
    wished = dict.fromkeys(names, right)
    fine(fresh.play(**wished))
    assert fresh.packages()
    assert changed(fine(fresh.play(**wished))) == []


def test_an_upgrade_takes_the_newest_of_the_stream(fresh):
    fine(fresh.play(nvidia_driver_version=OLD))
    assert "It is told what dnf has that is newer" in changed(
        fine(fresh.play("--check", entry="upgrade", nvidia_driver_version=""))
    )
    fine(fresh.play(entry="upgrade", nvidia_driver_version=""))
    assert fresh.packages()["nvidia-driver-cuda"] == f"{NEW}-1.el9"
    assert changed(fine(fresh.play(entry="upgrade", nvidia_driver_version=""))) == []


REFUSED = {
    "repository down": (
        {"nvidia_driver_repository_url": "file:///nowhere/"},
        ["nvidia_driver_repository_url is file:///nowhere/", "nvidia_driver_proxy"],
    ),
    "key cannot be had": ({"nvidia_driver_repository_key": "file:///nowhere.asc"}, ["nvidia_driver_repository_key"]),
    "key at the right address, another fingerprint": (
        {"nvidia_driver_repository_fingerprint": "610C7B14E068A878070DA4E99CD0A493D42D0685"},
        ["signed with another key", "does not have the fingerprint 610C7B14E068A878070DA4E99CD0A493D42D0685"],
    ),
    "wrong key": ({"nvidia_driver_repository_key": "file:///srv/stranger.asc"}, ["signed with another key"]),
    "no such version": ({"nvidia_driver_version": "580.1.1"}, ["nvidia_driver_version 580.1.1", "580.1.1-*"]),
    "no such stream": (
        {"nvidia_driver_version": "", "nvidia_driver_branch": 585},
        ["nvidia-driver:585-open", "nvidia_driver_branch 585"],
    ),
}


@pytest.mark.parametrize(("variables", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_packages_that_cannot_be_had_are_explained(fresh, variables, words):
    told = said(fresh.play(**variables))
    assert [word for word in words if word not in told] == [], told
    assert fresh.packages() == {}
    # With the true variables the same host is fine: nothing of the failed run is in the way.
    fine(fresh.play())
    assert set(fresh.packages()) == DRIVER | TOOLKIT


def test_a_driver_that_cannot_be_built_is_told_and_repaired_by_the_next_run(fresh):
    fresh.file("/etc/break-the-build", "")
    assert "can be run again as it is" in said(fresh.play())
    fresh.file("/etc/break-the-build", None)
    fine(fresh.play())
    assert set(fresh.packages()) == DRIVER | TOOLKIT
    assert changed(fine(fresh.play())) == []


def test_a_disk_that_is_full_for_rpm_is_named(fresh):
    """There is room enough by the first look, and none where rpm unpacks."""
    mounts = "mkdir -p $root/usr/lib/nvidia && mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs $root/usr/lib/nvidia"
    assert "A disk is full: make room (dnf clean all" in said(fresh.play(mounts=mounts))
    fine(fresh.play())
    assert set(fresh.packages()) == DRIVER | TOOLKIT


def test_fabric_manager_is_of_the_exact_version(fresh):
    for name, value in (("vendor", "0x10de"), ("device", "0x22a3"), ("class", "0x068000")):
        fresh.file(f"/sys/bus/pci/devices/0000:07:00.0/{name}", value)
    fine(fresh.play(nvidia_driver_version=OLD))
    assert fresh.packages()["nvidia-fabricmanager"] == f"{OLD}-1.el9"
    assert "nvidia-fabricmanager" in locked(fresh)
    assert changed(fine(fresh.play(nvidia_driver_version=OLD))) == []


def test_a_proxy_that_alone_knows_the_way_is_taken(fresh, proxy):
    assert set(installed_by_proxy(fresh, proxy)) == DRIVER | TOOLKIT

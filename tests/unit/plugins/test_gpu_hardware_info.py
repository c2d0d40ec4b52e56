# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module on hosts made of files, and a program nvidia-smi that answers as a real one did."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
FIXTURES = REPOSITORY / "tests" / "fixtures" / "gpu"
OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version: 12\n"
CLOSED_MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Jan 1\n"
RUNTIME = """imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
"""
EFI = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


class FakeHost:
    def __init__(self, folder):
        self.root = folder / "root"
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.file("etc/os-release", 'ID=ubuntu\nVERSION_ID="24.04"\n')
        self.file("proc/sys/kernel/osrelease", "6.8.0-60-generic\n")
        self.file("proc/modules", "nvidia 1 0 - Live 0x0\nnvidia_uvm 1 0 - Live 0x0\n")
        self.file("proc/driver/nvidia/version", OPEN_MODULE)
        self.device("0000:00:06.0", "0x2330", "0x030200")
        (self.root / "lib/modules/6.8.0-60-generic/build").mkdir(parents=True)
        self.file("etc/containerd/config.toml", RUNTIME)
        self.smi((FIXTURES / "h100-nvidia-smi.xml").read_text())

    def file(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)

    def device(self, address, device, kind):
        for name, value in (("vendor", "0x10de"), ("device", device), ("class", kind)):
            self.file(f"sys/bus/pci/devices/{address}/{name}", f"{value}\n")

    def smi(self, answer, code=0):
        (self.bin / "answer").write_text(answer)
        program = self.bin / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\ncase "$1" in -q) cat "{self.bin}/answer"; exit {code};;'
            ' --query-gpu*) echo "00000000:00:06.0, 9.0";; esac\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def look(self, **options):
        arguments = {"ANSIBLE_MODULE_ARGS": {"root": str(self.root), "node": "gpu-1", **options}}
        name = "ansible_collections.speechops.riva.plugins.modules.gpu_hardware_info"
        done = subprocess.run(
            [sys.executable, "-m", name],
            input=json.dumps(arguments),
            env={**os.environ, "PATH": f"{self.bin}:/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY / "collections")},
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout)

    def bad(self, **options):
        return [item["check"] for item in self.look(**options)["findings"] if item["status"] != "ok"]


@pytest.fixture
def host(tmp_path):
    return FakeHost(tmp_path)


def test_a_healthy_host(host):
    found = host.look()
    hardware = found["hardware"]
    assert [item for item in found["findings"] if item["status"] != "ok"] == []
    assert hardware["os"]["id"] == "ubuntu"
    assert hardware["kernel"] == {
        "release": "6.8.0-60-generic",
        "headers": True,
        "nouveau": False,
        "secure_boot": None,
    }
    assert hardware["driver"]["module"]["flavour"] == "open"
    assert (hardware["driver"]["version"], hardware["driver"]["origin"]) == ("580.159.04", "other")
    assert hardware["runtime"]["config"] == "/etc/containerd/config.toml"
    lines = (FIXTURES / "h100-gfd-mig-single.labels").read_text().splitlines()
    assert host.look(mig_strategy="single")["labels"]["labels"] == dict(line.split("=", 1) for line in lines)


def test_the_machine_is_labelled_where_it_is_known(host):
    host.file("sys/class/dmi/id/product_name", "PowerEdge XE9680\n")
    assert host.look()["labels"]["labels"]["nvidia.com/gpu.machine"] == "PowerEdge-XE9680"


def test_each_pain_of_a_host_is_found(host):
    host.file("proc/modules", "nouveau 1 0 - Live 0x0\n")
    assert "nouveau" in host.bad()
    host.file("proc/modules", "")
    (host.root / "proc/driver/nvidia/version").unlink()
    host.file(EFI, b"\x06\x00\x00\x00\x01")
    assert "secure_boot" in host.bad()
    host.file(EFI, b"\x06\x00\x00\x00\x00")
    assert "secure_boot" not in host.bad()
    host.file("proc/driver/nvidia/version", OPEN_MODULE)
    (host.root / "lib/modules/6.8.0-60-generic/build").rmdir()
    host.file("usr/bin/nvidia-uninstall", "")
    host.file("run/nvidia/driver/usr/bin/nvidia-smi", "")
    assert host.bad() == ["two_drivers", "kernel_headers"]
    host.device("0000:07:00.0", "0x22a3", "0x068000")
    assert "fabric_manager" in host.bad()


@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_a_runtime_of_another_containerd_does_not_count(host, name):
    config = f"var/lib/rancher/{name}/agent/etc/containerd/config.toml"
    host.file(config, "version = 2\n")
    assert host.bad() == ["containerd_path"]
    host.file(config, RUNTIME)
    assert host.look()["hardware"]["runtime"] == {
        "name": name,
        "configured": True,
        "config": f"/{config}",
        "elsewhere": None,
        "service": None,
    }


def test_a_drop_in_counts_where_it_is_imported(host):
    host.file("etc/containerd/conf.d/99-nvidia.toml", RUNTIME)
    host.file("etc/containerd/config.toml", 'imports = ["/etc/containerd/conf.d/*.toml"]\n')
    assert host.look()["hardware"]["runtime"]["config"] == "/etc/containerd/conf.d/99-nvidia.toml"
    host.file("etc/containerd/config.toml", "version = 2\n# imports = conf.d\n")
    assert host.look()["hardware"]["runtime"]["elsewhere"] == "/etc/containerd/conf.d/99-nvidia.toml"


def test_a_drop_in_where_cri_o_does_not_read_does_not_count(host):
    host.file("etc/crio/conf.d/99-nvidia.toml", RUNTIME)
    (found,) = (f for f in host.look()["findings"] if f["check"] == "containerd_path")
    assert found["status"] == "failed"
    assert "/etc/crio/conf.d/99-nvidia.toml, which crio does not read" in found["message"]
    assert "--drop-in-config=/etc/crio/crio.conf.d/99-nvidia.toml" in found["remedy"]
    host.file("etc/crio/crio.conf.d/99-nvidia.toml", RUNTIME)
    assert host.look()["hardware"]["runtime"]["config"] == "/etc/crio/crio.conf.d/99-nvidia.toml"


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("containerd-2.toml", "etc/containerd/conf.d/99-nvidia.toml"),
        ("containerd-3.toml", "etc/containerd/conf.d/99-nvidia.toml"),
        ("crio.toml", "etc/crio/crio.conf.d/99-nvidia.toml"),
    ],
)
def test_what_the_true_nvidia_ctk_wrote_is_read(host, written, place):
    host.file("etc/containerd/config.toml", 'imports = ["/etc/containerd/conf.d/*.toml"]\nversion = 3\n')
    host.file(place, (FIXTURES / "nvidia-ctk-1.20.0" / written).read_text())
    assert host.look()["hardware"]["runtime"]["config"] == f"/{place}"


def test_a_driver_that_does_not_answer(host):
    host.smi("Failed to initialize NVML: Driver/library version mismatch\n", 18)
    found = host.look(fail_on="failed")
    assert found["failed"]
    assert "Driver/library version mismatch" in found["msg"]
    assert found["labels"]["labels"] == {}


def test_proprietary_modules_are_told_apart(host):
    host.file("proc/driver/nvidia/version", CLOSED_MODULE)
    assert host.look()["hardware"]["driver"]["module"]["flavour"] == "proprietary"


def test_nvml_is_named_where_its_package_is_missing(host):
    found = host.look(source="nvml")
    assert "nvidia-ml-py" in json.dumps(found) or "NVML" in json.dumps(found)

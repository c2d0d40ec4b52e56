# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts with a pretended H100, managed by Ansible through chroot in mount namespaces of their own.

On the Debian 12 host Debian, dpkg, apt, systemctl and the signed repository are real. The Rocky 9 host is a Debian root
file system too, in which dnf, rpm and their database took the place of apt and dpkg: real are dnf 4 with its module
streams and version locks, rpm, systemctl and the signed repositories; no package of Rocky's own is in it.

/proc and /sys of both are plain files, which pretend a PCI bus and a kernel: `modprobe` and the reboot command «load»
what the packages brought.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.gpu_host import packages, rpm_packages

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
INVENTORY = REPOSITORY / "tests" / "gpu_host" / "inventory"
CACHE = Path(os.environ.get("SPEECHOPS_LAB_CACHE", Path.home() / ".cache" / "speechops-lab")) / "hosts"
LOAD = """#!/bin/sh
# Of the tests: «loads» the module that the packages brought, unless nouveau holds the GPU.
grep -q '^nouveau ' /proc/modules && exit 1
[ -e /usr/lib/nvidia/module ] || exit 1
mkdir -p /proc/driver/nvidia
[ -e /proc/driver/nvidia/version ] || cp /usr/lib/nvidia/module /proc/driver/nvidia/version
grep -q '^nvidia ' /proc/modules || echo 'nvidia 1 0 - Live 0x0' >> /proc/modules
"""
REBOOT = """#!/bin/sh
# Of the tests: what a reboot does to loaded modules. A blocked nouveau does not come back.
echo reboot >> /var/log/reboots
rm -rf /proc/driver
if [ -e /etc/modprobe.d/nvidia-driver-nouveau.conf ] && [ -e /boot/initramfs-made ]; then : > /proc/modules; fi
exec /sbin/modprobe nvidia
"""
# Stands before systemctl, which in a folder only enables: what a running systemd says of the runtime, and what that
# does when it starts. k3s and RKE2 look for NVIDIA's runtime then, and make their containerd's configuration.
SYSTEMCTL = """#!/bin/sh
case "$1 $2" in
  "show {service}") printf 'LoadState=loaded\\nActiveState=active\\nUnitFileState=enabled\\n'; exit 0;;
  "restart {service}") echo {service} >> /var/log/restarts;;
  *) exec /usr/bin/systemctl "$@";;
esac
folder=/var/lib/rancher/{rancher}/agent
[ -d $folder ] && [ -e /usr/bin/nvidia-container-runtime ] || exit 0
mkdir -p $folder/etc/containerd
cat > $folder/etc/containerd/config.toml <<END
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia'.options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
END
"""
PLAY = """
- hosts: gpu_nodes
  gather_facts: false
  tasks:
    - name: The role runs
      ansible.builtin.include_role:
        name: speechops.riva.nvidia_driver
        tasks_from: "{{ entry | default('main') }}"
"""


FILES = {
    "sys/bus/pci/devices/0000:00:06.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:00:06.0/device": "0x2330\n",
    "sys/bus/pci/devices/0000:00:06.0/class": "0x030200\n",
    "proc/modules": "nouveau 1 0 - Live 0x0\n",
    "etc/containerd/config.toml": "version = 2\n",
    "etc/systemd/system/containerd.service": "[Service]\nExecStart=/bin/true\n",
}
PROGRAMS = {
    "usr/sbin/modprobe": LOAD,
    "usr/local/sbin/boot-anew": REBOOT,
    "usr/bin/mokutil": '#!/bin/sh\ncat /etc/mok 2>/dev/null || echo "$2 is not enrolled"\n',
}
INITRAMFS = "#!/bin/sh\ntouch /boot/initramfs-made\n"
ROCKY = """NAME="Rocky Linux"
VERSION="9.6 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.6"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Rocky Linux 9.6 (Blue Onyx)"
"""
REPOSITORIES = """[baseos]
name=stubs in place of Rocky's and EPEL's packages
baseurl=file:///srv/system/
gpgcheck=0
"""


@dataclass(frozen=True)
class System:
    """What distinguishes the hosts of one distribution."""

    name: str
    # Debian's packages for the root file system.
    packages: str
    # Takes away what is Debian's, and makes the repositories below /srv.
    finish: Callable[[Path], None]
    files: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)


def finish_debian(root: Path) -> None:
    shutil.rmtree(root / "etc/apt/sources.list.d")
    (root / "etc/apt/sources.list.d").mkdir()
    (root / "etc/apt/sources.list").write_text("")
    packages.make_repository(root / "srv")


def finish_rocky(root: Path) -> None:
    """What dpkg knows is forgotten: from here on the system's packages are those of rpm's database."""
    rpm_packages.make_repositories(root)
    for name in ("var/lib/dpkg", "etc/apt", "var/lib/apt"):
        shutil.rmtree(root / name)
    for program in [*root.glob("usr/bin/apt*"), *root.glob("usr/bin/dpkg*")]:
        program.unlink()
    # A plugin that brings a repository of its own, which Rocky's dnf does not have.
    (root / "usr/lib/python3/dist-packages/dnf-plugins/local.py").unlink()
    shutil.rmtree(root / "etc/yum.repos.d", ignore_errors=True)
    (root / "etc/yum.repos.d").mkdir()
    (root / "etc/yum.repos.d/baseos.repo").write_text(REPOSITORIES)
    (root / "lib/modules" / rpm_packages.KERNEL).mkdir(parents=True)
    # kernel-core's; it leads nowhere until kernel-devel is there.
    (root / "lib/modules" / rpm_packages.KERNEL / "build").symlink_to(f"/usr/src/kernels/{rpm_packages.KERNEL}")
    install = ["chroot", str(root), "dnf", "--assumeyes", "--quiet", "install", "rocky-release"]
    subprocess.run(install, check=True, capture_output=True)


DEBIAN12 = System(
    "debian12",
    "python3,python3-apt,kmod,ca-certificates,systemd",
    finish_debian,
    {"proc/sys/kernel/osrelease": os.uname().release},
    {"usr/sbin/update-initramfs": INITRAMFS},
)
ROCKY9 = System(
    "rocky9",
    "python3,kmod,ca-certificates,systemd,dnf,rpm,dnf-plugins-core,gnupg,createrepo-c",
    finish_rocky,
    {
        "proc/sys/kernel/osrelease": rpm_packages.KERNEL,
        "etc/os-release": ROCKY,
        "etc/redhat-release": "Rocky Linux release 9.6 (Blue Onyx)\n",
        # Debian's rpm keeps the database in the home folder otherwise.
        "etc/rpm/macros": "%_dbpath /var/lib/rpm\n",
        # As Rocky's dnf is set; Debian's leaves out repositories that do not answer.
        "etc/dnf/dnf.conf": "[main]\ngpgcheck=1\ninstallonly_limit=3\nclean_requirements_on_remove=True\nbest=True\n",
    },
    {"usr/bin/dracut": INITRAMFS},
)
SYSTEMS = {system.name: system for system in (DEBIAN12, ROCKY9)}


def root_archive(system: System) -> Path:
    """The root file system as Debian's packages make it, once."""
    archive = CACHE / f"{system.name}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = archive.with_suffix(f".{os.getpid()}.partial.tar")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={system.packages}", "bookworm", str(partial)],
            check=True,
            capture_output=True,
        )
        partial.rename(archive)
    return archive


def make_base(root: Path, system: System = DEBIAN12) -> None:
    """The host before anybody touched it, and the repositories below /srv."""
    root.mkdir(parents=True)
    subprocess.run(["tar", "-xf", str(root_archive(system)), "-C", str(root)], check=True)
    programs = {**PROGRAMS, **system.programs}
    for name, text in {**FILES, **system.files, **programs}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in programs else 0o644)
    system.finish(root)


class GpuHost:
    """One host: a layer of its own over the base, mounted only while something runs."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.layer = folder / "layer"
        for name in ("layer", "work", "root"):
            (folder / name).mkdir(parents=True)
        self.name = "gpu-1"
        self.clusters: dict = {}
        self.variables = yaml.safe_load((INVENTORY / "group_vars" / "gpu_nodes.yml").read_text())

    def inside(self, *command: str, mounts: str = "", **settings) -> subprocess.CompletedProcess:
        """Run a command of this machine while the host's root is mounted, in a mount namespace of its own."""
        layers = f"lowerdir={self.base},upperdir={self.layer},workdir={self.folder / 'work'}"
        script = f'mount -t overlay overlay -o "{layers}" "{self.root}" && {mounts or ":"} && exec "$@"'
        return subprocess.run(
            ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", *command],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "SYSTEMD_OFFLINE": "1",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
                "ANSIBLE_PIPELINING": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **settings,
        )

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def shell(self, script: str) -> str:
        done = self.inside("chroot", str(self.root), "/bin/sh", "-ec", script)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def play(self, *arguments: str, entry: str = "main", mounts: str = "", **variables) -> subprocess.CompletedProcess:
        """Run the role on it. `mounts` is a script that mounts more below $root first."""
        inventory = self.folder / "hosts.json"
        host = {
            **self.variables,
            "ansible_host": str(self.root),
            **variables,
        }
        groups = {"gpu_nodes": {"hosts": {self.name: host}}, "riva_clusters": {"hosts": self.clusters}}
        inventory.write_text(json.dumps(groups))
        playbook = self.folder / "play.yml"
        playbook.write_text(PLAY)
        entry_point = ["-e", f"entry={entry}"]
        return self.inside(
            str(PLAYBOOK),
            "-i",
            str(inventory),
            str(playbook),
            *entry_point,
            *arguments,
            mounts=mounts.replace("$root", str(self.root)),
        )

    def file(self, name: str, text: str | None) -> None:
        self.shell(f"mkdir -p $(dirname '{name}')")
        if text is None:
            self.shell(f"rm -rf '{name}'")
        else:
            self.inside("sh", "-c", f"cat > '{self.root}{name}' <<'END-OF-FILE'\n{text}\nEND-OF-FILE")

    def runtime(self, service: str) -> None:
        """The container runtime is that of this service, in place of containerd."""
        self.shell("rm -r /etc/containerd /etc/systemd/system/containerd.service")
        rancher = service.partition("-")[0]
        self.shell(f"mkdir -p {'/etc/crio/crio.conf.d' if service == 'crio' else f'/var/lib/rancher/{rancher}/agent'}")
        self.file(f"/etc/systemd/system/{service}.service", "[Service]\nExecStart=/bin/true")
        self.file("/usr/local/bin/systemctl", SYSTEMCTL.replace("{service}", service).replace("{rancher}", rancher))
        self.shell("chmod +x /usr/local/bin/systemctl")

    def packages(self) -> dict[str, str]:
        """NVIDIA's packages that are installed, with their versions."""
        lines = self.shell(
            "if command -v dpkg-query > /dev/null; then"
            " dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' '*nvidia*' libcuda1 || true;"
            " else rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE} installed\\n' '*nvidia*'; fi"
        )
        found = (line.split() for line in lines.splitlines() if line.endswith(" installed"))
        return {name: version for name, version, _status in found}


def changed(output: str) -> list[str]:
    """The tasks that say they changed something."""
    found, task = [], ""
    for line in output.splitlines():
        if line.startswith("TASK ["):
            task = re.sub(r"^TASK \[(.*)\] \**$", r"\1", line).rpartition(" : ")[2]
        elif line.startswith("changed: "):
            found.append(task)
    return found


def fine(done):
    """What a play that went well says."""
    assert done.returncode == 0, done.stdout
    assert " failed=0 " in done.stdout
    return done.stdout


def said(done):
    """What a play that failed says, line breaks and indentation taken out."""
    assert done.returncode != 0, done.stdout
    return " ".join(done.stdout.split())

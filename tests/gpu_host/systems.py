# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the pretended GPU hosts are made of.

On the Debian 12 host Debian, dpkg, apt, systemctl and the signed repository are real. The Rocky 9 host is a Debian root
file system too, in which dnf, rpm and their database took the place of apt and dpkg: real are dnf 4 with its module
streams and version locks, rpm, systemctl and the signed repositories; no package of Rocky's own is in it.

/proc and /sys of both are plain files, which pretend a PCI bus and a kernel: `modprobe` and the reboot command «load»
what the packages brought.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.gpu_host import packages, rpm_packages

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
    {"proc/sys/kernel/osrelease": packages.KERNEL},
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


def lay_out(root: Path, system: System) -> None:
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


def ready_archive(system: System) -> Path:
    """The host as `make_base` gives it, once for each state of the files that make it.

    A machine to which it is carried needs neither a network nor programs that make packages and repositories.
    """
    fixtures = packages.FIXTURES
    made_by = [Path(__file__), Path(packages.__file__), Path(rpm_packages.__file__), fixtures / "h100-nvidia-smi.xml"]
    texts = [path.read_bytes() for path in (*made_by, *sorted(packages.CTK_WRITES.iterdir()))]
    archive = CACHE / "ready" / f"{system.name}-{hashlib.sha256(b''.join(texts)).hexdigest()[:12]}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as work:
            lay_out(Path(work) / "root", system)
            partial = Path(work) / archive.name
            subprocess.run(["tar", "-cf", str(partial), "-C", str(Path(work) / "root"), "."], check=True)
            partial.rename(archive)
        for older in archive.parent.glob(f"{system.name}-*.tar"):
            if older != archive:
                older.unlink()
    return archive


def make_base(root: Path, system: System = DEBIAN12) -> None:
    """The host before anybody touched it, and the repositories below /srv."""
    root.mkdir(parents=True)
    subprocess.run(["tar", "-xf", str(ready_archive(system)), "-C", str(root)], check=True)

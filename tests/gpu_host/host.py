# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Debian 12 host with a pretended H100, managed by Ansible through chroot in mount namespaces of its own.

Real are Debian, dpkg, apt, systemctl and the signed repository. Its /proc and /sys are plain files, which pretend a
PCI bus and a kernel: `modprobe` and the reboot command «load» what the packages brought.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.gpu_host.packages import make_repository

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
PACKAGES = "python3,python3-apt,kmod,ca-certificates,systemd"
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
PLAY = """
- hosts: gpu_nodes
  gather_facts: false
  tasks:
    - name: The role runs
      ansible.builtin.include_role:
        name: speechops.riva.nvidia_driver
        tasks_from: "{{ entry | default('main') }}"
"""


def root_archive() -> Path:
    """Debian's root file system, made once."""
    archive = CACHE / "debian12.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = archive.with_suffix(".partial.tar")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(partial)],
            check=True,
            capture_output=True,
        )
        partial.rename(archive)
    return archive


def make_base(folder: Path) -> None:
    """The host before anybody touched it, and the repository below /srv."""
    root = folder / "base"
    root.mkdir(parents=True)
    subprocess.run(["tar", "-xf", str(root_archive()), "-C", str(root)], check=True)
    shutil.rmtree(root / "etc/apt/sources.list.d")
    (root / "etc/apt/sources.list.d").mkdir()
    (root / "etc/apt/sources.list").write_text("")
    files = {
        "sys/bus/pci/devices/0000:00:06.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:00:06.0/device": "0x2330\n",
        "sys/bus/pci/devices/0000:00:06.0/class": "0x030200\n",
        "proc/modules": "nouveau 1 0 - Live 0x0\n",
        "proc/sys/kernel/osrelease": os.uname().release,
        "etc/containerd/config.toml": "version = 2\n",
        "etc/systemd/system/containerd.service": "[Service]\nExecStart=/bin/true\n",
    }
    programs = {
        "usr/sbin/modprobe": LOAD,
        "usr/local/sbin/boot-anew": REBOOT,
        "usr/sbin/update-initramfs": "#!/bin/sh\ntouch /boot/initramfs-made\n",
        "usr/bin/mokutil": '#!/bin/sh\ncat /etc/mok 2>/dev/null || echo "$2 is not enrolled"\n',
    }
    for name, text in {**files, **programs}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in programs else 0o644)
    make_repository(root / "srv")


class GpuHost:
    """One host: a layer of its own over the base, mounted only while something runs."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.layer = folder / "layer"
        for name in ("layer", "work", "root"):
            (folder / name).mkdir(parents=True)
        self.name = "gpu-1"
        self.clusters: dict = {}
        self.variables = {
            "nvidia_driver_repository_url": "file:///srv/driver/",
            "nvidia_driver_repository_key": "file:///srv/key.asc",
            "nvidia_driver_toolkit_repository_url": "file:///srv/toolkit/",
            "nvidia_driver_toolkit_repository_key": "file:///srv/key.asc",
            "nvidia_driver_reboot_command": "/usr/local/sbin/boot-anew",
            "nvidia_driver_version": "580.159.04",
            "nvidia_driver_min_free_mib": 100,
        }

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
            "ansible_connection": "community.general.chroot",
            "ansible_host": str(self.root),
            "ansible_python_interpreter": "/usr/bin/python3",
            **self.variables,
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

    def packages(self) -> dict[str, str]:
        lines = self.shell(
            "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' '*nvidia*' libcuda1 || true"
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

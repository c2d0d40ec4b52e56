# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts with a pretended H100, managed by Ansible through chroot in mount namespaces of their own (systems.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
INVENTORY = REPOSITORY / "tests" / "gpu_host" / "inventory"
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
        # For each script of a package rpm closes what could be open, one by one: a million files on some machines.
        script = f'ulimit -n 4096; mount -t overlay overlay -o "{layers}" "{self.root}" && {mounts or ":"} && exec "$@"'
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


def installed_by_proxy(host, proxy):
    """The packages of a host that takes all from a mirror which the proxy alone knows; without it the role tells so."""
    address, given = proxy
    mirror = {
        "nvidia_driver_repository_url": "http://mirror.test/driver/",
        "nvidia_driver_repository_key": "http://mirror.test/key.asc",
        "nvidia_driver_toolkit_repository_url": "http://mirror.test/toolkit/",
        "nvidia_driver_toolkit_repository_key": "http://mirror.test/key.asc",
    }
    assert "nvidia_driver_proxy" in said(host.play(**mirror))
    assert given == []
    mirror["nvidia_driver_proxy"] = address
    fine(host.play(**mirror))
    assert {path.split("/")[1] for path in given} == {"driver", "toolkit", "key.asc"}
    assert changed(fine(host.play(**mirror))) == []
    return host.packages()


def fingerprint(key: Path) -> str:
    """Of the key in an ASCII file."""
    words = ["gpg", "--batch", "--with-colons", "--show-keys", str(key)]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

"""Commands of a running lab, and of Ansible against it, for the integration tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.settings import CACHE, MARKER, REPOSITORY, STATE

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HELM = Path(sys.executable).with_name("helm")
KUBECTL = CACHE / "bin" / "kubectl"
CHARTS = CACHE / "charts"
# Speech for the load test: the distribution's, or what came with a bundle.
AUDIO = [
    str(folder) for folder in (Path("/usr/share/pocketsphinx/test/data/librivox"), CACHE / "audio") if folder.is_dir()
][:1]


def run(*command: str, timeout: float = 600, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run a command at the root of the repository; on failure the test shows all that it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(str(word) for word in command)} ended with {done.returncode}:\n{done.stdout}")
    return done


def settings_of(name: str) -> dict:
    """What a lab was brought up with."""
    return json.loads((STATE / name / "lab.json").read_text())


@dataclass(frozen=True)
class RunningLab:
    """A lab that is up."""

    name: str
    network: str

    @classmethod
    @contextlib.contextmanager
    def of_its_own(cls, name: str, network: str) -> Iterator[RunningLab]:
        """A lab from nothing, that leaves nothing behind; KEEP_LAB lets it stand."""
        fresh = cls(name, network)
        fresh.command("down")
        fresh.up()
        yield fresh
        if not os.environ.get("KEEP_LAB"):
            fresh.command("down")
            assert traces(name) == []

    @classmethod
    def that_is_up(cls, name: str) -> RunningLab:
        return cls(name, settings_of(name)["network"])

    def command(self, *arguments: str, check: bool = True, timeout: float = 400) -> subprocess.CompletedProcess:
        """Run ``python -m lab`` for this lab."""
        return run(sys.executable, "-m", "lab", *arguments, "--name", self.name, check=check, timeout=timeout)

    def up(self, *options: str) -> None:
        self.command("up", "--network", self.network, *options)

    @property
    def state(self) -> dict:
        return json.loads(self.command("status", "--json", check=False).stdout)

    def kubectl(self, *arguments: str, check: bool = True, timeout: float = 60) -> str:
        return run(KUBECTL, f"--kubeconfig={self.kubeconfig}", *arguments, check=check, timeout=timeout).stdout

    def get(self, *arguments: str) -> dict:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    @property
    def kubeconfig(self) -> str:
        return str(STATE / self.name / "admin.kubeconfig")

    def begin_play(self, *arguments: str) -> subprocess.Popen[str]:
        """A run of ``ansible-playbook`` against this lab that goes on meanwhile; what it prints can be read."""
        words = [str(word) for word in (PLAYBOOK, "-e", f"lab_name={self.name}", *arguments)]
        return subprocess.Popen(
            words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        )

    def play(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess:
        """Run ``ansible-playbook`` against this lab."""
        return run(PLAYBOOK, "-e", f"lab_name={self.name}", *arguments, check=check, timeout=timeout)


def traces(name: str) -> list[str]:
    """What a lab of this name has left on the machine: processes, mounts, links, groups, folders."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if f"{MARKER}={STATE / name}\0".encode() in environment:
                found.append(f"process {folder.name}")
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"speechops-lab/{name}" in line]
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True).stdout
    found += [line for line in links.splitlines() if line.startswith(f"sol-{name}@") or line.startswith(f"sol-{name} ")]
    groups = Path("/sys/fs/cgroup")
    found += [str(path) for depth in ("", "*/") for path in groups.glob(f"{depth}speechops-lab-{name}")]
    found += [str(path) for path in STATE.glob(f"{name}*")]
    return found


def open_kind(group: str, version: str, kind: str, plural: str, scope: str) -> dict:
    """A CustomResourceDefinition of somebody else's kind, whose objects may have any fields."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


def eventually(check, timeout: float = 60):
    """Call until it neither raises nor returns something false."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if result := check():
                return result
        except (OSError, subprocess.SubprocessError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, f"not so within {timeout} s"
        time.sleep(0.5)

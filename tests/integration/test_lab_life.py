"""A lab comes up after a kill -9 at any moment, and goes without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.running_lab import REPOSITORY, RunningLab, traces


@pytest.fixture
def small():
    """A lab of one GPU node that is not up yet; gone after the test."""
    lab = RunningLab("life", "10.93.0.0/22")
    lab.command("down")
    yield lab
    lab.command("down")
    assert traces("life") == []


def test_up_completes_what_kill_9_left_and_down_leaves_nothing(small):
    """Killed at four moments of its start, `up` is typed again; the last one must end well."""
    command = [sys.executable, "-m", "lab", "up", "--name", small.name, "--network", small.network, "--gpu-nodes", "1"]
    for seconds in (0.3, 0.8, 2, 6):
        started = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(seconds)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    small.up("--gpu-nodes", "1")
    assert small.state["ready"]
    # Everything that runs dies at once, as when the machine loses power.
    marked = [line.split()[1] for line in traces("life") if line.startswith("process ")]
    assert len(marked) > 5
    for pid in marked:
        subprocess.run(["kill", "-9", pid], check=False)
    small.up("--gpu-nodes", "1")
    assert small.state["ready"]
    small.command("down")
    assert traces("life") == []


def test_the_machine_is_as_before(small):
    """Kernel settings, links, rules and mounts of the machine are the same after a lab was up and down."""

    def machine() -> dict[str, str]:
        settings = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
        return {
            **{name: Path(f"/proc/sys/{name}").read_text() for name in settings},
            "links": subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True).stdout,
            "routes": subprocess.run(["ip", "route", "show", "table", "all"], capture_output=True, text=True).stdout,
            "rules": subprocess.run(["iptables-save", "--counters"], capture_output=True, text=True).stdout,
            "mounts": Path("/proc/self/mounts").read_text(),
        }

    before = machine()
    small.up("--gpu-nodes", "1")
    during = machine()
    assert {name for name in before if before[name] != during[name]} == {"links", "routes"}
    small.command("down")
    assert machine() == before

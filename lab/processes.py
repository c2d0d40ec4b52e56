"""The processes of a lab, found by the marker in their environment, so that none is lost after a kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

from lab.settings import MARKER, REPOSITORY, Lab

ROLE = "SPEECHOPS_LAB_ROLE"


def _environment(pid: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        # It ended, or is a kernel thread.
        return {}
    return dict(entry.decode(errors="replace").partition("=")[::2] for entry in entries if b"=" in entry)


def of_lab(lab: Lab, role: str | None = None) -> list[int]:
    """Process ids, as the machine numbers them, of everything that carries this lab's marker."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            environment = _environment(int(folder.name))
            if environment.get(MARKER) == str(lab.root) and role in (None, environment.get(ROLE)):
                found.append(int(folder.name))
    return sorted(found)


def _is_first(pid: int) -> bool:
    """Whether a process is number 1 of a process-id namespace of its own, and alive."""
    try:
        status = dict(line.partition(":")[::2] for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        return False
    numbers = status["NSpid"].split()
    return len(numbers) > 1 and numbers[-1] == "1" and not status["State"].strip().startswith("Z")


def node_process(lab: Lab, role: str) -> int | None:
    """The process id of a node's first process, or None if the node is off."""
    return next((pid for pid in of_lab(lab, role) if _is_first(pid)), None)


def switch_process(lab: Lab) -> int | None:
    return next(iter(of_lab(lab, "switch")), None)


def start(lab: Lab, role: str, command: list[str], log: Path) -> None:
    """Start a process that outlives this command, marked as the lab's."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, MARKER: str(lab.root), ROLE: role, "PYTHONPATH": str(REPOSITORY)}
    # Proxies and the like of the caller are not the cluster's.
    for name in [name for name in environment if name.lower().endswith("_proxy")]:
        del environment[name]
    with open(log, "ab") as output:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
        )


def kill_all(find: Callable[[], Collection[int]], place: str, timeout: float) -> None:
    """Kill the processes that are found, and wait until none are.

    Raises:
        TimeoutError: names the processes that do not end, and the place where they are.
    """
    deadline = time.monotonic() + timeout
    while left := find():
        for pid in left:
            # It may have ended meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(left)} of {place} do not end")
        time.sleep(0.1)


def end(lab: Lab, role: str | None = None, timeout: float = 30) -> None:
    """Kill the marked processes (of one role, or all) and wait until they are gone."""
    kill_all(lambda: of_lab(lab, role), f"lab {lab.name}", timeout)

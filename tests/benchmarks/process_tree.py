"""Runs a command and says how long it took and how much memory its whole process tree held at most."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.04
# The proportional size costs the kernel more to tell.
PROPORTIONAL_EVERY = 4
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")


@dataclass(frozen=True)
class Measured:
    """Seconds by the clock and of processors, and bytes at the peak.

    `rss` adds up each process's resident size and so counts shared pages more than once, `pss` divides them among those
    that share them.
    """

    seconds: float
    processor: float
    rss: int
    pss: int
    code: int
    output: str


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found, pending = [], [pid]
    while pending:
        current = pending.pop()
        found.append(current)
        try:
            for task in (PROC / str(current) / "task").iterdir():
                pending += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue
    return found


def resident(pid: int) -> int:
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE_SIZE
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def children_used() -> float:
    """Processor seconds of all processes that have ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(
    command: Sequence[str], stdin: str = "", environment: Mapping | None = None, limit: float = 1800
) -> Measured:
    """Runs it to its end."""
    peaks = {"rss": 0, "pss": 0}
    done = threading.Event()
    before, used = time.perf_counter(), children_used()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )

    def watch() -> None:
        count = 0
        while not done.wait(INTERVAL):
            pids = tree(process.pid)
            peaks["rss"] = max(peaks["rss"], sum(map(resident, pids)))
            if count % PROPORTIONAL_EVERY == 0:
                peaks["pss"] = max(peaks["pss"], sum(map(proportional, pids)))
            count += 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output, _ = process.communicate(stdin, timeout=limit)
    except BaseException:
        process.kill()
        raise
    finally:
        done.set()
        watcher.join()
    seconds, processor = time.perf_counter() - before, children_used() - used
    return Measured(seconds, processor, peaks["rss"], peaks["pss"], process.returncode, output)

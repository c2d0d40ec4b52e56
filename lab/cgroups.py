"""The control groups of a lab: one tree below each hierarchy's root (cgroup v1), or one tree (v2)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lab.processes import kill_all

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "devices",
    "freezer",
    "blkio",
    "systemd",
    "hugetlb",
    "unified",
)


def is_v2() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The roots below which a group must be made so that a kubelet accepts it as its own."""
    if is_v2():
        return [ROOT]
    seen: dict[tuple[int, int], Path] = {}
    for controller in CONTROLLERS:
        folder = ROOT / controller
        if folder.is_dir():
            # cpu and cpuacct can be two names of one hierarchy.
            status = folder.stat()
            seen.setdefault((status.st_dev, status.st_ino), folder)
    return list(seen.values())


def make(group: str) -> None:
    """Make a group in every hierarchy; in v2, hand all controllers down to it."""
    for root in hierarchies():
        folder = root
        for part in Path(group).parts:
            if is_v2():
                offered = (folder / "cgroup.controllers").read_text().split()
                (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in offered))
            parent, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            for inherited in ("cpuset.cpus", "cpuset.mems"):
                file = folder / inherited
                if not is_v2() and file.exists() and not file.read_text().strip():
                    file.write_text((parent / inherited).read_text())


def enter(group: str) -> None:
    """Put the calling process into a group."""
    for root in hierarchies():
        (root / group / "cgroup.procs").write_text("0")


def processes(group: str) -> set[int]:
    """The processes in a group and all groups below it, as the caller's process-id namespace numbers them."""
    found: set[int] = set()
    for root in hierarchies():
        # os.walk passes over folders that go away while it looks.
        for folder, _, _ in os.walk(root / group):
            try:
                found.update(int(line) for line in (Path(folder) / "cgroup.procs").read_text().split())
            except OSError:
                # The group went away while it was read: nothing is left in it.
                continue
    return found - {0}


def memory_bytes(group: str) -> int:
    """Memory that the group's processes hold, without the page cache."""
    if is_v2():
        statistics = dict(line.split() for line in (ROOT / group / "memory.stat").read_text().splitlines())
        return int(statistics["anon"])
    statistics = dict(line.split() for line in (ROOT / "memory" / group / "memory.stat").read_text().splitlines())
    return int(statistics["total_rss"])


def end_processes(group: str, timeout: float = 20) -> None:
    """Kill what is left in a group and wait until it is empty; a TimeoutError names what does not end."""
    kill_all(lambda: processes(group), f"group {group}", timeout)


def remove(group: str, timeout: float = 10) -> None:
    """Remove a group and all below it, in every hierarchy. Its processes must have ended."""
    deadline = time.monotonic() + timeout
    for root in hierarchies():
        top = root / group
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    continue
                except OSError:
                    # An ended process leaves its group a moment later.
                    if time.monotonic() > deadline:
                        raise
            if top.exists():
                time.sleep(0.1)

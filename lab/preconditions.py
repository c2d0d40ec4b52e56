"""What the lab needs of the machine; checked before anything is changed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from lab import cgroups, network
from lab.settings import Lab
from lab.unbundle import archives as unpacked_archives

ELSEWHERE = "Or use a cluster of your own (kind, k3s, kubeadm …): copy inventories/onprem and pass it with -i."
PACKAGES = Path(__file__).resolve().parent / "packages.txt"


class CannotRun(RuntimeError):
    """The lab cannot run on this machine; the message says why and what to do."""


def missing_packages(listing: str, is_there: Callable[[str], bool], from_bundle: bool = False) -> list[str]:
    """Names of the packages whose program or file is not there.

    Args:
        listing: lines of a program's name (or a file's path) and its package, as in ``packages.txt``; the word
            ``build`` behind them says that a lab from a bundle does not need it.
        is_there: tells whether this machine has a program or file.
        from_bundle: the lab's programs and images come from a bundle.
    """
    lines = [line.split() for line in listing.splitlines() if line.strip() and not line.startswith("#")]
    wanted = [words for words in lines if not (from_bundle and words[2:] == ["build"])]
    return sorted({words[1] for words in wanted if not is_there(words[0])})


def is_there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def kernel_problem() -> str | None:
    """Try, in namespaces of its own, what a node needs of the kernel. None if all works."""
    trial = (
        "mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root && "
        "mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root && "
        "ip link add lab0 type veth peer name lab1 && ip link add lab2 type bridge && "
        "iptables -t nat -A PREROUTING -m comment --comment trial -j ACCEPT && "
        "echo 1 > /proc/sys/net/ipv4/ip_forward"
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "sh", "-c", trial],
        capture_output=True,
        text=True,
    )
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else None


def problems(lab: Lab) -> list[str]:
    """Every reason why this lab cannot run here; each says what to do."""
    if platform.system() != "Linux":
        return [f"it needs Linux; this is {platform.system()}"]
    if os.geteuid() != 0:
        return ["it needs root, for namespaces and mounts: type it again with sudo"]
    found = []
    from_bundle = unpacked_archives(lab.cache_folder) is not None
    if missing := missing_packages(PACKAGES.read_text(), is_there, from_bundle):
        found.append(f"programs are missing: apt-get install {' '.join(missing)} (or type: make setup)")
    if not cgroups.hierarchies():
        found.append("no control groups are mounted at /sys/fs/cgroup")
    if not missing and (problem := kernel_problem()):
        found.append(
            f"the kernel or this container refuses what a node needs: {problem}. "
            "In a container, run it privileged, with its own cgroup mounts"
        )
    if not missing and (used := network.network_in_use(lab)):
        found.append(f"--network {lab.network} is in use on this machine ({used}); choose another")
    existing = next(path for path in (lab.root, *lab.root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < 8 * 2**30:
        found.append(f"{existing} has {free / 2**30:.1f} GiB free; the lab needs 8 GiB: set SPEECHOPS_LAB_STATE")
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(existing)], capture_output=True, text=True).stdout.strip()
    if kind in ("overlayfs", "tmpfs"):
        found.append(
            f"{existing} lies on {kind}, where containerd cannot keep its layers: "
            "set SPEECHOPS_LAB_STATE to a folder on a disk"
        )
    return found


def check(lab: Lab) -> None:
    """Raise CannotRun with every problem at once."""
    if found := problems(lab):
        lines = "\n".join(f"  - {problem}" for problem in found)
        raise CannotRun(f"The lab cannot run here:\n{lines}\n{ELSEWHERE}")

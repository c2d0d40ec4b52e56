"""The first process of a node: it lays the node's own folders, then keeps the node's programs running.

It runs as process 1 of its own process, mount, network, host-name and IPC namespaces: when it ends, by whatever
signal, the kernel ends everything that ran on the node and drops its mounts, as when a machine loses power.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from lab import cgroups

STASH = Path("/run/lab")

# The kubelet would write these for the whole machine; a file that already holds what it wants stops it.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
FEATURES = Path("/etc/kubernetes/node-feature-discovery/features.d")
OWN_FOLDERS = ("/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log/pods")


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def lay_root(spec: dict) -> None:
    """Give the node a root file system of its own: a layer over the machine's, kept in the node's folder.

    Whatever a pod or a kubelet writes anywhere ends up in that layer; the machine never sees it.
    """
    own = Path(spec["folder"])
    layers = {name: own / "root" / name for name in ("upper", "work", "mounted")}
    for folder in layers.values():
        folder.mkdir(parents=True, exist_ok=True)
    root = layers["mounted"]
    run("mount", "--make-rprivate", "/")
    run(
        *("mount", "-t", "overlay", "overlay"),
        *("-o", f"lowerdir=/,upperdir={layers['upper']},workdir={layers['work']}", str(root)),
    )
    for shared in ("proc", "sys", "dev"):
        run("mount", "--rbind", f"/{shared}", f"{root}/{shared}")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", f"{root}/run")
    # containerd's and etcd's files must lie on the disk itself, and other file systems are not in the layer below.
    binds = {str(own): f"{root}{STASH}/node", **{path: f"{root}{path}" for path in spec["kept"]}}
    for source, target in binds.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", source, target)
    old = root / "run" / "old-root"
    old.mkdir()
    os.chdir(root)
    run("pivot_root", ".", "run/old-root")
    os.chdir("/")
    run("umount", "--lazy", "/run/old-root")
    # Pods that ask for mount propagation get it, inside this node.
    run("mount", "--make-rshared", "/")


def lay_folders(spec: dict) -> None:
    """Put the node's data on the disk, its configuration into /run/lab, and its GPU's description where pods look."""
    own = STASH / "node"
    for target in OWN_FOLDERS:
        source = own / target.removeprefix("/var/").replace("/", "-")
        source.mkdir(exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(source), target)
    for name, value in KERNEL_SETTINGS.items():
        file = Path("/proc/sys") / name
        if file.exists() and int(file.read_text()) != value:
            stand_in = STASH / name.replace("/", "-")
            stand_in.write_text(f"{value}\n")
            run("mount", "--bind", str(stand_in), str(file))
    for name, content in spec["files"].items():
        file = STASH / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    if spec["gpu"]:
        hardware = Path("/run/speechops-lab/gpu.json")
        hardware.parent.mkdir()
        hardware.write_text(json.dumps(spec["gpu"], indent=1))
    if spec["real_gpu"]:
        lay_gpu(spec["real_gpu"])
    # Node Feature Discovery takes labels from files in this folder: the lab's GPUs are on no PCI bus.
    FEATURES.mkdir(parents=True, exist_ok=True)
    has_gpu = spec["gpu"] or spec["real_gpu"]
    (FEATURES / "speechops-lab").write_text("pci-10de.present=true\n" if has_gpu else "")


def lay_gpu(real: dict) -> None:
    """Put the machine's driver and PyTorch where pods look, read-only, and hide the GPUs of the other nodes."""
    for place, source in real["binds"].items():
        Path(place).mkdir(parents=True)
        run("mount", "--rbind", "-o", "ro", source, place)
    for place, content in real["files"].items():
        Path(place).write_text(content)
    for device in real["hidden"]:
        run("mount", "--bind", "/dev/null", device)


def lay_network(spec: dict) -> None:
    """Configure the link that the lab puts into this network namespace, and the routes to the other nodes."""
    run("ip", "link", "set", "lo", "up")
    for _ in range(300):
        if Path(f"/proc/{os.getpid()}/net/dev").read_text().find("eth0:") >= 0:
            break
        time.sleep(0.1)
    run("ip", "address", "replace", f"{spec['address']}/{spec['prefix_length']}", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    # No default route: what is not in the lab cannot be reached, and says so at once.
    for network, via in spec["routes"].items():
        run("ip", "route", "replace", network, "via", via)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def answers(after: int | str | None) -> bool:
    """Whether the local TCP port, the ``address:port`` or the socket path accepts connections."""
    if after is None:
        return True
    if isinstance(after, str) and not after.startswith("/"):
        address, _, port = after.rpartition(":")
        try:
            socket.create_connection((address, int(port)), timeout=1).close()
        except OSError:
            return False
        return True
    family, place = (socket.AF_INET, ("127.0.0.1", after)) if isinstance(after, int) else (socket.AF_UNIX, after)
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(place) == 0


class Supervisor:
    """Starts each program after what it needs, and starts it again when it ends."""

    def __init__(self, components: list[dict], logs: Path):
        self.components = {component["name"]: component for component in components}
        self.logs = logs
        self.running: dict[int, str] = {}
        self.not_before = dict.fromkeys(self.components, 0.0)
        self.state: dict[str, dict] = {name: {"pid": None, "starts": 0} for name in self.components}
        self.state_file = logs.parent / "state.json"

    def is_paused(self, name: str) -> bool:
        return (self.logs.parent / "paused" / name).exists()

    def start_what_is_due(self) -> None:
        for name, component in self.components.items():
            if self.is_paused(name):
                if pid := self.state[name]["pid"]:
                    os.kill(pid, signal.SIGKILL)
                continue
            if self.state[name]["pid"] or time.monotonic() < self.not_before[name]:
                continue
            if not answers(component["after"]):
                self.not_before[name] = time.monotonic() + 0.3
                continue
            with open(self.logs / f"{name}.log", "ab") as log:
                process = subprocess.Popen(
                    component["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            # This process reaps all children itself; Popen must not wait for one.
            process.returncode = 0
            self.running[process.pid] = name
            self.state[name] = {"pid": process.pid, "starts": self.state[name]["starts"] + 1}
            self.save()

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self.running.pop(pid, None)
            if name:
                code = os.waitstatus_to_exitcode(status)
                print(f"{name} ended with {code}; it is started again", flush=True)
                self.state[name] = {**self.state[name], "pid": None, "last_exit": code}
                self.not_before[name] = time.monotonic() + 1
                self.save()

    def save(self) -> None:
        partial = self.state_file.with_suffix(".partial")
        partial.write_text(json.dumps(self.state))
        partial.rename(self.state_file)

    def replace(self, components: list[dict]) -> None:
        """Take other command lines; a running program whose line changed is ended, and so started anew."""
        for component in components:
            name = component["name"]
            if self.components[name] != component and self.state[name]["pid"]:
                os.kill(self.state[name]["pid"], signal.SIGKILL)
            self.components[name] = component

    def run(self) -> None:
        while True:
            self.reap()
            self.start_what_is_due()
            time.sleep(0.2)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    cgroups.enter(f"{spec['cgroup']}/system")
    socket.sethostname(spec["name"])
    lay_root(spec)
    lay_folders(spec)
    lay_network(spec)
    own = STASH / "node"
    logs = own / "log"
    logs.mkdir(exist_ok=True)
    supervisor = Supervisor(spec["components"], logs)
    # `lab up` asks so for other command lines of the same programs.
    signal.signal(signal.SIGHUP, lambda *_: supervisor.replace(json.loads(Path(sys.argv[1]).read_text())["components"]))
    supervisor.run()


if __name__ == "__main__":
    main()

"""The life of a lab: up, down, status. Each step looks at what is there and does only what is missing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from lab import (
    binaries,
    certificates,
    cgroups,
    components,
    images,
    network,
    preconditions,
    processes,
    real_gpus,
    unbundle,
)
from lab.bundle_format import BundleError
from lab.charts.stage import GO_MODULES, stage
from lab.progress import say, step, wait_for
from lab.settings import DNS_SERVICE_ADDRESS, REPOSITORY, Lab, Node, SettingError

MANIFESTS = Path(__file__).resolve().parent / "manifests"
UNSHARE = (
    *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc"),
    *("--fork", "--kill-child=SIGKILL", "--mount-proc"),
)


class LabError(RuntimeError):
    """Something about a lab that the message explains."""


@contextmanager
def one_at_a_time(file: Path, what: str) -> Iterator[None]:
    """Wait until no other command holds this file; ``what`` is in the words of the line that says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another command works on {what}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def locked(lab: Lab) -> AbstractContextManager[None]:
    """Let one command at a time change a lab."""
    return one_at_a_time(lab.state_folder / f".{lab.name}.lock", f"lab {lab.name}")


def saved(lab: Lab) -> Lab | None:
    """The lab of this name as it was last brought up, or None."""
    file = lab.root / "lab.json"
    if not file.exists():
        return None
    return replace(lab, **json.loads(file.read_text()))


def save(lab: Lab) -> None:
    names = ("network", "gpu_nodes", "aggregation", "gpus", "torch")
    settings = {name: getattr(lab, name) for name in names}
    certificates.write_private(lab.root / "lab.json", json.dumps(settings).encode())


def kubectl(lab: Lab, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(
        [str(lab.binaries / "kubectl"), f"--kubeconfig={lab.kubeconfig}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
    )
    if check and done.returncode:
        raise LabError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def port_name(node: Node) -> str:
    """The node's port in the switch."""
    return f"port{node.index}"


def start_node(lab: Lab, node: Node) -> None:
    """Switch a node on unless it runs, with the programs that its settings ask for now."""
    spec = components.node_spec(lab, node, sys.executable)
    path = lab.node_folder(node) / "spec.json"
    pid = processes.node_process(lab, node.name)
    if pid and path.exists() and path.read_text() != spec.to_json():
        if components.same_but_for_commands(path.read_text(), spec.to_json()):
            say(f"node {node.name}: programs whose command lines changed are started again")
            certificates.write_private(path, spec.to_json().encode())
            os.kill(pid, signal.SIGHUP)
        else:
            say(f"node {node.name}: its settings changed; it is started again")
            processes.end(lab, node.name)
            pid = None
    is_new = not pid
    if not pid:
        processes.end(lab, node.name)
        cgroups.make(f"{spec.cgroup}/system")
        certificates.write_private(path, spec.to_json().encode())
        processes.start(
            lab,
            node.name,
            [*UNSHARE, sys.executable, "-m", "lab.node", str(path)],
            lab.node_folder(node) / "log" / "node.log",
        )

        def is_there() -> tuple[bool, int | str | None]:
            found = processes.node_process(lab, node.name)
            return (True, found) if found else (False, f"see {lab.node_folder(node)}/log/node.log")

        pid = wait_for(f"first process of node {node.name}", is_there, timeout=20, interval=0.05)
    network.connect_node(switch(lab), pid, port_name(node), is_new)


def switch(lab: Lab) -> int:
    """The process id of the switch.

    Raises:
        LabError: it is off.
    """
    if (pid := processes.switch_process(lab)) is None:
        raise LabError(f"the switch of lab {lab.name} is off: python -m lab up brings it back")
    return pid


def start_switch(lab: Lab) -> None:
    pid = processes.switch_process(lab)
    if not pid:
        processes.start(lab, "switch", ["unshare", "--net", "sleep", "infinity"], lab.root / "switch.log")

        def has_own_network() -> tuple[bool, int | str | None]:
            pid = processes.switch_process(lab)
            try:
                own = pid and os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
            except OSError:
                own = False
            return (True, pid) if own else (False, f"see {lab.root}/switch.log")

        # Not looked up again: while unshare becomes sleep, it carries no marker for a moment.
        pid = wait_for("the switch's network namespace", has_own_network, timeout=10, interval=0.05)
    network.connect_machine(lab, pid)


def api_is_ready(lab: Lab) -> bool:
    return kubectl(lab, "get", "--raw=/readyz", "--request-timeout=2s", check=False).strip() == "ok"


def nodes_ready(lab: Lab) -> dict[str, bool]:
    """Each node that the apiserver knows, and whether it is Ready."""
    listed = json.loads(kubectl(lab, "get", "nodes", "-o", "json"))
    return {
        item["metadata"]["name"]: any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in item["status"].get("conditions", [])
        )
        for item in listed["items"]
    }


def apply_addons(lab: Lab) -> None:
    text = string.Template((MANIFESTS / "coredns.yaml").read_text())
    kubectl(
        lab,
        *("apply", "--server-side", "--force-conflicts", "-f", "-"),
        stdin=text.substitute(image=images.coredns_image(), address=DNS_SERVICE_ADDRESS),
    )
    kubectl(
        lab,
        *("label", "--overwrite", "node", lab.control_plane.name, "node-role.kubernetes.io/control-plane="),
    )


def dns_answers(lab: Lab, node: Node) -> bool:
    """Ask the cluster's DNS, from a node and by its kube-proxy's rules, for the apiserver's Service."""
    pid = processes.node_process(lab, node.name)
    done = subprocess.run(
        [
            *("nsenter", f"--target={pid}", "--net", "busybox", "nslookup"),
            *("kubernetes.default.svc.cluster.local", str(DNS_SERVICE_ADDRESS)),
        ],
        capture_output=True,
        text=True,
        timeout=15,
    )
    return done.returncode == 0 and "10.96.0.1" in done.stdout


def start_imports(lab: Lab, archives: list[Path]) -> dict[str, subprocess.Popen]:
    """Start, inside each node, the import of the image archives that it does not have yet."""
    imports = {}
    for node in lab.nodes:
        marks = lab.node_folder(node) / "imported"
        missing = [str(archive) for archive in archives if not (marks / archive.name).exists()]
        if missing:
            enter = ["nsenter", f"--target={processes.node_process(lab, node.name)}", "--mount", "--net", "--pid"]
            imports[node.name] = subprocess.Popen(
                [*enter, sys.executable, "-m", "lab.image_import", *missing],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                cwd="/",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
    return imports


def images_loaded(imports: dict[str, subprocess.Popen]) -> tuple[bool, str]:
    """Whether every import has ended well.

    Raises:
        LabError: an import failed; the message has what it printed.
    """
    for name, process in imports.items():
        if process.poll():
            printed = process.stdout.read() if process.stdout else ""
            raise LabError(f"images could not be imported on node {name}:\n{printed[-2000:]}")
    waiting = [name for name, process in imports.items() if process.returncode is None]
    return not waiting, f"still importing: {', '.join(waiting)}"


def load_images(lab: Lab, archives: list[Path], timeout: float = 300) -> None:
    """Import image archives into all nodes of a lab that is up, where they are not there yet."""
    with locked(lab), step("images on every node"):
        imports = start_imports(lab, archives)
        wait_for("images", lambda: images_loaded(imports), timeout)


def wait_until_ready(lab: Lab, imports: dict[str, subprocess.Popen], timeout: float) -> None:
    def apiserver() -> tuple[bool, str]:
        return api_is_ready(lab), f"see {lab.node_folder(lab.control_plane)}/log/kube-apiserver.log"

    def nodes() -> tuple[bool, str]:
        known = nodes_ready(lab)
        waiting = [node.name for node in lab.nodes if not known.get(node.name)]
        return not waiting, f"not Ready: {', '.join(waiting)}"

    def dns() -> tuple[bool, str]:
        silent = [node.name for node in lab.nodes if not dns_answers(lab, node)]
        return not silent, f"no answer from the cluster's DNS on {', '.join(silent)}"

    with step("kube-apiserver"):
        wait_for("kube-apiserver", apiserver, timeout, 0.3)
    with step(f"{len(lab.nodes)} nodes Ready"):
        wait_for("the control-plane node", lambda: (lab.control_plane.name in nodes_ready(lab), "not there"), timeout)
        apply_addons(lab)
        wait_for("nodes", nodes, timeout)
    with step("images on every node"):
        wait_for("images", lambda: images_loaded(imports), timeout)
    with step("cluster DNS"):
        wait_for("cluster DNS", dns, timeout)


def prepare(lab: Lab, with_gpus: bool = False) -> list[Path]:
    """Everything that can be made before a cluster runs, and that all labs share: programs, images, charts.

    With ``with_gpus`` also NVIDIA's own device plugin and feature discovery.

    Returns the image archives. What a bundle brought is taken as it is.
    """
    if (unpacked := unbundle.archives(lab.cache_folder)) is not None:
        if with_gpus and not any(archive.name.startswith("device-plugin-") for archive in unpacked):
            raise BundleError("the bundle has no NVIDIA device plugin: make it with `lab bundle DIR --gpus real`")
        return unpacked
    with one_at_a_time(lab.cache_folder / ".lock", "programs, images and charts"):
        binaries.provide_all(lab.binaries)
        if with_gpus:
            binaries.provide(binaries.DEVICE_PLUGIN, lab.binaries)
        archives = images.provide_all(lab.binaries, lab.cache_folder / "images", with_gpus)
        # With upstream's CRDs, where the inventory finds them.
        stage(lab.cache_folder / "charts", binaries.module_sources(lab.binaries, GO_MODULES))
    return archives


def up(lab: Lab, timeout: float = 300) -> None:
    """Bring a lab up, or complete one that was left half-way. Raises LabError, CannotRun or TimeoutError."""
    known = saved(lab)
    if known and known.network != lab.network:
        raise SettingError(f"lab {lab.name} runs with --network {known.network}: `down` it before you change that")
    preconditions.check(lab)
    if lab.gpus == "real":
        # What cannot work is told before anything is made.
        real_gpus.shared_out(real_gpus.found(), lab.gpu_nodes)
        real_gpus.driver_folder()
        real_gpus.pytorch(lab.torch)
    archives = prepare(lab, lab.gpus == "real")
    with locked(lab):
        save(lab)
        certificates.make_all(lab)
        if known:
            for node in known.nodes:
                if node.name not in {wanted.name for wanted in lab.nodes}:
                    processes.end(lab, node.name)
                    kubectl(lab, "delete", "node", node.name, "--ignore-not-found", check=False)
        with step("namespaces and links"):
            start_switch(lab)
            for node in lab.nodes:
                start_node(lab, node)
        wait_until_ready(lab, start_imports(lab, archives), timeout)
    say(f"lab {lab.name} is up: export KUBECONFIG={lab.kubeconfig}")


def down(lab: Lab) -> None:
    """End a lab and remove all that it made on the machine; what is cached for the next one stays."""
    lab = saved(lab) or lab
    with locked(lab):
        with step(f"processes of lab {lab.name}"):
            processes.end(lab)
            # Pods carry no marker; they end with their node's namespaces, a moment later.
            cgroups.end_processes(lab.cgroup)
        network.disconnect_machine(lab)
        cgroups.remove(lab.cgroup)
        if lab.root.exists():
            shutil.rmtree(lab.root)
    (lab.state_folder / f".{lab.name}.lock").unlink(missing_ok=True)
    if not any(lab.state_folder.iterdir()):
        lab.state_folder.rmdir()
    say(f"lab {lab.name} is gone")


def component_states(lab: Lab, node: Node) -> dict[str, dict]:
    file = lab.node_folder(node) / "state.json"
    return json.loads(file.read_text()) if file.exists() else {}


def status(lab: Lab) -> dict:
    """The state of every part, for people and for ``--json``."""
    lab = saved(lab) or lab
    exists = (lab.root / "lab.json").exists()
    api, ready = exists and api_is_ready(lab), {}
    if api:
        try:
            ready = nodes_ready(lab)
        except LabError:
            # It went away between the two questions.
            api = False
    nodes = []
    for node in lab.nodes if exists else ():
        pid = processes.node_process(lab, node.name)
        nodes.append(
            {
                "name": node.name,
                "address": str(lab.address(node)),
                "process": pid,
                "running": pid is not None,
                "ready": ready.get(node.name, False),
                "gpu": node.gpu,
                "real_gpus": lab.gpus == "real" and not node.is_control_plane,
                "components": component_states(lab, node) if pid else {},
                "memory_mib": round(cgroups.memory_bytes(f"{lab.cgroup}/{node.name}") / 2**20) if pid else 0,
            }
        )
    return {
        "name": lab.name,
        "exists": exists,
        "kubernetes": binaries.KUBERNETES_VERSION,
        "kubeconfig": str(lab.kubeconfig),
        "network": lab.network,
        "load_balancer_addresses": str(lab.load_balancer_addresses),
        "charts": str(lab.cache_folder / "charts"),
        "api": api,
        "switch": processes.switch_process(lab) is not None,
        "nodes": nodes,
        "memory_mib": sum(node["memory_mib"] for node in nodes),
        "ready": bool(nodes) and all(node["ready"] for node in nodes),
    }

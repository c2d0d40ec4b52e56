"""Ways to break a lab on purpose, and to mend it again.

Each fault is one that clusters really have: a node without power, a cut cable, a pod nobody can reach, an apiserver
that is away or slow. ``heal`` takes all of them back.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from lab import cgroups, cluster, network, processes
from lab.progress import wait_for
from lab.settings import Lab, Node

SLOW_GROUP = "slow"
# Of 100 ms of processor time, so many go to a slow apiserver.
SLOW_QUOTA_MS = 4


class FaultError(ValueError):
    """The fault names something that the lab does not have."""


def _node(lab: Lab, name: str) -> Node:
    for node in lab.nodes:
        if node.name == name:
            return node
    raise FaultError(f"no node {name!r}; this lab has {', '.join(node.name for node in lab.nodes)}")


def _pause_file(lab: Lab, node: Node, component: str) -> Path:
    return lab.node_folder(node) / "paused" / component


def pause(lab: Lab, node: Node, component: str) -> None:
    """End a program of a node and keep it from being started again."""
    states = cluster.component_states(lab, node)
    if component not in states:
        raise FaultError(f"node {node.name} runs no {component!r}; it runs {', '.join(states)}")
    file = _pause_file(lab, node, component)
    file.parent.mkdir(exist_ok=True)
    file.touch()


def resume(lab: Lab, node: Node, component: str) -> None:
    _pause_file(lab, node, component).unlink(missing_ok=True)


def stop_node(lab: Lab, name: str) -> None:
    """Cut a node's power: all that runs on it ends at once."""
    processes.end(lab, _node(lab, name).name)


def start_node(lab: Lab, name: str) -> None:
    cluster.start_node(lab, _node(lab, name))


def cut_node(lab: Lab, name: str, cut: bool = True) -> None:
    """Unplug a node's cable, or plug it in again."""
    network.set_port(cluster.switch(lab), cluster.port_name(_node(lab, name)), up=not cut)


def cut_pod(lab: Lab, namespace: str, name: str, cut: bool = True) -> None:
    """Take down the node's end of a pod's network link, or bring it up again."""
    pod = json.loads(cluster.kubectl(lab, "get", "pod", "--namespace", namespace, name, "-o", "json"))
    node = processes.node_process(lab, _node(lab, pod["spec"]["nodeName"]).name)
    link = _pause_file(lab, _node(lab, pod["spec"]["nodeName"]), f"link-{pod['metadata']['uid']}")
    if cut:
        words = network.ip("route", "get", pod["status"]["podIP"], inside=node).split()
        link.parent.mkdir(exist_ok=True)
        link.write_text(words[words.index("dev") + 1])
        network.ip("link", "set", link.read_text(), "down", inside=node)
    elif link.exists():
        network.ip("link", "set", link.read_text(), "up", inside=node)
        # The kernel dropped the pod's route with the link.
        network.ip("route", "replace", f"{pod['status']['podIP']}/32", "dev", link.read_text(), inside=node)
        link.unlink()


def _apiserver(lab: Lab) -> int | None:
    """The apiserver's process id, as the machine numbers it."""
    for pid in processes.of_lab(lab, lab.control_plane.name):
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == "kube-apiserver":
                return pid
        except OSError:
            continue
    return None


def slow_apiserver(lab: Lab, slow: bool = True) -> None:
    """Leave the apiserver a twenty-fifth of a processor, or all of it again."""
    if cgroups.is_v2():
        quota, limit = "cpu.max", f"{SLOW_QUOTA_MS * 1000} 100000"
    else:
        quota, limit = "cpu.cfs_quota_us", str(SLOW_QUOTA_MS * 1000)
    own = f"{lab.cgroup}/{lab.control_plane.name}/{SLOW_GROUP if slow else 'system'}"
    cgroups.make(own)
    for root in cgroups.hierarchies():
        if slow and (root / own / quota).exists():
            (root / own / quota).write_text(limit)
        if pid := _apiserver(lab):
            (root / own / "cgroup.procs").write_text(str(pid))


def stop_apiserver(lab: Lab) -> None:
    pause(lab, lab.control_plane, "kube-apiserver")


def start_apiserver(lab: Lab) -> None:
    resume(lab, lab.control_plane, "kube-apiserver")


def hang_apiserver(lab: Lab, hang: bool = True) -> None:
    """Stop the apiserver in its tracks: connections are accepted, nothing is answered."""
    if pid := _apiserver(lab):
        os.kill(pid, signal.SIGSTOP if hang else signal.SIGCONT)


def heal(lab: Lab) -> None:
    """Take back every fault, and start what was stopped."""
    hang_apiserver(lab, hang=False)
    if _apiserver(lab):
        slow_apiserver(lab, slow=False)
    for node in lab.nodes:
        for file in (lab.node_folder(node) / "paused").glob("*"):
            if not file.name.startswith("link-"):
                file.unlink()
        if processes.node_process(lab, node.name):
            cut_node(lab, node.name, cut=False)
        else:
            start_node(lab, node.name)
    wait_for("kube-apiserver", lambda: (cluster.api_is_ready(lab), "no answer"), timeout=120)
    pods = json.loads(cluster.kubectl(lab, "get", "pods", "--all-namespaces", "-o", "json"))["items"]
    for pod in pods:
        if pod["status"].get("podIP") and not pod["spec"].get("hostNetwork"):
            cut_pod(lab, pod["metadata"]["namespace"], pod["metadata"]["name"], cut=False)

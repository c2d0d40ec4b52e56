"""NetworkPolicies put into force on a lab, whose own network heeds none: as iptables' rules on each of its nodes.

A rule for each sentence of kubernetes.io/docs/concepts/services-networking/network-policies: a pod that a policy
selects takes, or makes, only the connections that one of its policies allows; both ends have to agree; replies pass; a
node reaches its own pods. Ports by number, peers by labels; addresses (ipBlock) are not translated.
"""

from __future__ import annotations

import subprocess
import threading

from ansible_collections.speechops.riva.plugins.module_utils import workloads

from lab import processes
from lab.settings import Lab
from tests.integration.running_lab import RunningLab

CHAIN = "POLICIES"


def selects(selector: dict, labels: dict) -> bool:
    """Whether a policy's selector selects what has these labels; an empty one selects all."""
    return not selector or workloads.selects(labels, selector)


def peers(rule: dict, key: str, own: str, pods: list[dict], namespaces: dict[str, dict]) -> list[str]:
    """Addresses that a rule names; one empty text where it names none, so any."""
    if not rule.get(key):
        return [""]
    found = set()
    for peer in rule[key]:
        assert set(peer) <= {"podSelector", "namespaceSelector"}
        for pod in pods:
            space = pod["metadata"]["namespace"]
            near = (
                selects(peer["namespaceSelector"], namespaces[space]) if "namespaceSelector" in peer else space == own
            )
            if near and selects(peer.get("podSelector", {}), pod["metadata"].get("labels", {})):
                found.add(pod["status"]["podIP"])
    return sorted(found)


def rules(pods: list[dict], policies: list[dict], namespaces: dict[str, dict]) -> list[str]:
    """The chains of all pods, in iptables-restore's words."""
    lines = [f":{CHAIN} - [0:0]", f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
    for number, pod in enumerate(pods):
        labels, space = pod["metadata"].get("labels", {}), pod["metadata"]["namespace"]
        for kind, key, flag, far in (("Egress", "to", "-s", "-d"), ("Ingress", "from", "-d", "-s")):
            of_pod = [
                item["spec"]
                for item in policies
                if item["metadata"]["namespace"] == space
                and kind in item["spec"]["policyTypes"]
                and selects(item["spec"]["podSelector"], labels)
            ]
            if not of_pod:
                continue
            chain = f"{CHAIN}-{kind[0]}{number}"
            lines += [f":{chain} - [0:0]", f"-A {CHAIN} {flag} {pod['status']['podIP']} -j {chain}"]
            for rule in (rule for spec in of_pod for rule in spec.get(kind.lower(), [])):
                for address in peers(rule, key, space, pods, namespaces):
                    where = f" {far} {address}" if address else ""
                    for port in rule.get("ports") or [{}]:
                        what = f" -p {port['protocol'].lower()} --dport {port['port']}" if port else ""
                        lines.append(f"-A {chain}{where}{what} -j RETURN")
            lines.append(f"-A {chain} -j REJECT")
    return lines


class Policing:
    """While the block runs, the lab's policies are in force; pods that come and go are followed."""

    def __init__(self, lab: RunningLab) -> None:
        self.lab, self.over, self.written = lab, threading.Event(), ""
        self.problem: Exception | None = None
        of_lab = Lab(lab.name, lab.network)
        self.nodes = [processes.node_process(of_lab, item["metadata"]["name"]) for item in lab.get("nodes")["items"]]

    def on_each_node(self, *command: str, text: str = "", check: bool = True) -> None:
        for pid in self.nodes:
            words = ["nsenter", f"--net=/proc/{pid}/ns/net", *command]
            subprocess.run(words, input=text, text=True, check=check, capture_output=True)

    def write(self) -> None:
        listed = self.lab.get("pods,networkpolicies,namespaces", "-A")["items"]
        kinds = {kind: [item for item in listed if item["kind"] == kind] for kind in ("Pod", "NetworkPolicy")}
        pods = [
            pod
            for pod in sorted(kinds["Pod"], key=lambda pod: pod["metadata"]["name"])
            if pod["status"].get("podIP") and not pod["spec"].get("hostNetwork")
            if pod["status"]["phase"] in ("Pending", "Running")
        ]
        namespaces = {
            item["metadata"]["name"]: item["metadata"]["labels"] for item in listed if item["kind"] == "Namespace"
        }
        text = "\n".join(["*filter", *rules(pods, kinds["NetworkPolicy"], namespaces), "COMMIT", ""])
        if text != self.written:
            self.on_each_node("iptables-restore", "--noflush", text=text)
            self.written = text

    def follow(self) -> None:
        while not self.over.wait(1):
            try:
                self.write()
            except Exception as problem:  # The block's end tells it.
                self.problem = problem

    def __enter__(self) -> Policing:
        self.write()
        # Before kube-proxy's own; what a pod says to its own node does not pass FORWARD.
        for chain in ("FORWARD", "INPUT"):
            self.on_each_node("iptables", "-I", chain, "1", "-j", CHAIN)
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.over.set()
        self.thread.join(60)
        for chain in ("FORWARD", "INPUT"):
            self.on_each_node("iptables", "-D", chain, "-j", CHAIN, check=False)
        assert self.problem is None, self.problem

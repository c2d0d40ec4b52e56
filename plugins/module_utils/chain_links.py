# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The links of the chain behind a custom metric: their order, what is said of one, and the pods at its end.

A verdict is a finding, and whether its fault is its own or may follow from a link nearer to the pods. The first broken
link, seen from the pods, is the one to repair. The rules of the other links: custom_metrics, scraping, keda_rules.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, WARNING, Finding
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence

# From the HPA back to the pods.
LINKS = (
    "hpa",
    "api",
    "adapter_rule",
    "scaled_object",
    "prometheus",
    "series",
    "target",
    "service_monitor",
    "service_port",
    "pod_port",
    "exporter",
    "pods",
)


@dataclass(frozen=True)
class Verdict:
    """A finding about one link; `own` says that its fault does not follow from another link."""

    finding: Finding
    own: bool = True

    @property
    def link(self) -> str:
        return self.finding.check

    @property
    def failed(self) -> bool:
        return self.finding.status == FAILED


def verdict(link: str, subject: str, status: str, message: str, remedy: str = "", own: bool = True) -> Verdict:
    return Verdict(Finding(link, subject, status, message, remedy), own)


def first_broken(verdicts: Iterable[Verdict]) -> str | None:
    """The failed link nearest to the pods: the cause, as far as it can be seen."""
    broken = [LINKS.index(entry.link) for entry in verdicts if entry.failed]
    return LINKS[max(broken)] if broken else None


def findings_of(verdicts: Sequence[Verdict]) -> list[Finding]:
    """The findings in the chain's order. What follows from the first broken link says so and has no remedy."""
    root = first_broken(verdicts)
    findings = []
    for entry in sorted(verdicts, key=lambda entry: LINKS.index(entry.link)):
        finding = entry.finding
        if entry.failed and not entry.own and entry.link != root:
            finding = replace(finding, message=f"{finding.message} (follows from {root})", remedy="")
        findings.append(finding)
    return findings


def project_node(item: Mapping) -> Mapping:
    """What `nodes_away` needs of a node."""
    status = mapping(item.get("status"))
    return {"metadata": item.get("metadata"), "status": {"conditions": status.get("conditions")}}


def nodes_away(nodes: Iterable[Mapping]) -> list[Finding]:
    """A warning for each node that is not Ready: what ran there is missing from a chain that is broken."""
    found = []
    for item in nodes:
        conditions = [mapping(entry) for entry in sequence(mapping(item.get("status")).get("conditions"))]
        ready: Mapping = next((entry for entry in conditions if entry.get("type") == "Ready"), {})
        if ready.get("status") == "True":
            continue
        name = str(mapping(item.get("metadata")).get("name") or "?")
        why = ready.get("message") or ready.get("reason") or "it never said so"
        since = f" since {ready['lastTransitionTime']}" if ready.get("lastTransitionTime") else ""
        found.append(
            Finding(
                "node_away",
                name,
                WARNING,
                f"the node is not Ready{since} ({why}); pods that ran there are missing until they run elsewhere",
                f"kubectl describe node {name}; kubectl get pods -A -o wide --field-selector spec.nodeName={name}",
            )
        )
    return found


# Label selectors


def selector_matches(selector: object, labels: object) -> bool:
    """Whether a label selector (matchLabels, matchExpressions) takes these labels; an empty one takes all."""
    wanted, there = mapping(selector), mapping(labels)
    if any(there.get(key) != value for key, value in mapping(wanted.get("matchLabels")).items()):
        return False
    return all(expression_matches(mapping(entry), there) for entry in sequence(wanted.get("matchExpressions")))


def expression_matches(expression: Mapping, labels: Mapping) -> bool:
    key, operator = expression.get("key"), expression.get("operator")
    values = sequence(expression.get("values"))
    if not isinstance(key, str):
        return False
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    return False


def selector_text(selector: Mapping) -> str:
    """A label selector as the API's query parameter."""
    selector = mapping(selector)
    parts = [f"{key}={value}" for key, value in mapping(selector.get("matchLabels")).items()]
    for entry in sequence(selector.get("matchExpressions")):
        entry = mapping(entry)
        values = ",".join(str(value) for value in sequence(entry.get("values")))
        operator = entry.get("operator")
        if operator in ("In", "NotIn"):
            parts.append(f"{entry.get('key')} {str(operator).lower()} ({values})")
        elif operator in ("Exists", "DoesNotExist"):
            parts.append(f"{'!' if operator == 'DoesNotExist' else ''}{entry.get('key')}")
    return ",".join(parts)


# Pods

NOT_SCHEDULED = "not scheduled"


@dataclass(frozen=True)
class Pod:
    """A pod of the target as the rules need it."""

    name: str
    ready: bool
    phase: str
    labels: Mapping
    ports: tuple[tuple[str, int], ...] = ()
    trouble: str = ""
    ready_since: str = ""
    node: str = ""


def project_pod(item: Mapping) -> Pod:
    metadata, spec, status = (mapping(item.get(key)) for key in ("metadata", "spec", "status"))
    condition: Mapping = next(
        (mapping(entry) for entry in sequence(status.get("conditions")) if mapping(entry).get("type") == "Ready"), {}
    )
    ready = condition.get("status") == "True"
    containers = [*sequence(spec.get("containers")), *sidecars(spec)]
    ports = [port for container in containers for port in sequence(mapping(container).get("ports"))]
    return Pod(
        name=str(metadata.get("name") or "?"),
        ready=ready and not metadata.get("deletionTimestamp"),
        phase="Terminating" if metadata.get("deletionTimestamp") else str(status.get("phase") or "Unknown"),
        labels=mapping(metadata.get("labels")),
        ports=tuple(
            (str(mapping(port).get("name") or ""), int(mapping(port)["containerPort"]))
            for port in ports
            if isinstance(mapping(port).get("containerPort"), int)
        ),
        trouble=pod_trouble(status),
        ready_since=str(condition.get("lastTransitionTime") or ""),
        node=str(spec.get("nodeName") or ""),
    )


def sidecars(spec: Mapping) -> list:
    return [
        container
        for container in sequence(spec.get("initContainers"))
        if mapping(container).get("restartPolicy") == "Always"
    ]


def pod_trouble(status: Mapping) -> str:
    """Why a pod is not ready, in the words of its kubelet, of the scheduler, or of whoever takes it off a lost node."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for entry in sequence(status.get(key)):
            state = mapping(mapping(entry).get("state"))
            waiting = mapping(state.get("waiting"))
            if waiting.get("reason") and waiting["reason"] not in ("PodInitializing", "ContainerCreating"):
                return f"{mapping(entry).get('name')}: {waiting['reason']}{exit_text(entry)}"
            if key == "containerStatuses" and (mapping(state.get("terminated")) or not mapping(entry).get("ready")):
                ended = exit_text(entry)
                if ended:
                    return f"{mapping(entry).get('name')}:{ended}"
    for entry in sequence(status.get("conditions")):
        entry = mapping(entry)
        if entry.get("type") == "PodScheduled" and entry.get("status") == "False":
            return f"{NOT_SCHEDULED}: {entry.get('message') or entry.get('reason')}"
        if entry.get("type") == "DisruptionTarget" and entry.get("status") == "True":
            return str(entry.get("message") or entry.get("reason"))
    return ""


def exit_text(status: Mapping) -> str:
    """How often a container was started again, and how it ended, where it did."""
    state, last = mapping(mapping(status).get("state")), mapping(mapping(status).get("lastState"))
    ended = mapping(state.get("terminated")) or mapping(last.get("terminated"))
    if not ended:
        return ""
    count = mapping(status).get("restartCount")
    return f" ended with exit code {ended.get('exitCode')}, {count if isinstance(count, int) else 0} restarts"


def states_of(pods: Sequence[Pod], most: int = 3) -> str:
    """Pods with their phase, their node and what is wrong with them."""
    return "; ".join(
        f"{pod.name} {pod.phase}{f' on {pod.node}' if pod.node else ''}{f' ({pod.trouble})' if pod.trouble else ''}"
        for pod in pods[:most]
    )


def backend_note(workload: str, replicas: int | None, pods: Sequence[Pod]) -> tuple[str, str]:
    """(what is wrong with the pods behind a Service, remedy); empty where nothing is.

    `replicas` are those that the workload asks for, None where that is not known.
    """
    kind, namespace, name = workload.split("/")
    if replicas == 0:
        return (
            f"{kind} {name} is scaled to 0",
            f"kubectl scale {kind.lower()} {name} -n {namespace} --replicas=1",
        )
    if not pods:
        return f"its Service selects no pod of {kind} {name}", f"kubectl describe {kind.lower()} {name} -n {namespace}"
    if any(pod.ready for pod in pods):
        return "", ""
    return f"none of its pods is Ready: {states_of(pods)}", f"kubectl logs -n {namespace} {pods[0].name} --previous"


def settled(pods: Sequence[Pod], now: datetime, seconds: float) -> list[Pod]:
    """The Ready pods that have been so for a while: a new one has no value before its second scrape.

    Where all are new, all of them: somebody has to have a value. A time that can't be read, or that lies in the
    future, is no excuse.
    """
    ready = [pod for pod in pods if pod.ready]
    return [pod for pod in ready if not 0 <= ready_for(pod, now) < seconds] or ready


def ready_for(pod: Pod, now: datetime) -> float:
    """Seconds since a pod became Ready; infinite where it can't be told."""
    try:
        return (now - datetime.fromisoformat(pod.ready_since)).total_seconds()
    except (TypeError, ValueError):
        return math.inf


def pods_verdict(target: str, pods: Sequence[Pod], asked: Sequence[Pod]) -> Verdict:
    ready = [pod for pod in pods if pod.ready]
    if ready:
        new = len(ready) - len(asked)
        note = f", {new} of them too new to have a value" if new else ""
        message = f"{len(ready)} of {len(pods)} pods are Ready{note}"
        homeless = [pod for pod in pods if not pod.ready and pod.trouble.startswith(NOT_SCHEDULED)]
        if homeless:
            return verdict(
                "pods",
                target,
                WARNING,
                f"{message}; {len(homeless)} found no node: {states_of(homeless, 1)}",
                "if it is GPUs: free one, add a node, or lower minReplicas or maxReplicas to what fits",
            )
        return verdict("pods", target, OK, message)
    if not pods:
        return verdict("pods", target, FAILED, "has no pods", f"kubectl describe {target.lower()}: replicas, events")
    return verdict(
        "pods",
        target,
        FAILED,
        f"none of {len(pods)} pods is Ready: {states_of(pods)}",
        "kubectl describe pod and kubectl logs of these pods; models may still be loading",
    )

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What is said of GPU nodes: totals, each node that falls short and why, and labels that can not be right."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from ansible_collections.speechops.riva.plugins.module_utils import gpu_hardware
from ansible_collections.speechops.riva.plugins.module_utils.findings import (
    FAILED,
    OK,
    SEVERITY,
    UNKNOWN,
    WARNING,
    Finding,
)
from ansible_collections.speechops.riva.plugins.module_utils.gpu_labels import PREFIX, Node, promised, sees_gpu
from ansible_collections.speechops.riva.plugins.module_utils.gpu_requirement import (
    Requirement,
    Verdict,
    fitting_pods,
    without_labels,
)
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, short_list

# More findings than this about single nodes are counted, not listed.
MOST_NODE_FINDINGS = 50


def findings_of(
    verdicts: Sequence[Verdict], wanted: Requirement, discovered: Collection[str] | None = None
) -> list[Finding]:
    """The verdict over all nodes: totals first, then each GPU node that falls short and why.

    `discovered` are the nodes on which GPU Feature Discovery runs, None where nobody looked.
    """
    matching = [verdict for verdict in verdicts if verdict.matches]
    total = sum(verdict.gpus for verdict in matching)
    met = len(matching) >= wanted.min_nodes
    seen = [verdict for verdict in verdicts if sees_gpu(verdict.node)]
    findings = [
        Finding(
            "gpu_nodes",
            wanted.resource,
            OK if met else FAILED,
            f"{len(matching)} of {len(verdicts)} nodes meet the requirement"
            + ("" if met else f", {wanted.min_nodes} needed")
            + (f": {short_list([verdict.node.name for verdict in matching], 5)}" if matching else "")
            + ("" if met or seen or not verdicts else f"; no node shows a GPU: {most_common_reason(verdicts)}")
            + ("" if verdicts else "; no node is selected (node_selector)"),
            "" if met else nodes_remedy(verdicts),
        )
    ]
    if wanted.min_gpus is not None:
        findings.append(
            amount_finding("gpus", wanted.resource, "GPUs on these nodes", total, wanted.min_gpus, "min_gpus")
        )
    if wanted.min_free_gpus is not None:
        free = sum(verdict.free or 0 for verdict in matching)
        findings.append(
            amount_finding("free_gpus", wanted.resource, "GPUs free", free, wanted.min_free_gpus, "min_free_gpus")
        )
    if wanted.min_fitting_pods is not None:
        fit = fitting_pods(matching, wanted.gpus_per_pod)
        what = f"more pods of {wanted.gpus_per_pod} GPU(s) fit"
        findings.append(
            amount_finding("fitting_pods", wanted.resource, what, fit, wanted.min_fitting_pods, "min_fitting_pods")
        )
    return findings + capped(single_findings(seen, matching, met, wanted, discovered), MOST_NODE_FINDINGS)


def single_findings(
    seen: Sequence[Verdict],
    matching: Sequence[Verdict],
    met: bool,
    wanted: Requirement,
    discovered: Collection[str] | None,
) -> Iterator[Finding]:
    """What is to be said of each node."""
    for verdict in seen:
        if not verdict.matches:
            yield node_finding(verdict, met)
    for verdict in matching:
        yield from doubts(verdict, wanted)
    if discovered is not None:
        for verdict in seen:
            if not without_labels(verdict.node) and verdict.node.name not in discovered:
                yield old_labels(verdict.node)


def capped(findings: Iterable[Finding], most: int) -> list[Finding]:
    """The first findings, the worst first, and one line that counts the rest. Never holds more than it may need."""
    kept: dict[str, list[Finding]] = {status: [] for status in reversed(SEVERITY)}
    total = 0
    for finding in findings:
        total += 1
        if len(kept[finding.status]) <= most:
            kept[finding.status].append(finding)
    ordered = [finding for group in kept.values() for finding in group]
    if total <= most:
        return ordered
    first = ordered[most]
    return [
        *ordered[:most],
        Finding(first.check, "other nodes", first.status, f"{total - most} more findings are not listed"),
    ]


def amount_finding(check: str, subject: str, what: str, actual: int, least: int, option: str) -> Finding:
    if actual >= least:
        return Finding(check, subject, OK, f"{actual} {what}, {least} needed")
    return Finding(
        check,
        subject,
        FAILED,
        f"{actual} {what}, {least} needed ({option})",
        f"add GPU nodes or free GPUs (kubectl get pods -A -o wide shows who holds them), or lower {option}",
    )


def node_finding(verdict: Verdict, met: bool) -> Finding:
    """A GPU node that falls short: a fault only where nodes are missing."""
    return Finding(
        "gpu_node",
        verdict.node.name,
        WARNING if met else FAILED,
        "; ".join(verdict.reasons),
        node_remedy(verdict),
    )


def doubts(verdict: Verdict, wanted: Requirement) -> list[Finding]:
    """What a matching node should still be looked at for: labels and resources that disagree."""
    node, gpus = verdict.node, verdict.node.gpus
    findings = []
    expected = promised(gpus, wanted.resource, node.labels)
    if without_labels(node):
        findings.append(
            Finding(
                "gpu_labels",
                node.name,
                UNKNOWN,
                f"{without_labels(node)}; its model, memory and driver can't be told",
                "run GPU Feature Discovery (gfd.enabled in the device plugin's chart, or the GPU Operator)",
            )
        )
    elif expected is not None and expected != verdict.gpus:
        findings.append(
            Finding(
                "gpu_labels",
                node.name,
                WARNING,
                f"labels promise {expected} {wanted.resource}, {verdict.gpus} allocatable"
                " (unhealthy GPUs, a second GPU model, or stale labels)",
                f"compare nvidia-smi on {node.name} with kubectl describe node {node.name};"
                " restart GPU Feature Discovery there if the labels are old",
            )
        )
    return findings


def old_labels(node: Node) -> Finding:
    """Labels that nobody keeps right any more."""
    written = node.labelled or 0
    since = f" of {datetime.fromtimestamp(written, UTC):%Y-%m-%d %H:%M} UTC" if 0 < written < 1 << 36 else ""
    return Finding(
        "gpu_labels",
        node.name,
        WARNING,
        f"GPU Feature Discovery does not run there: its labels{since} may be stale",
        f"kubectl get daemonsets -A shows whether it is wanted on {node.name}; where it runs outside Kubernetes, do"
        " not ask for check_discovery",
    )


def hardware_findings(nodes: Iterable[Node], expected: Mapping[str, Mapping]) -> list[Finding]:
    """Labels against the hardware: `expected` is what gpu_hardware_info says each node should be labelled with."""
    labels = {node.name: node.labels for node in nodes}
    return [label_finding(name, labels.get(name), mapping(wanted)) for name, wanted in sorted(expected.items())]


def hardware_errors(expected: Mapping) -> list[str]:
    """What is wrong with the expected hardware itself."""
    return [
        f"expected_hardware.{name} is {str(wanted)[:60]!r}; expected what gpu_hardware_info returns as labels"
        for name, wanted in sorted(expected.items())
        if not isinstance(mapping(wanted).get("labels"), Mapping)
    ]


def label_finding(name: str, labels: Mapping | None, wanted: Mapping) -> Finding:
    """One node's labels against its hardware."""
    if labels is None:
        return Finding(
            "gpu_labels",
            name,
            FAILED,
            "its hardware was looked at, and the cluster has no node of this name",
            "name the host as its node is named (nvidia_driver_node_name), or join it to the cluster",
        )
    # What pods are scheduled by comes first; not all may be told.
    found = sorted(gpu_hardware.differences(labels, wanted), key=lambda item: not gpu_hardware.matter([item]))
    if not found:
        return Finding(
            "gpu_labels", name, OK, f"its {len(wanted.get('labels') or {})} labels are those of its hardware"
        )
    words = [
        f"{item['label'].removeprefix(PREFIX)} is {item['found'] or 'missing' if item['found'] != '' else 'empty'},"
        f" its hardware {'has none' if item['expected'] is None else 'is ' + (item['expected'] or 'empty')}"
        for item in found
    ]
    return Finding(
        "gpu_labels",
        name,
        FAILED if gpu_hardware.matter(found) else WARNING,
        f"labels differ from the hardware: {short_list(words, 4, '; ')}",
        f"restart GPU Feature Discovery on {name}: kubectl delete pod -A --field-selector spec.nodeName={name} -l"
        " app=gpu-feature-discovery (app.kubernetes.io/name=nvidia-device-plugin without the GPU Operator)",
    )


def node_remedy(verdict: Verdict) -> str:
    """What to type for the first reason."""
    name = verdict.node.name
    reason = verdict.reasons[0] if verdict.reasons else ""
    for text, remedy in (
        (
            "ResourceSlice",
            f"kubectl get resourceslices -o yaml --field-selector spec.nodeName={name}: does the driver run there?",
        ),
        ("not Ready", f"kubectl describe node {name}; journalctl -u kubelet there"),
        ("cordoned", f"kubectl uncordon {name}"),
        ("taint", "give the toleration to the service and to `tolerations`, or remove the taint"),
        (
            "MIG layout is invalid",
            f"repair the layout on {name}: nvidia-mig-parted, or label nvidia.com/mig.config",
        ),
        (
            "device plugin",
            f"kubectl get pods -A -o wide --field-selector spec.nodeName={name}: is the plugin there?",
        ),
        ("Feature Discovery", "run GPU Feature Discovery and NFD there (the GPU Operator brings both)"),
        ("0 allocatable", f"nvidia-smi on {name}; kubectl logs of the device plugin there"),
        (
            "but nvidia.com/",
            "name that resource in `resource`, or switch renaming and MIG off in the plugin's config",
        ),
    ):
        if text in reason:
            return remedy
    return "use other nodes, or change the requirement"


def nodes_remedy(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "check node_selector against kubectl get nodes --show-labels"
    if not any(sees_gpu(verdict.node) for verdict in verdicts):
        return (
            "install the driver and the GPU Operator (it brings NFD, GFD and the device plugin), then look at"
            " kubectl get nodes -L nvidia.com/gpu.present,nvidia.com/gpu.product"
        )
    return "repair the nodes listed below, or change the requirement"


def most_common_reason(verdicts: Sequence[Verdict]) -> str:
    reasons = [reason for verdict in verdicts for reason in verdict.reasons[:1]]
    return (
        f"each {max(set(reasons), key=reasons.count)}"
        if len(set(reasons)) == 1
        else short_list(
            [f"{verdict.node.name} {verdict.reasons[0]}" for verdict in verdicts if verdict.reasons], 3, "; "
        )
    )

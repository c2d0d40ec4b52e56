# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The rules of the chain behind a custom metric, from the HPA back to the pod that exports it.

Each link is a pure function from objects to a verdict. A verdict is a finding, and whether its fault is its own or
may follow from a link nearer to the pods. The first broken link, seen from the pods, is the one to repair.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeGuard

from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules
from ansible_collections.speechops.riva.plugins.module_utils.findings import (
    FAILED,
    OK,
    UNKNOWN,
    WARNING,
    Finding,
)

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
GROUP = "custom.metrics.k8s.io"
API_PATH = f"/apis/{GROUP}/v1beta1"
APISERVICE = f"v1beta1.{GROUP}"
EXTERNAL_GROUP = "external.metrics.k8s.io"
# Name of the Service's port behind which the limit of a pod shows its streams.
LIMIT_PORT = "limit-metrics"
# A target is asked every interval; one that has missed three in a row is stale.
SCRAPES_TO_STALE = 4


def mapping(value: object) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence:
    return value if isinstance(value, list | tuple) else ()


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
    condition = next(
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


# HPA


def pods_metrics(hpa: Mapping) -> list[str]:
    """Names of the Pods metrics that an HPA scales on."""
    metrics = sequence(mapping(hpa.get("spec")).get("metrics"))
    return [
        str(mapping(mapping(mapping(entry).get("pods")).get("metric")).get("name"))
        for entry in metrics
        if mapping(entry).get("type") == "Pods"
    ]


def conditions_of(hpa: Mapping) -> list[dict]:
    found = sequence(mapping(hpa.get("status")).get("conditions"))
    return [
        {key: " ".join(str(mapping(entry).get(key) or "").split()) for key in ("type", "status", "reason", "message")}
        for entry in found
    ]


def hpa_verdict(name: str, hpa: Mapping, metric: str) -> Verdict:
    """Does the HPA ask for this metric, and does it get it?"""
    names = pods_metrics(hpa)
    if metric not in names:
        kinds = [str(mapping(entry).get("type")) for entry in sequence(mapping(hpa.get("spec")).get("metrics"))]
        uses = ", ".join(names) or ", ".join(kinds) or "none"
        return verdict(
            "hpa",
            name,
            FAILED,
            f"does not scale on the Pods metric {metric} (uses: {uses})",
            f"set metric.name in the HPA's spec.metrics to {metric}, or check the metric that it uses",
        )
    conditions = {entry["type"]: entry for entry in conditions_of(hpa)}
    if not conditions:
        return verdict(
            "hpa", name, FAILED, "has no conditions yet", "is the controller-manager running? look again", own=False
        )
    for kind in ("AbleToScale", "ScalingActive"):
        entry = conditions.get(kind, {"status": "Unknown", "reason": "absent", "message": ""})
        if entry["status"] != "True":
            return verdict(
                "hpa",
                name,
                FAILED,
                f"{kind} is {entry['status']}: {entry['reason']} {entry['message']}".strip(),
                hpa_remedy(name, entry["reason"]),
                own=not entry["reason"].startswith("FailedGet") or entry["reason"] == "FailedGetScale",
            )
    status = mapping(hpa.get("status"))
    counts = f"{status.get('currentReplicas', 0)} replicas, {status.get('desiredReplicas', 0)} desired"
    limited = conditions.get("ScalingLimited", {})
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        return verdict(
            "hpa",
            name,
            WARNING,
            f"wants more replicas than maxReplicas allows ({counts})",
            "raise maxReplicas if GPUs are free (validate_gpu_nodes with min_fitting_pods tells)",
        )
    return verdict("hpa", name, OK, f"scales on {metric} ({counts})")


def hpa_remedy(name: str, reason: str) -> str:
    known = {
        "FailedGetScale": "correct spec.scaleTargetRef: its object does not exist or has no scale",
        "ScalingDisabled": "the target has 0 replicas, which switches the HPA off: scale it to 1 or more",
        "AmbiguousSelector": "two HPAs select the same pods: delete one",
        "InvalidSelector": "correct the selector of the target",
    }
    return known.get(reason, f"kubectl describe hpa {name}")


# Custom metrics API


def offers(resources: Mapping, metric: str) -> bool:
    """Whether the API's resource list has pods/<metric>."""
    return any(mapping(entry).get("name") == f"pods/{metric}" for entry in sequence(resources.get("resources")))


def values_of(answer: Mapping) -> dict[str, float | None]:
    """Value per pod of a MetricValueList; None where it is no quantity."""
    return {
        str(mapping(mapping(entry).get("describedObject")).get("name")): scaling_rules.parse_quantity(
            mapping(entry).get("value")
        )
        for entry in sequence(mapping(answer).get("items"))
    }


def values_verdict(metric: str, listed: bool, values: Mapping[str, float | None], ready: Sequence[str]) -> Verdict:
    subject = f"pods/{metric}"
    if not listed and not values:
        return verdict(
            "api", subject, FAILED, f"{GROUP} does not list the metric", "see the links before it", own=False
        )
    missing = [name for name in ready if name not in values]
    if missing:
        return verdict(
            "api",
            subject,
            FAILED,
            f"no value for {names_of(missing)} ({len(ready) - len(missing)} of {len(ready)} Ready pods have one)",
            "see the links before it; a new pod has a value after two scrapes",
            own=False,
        )
    wrong = [name for name in ready if not plausible(values[name])]
    if wrong:
        return verdict(
            "api",
            subject,
            FAILED,
            f"impossible value for {names_of(wrong)}: {values[wrong[0]]}",
            "the adapter's metricsQuery divides by zero: use the collection's rule (filter adapter_rules)",
        )
    shown = ", ".join(f"{name} {values[name]:g}" for name in ready[:5])
    return verdict("api", subject, OK, f"{len(ready)} Ready pods have a value: {shown}")


def owner_verdict(service: str, wanted: str, apiservice: str = APISERVICE) -> Verdict | None:
    """The APIService has to lead to our adapter."""
    if service == wanted:
        return None
    return verdict(
        "api",
        apiservice,
        FAILED,
        f"belongs to {service or 'nobody'}, not to the adapter {wanted}",
        f"remove the other owner of {apiservice}, or name it in adapter_namespace and adapter_service",
    )


# External metrics API: one number for the whole service


def external_metric(hpa: Mapping, metric: str) -> Mapping | None:
    """The HPA's own entry for an External metric, None where it has none of this name."""
    for entry in sequence(mapping(hpa.get("spec")).get("metrics")):
        external = mapping(mapping(entry).get("external"))
        if mapping(external.get("metric")).get("name") == metric:
            return external
    return None


def external_query(external: Mapping) -> str:
    """The label selector of an External metric as the API's query parameter."""
    return selector_text(mapping(mapping(external.get("metric")).get("selector")))


def offers_external(resources: Mapping, metric: str) -> bool:
    """Whether the API's resource list has the metric."""
    return any(mapping(entry).get("name") == metric for entry in sequence(resources.get("resources")))


def plausible(value: float | None) -> TypeGuard[float]:
    """Whether a number can be a time or an amount at all."""
    return value is not None and value >= 0 and math.isfinite(value)


def external_values(answer: Mapping) -> list[float | None]:
    """The numbers of an ExternalMetricValueList; None where one is no quantity. The HPA takes their sum."""
    return [scaling_rules.parse_quantity(mapping(item).get("value")) for item in sequence(mapping(answer).get("items"))]


def external_verdict(metric: str, listed: bool, values: Sequence[float | None], target: object) -> Verdict:
    """The demand has one plausible value. `target` is what one pod is planned to carry, as the HPA has it."""
    if not values:
        text = "has no value for this service" if listed else f"{EXTERNAL_GROUP} does not list the metric"
        return verdict("api", metric, FAILED, text, "see the links before it", own=False)
    known = [value for value in values if plausible(value)]
    if len(known) < len(values):
        return verdict(
            "api",
            metric,
            FAILED,
            f"impossible value: {values[0]}",
            "use the collection's rule (filter external_rules) in the chart's rules.external",
        )
    demand, planned = sum(known), scaling_rules.parse_quantity(target)
    pods = f", {math.ceil(demand / planned)} pods of {planned:g}" if planned else ""
    return verdict("api", metric, OK, f"room is wanted for {demand:g} streams{pods}")


def external_hpa_verdict(name: str, hpa: Mapping, metric: str) -> Verdict:
    """Does the HPA get the External metric? With another one at hand it stays active without it, and says nothing."""
    current = sequence(mapping(hpa.get("status")).get("currentMetrics"))
    seen = any(
        mapping(mapping(mapping(entry).get("external")).get("metric")).get("name") == metric for entry in current
    )
    if seen:
        return verdict("hpa", name, OK, f"scales on {metric} too")
    return verdict(
        "hpa",
        name,
        FAILED,
        f"does not get {metric}, and scales without it",
        f"kubectl describe hpa {name}: its events say why; a new HPA has it after a quarter of a minute",
        own=False,
    )


# Adapter


def adapter_rules(config: object, key: str = "rules") -> list[Mapping]:
    """The rules (or externalRules) of the adapter's configuration, already parsed."""
    return [entry for entry in sequence(mapping(config).get(key)) if isinstance(entry, Mapping)]


def adapter_verdict(
    subject: str,
    rules: Sequence[Mapping],
    metric: str,
    listed: bool,
    found: int | None,
    url: str,
    prometheus: str,
    source: str = "filter adapter_rules) into the chart's rules.custom",
) -> Verdict:
    """Why the API lacks the metric, as far as the adapter is the reason.

    `found` is how many series the rule's seriesQuery finds in Prometheus, None where that could not be asked.
    """
    rule = next((rule for rule in rules if scaling_rules.rule_offers(rule, metric)), None)
    if rule is None:
        offered = sorted({str(mapping(entry.get("name")).get("as") or entry.get("seriesQuery")) for entry in rules})
        return verdict(
            "adapter_rule",
            subject,
            FAILED,
            f"no rule offers {metric} ({len(rules)} rules: {', '.join(offered[:3]) or 'none'})",
            f"put the collection's rule ({source}",
        )
    if found == 0:
        return verdict(
            "adapter_rule",
            subject,
            FAILED,
            f"its seriesQuery finds nothing in Prometheus: {rule.get('seriesQuery')}",
            "compare its labels with the series; the collection's rule asks for namespace and pod only",
            own=False,
        )
    if listed:
        return verdict("adapter_rule", subject, OK, f"a rule offers {metric}")
    if not points_to(url, prometheus):
        return verdict(
            "adapter_rule",
            subject,
            FAILED,
            f"the adapter asks {url or 'an unknown address'}, not {prometheus}",
            "set prometheus.url and prometheus.port in the adapter's values",
        )
    if found:
        return verdict(
            "adapter_rule",
            subject,
            FAILED,
            f"its rule finds {found} series, but the API does not offer {metric} yet",
            "wait for the adapter's next relist (metricsRelistInterval, 1 minute by default); else read its log",
        )
    return verdict("adapter_rule", subject, UNKNOWN, f"a rule offers {metric}; whether it finds series is not known")


# What the adapter puts in the place of its templates, for a query that only has to be parsed.
TEMPLATES = (
    (re.compile(r"<<\s*\.LabelMatchers\s*>>"), 'pod!=""'),
    (re.compile(r"<<\s*\.GroupBy\s*>>"), "pod"),
)


def parsable_query(rule: Mapping) -> str | None:
    """The metricsQuery of a rule without templates; None where one is left that stands for something unknown."""
    query = str(rule.get("metricsQuery") or "")
    for pattern, text in TEMPLATES:
        query = pattern.sub(text, query)
    return query if query and "<<" not in query else None


def named_series(tree: object) -> set[str]:
    """The names of all series in a query, as Prometheus parsed it (/api/v1/parse_query)."""
    if isinstance(tree, list):
        return set().union(*map(named_series, tree))
    if not isinstance(tree, Mapping):
        return set()
    own = tree.get("name") if tree.get("type") in ("vectorSelector", "matrixSelector") else ""
    return set().union([own] if own and isinstance(own, str) else [], *map(named_series, tree.values()))


def names_query(names: Iterable[str]) -> str:
    """Which of the series exist at all."""
    return f"count by (__name__) ({{__name__=~{scaling_rules.alternatives(sorted(names))}}})"


def query_verdict(subject: str, metric: str, named: Iterable[str], existing: Iterable[str]) -> Verdict:
    """Whether what a rule computes with is there: a value computed from nothing (`or vector(0)`) looks like one."""
    named = set(named)
    absent = sorted(named - set(existing))
    if not absent:
        return verdict("adapter_rule", subject, OK, f"a rule offers {metric}")
    return verdict(
        "adapter_rule",
        subject,
        FAILED if len(absent) == len(named) else WARNING,
        f"its metricsQuery names {names_of(absent)}, which Prometheus does not have: the value of {metric} is"
        f" {'no measurement' if len(absent) == len(named) else 'computed without it'}",
        "correct the name in the rule's metricsQuery, or use the collection's rule (filter adapter_rules)",
    )


def prometheus_url(deployment: Mapping) -> str:
    """The --prometheus-url of the adapter's Deployment."""
    spec = mapping(mapping(mapping(deployment.get("spec")).get("template")).get("spec"))
    for container in sequence(spec.get("containers")):
        container = mapping(container)
        for argument in [*sequence(container.get("command")), *sequence(container.get("args"))]:
            if str(argument).startswith("--prometheus-url="):
                return str(argument).removeprefix("--prometheus-url=")
    return ""


def points_to(url: str, prometheus: str) -> bool:
    """Whether a URL leads to <service>.<namespace>:<port>; a URL outside the cluster can't be told, and passes."""
    service, _, port = prometheus.partition(":")
    found = re.fullmatch(r"https?://([^/:]+)(?::(\d+))?(?:/.*)?", url.strip())
    if not found:
        return False
    host = found.group(1).removesuffix(".").split(".")
    name = service.split(".")
    if len(host) == 1 or (len(host) >= 3 and host[2] != "svc") or all(part.isdigit() for part in host):
        return len(host) != 1
    default = "443" if url.strip().startswith("https") else "80"
    return host[:2] == name[:2] and (found.group(2) or default) == port


# Prometheus


def samples_of(answer: Mapping) -> list[tuple[dict, float]]:
    """(labels, value) of an instant query's vector."""
    samples = []
    for entry in sequence(mapping(mapping(answer).get("data")).get("result")):
        entry = mapping(entry)
        value = sequence(entry.get("value"))
        if len(value) == 2:
            try:
                number = float(value[1])
            except (TypeError, ValueError, OverflowError):
                continue
            labels = {str(name): str(text) for name, text in mapping(entry.get("metric")).items()}
            samples.append((labels, number))
    return samples


def matchers(namespace: str, pods: Sequence[str]) -> str:
    return f"namespace={scaling_rules.quoted(namespace)},pod=~{scaling_rules.alternatives(pods)}"


def age_query(series: str, namespace: str, pods: Sequence[str]) -> str:
    """Age in seconds of the newest sample of each pod, by Prometheus' own clock."""
    return f"time() - max by (pod) (timestamp({series}{{{matchers(namespace, pods)}}}))"


def up_query(namespace: str, pods: Sequence[str], most: float, endpoint: str = "") -> str:
    """The state of the pods' targets, as far as it is fresh: that of a dropped target lives on for minutes.

    `endpoint` is the port of the Service, where the pods have several that are scraped.
    """
    also = f",endpoint={scaling_rules.quoted(endpoint)}" if endpoint else ""
    up = f"up{{{matchers(namespace, pods)}{also}}}"
    return f"{up} and time() - timestamp({up}) <= {most:g}"


def count_query(selector: str, most: float) -> str:
    """How many fresh series a selector finds."""
    return f"count(time() - timestamp({selector}) <= {most:g})"


def labels_query(series: str, most: float) -> str:
    """Where the series is fresh, under whatever labels. A set of labels that was replaced lives on for minutes."""
    return f"count by (namespace, pod, exported_namespace, exported_pod) (time() - timestamp({series}) <= {most:g})"


def series_verdict(
    series: str,
    ages: Mapping[str, float],
    ready: Sequence[str],
    most: float,
    elsewhere: Sequence[Mapping],
    namespace: str = "",
) -> Verdict:
    """Every Ready pod has a fresh sample. `elsewhere`: label sets under which Prometheus has the series at all.

    A set without `pod` is the pods' own if its namespace is theirs, or is missing too; other services' sets are whole.
    """
    missing = [name for name in ready if name not in ages]
    if missing:
        have = f"{len(ready) - len(missing)} of {len(ready)} Ready pods have it"
        nameless = [
            labels
            for labels in elsewhere
            if not labels.get("pod") and (not namespace or labels.get("namespace", namespace) == namespace)
        ]
        if len(missing) == len(ready) and nameless:
            moved = any(labels.get("exported_pod") for labels in nameless)
            return verdict(
                "series",
                series,
                FAILED,
                "Prometheus has the series, but without the label pod" + (", it is exported_pod" if moved else ""),
                "let the ServiceMonitor keep the target's labels: no relabeling that drops pod or namespace,"
                " honorLabels false",
            )
        if len(missing) == len(ready) and elsewhere:
            places = sorted({str(labels.get("namespace") or "none") for labels in elsewhere})
            have += f"; the series exists in namespace {', '.join(places[:3])}"
        return verdict(
            "series",
            series,
            FAILED,
            f"Prometheus has no sample of {names_of(missing)} ({have})",
            "see the links before it",
            own=False,
        )
    stale = [name for name in ready if not ages[name] <= most]
    if stale:
        return verdict(
            "series",
            series,
            FAILED,
            f"the newest sample of {names_of(stale)} is {ages[stale[0]]:.0f} s old, more than {most:.0f} s",
            "see the links before it; scrape_interval has to be the ServiceMonitor's",
            own=False,
        )
    oldest = max((ages[name] for name in ready), default=0)
    return verdict("series", series, OK, f"{len(ready)} Ready pods, the oldest newest sample is {oldest:.0f} s old")


def target_verdict(up: Mapping[str, float], ready: Sequence[str], errors: Mapping[str, str]) -> Verdict:
    """Prometheus knows each Ready pod as a target, and reads it."""
    missing = [name for name in ready if name not in up]
    if missing:
        return verdict(
            "target",
            "up",
            FAILED,
            f"Prometheus has no target for {names_of(missing)}",
            "a new target appears within a minute; else look at Prometheus' page /targets and its operator's log",
            own=False,
        )
    down = [name for name in ready if up[name] != 1]
    if down:
        why = next((errors[name] for name in down if errors.get(name)), "")
        return verdict(
            "target",
            "up",
            FAILED,
            f"Prometheus can't read {names_of(down)}" + (f": {why}" if why else ""),
            "let Prometheus reach the pods' metrics port: NetworkPolicy, firewall; see its page /targets",
            own=False,
        )
    return verdict("target", "up", OK, f"Prometheus reads {len(ready)} Ready pods")


def target_errors(answer: Mapping, namespace: str) -> dict[str, str]:
    """Last scrape error of each pod from Prometheus' list of targets."""
    errors = {}
    for entry in sequence(mapping(mapping(answer).get("data")).get("activeTargets")):
        labels = mapping(mapping(entry).get("labels"))
        if labels.get("namespace") == namespace and mapping(entry).get("lastError"):
            errors[str(labels.get("pod"))] = " ".join(str(entry["lastError"]).split())[:200]
    return errors


# Service, ServiceMonitor, ports


def services_of(services: Sequence[Mapping], pods: Sequence[Pod]) -> list[Mapping]:
    """The Services that select these pods."""
    chosen = []
    for service in services:
        selector = mapping(mapping(service.get("spec")).get("selector"))
        if selector and any(selector_matches({"matchLabels": selector}, pod.labels) for pod in pods):
            chosen.append(service)
    return chosen


def name_of(item: Mapping) -> str:
    return str(mapping(item.get("metadata")).get("name") or "?")


def names_of(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def watches(monitor: Mapping, service: Mapping) -> bool:
    """Whether a ServiceMonitor selects a Service, by namespace and labels."""
    spec = mapping(monitor.get("spec"))
    where, metadata = mapping(spec.get("namespaceSelector")), mapping(service.get("metadata"))
    home = mapping(monitor.get("metadata")).get("namespace")
    names = sequence(where.get("matchNames")) or (home,)
    if where.get("any") is not True and metadata.get("namespace") not in names:
        return False
    return selector_matches(spec.get("selector"), metadata.get("labels"))


def chosen_by(prometheus: Mapping, monitor: Mapping, namespace_labels: Mapping) -> bool:
    """Whether a Prometheus selects a ServiceMonitor: an absent selector selects nothing, an empty one all."""
    spec, metadata = mapping(prometheus.get("spec")), mapping(monitor.get("metadata"))
    selector, spaces = spec.get("serviceMonitorSelector"), spec.get("serviceMonitorNamespaceSelector")
    if selector is None or not selector_matches(selector, metadata.get("labels")):
        return False
    if spaces is None:
        return metadata.get("namespace") == mapping(prometheus.get("metadata")).get("namespace")
    return selector_matches(spaces, namespace_labels)


def service_monitor_verdict(
    services: Sequence[Mapping],
    monitors: Sequence[Mapping],
    prometheuses: Sequence[Mapping],
    namespace_labels: Mapping,
) -> tuple[Verdict, Mapping | None, Mapping | None]:
    """(verdict, ServiceMonitor, Service): a Service of the pods is watched by a ServiceMonitor that is selected."""
    if not services:
        return (
            verdict(
                "service_monitor",
                "Service",
                FAILED,
                "no Service selects the pods",
                "compare the Service's spec.selector with the pods' labels",
            ),
            None,
            None,
        )
    pairs = [(monitor, service) for service in services for monitor in monitors if watches(monitor, service)]
    if not pairs:
        names = names_of([name_of(service) for service in services])
        return (
            verdict(
                "service_monitor",
                names,
                FAILED,
                f"no ServiceMonitor selects the Service {names}",
                "create one, or correct its selector (labels of the Service) and namespaceSelector",
            ),
            None,
            services[0],
        )
    for monitor, service in pairs:
        if any(chosen_by(prometheus, monitor, namespace_labels) for prometheus in prometheuses):
            text = f"selects the Service {name_of(service)} and is selected by Prometheus"
            return verdict("service_monitor", name_of(monitor), OK, text), monitor, service
    monitor, service = pairs[0]
    if not prometheuses:
        text = f"selects the Service {name_of(service)}, but there is no Prometheus object in that namespace"
        remedy = "check prometheus_namespace"
    else:
        wanted = mapping(prometheuses[0].get("spec")).get("serviceMonitorSelector")
        text = f"is not selected by Prometheus {name_of(prometheuses[0])} (serviceMonitorSelector {wanted})"
        remedy = (
            "set prometheusSpec.serviceMonitorSelectorNilUsesHelmValues to false, or give the ServiceMonitor"
            " the labels asked for; serviceMonitorNamespaceSelector has to take its namespace too"
        )
    return verdict("service_monitor", name_of(monitor), FAILED, text, remedy), monitor, service


def service_port_verdict(
    monitor: Mapping, service: Mapping, limit: bool = False
) -> tuple[Verdict, Mapping | None, Mapping]:
    """(verdict, port of the Service, endpoint): the ServiceMonitor's port is one of the Service's.

    With `limit` it is the port of the pods' limit that is looked for.
    """
    endpoints = [entry for _place, entry in scraped_endpoints(monitor, limit)]
    ports = [mapping(entry) for entry in sequence(mapping(service.get("spec")).get("ports"))]
    subject = name_of(service)
    for endpoint in endpoints:
        for port in ports:
            if endpoint.get("port") and endpoint.get("port") == port.get("name"):
                text = f"port {port.get('name')} is the one that {name_of(monitor)} asks for"
                return verdict("service_port", subject, OK, text), port, endpoint
        if endpoint.get("targetPort") is not None and not endpoint.get("port"):
            text = f"{name_of(monitor)} names the pods' port {endpoint.get('targetPort')} itself"
            port = {"targetPort": endpoint.get("targetPort")}
            return verdict("service_port", subject, OK, text), port, endpoint
    asked = ", ".join(str(entry.get("port")) for entry in endpoints) or (LIMIT_PORT if limit else "none")
    named = ", ".join(str(port.get("name")) for port in ports) or "none"
    return (
        verdict(
            "service_port",
            subject,
            FAILED,
            f"has no port named {asked}, which {name_of(monitor)} asks for (has: {named})",
            "give the Service's port that name, or correct endpoints[].port of the ServiceMonitor",
        ),
        None,
        endpoints[0] if endpoints else {},
    )


def scraped_endpoints(monitor: Mapping, limit: bool) -> list[tuple[int, Mapping]]:
    """(place, endpoint) of a ServiceMonitor that lead to the limit, or all the others."""
    endpoints = sequence(mapping(monitor.get("spec")).get("endpoints"))
    return [
        (place, mapping(entry))
        for place, entry in enumerate(endpoints)
        if (mapping(entry).get("port") == LIMIT_PORT) is limit
    ]


def resolve_port(port: Mapping, pod: Pod) -> int | None:
    """The number on the pod behind a Service's port; a name has to be one of a container's ports."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int) and not isinstance(target, bool):
        return target
    if isinstance(target, str) and target.isdigit():
        return int(target)
    return next((number for name, number in pod.ports if name and name == target), None)


def pod_port_verdict(port: Mapping, pods: Sequence[Pod]) -> tuple[Verdict, dict[str, int]]:
    """(verdict, port number of each pod): the Service's targetPort leads to a port of the containers."""
    numbers = {pod.name: number for pod in pods if (number := resolve_port(port, pod)) is not None}
    missing = [pod for pod in pods if pod.name not in numbers]
    if missing:
        named = ", ".join(sorted({name for name, _number in missing[0].ports if name})) or "none"
        return (
            verdict(
                "pod_port",
                names_of([pod.name for pod in missing]),
                FAILED,
                f"the Service's targetPort {port.get('targetPort')!r} names no container port (has: {named})",
                "name the container's metrics port like the Service's targetPort, or give its number there",
            ),
            numbers,
        )
    chosen = ", ".join(str(number) for number in sorted(set(numbers.values()))) or "none"
    return verdict("pod_port", f"port {chosen}", OK, f"the Service leads to port {chosen} of {len(pods)} pods"), numbers


@dataclass(frozen=True)
class Scrape:
    """What a pod's metrics page answered: status 200 with its text, or what went wrong."""

    status: int
    text: str


REFUSED = re.compile(r"connection refused|no route to host|i/o timeout|dial tcp", re.IGNORECASE)


def exporter_verdicts(scrapes: Mapping[str, Scrape], ports: Mapping[str, int], series: str) -> list[Verdict]:
    """The pods' metrics pages: nothing listens (the port's fault), an error, or a page without the series."""
    silent = [pod for pod, scrape in scrapes.items() if scrape.status != 200 and REFUSED.search(scrape.text)]
    if silent:
        return [
            verdict(
                "pod_port",
                silent[0],
                FAILED,
                f"nothing listens on port {ports.get(silent[0])} of {names_of(silent)} ({scrapes[silent[0]].text})",
                "start the server with its metrics port on (Triton: --allow-metrics, --metrics-port), or correct"
                " the port in Service and container",
            )
        ]
    broken = [pod for pod, scrape in scrapes.items() if scrape.status != 200]
    if broken:
        answer = scrapes[broken[0]]
        what = f"answers with HTTP {answer.status}" if answer.status else "gives no answer"
        return [
            verdict(
                "exporter",
                broken[0],
                FAILED,
                f"the metrics page of {names_of(broken)} {what} ({answer.text})",
                f"kubectl logs {broken[0]}: why does its metrics page fail? check the path in the ServiceMonitor",
            )
        ]
    sample = re.compile(rf"^{re.escape(series)}(?:\{{|\s)", re.MULTILINE)
    without = [pod for pod, scrape in scrapes.items() if not sample.search(scrape.text)]
    if without:
        return [
            verdict(
                "exporter",
                without[0],
                FAILED,
                f"the metrics page of {names_of(without)} has no {series}",
                "is a model loaded (Triton's /v2/health/ready)? is metrics_port another server's?",
            )
        ]
    return [verdict("exporter", series, OK, f"{names_of(list(scrapes))} export {series}")]

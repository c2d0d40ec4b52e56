# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The rules of the chain from Prometheus to the pods that it scrapes: pure functions from objects to a verdict."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules
from ansible_collections.speechops.riva.plugins.module_utils.chain_links import Pod, Verdict, selector_matches, verdict
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence, short_list

# Name of the Service's port behind which the limit of a pod shows its streams.
LIMIT_PORT = "limit-metrics"
# A target is asked every interval; one that has missed three in a row is stale.
SCRAPES_TO_STALE = 4


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
            f"Prometheus has no sample of {short_list(missing)} ({have})",
            "see the links before it",
            own=False,
        )
    stale = [name for name in ready if not ages[name] <= most]
    if stale:
        return verdict(
            "series",
            series,
            FAILED,
            f"the newest sample of {short_list(stale)} is {ages[stale[0]]:.0f} s old, more than {most:.0f} s",
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
            f"Prometheus has no target for {short_list(missing)}",
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
            f"Prometheus can't read {short_list(down)}" + (f": {why}" if why else ""),
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
        names = short_list([name_of(service) for service in services])
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
                short_list([pod.name for pod in missing]),
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
                f"nothing listens on port {ports.get(silent[0])} of {short_list(silent)} ({scrapes[silent[0]].text})",
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
                f"the metrics page of {short_list(broken)} {what} ({answer.text})",
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
                f"the metrics page of {short_list(without)} has no {series}",
                "is a model loaded (Triton's /v2/health/ready)? is metrics_port another server's?",
            )
        ]
    return [verdict("exporter", series, OK, f"{short_list(list(scrapes))} export {series}")]

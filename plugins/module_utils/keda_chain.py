# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The chain of a metric where KEDA made the HPA: ScaledObject and external metrics instead of the adapter's rule.

Rules first, which are pure; then the walk, that of `metric_chain` but for the links between HPA and Prometheus.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ansible_collections.speechops.riva.plugins.module_utils import chain_links as links
from ansible_collections.speechops.riva.plugins.module_utils import (
    custom_metrics,
    keda_rules,
    scaling_rules,
    scraping,
)
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError, DoorShut, Unauthorized
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, WARNING, Finding
from ansible_collections.speechops.riva.plugins.module_utils.metric_chain import Chain, Demand
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence

KEDA = "/apis/keda.sh/v1alpha1"
OWNER_LABEL = "scaledobject.keda.sh/name"


def scaled_object_of(hpa: Mapping) -> str | None:
    """The name of the ScaledObject that an HPA was made from; None where it is an HPA by itself."""
    metadata = mapping(hpa.get("metadata"))
    for owner in sequence(metadata.get("ownerReferences")):
        if mapping(owner).get("kind") == "ScaledObject":
            return str(mapping(owner).get("name"))
    name = mapping(metadata.get("labels")).get(OWNER_LABEL)
    return str(name) if name else None


def triggers_of(scaled: Mapping) -> list[Mapping]:
    return [mapping(entry) for entry in sequence(mapping(scaled.get("spec")).get("triggers"))]


def trigger_about(scaled: Mapping, series: str) -> int | None:
    """The place of the trigger whose query asks for a series."""
    for place, trigger in enumerate(triggers_of(scaled)):
        if series in str(mapping(trigger.get("metadata")).get("query")):
            return place
    return None


def conditions_of(scaled: Mapping) -> dict[str, Mapping]:
    found = sequence(mapping(scaled.get("status")).get("conditions"))
    return {str(mapping(entry).get("type")): mapping(entry) for entry in found}


def sleeps(scaled: Mapping, hpa: Mapping) -> bool:
    """Whether the service is meant to be at zero pods now."""
    least = mapping(scaled.get("spec")).get("minReplicaCount")
    desired = mapping(hpa.get("status")).get("currentReplicas", 0)
    return not least and not desired and conditions_of(scaled).get("Active", {}).get("status") != "True"


def hpa_verdict(name: str, hpa: Mapping, asleep: bool) -> links.Verdict:
    """Does the HPA that KEDA made get its metrics?"""
    conditions = {entry["type"]: entry for entry in custom_metrics.conditions_of(hpa)}
    if asleep:
        return links.verdict("hpa", name, OK, "made by KEDA; the service has gone to zero pods, as nobody calls it")
    if not conditions:
        remedy = "is the controller-manager running? look again"
        return links.verdict("hpa", name, FAILED, "has no conditions yet", remedy, own=False)
    for kind in ("AbleToScale", "ScalingActive"):
        entry = conditions.get(kind, {"status": "Unknown", "reason": "absent", "message": ""})
        if entry["status"] != "True":
            text = f"{kind} is {entry['status']}: {entry['reason']} {entry['message']}".strip()
            own = not entry["reason"].startswith("FailedGet") or entry["reason"] == "FailedGetScale"
            return links.verdict("hpa", name, FAILED, text, custom_metrics.hpa_remedy(name, entry["reason"]), own=own)
    status = mapping(hpa.get("status"))
    counts = f"{status.get('currentReplicas', 0)} replicas, {status.get('desiredReplicas', 0)} desired"
    return links.verdict("hpa", name, OK, f"made by KEDA, gets its metrics ({counts})")


def scaled_object_verdict(name: str, scaled: Mapping, wanted: Sequence[str], prometheus: str) -> links.Verdict:
    """The ScaledObject asks Prometheus for each of the series, and KEDA is content with it."""
    conditions, triggers = conditions_of(scaled), triggers_of(scaled)
    ready = conditions.get("Ready", {})
    if conditions.get("Paused", {}).get("status") == "True":
        remedy = (
            f"kubectl annotate scaledobject {name} autoscaling.keda.sh/paused- autoscaling.keda.sh/paused-replicas-"
        )
        return links.verdict("scaled_object", name, FAILED, "is paused, so nothing is scaled", remedy)
    if ready.get("status") != "True":
        text = f"KEDA is not content with it: {ready.get('reason') or 'no condition Ready yet'}"
        text += f" {ready['message']}" if ready.get("message") else ""
        # An error of a query follows from what Prometheus has; any other is the ScaledObject's own.
        own = ready.get("reason") not in ("TriggerError", "PartialTriggerError")
        return links.verdict("scaled_object", name, FAILED, text, f"kubectl describe scaledobject {name}", own)
    for series in wanted:
        if trigger_about(scaled, series) is None:
            text = f"no trigger asks for {series}"
            remedy = "run the role riva: its chart writes the triggers"
            return links.verdict("scaled_object", name, FAILED, text, remedy)
    asked = {str(mapping(trigger.get("metadata")).get("serverAddress")) for trigger in triggers}
    elsewhere = sorted(address for address in asked if f"//{prometheus.partition(':')[0]}" not in address)
    if elsewhere:
        text = f"asks {elsewhere[0]}, not {prometheus}"
        remedy = "correct riva_keda_prometheus_url, or the names in the options"
        return links.verdict("scaled_object", name, FAILED, text, remedy)
    if conditions.get("Fallback", {}).get("status") == "True":
        text = "has fallen back: a query had no answer several times"
        return links.verdict("scaled_object", name, FAILED, text, f"kubectl describe scaledobject {name}", own=False)
    silent = [
        place
        for place, trigger in enumerate(triggers)
        if trigger.get("type") == "prometheus"
        and str(mapping(trigger.get("metadata")).get("ignoreNullValues", "true")).lower() != "false"
    ]
    if silent:
        text = f"takes no answer for a zero in trigger {silent[0]}: with broken scraping it scales down"
        return links.verdict("scaled_object", name, WARNING, text, 'set ignoreNullValues to "false" in its metadata')
    if not mapping(mapping(scaled.get("spec")).get("fallback")):
        text = "has no fallback: without Prometheus nobody says how many pods there are"
        return links.verdict("scaled_object", name, WARNING, text, "set spec.fallback; the role riva does")
    return links.verdict("scaled_object", name, OK, f"{len(triggers)} triggers, KEDA is content with them")


class Trigger(Demand):
    """The chain of one trigger: an External metric of KEDA's, from the same pods."""

    def __init__(self, chain, scaled: Mapping, name: str, series: str, limit: bool) -> None:
        place = trigger_about(scaled, series)
        metric = keda_rules.metric_name(place or 0)
        keda = {"adapter_namespace": chain.options.keda_namespace, "adapter_service": chain.options.keda_service}
        super().__init__(chain.cluster, replace(chain.options, metric=metric, series=series, **keda))
        self.scaled, self.name, self.limit = scaled, name, limit
        self.hpa, self.pods, self.asked, self.selector = chain.hpa, chain.pods, chain.asked, chain.selector
        self.external = custom_metrics.external_metric(chain.hpa, metric) or {
            "metric": {"name": metric, "selector": {"matchLabels": {OWNER_LABEL: name}}}
        }

    def lists(self, resources: Mapping) -> bool:
        """KEDA's list does not name its metrics."""
        return True

    def values_verdict(self, listed: bool) -> links.Verdict:
        answered, metric = self.numbers, self.options.metric
        numbers = [number for number in answered if number is not None and number >= 0]
        if not numbers or len(numbers) < len(answered):
            text = f"impossible value: {answered[0]}" if answered else "has no value for this service"
            return links.verdict("api", metric, FAILED, text, "see the links before it", own=False)
        return links.verdict("api", metric, OK, f"KEDA answers {sum(numbers):g} ({self.options.series})")

    def read_adapter(self, answers: bool, listed: bool, prometheus: bool) -> None:
        """Instead of the adapter's rule: the ScaledObject, which the whole service has one of."""


class EitherChain(Chain):
    """One look at the chain, by the adapter or by KEDA, as the HPA says."""

    def examine(self) -> tuple[list[Finding], dict]:
        target = self.read_target()
        name = scaled_object_of(self.hpa) if target else None
        if not target and not self.hpa and self.options.hpa:
            self.blame_scaled_object(str(self.options.hpa))
        if name is None:
            return self.examine_target(target)
        findings, first, facts = examine(self, name)
        return findings, {**self.facts(first, None), **facts}

    def blame_scaled_object(self, name: str) -> None:
        """KEDA takes its HPA away while it is paused or not content: the ScaledObject of that name is the cause."""
        path = f"{KEDA}/namespaces/{self.options.namespace}/scaledobjects/{name}"
        with contextlib.suppress(ClusterError):
            scaled = mapping(self.cluster.get(path))
            place = f"{self.options.prometheus_service}.{self.options.prometheus_namespace}"
            shown = scaled_object_verdict(name, scaled, [], place)
            if scaled and shown.failed:
                gone = links.verdict("hpa", name, FAILED, "KEDA has taken its HPA away", "", own=False)
                self.verdicts[:] = [*(entry for entry in self.verdicts if entry.link != "hpa"), gone, shown]


def examine(chain, name: str) -> tuple[list[Finding], str | None, dict]:
    """Walks the chains of a service that KEDA scales: (findings, first broken link, facts)."""
    chosen = chain.options
    path = f"{KEDA}/namespaces/{chosen.namespace}/scaledobjects/{name}"
    scaled = chain.read("scaled_object", name, path, f"does not exist in namespace {chosen.namespace}")
    if scaled is None:
        return links.findings_of(chain.verdicts), links.first_broken(chain.verdicts), {}
    limited = any(port == scraping.LIMIT_PORT for pod in chain.pods for port, _number in pod.ports)
    flow = scaling_rules.STREAMS_SERIES
    demand = trigger_about(scaled, flow) is not None
    wanted = [chosen.series] + ([flow] if demand else [])
    shown = scaled_object_verdict(name, scaled, wanted, f"{chosen.prometheus_service}.{chosen.prometheus_namespace}")
    asleep = not chain.pods and sleeps(scaled, chain.hpa)
    seen = hpa_verdict(str(chosen.hpa), chain.hpa, asleep)
    if asleep:
        chain.verdicts = [entry for entry in chain.verdicts if entry.link != "pods"]
        chain.verdicts.append(links.verdict("pods", name, OK, "none, and none is called for"))
    chains = [Trigger(chain, scaled, name, chosen.series, limit=False)]
    if demand:
        series = flow if limited else scaling_rules.SUCCESS_SERIES
        second = Trigger(chain, scaled, name, flow, limited)
        second.options = replace(second.options, series=series)
        chains.append(second)
    findings, first = [], None
    facts: dict[str, float | None] = {"demand": None}
    for number, one in enumerate(chains):
        one.verdicts = ([*chain.verdicts, seen, shown] if number == 0 else []) + one.verdicts
        if not asleep:
            one.walk(name)
        first = first or links.first_broken(one.verdicts)
        findings += [entry for entry in links.findings_of(one.verdicts) if entry not in findings]
    if demand:
        facts["demand"] = chains[1].total
    chain.values = {} if asleep else pod_values(chains[0])
    return findings, first, facts


def pod_values(trigger: Trigger) -> dict[str, float]:
    """The pods' own values, of which KEDA's is the sum."""
    chosen = trigger.options
    query = scaling_rules.queue_time_query(chosen.namespace, scrape_interval=chosen.scrape_interval, pods=trigger.ready)
    try:
        return {labels.get("pod", ""): value for labels, value in trigger.samples(query)} if trigger.ready else {}
    except (DoorShut, Unauthorized):
        raise
    except ClusterError:
        return {}

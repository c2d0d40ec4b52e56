# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The rules of the chain from the HPA by the metrics APIs to the adapter: pure functions from objects to a verdict."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules
from ansible_collections.speechops.riva.plugins.module_utils.chain_links import Verdict, selector_text, verdict
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, UNKNOWN, WARNING
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence, short_list

GROUP = "custom.metrics.k8s.io"
API_PATH = f"/apis/{GROUP}/v1beta1"
APISERVICE = f"v1beta1.{GROUP}"
EXTERNAL_GROUP = "external.metrics.k8s.io"


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
            f"no value for {short_list(missing)} ({len(ready) - len(missing)} of {len(ready)} Ready pods have one)",
            "see the links before it; a new pod has a value after two scrapes",
            own=False,
        )
    wrong = [name for name in ready if not plausible(values[name])]
    if wrong:
        return verdict(
            "api",
            subject,
            FAILED,
            f"impossible value for {short_list(wrong)}: {values[wrong[0]]}",
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
        f"its metricsQuery names {short_list(absent)}, which Prometheus does not have: the value of {metric} is"
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

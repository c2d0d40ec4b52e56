# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Walks the chain of a custom metric on a cluster, from the HPA by way of the API and the adapter to Prometheus: reads
what each link's rule needs, and no more."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

try:
    import yaml
except ImportError:  # the kubernetes library brings it, and connect() says if that is missing
    yaml = None  # type: ignore[assignment]

from ansible_collections.speechops.riva.plugins.module_utils import (
    aggregation,
    custom_metrics,
    scaling_rules,
    scraping,
)
from ansible_collections.speechops.riva.plugins.module_utils import chain_links as links
from ansible_collections.speechops.riva.plugins.module_utils.chain_reader import Options
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Cluster
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import (
    ClusterError,
    DoorShut,
    Forbidden,
    NotFound,
    Unauthorized,
    one_line,
)
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, UNKNOWN, Finding
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping
from ansible_collections.speechops.riva.plugins.module_utils.scrape_path import ScrapePath

KINDS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "ReplicaSet": "replicasets"}


class Chain(ScrapePath):
    """One look at the chain."""

    group = custom_metrics.GROUP
    rules_key = "rules"

    def __init__(self, cluster: Cluster, options: Options) -> None:
        super().__init__(cluster, options)
        self.values: dict[str, float | None] = {}
        self.hpa: Mapping = {}
        self.selector = ""

    def examine(self) -> tuple[list[Finding], dict]:
        return self.examine_target(self.read_target())

    def examine_target(self, target: str | None) -> tuple[list[Finding], dict]:
        if target:
            self.judge_hpa()
            self.walk(target)
        first = links.first_broken(self.verdicts)
        findings = links.findings_of(self.verdicts)
        demand = Demand.of(self) if target else None
        if demand:
            demand.walk(str(target))
            first = first or links.first_broken(demand.verdicts)
            findings += [entry for entry in links.findings_of(demand.verdicts) if entry not in findings]
        if first:
            findings += self.nodes_away()
        return findings, self.facts(first, demand.total if demand else None)

    def nodes_away(self) -> list[Finding]:
        """The nodes that are not Ready: a hint, so none where they can't be seen."""
        try:
            return links.nodes_away(self.cluster.list_all("/api/v1/nodes", links.project_node))
        except ClusterError:
            return []

    def facts(self, first: str | None, demand: float | None) -> dict:
        """What was seen, beside the findings."""
        status = mapping(self.hpa.get("status"))
        return {
            "first_broken": first,
            "pod_values": {pod: value for pod, value in sorted(self.values.items())},
            "pods": sorted(pod.name for pod in self.pods if pod.ready),
            "hpa": {
                "current_replicas": status.get("currentReplicas", 0),
                "desired_replicas": status.get("desiredReplicas", 0),
                "conditions": custom_metrics.conditions_of(self.hpa),
            }
            if self.hpa
            else None,
            "demand": demand,
        }

    @property
    def apiservice(self) -> str:
        return f"v1beta1.{self.group}"

    # HPA, target, pods

    def read_target(self) -> str | None:
        """Reads HPA, target and pods; the target's name, or None where the chain has no beginning."""
        space, kind, name = self.options.namespace, "Deployment", self.options.deployment
        if self.options.hpa:
            path = f"/apis/autoscaling/v2/namespaces/{space}/horizontalpodautoscalers/{self.options.hpa}"
            hpa = self.read("hpa", self.options.hpa, path, f"does not exist in namespace {space}")
            if hpa is None:
                return None
            self.hpa = hpa
            reference = mapping(mapping(hpa.get("spec")).get("scaleTargetRef"))
            kind, name = str(reference.get("kind")), str(reference.get("name"))
        if kind not in KINDS:
            self.add("hpa", str(self.options.hpa), UNKNOWN, f"its target is a {kind}, whose pods can't be found")
            return None
        subject = str(self.options.hpa) if self.hpa else f"{kind} {name}"
        path = f"/apis/apps/v1/namespaces/{space}/{KINDS[kind]}/{name}"
        gone = f"its target {kind} {name} does not exist" if self.hpa else f"does not exist in namespace {space}"
        workload = self.read("hpa" if self.hpa else "pods", subject, path, gone)
        if workload is None:
            return None
        selector = links.selector_text(mapping(mapping(workload.get("spec")).get("selector")))
        pods = self.guarded(
            "pods",
            f"{kind} {name}",
            lambda: self.cluster.list_all(
                f"/api/v1/namespaces/{space}/pods", links.project_pod, {"labelSelector": selector}
            ),
        )
        if pods is None:
            return None
        self.pods = pods
        self.asked = links.settled(pods, self.cluster.now(), self.options.most_age)
        self.selector = selector
        self.verdicts.append(links.pods_verdict(f"{kind} {name}", pods, self.asked))
        return f"{kind} {name}"

    def judge_hpa(self) -> None:
        if self.hpa:
            self.verdicts.append(custom_metrics.hpa_verdict(str(self.options.hpa), self.hpa, self.options.metric))

    # The walk

    def walk(self, target: str) -> None:
        answers, listed = self.read_api()
        if not self.ready:
            return
        fresh, prometheus = self.read_series()
        self.read_adapter(answers, listed, prometheus)
        stale = [name for name in self.ready if name not in fresh]
        if not stale:
            for link in links.LINKS[links.LINKS.index("target") : links.LINKS.index("pods")]:
                self.add(link, target, OK, "proven by the fresh samples")
            return
        endpoint = self.read_scrape_path([pod for pod in self.pods if pod.name in stale])
        if prometheus:
            self.read_targets(endpoint)
        else:
            self.add("target", "up", UNKNOWN, "Prometheus can't be asked")

    # The custom metrics API

    def read_api(self) -> tuple[bool, bool]:
        """(whether the API answers, whether it lists the metric)."""
        name = self.apiservice
        try:
            item = self.cluster.get(f"{aggregation.APISERVICES_PATH}/{name}")
        except NotFound:
            finding = aggregation.missing_finding(name, required=True)
            self.add("api", name, FAILED, finding.message, finding.remedy)
            return False, False
        except Forbidden as error:
            self.add("api", name, FAILED, str(error), error.remedy)
            return False, False
        service = aggregation.project_apiservice(item)
        owner = custom_metrics.owner_verdict(service.service, self.options.adapter, name)
        if owner:
            self.verdicts.append(owner)
            return False, False
        try:
            resources = self.cluster.get(service.path)
        except DoorShut:
            raise
        except ClusterError as error:
            finding = aggregation.apiservice_finding(service, aggregation.Probe(error.status or 0, one_line(error)))
            message, remedy = self.with_backend(finding.message, finding.remedy)
            self.add("api", name, FAILED, message, remedy)
            return False, False
        listed = self.lists(mapping(resources))
        if self.read_values():
            self.verdicts.append(self.values_verdict(listed))
        return True, listed

    def lists(self, resources: Mapping) -> bool:
        return custom_metrics.offers(resources, self.options.metric)

    def values_verdict(self, listed: bool) -> links.Verdict:
        return custom_metrics.values_verdict(self.options.metric, listed, self.values, self.ready)

    @property
    def valued(self) -> bool:
        """Whether the API has all values that it has to have."""
        return all(name in self.values for name in self.ready)

    def with_backend(self, message: str, remedy: str) -> tuple[str, str]:
        """The message with what is wrong with the adapter's pods, where something is and it can be seen."""
        space, name = self.options.adapter_namespace, self.options.adapter_service
        try:
            deployment = mapping(self.cluster.get(f"/apis/apps/v1/namespaces/{space}/deployments/{name}"))
            wanted = mapping(deployment.get("spec")).get("replicas")
            pods = self.pods_behind(space, name)
        except (DoorShut, Unauthorized):
            raise
        except ClusterError as error:
            return f"{message}; why can't be seen: {one_line(error)}", remedy
        replicas = wanted if isinstance(wanted, int) else None
        note, better = links.backend_note(f"Deployment/{space}/{name}", replicas, pods)
        return (f"{message}; {note}", better) if note else (message, remedy)

    def read_values(self) -> bool:
        path = f"{custom_metrics.API_PATH}/namespaces/{self.options.namespace}/pods/*/{self.options.metric}"
        answer = self.read_metrics(path, self.selector, f"pods/{self.options.metric}")
        self.values = custom_metrics.values_of(answer or {})
        return answer is not None

    def read_metrics(self, path: str, selector: str, subject: str) -> Mapping | None:
        """What a metrics API answers, empty where it has no such values; None after a verdict on why it does not."""
        try:
            return mapping(self.cluster.get(path, {"labelSelector": selector}))
        except NotFound:
            return {}
        except DoorShut:
            raise
        except ClusterError as error:
            self.add("api", subject, FAILED, str(error), error.remedy, isinstance(error, Forbidden))
            return None

    # The adapter

    def read_adapter(self, answers: bool, listed: bool, prometheus: bool) -> None:
        chosen, subject = self.options, self.options.adapter
        if not answers:
            self.add("adapter_rule", subject, UNKNOWN, f"{self.group} does not answer, so no rule can be seen at work")
            return
        if listed and self.valued:
            self.verdicts.append(custom_metrics.query_verdict(subject, chosen.metric, *self.query_of_rule(prometheus)))
            return
        config = self.guarded("adapter_rule", subject, self.adapter_config)
        if config is None:
            return
        offering = next((rule for rule in config if scaling_rules.rule_offers(rule, chosen.metric)), None)
        found = self.count(str(offering.get("seriesQuery"))) if offering and prometheus else None
        url = "" if listed else self.adapter_url()
        source = (
            "filter external_rules) into the chart's rules.external"
            if self.rules_key == "externalRules"
            else "filter adapter_rules) into the chart's rules.custom"
        )
        self.verdicts.append(
            custom_metrics.adapter_verdict(
                subject, config, chosen.metric, listed, found, url, chosen.prometheus, source
            )
        )

    def query_of_rule(self, prometheus: bool) -> tuple[set[str], set[str]]:
        """(series that the rule's metricsQuery names, those of them that exist); nothing where that can't be seen.

        The values are there, so none of this is needed but to tell a measured 0 from a 0 made of nothing.
        """
        try:
            config = self.adapter_config() if prometheus and self.rules_key == "rules" else []
            rule = next((rule for rule in config if scaling_rules.rule_offers(rule, self.options.metric)), {})
            query = custom_metrics.parsable_query(rule)
            named = (
                custom_metrics.named_series(self.ask("parse_query", {"query": query}).get("data")) if query else set()
            )
            existing = self.samples(custom_metrics.names_query(named)) if named else []
        except (DoorShut, Unauthorized):
            raise
        except ClusterError:
            return set(), set()
        return named, {labels.get("__name__", "") for labels, _count in existing}

    def adapter_config(self) -> Sequence[Mapping]:
        path = f"/api/v1/namespaces/{self.options.adapter_namespace}/configmaps/{self.options.adapter_service}"
        data = mapping(mapping(self.cluster.get(path)).get("data"))
        try:
            return custom_metrics.adapter_rules(yaml.safe_load(str(data.get("config.yaml") or "")), self.rules_key)
        except yaml.YAMLError:
            return []

    def adapter_url(self) -> str:
        path = f"/apis/apps/v1/namespaces/{self.options.adapter_namespace}/deployments/{self.options.adapter_service}"
        try:
            return custom_metrics.prometheus_url(mapping(self.cluster.get(path)))
        except (DoorShut, Unauthorized):
            raise
        except ClusterError:
            return f"http://{self.options.prometheus}"  # Not to be seen: no fault that could be proven.


class Demand(Chain):
    """The chain of the HPA's other metric, the demand of the whole service, from the same pods."""

    group = custom_metrics.EXTERNAL_GROUP
    rules_key = "externalRules"

    @classmethod
    def of(cls, chain: Chain) -> Demand | None:
        """The chain of the demand, where the HPA asks for one."""
        metric = scaling_rules.DEMAND_METRIC
        external = custom_metrics.external_metric(chain.hpa, metric)
        if external is None:
            return None
        limited = any(name == scraping.LIMIT_PORT for pod in chain.pods for name, _number in pod.ports)
        series = scaling_rules.STREAMS_SERIES if limited else scaling_rules.SUCCESS_SERIES
        demand = cls(chain.cluster, replace(chain.options, metric=metric, series=series))
        demand.limit = limited
        demand.external = external
        demand.hpa, demand.pods, demand.asked, demand.selector = chain.hpa, chain.pods, chain.asked, chain.selector
        demand.verdicts.append(custom_metrics.external_hpa_verdict(str(chain.options.hpa), chain.hpa, metric))
        return demand

    def __init__(self, cluster: Cluster, options: Options) -> None:
        super().__init__(cluster, options)
        self.external: Mapping = {}
        self.numbers: list[float | None] = []

    @property
    def total(self) -> float | None:
        known = [number for number in self.numbers if number is not None]
        return sum(known) if known else None

    @property
    def valued(self) -> bool:
        return bool(self.numbers)

    def lists(self, resources: Mapping) -> bool:
        return custom_metrics.offers_external(resources, self.options.metric)

    def values_verdict(self, listed: bool) -> links.Verdict:
        target = mapping(self.external.get("target")).get("averageValue")
        return custom_metrics.external_verdict(self.options.metric, listed, self.numbers, target)

    def read_values(self) -> bool:
        path = f"/apis/{self.group}/v1beta1/namespaces/{self.options.namespace}/{self.options.metric}"
        answer = self.read_metrics(path, custom_metrics.external_query(self.external), self.options.metric)
        self.numbers = custom_metrics.external_values(answer or {})
        return answer is not None

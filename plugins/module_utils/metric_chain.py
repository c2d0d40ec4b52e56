# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Walks the chain of a custom metric on a cluster: reads what each link's rule needs, and no more.

The links near the pods are only read where Prometheus has no fresh sample of some Ready pod: a fresh sample proves
them all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence

MONITORING = "/apis/monitoring.coreos.com/v1"
KINDS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "ReplicaSet": "replicasets"}
# Metrics pages are asked of a few pods; the others have the same template.
MOST_SCRAPES = 3


@dataclass(frozen=True)
class Options:
    """What is asked: one metric of one target."""

    metric: str
    namespace: str
    hpa: str | None
    deployment: str | None
    series: str
    prometheus_namespace: str
    prometheus_service: str
    prometheus_port: int
    prometheus_scheme: str
    adapter_namespace: str
    adapter_service: str
    scrape_interval: int
    keda_namespace: str = "keda"
    keda_service: str = "keda-operator-metrics-apiserver"

    @property
    def most_age(self) -> int:
        return scraping.SCRAPES_TO_STALE * self.scrape_interval

    @property
    def prometheus(self) -> str:
        return f"{self.prometheus_service}.{self.prometheus_namespace}:{self.prometheus_port}"

    @property
    def adapter(self) -> str:
        return f"{self.adapter_namespace}/{self.adapter_service}"


class Chain:
    """One look at the chain."""

    group = custom_metrics.GROUP
    rules_key = "rules"
    limit = False

    def __init__(self, cluster: Cluster, options: Options) -> None:
        self.cluster = cluster
        self.options = options
        self.verdicts: list[links.Verdict] = []
        self.values: dict[str, float | None] = {}
        self.pods: list[links.Pod] = []
        self.asked: list[links.Pod] = []
        self.endpoint = ""
        self.hpa: Mapping = {}

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
        return findings, self.facts(first, demand.total if demand else None)

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

    @property
    def ready(self) -> list[str]:
        """The Ready pods that have to have a value by now."""
        return [pod.name for pod in self.asked]

    def add(self, link: str, subject: str, status: str, message: str, remedy: str = "", own: bool = True) -> None:
        self.verdicts.append(links.verdict(link, subject, status, message, remedy, own))

    def guarded(self, link: str, subject: str, function: Callable):
        """What the function returns, or None after a verdict on why the link can't be read."""
        try:
            return self.guarded_missing(link, subject, function)
        except NotFound as error:
            self.add(link, subject, FAILED, str(error), "check the names and namespaces in the options")
            return None

    def guarded_missing(self, link: str, subject: str, function: Callable):
        """The same, but what does not exist is left to the caller.

        The API server itself answers here: where it does not, that is no fault of the link.
        """
        try:
            return function()
        except Forbidden as error:
            self.add(link, subject, FAILED, str(error), error.remedy)
            return None

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

    def read(self, link: str, subject: str, path: str, absent: str) -> Mapping | None:
        """An object that has to be there."""
        try:
            found = self.guarded_missing(link, subject, lambda: self.cluster.get(path) or "")
        except NotFound:
            self.add(link, subject, FAILED, absent, f"check the name and the namespace {self.options.namespace}")
            return None
        if found is None or (found and isinstance(found, Mapping)):
            return found
        self.add(link, subject, FAILED, "the API server answers with no object", f"kubectl get --raw {path}")
        return None

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

    def pods_behind(self, namespace: str, service: str) -> list[links.Pod]:
        """The pods that a Service selects."""
        found = mapping(self.cluster.get(f"/api/v1/namespaces/{namespace}/services/{service}"))
        selector = mapping(mapping(found.get("spec")).get("selector"))
        if not selector:
            return []
        query = {"labelSelector": links.selector_text({"matchLabels": selector})}
        return self.cluster.list_all(f"/api/v1/namespaces/{namespace}/pods", links.project_pod, query)

    def read_values(self) -> bool:
        path = f"{custom_metrics.API_PATH}/namespaces/{self.options.namespace}/pods/*/{self.options.metric}"
        try:
            self.values = custom_metrics.values_of(self.cluster.get(path, {"labelSelector": self.selector}))
        except NotFound:
            self.values = {}
        except DoorShut:
            raise
        except ClusterError as error:
            own = isinstance(error, Forbidden)
            self.add("api", f"pods/{self.options.metric}", FAILED, str(error), error.remedy, own)
            return False
        return True

    # Prometheus

    def ask(self, path: str, query: Mapping) -> Mapping:
        """Prometheus' own answer, through the API server's proxy."""
        chosen = self.options
        service = f"{chosen.prometheus_scheme}:{chosen.prometheus_service}:{chosen.prometheus_port}"
        base = f"/api/v1/namespaces/{chosen.prometheus_namespace}/services/{service}/proxy/api/v1"
        return mapping(self.cluster.get(f"{base}/{path}", query))

    def samples(self, promql: str) -> list[tuple[dict, float]]:
        return scraping.samples_of(self.ask("query", {"query": promql}))

    def read_series(self) -> tuple[set[str], bool]:
        """(Ready pods with a fresh sample, whether Prometheus answers)."""
        chosen = self.options
        try:
            found = self.samples(scraping.age_query(chosen.series, chosen.namespace, self.ready))
            ages = {labels.get("pod", ""): age for labels, age in found}
            missing = any(name not in ages for name in self.ready)
            query = scraping.labels_query(chosen.series, chosen.most_age)
            elsewhere = [labels for labels, _count in self.samples(query)] if missing else []
        except (DoorShut, Unauthorized):
            raise
        except ClusterError as error:
            self.add("prometheus", chosen.prometheus, FAILED, *self.prometheus_fault(error))
            self.add("series", chosen.series, UNKNOWN, "Prometheus can't be asked")
            return set(), False
        self.add("prometheus", chosen.prometheus, OK, "answers queries")
        self.verdicts.append(
            scraping.series_verdict(chosen.series, ages, self.ready, chosen.most_age, elsewhere, chosen.namespace)
        )
        return {name for name, age in ages.items() if age <= chosen.most_age}, True

    def prometheus_fault(self, error: ClusterError) -> tuple[str, str]:
        if isinstance(error, NotFound):
            return (
                f"the Service does not exist or has no such port ({error})",
                "check prometheus_namespace, prometheus_service and prometheus_port",
            )
        if isinstance(error, Forbidden):
            return str(error), error.remedy
        space, name = self.options.prometheus_namespace, self.options.prometheus_service
        message = f"does not answer: {error}"
        remedy = f"kubectl get pods -n {space}: does Prometheus run? read its log and its operator's"
        try:
            pods = self.pods_behind(space, name)
        except (NotFound, Forbidden) as hidden:
            return f"{message}; why can't be seen: {one_line(hidden)}", remedy
        if not pods:
            return f"{message}; its Service selects no pod", f"kubectl get prometheus,statefulset -n {space}: replicas"
        note, better = links.backend_note(f"StatefulSet/{space}/{name}", None, pods)
        return (f"{message}; {note}", better) if note else (message, remedy)

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

    def count(self, selector: str) -> int | None:
        try:
            found = self.samples(scraping.count_query(selector, self.options.most_age))
        except (DoorShut, Unauthorized):
            raise
        except ClusterError:
            return None
        return int(found[0][1]) if found else 0

    # From Prometheus' configuration to the pods

    def read_scrape_path(self, pods: Sequence[links.Pod]) -> str:
        """ServiceMonitor, Service, port, exporter. Returns Prometheus' name for the scrape pool, if known."""
        space = self.options.namespace
        services = self.guarded(
            "service_monitor", "Service", lambda: self.cluster.list_all(f"/api/v1/namespaces/{space}/services")
        )
        if services is None:
            return ""
        chosen = scraping.services_of(services, pods)
        try:
            found = self.guarded_missing("service_monitor", "ServiceMonitor", lambda: self.read_monitors(chosen))
        except NotFound:
            self.add(
                "service_monitor",
                "ServiceMonitor",
                FAILED,
                "the API monitoring.coreos.com/v1 is not there",
                "install kube-prometheus-stack with its custom resource definitions",
            )
            return ""
        if found is None:
            return ""
        entry, monitor, service = scraping.service_monitor_verdict(chosen, *found)
        self.verdicts.append(entry)
        if monitor is None or service is None:
            return ""
        entry, port, endpoint = scraping.service_port_verdict(monitor, service, self.limit)
        self.verdicts.append(entry)
        home = mapping(monitor.get("metadata")).get("namespace")
        place = next((at for at, found in scraping.scraped_endpoints(monitor, self.limit) if found == endpoint), 0)
        pool = f"serviceMonitor/{home}/{scraping.name_of(monitor)}/{place}"
        if len(sequence(mapping(monitor.get("spec")).get("endpoints"))) > 1:
            self.endpoint = str(endpoint.get("port") or "")
        if port is None:
            return pool
        entry, numbers = scraping.pod_port_verdict(port, pods)
        try:
            asked = list(numbers.items())[:MOST_SCRAPES]
            scrapes = {name: self.scrape(name, number, endpoint) for name, number in asked}
            pages = scraping.exporter_verdicts(scrapes, numbers, self.options.series) if scrapes else []
        except Forbidden as error:
            pages = [links.verdict("exporter", "metrics page", FAILED, str(error), error.remedy)]
        if not any(page.link == "pod_port" for page in pages):
            self.verdicts.append(entry)
        self.verdicts += pages
        return pool

    def read_monitors(self, services: Sequence[Mapping]) -> tuple[list, list, Mapping]:
        space = self.options.namespace
        monitors = self.cluster.list_all(f"{MONITORING}/namespaces/{space}/servicemonitors")
        if not any(scraping.watches(monitor, service) for monitor in monitors for service in services):
            monitors = self.cluster.list_all(f"{MONITORING}/servicemonitors")
        prometheuses = self.cluster.list_all(
            f"{MONITORING}/namespaces/{self.options.prometheus_namespace}/prometheuses"
        )
        labels = mapping(self.cluster.get(f"/api/v1/namespaces/{space}").get("metadata")).get("labels")
        return monitors, prometheuses, mapping(labels)

    def scrape(self, pod: str, port: int, endpoint: Mapping) -> scraping.Scrape:
        """The pod's metrics page through the API server's proxy."""
        scheme = str(endpoint.get("scheme") or "http").lower()
        page = str(endpoint.get("path") or "/metrics").lstrip("/")
        path = f"/api/v1/namespaces/{self.options.namespace}/pods/{scheme}:{pod}:{port}/proxy/{page}"
        try:
            return scraping.Scrape(200, self.cluster.get(path, text=True))
        except (DoorShut, Unauthorized):
            raise
        except ClusterError as error:
            # The API server's refusal comes with a reason; a page that answers 403 by itself has none.
            if isinstance(error, Forbidden) and error.reason == "Forbidden":
                raise
            return scraping.Scrape(error.status or 0, one_line(error, 200))

    def read_targets(self, pool: str) -> None:
        """What Prometheus says of its own targets."""
        up: dict[str, float] = {}
        errors: Mapping[str, str] = {}
        try:
            query = scraping.up_query(self.options.namespace, self.ready, self.options.most_age, self.endpoint)
            for labels, value in self.samples(query):
                name = labels.get("pod", "")
                up[name] = max(value, up.get(name, 0.0))
            if not up and any(entry.link == "series" and entry.failed and entry.own for entry in self.verdicts):
                self.add("target", "up", UNKNOWN, "can't be told: the label pod is missing here as well")
                return
            if any(up.get(name) != 1 for name in self.ready):
                asked = {"state": "active", **({"scrapePool": pool} if pool else {})}
                errors = scraping.target_errors(self.ask("targets", asked), self.options.namespace)
        except (DoorShut, Unauthorized):
            raise
        except ClusterError as error:
            self.add("target", "up", UNKNOWN, f"Prometheus can't be asked: {error}")
            return
        self.verdicts.append(scraping.target_verdict(up, self.ready, errors))


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
        try:
            answer = self.cluster.get(path, {"labelSelector": custom_metrics.external_query(self.external)})
            self.numbers = custom_metrics.external_values(answer)
        except NotFound:
            self.numbers = []
        except DoorShut:
            raise
        except ClusterError as error:
            own = isinstance(error, Forbidden)
            self.add("api", self.options.metric, FAILED, str(error), error.remedy, own)
            return False
        return True

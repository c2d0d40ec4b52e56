# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The links of a metric's chain on Prometheus' side: its answer, its series, and the way from its configuration to the
pods' pages. The latter is only read where some Ready pod has no fresh sample: a fresh sample proves all of it.
"""

from collections.abc import Mapping, Sequence

from ansible_collections.speechops.riva.plugins.module_utils import chain_links as links
from ansible_collections.speechops.riva.plugins.module_utils import (
    scraping,
)
from ansible_collections.speechops.riva.plugins.module_utils.chain_reader import Options, Reader
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Cluster
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import (
    ClusterError,
    DoorShut,
    Forbidden,
    NotFound,
    Unauthorized,
    one_line,
)
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, UNKNOWN
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence

MONITORING = "/apis/monitoring.coreos.com/v1"
# Metrics pages are asked of a few pods; the others have the same template.
MOST_SCRAPES = 3


class ScrapePath(Reader):
    """Prometheus, and how the pods' samples come to it."""

    limit = False

    def __init__(self, cluster: Cluster, options: Options) -> None:
        super().__init__(cluster, options)
        self.endpoint = ""

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

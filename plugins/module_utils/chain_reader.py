# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What the links of a metric's chain are read with, and what is told of a link that can't be read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ansible_collections.speechops.riva.plugins.module_utils import chain_links as links
from ansible_collections.speechops.riva.plugins.module_utils import (
    scraping,
)
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Cluster
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import (
    ClusterError,
    DoorShut,
    Forbidden,
    NotFound,
    Unauthorized,
)
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping


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


class Reader:
    """One look at a chain: the questions asked so far, and the verdicts."""

    def __init__(self, cluster: Cluster, options: Options) -> None:
        self.cluster = cluster
        self.options = options
        self.verdicts: list[links.Verdict] = []
        self.pods: list[links.Pod] = []
        self.asked: list[links.Pod] = []

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

    def ask(self, path: str, query: Mapping) -> Mapping:
        """Prometheus' own answer, through the API server's proxy."""
        chosen = self.options
        service = f"{chosen.prometheus_scheme}:{chosen.prometheus_service}:{chosen.prometheus_port}"
        base = f"/api/v1/namespaces/{chosen.prometheus_namespace}/services/{service}/proxy/api/v1"
        return mapping(self.cluster.get(f"{base}/{path}", query))

    def samples(self, promql: str) -> list[tuple[dict, float]]:
        return scraping.samples_of(self.ask("query", {"query": promql}))

    def count(self, selector: str) -> int | None:
        try:
            found = self.samples(scraping.count_query(selector, self.options.most_age))
        except (DoorShut, Unauthorized):
            raise
        except ClusterError:
            return None
        return int(found[0][1]) if found else 0

    def pods_behind(self, namespace: str, service: str) -> list[links.Pod]:
        """The pods that a Service selects."""
        found = mapping(self.cluster.get(f"/api/v1/namespaces/{namespace}/services/{service}"))
        selector = mapping(mapping(found.get("spec")).get("selector"))
        if not selector:
            return []
        query = {"labelSelector": links.selector_text({"matchLabels": selector})}
        return self.cluster.list_all(f"/api/v1/namespaces/{namespace}/pods", links.project_pod, query)

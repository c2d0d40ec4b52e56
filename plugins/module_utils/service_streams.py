# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many streams each pod of a speech service has, and how many it may have, as Prometheus knows it. Pure.

Riva's server exports no number of streams. Where the pods have a stream limit, its sidecar counts them exactly.
Elsewhere the number is estimated from the throughput: a stream in real time sends so many chunks a second, and each is
one inference request. At saturation the throughput is capped, and so is the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ansible_collections.speechops.riva.plugins.module_utils.scaling_rules import (
    SUCCESS_SERIES,
    limit_query,
    service_matchers,
    streams_query,
)
from ansible_collections.speechops.riva.plugins.module_utils.scraping import samples_of

COUNTED, ESTIMATED, UNSEEN = "counted", "estimated", "unseen"
ESTIMATE_WINDOW_SECONDS = 60
CHUNK_MS = 160


@dataclass(frozen=True)
class Prometheus:
    """Where Prometheus is: a Service, which is asked through the API server's proxy."""

    namespace: str = "monitoring"
    service: str = "kube-prometheus-stack-prometheus"
    port: int = 9090
    scheme: str = "http"

    @property
    def query_path(self) -> str:
        target = f"{self.scheme}:{self.service}:{self.port}"
        return f"/api/v1/namespaces/{self.namespace}/services/{target}/proxy/api/v1/query"


def estimate_query(namespace: str, service: str, chunk_ms: float = CHUNK_MS) -> str:
    """PromQL: streams by pod from the throughput of the busiest model, for chunks of so many milliseconds."""
    rate = f"rate({SUCCESS_SERIES}{{{service_matchers(namespace, service)}}}[{ESTIMATE_WINDOW_SECONDS}s])"
    return f"max by (pod) (sum by (pod, model) ({rate})) * {chunk_ms / 1000:g}"


def by_pod(answer: dict) -> dict[str, float]:
    """The value of each pod in Prometheus' answer."""
    return {labels["pod"]: value for labels, value in samples_of(answer) if labels.get("pod")}


@dataclass(frozen=True)
class Streams:
    """Streams in flight and their limit, by pod; and how the streams are known: counted, estimated or unseen."""

    source: str
    in_flight: dict[str, float]
    limits: dict[str, float]


def serving(ready: Collection[str], in_flight: Mapping[str, float], limits: Mapping[str, float]) -> int:
    """Return how many pods serve: those that are ready, and full ones, which turn unready and go on.

    A pod that loads its models has a limit already, and neither.
    """
    return len({*ready, *(pod for pod in limits if in_flight.get(pod, 0) > 0)})


def read_streams(ask: Callable[[str], dict], namespace: str, service: str, chunk_ms: float = CHUNK_MS) -> Streams:
    """Ask Prometheus for a service's streams; *ask* takes PromQL and returns the whole answer."""
    counted = by_pod(ask(streams_query(namespace, service)))
    if counted:
        return Streams(COUNTED, counted, by_pod(ask(limit_query(namespace, service, by=("pod",)))))
    estimated = by_pod(ask(estimate_query(namespace, service, chunk_ms)))
    return Streams(ESTIMATED if estimated else UNSEEN, {pod: round(value, 1) for pod, value in estimated.items()}, {})

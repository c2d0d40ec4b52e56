# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule set of the scaling loop as KEDA asks for it: PromQL for each service, no adapter between. Pure rules.

KEDA makes an HPA from a ScaledObject; that HPA reads External metrics named after the triggers' places, `s0-prometheus`
and on. All are sums over the service with a target of one pod's share (AverageValue), so that the HPA's arithmetic is
ceil(sum / target): for the time in the queue the same answer as the mean of a Pods metric gives.

- The guard is the sum of the pods' `avg_time_queue_ms`.
- The demand is `scaling_rules.demand_query` as it stands.
- A query without a result is an error (`ignoreNullValues: "false"`): scraping is broken, and KEDA falls back. At zero
  pods there is nothing to scrape; where that is meant to be, `at_zero` makes the absence of every target a 0.
- The way up from zero pods is `wake_query`: calls that came to the route of the service. Traefik's figures of a service
  begin with its pods, those of a router are there without.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules as rules

# What a chart fills in; the intervals are text that no other part of a query has.
NAMESPACE, SERVICE, TRAEFIK = "NAMESPACE_", "SERVICE_", "TRAEFIK_"
HORIZON, SPARE, SHARE, CHUNKS = "HORIZON_", "SPARE_", "SHARE_", "CHUNKS_"
SCRAPE_SENTINEL = 100002
WAKE_SECONDS = 120
ROUTER_SERIES = "traefik_router_requests_total"


def queue_time(namespace: str, service: str, scrape_interval: object = rules.SCRAPE_INTERVAL) -> str:
    """PromQL: the sum of the mean times in the queue (milliseconds) of a service's pods."""
    return f"sum({rules.queue_time_query(namespace, service=service, scrape_interval=scrape_interval)})"


def at_zero(query: str, namespace: str, service: str) -> str:
    """PromQL: the query, or 0 where Prometheus has no target of the service at all, as at zero pods.

    A target that can't be read is still a target: there the query has no result, and that is an error.
    """
    return f"({query}) or (absent(up{{{rules.service_matchers(namespace, service)}}}) - 1)"


def wake_query(namespace: str, service: str, traefik_namespace: str = "traefik", window: int = WAKE_SECONDS) -> str:
    """PromQL: 1 where a call came to the route of the service in the window (seconds), else 0; nothing without Traefik.

    A counter that is new counts whole: `increase` would miss the call that began it.
    """
    # An IngressRoute's router is named namespace-name-hash.
    name = f"{rules.literal_pattern(f'{namespace}-{service}')}-[0-9a-f]+@kubernetescrd"
    calls = f"{ROUTER_SERIES}{{namespace={rules.quoted(traefik_namespace)},router=~{rules.quoted(name)}}}"
    grown = f"(sum(increase({calls}[{window}s])) or vector(0))"
    begun = f"(sum({calls} unless {calls} offset {window}s) or vector(0))"
    alive = f"(sum(up{{namespace={rules.quoted(traefik_namespace)}}}) > 0)"
    return f"clamp_max(ceil({grown} + {begun}), 1) and on () {alive}"


def demand(namespace: str, service: str, **figures: Any) -> str:
    """PromQL: streams that the service has to have room for, one number without labels; as `demand_query` is told."""
    return f"sum({rules.demand_query(namespace, service, **figures)})"


def chart_queries() -> dict[str, str]:
    """The queries with placeholders, as `files/keda-queries.json` of the riva chart holds them."""
    interval = SCRAPE_SENTINEL
    matchers, by = rules.service_matchers(NAMESPACE, SERVICE), "namespace,service"
    texts = {
        "queueTime": queue_time(NAMESPACE, SERVICE, interval),
        "demand": f"sum({rules.demand(matchers, by, HORIZON, SPARE, SHARE, CHUNKS, interval)})",
        "up": f"up{{{matchers}}}",
        "wakeUp": wake_query(NAMESPACE, SERVICE, TRAEFIK, 7 * interval),
    }
    spans = {
        7 * interval: "WAKE_",
        rules.SCRAPES_PER_WINDOW * interval: "WINDOW_",
        interval * 5 // 2: "FRESH_",
        interval: "INTERVAL_",
    }
    for seconds, word in spans.items():
        texts = {name: text.replace(f"{seconds}s", f"{word}s") for name, text in texts.items()}
    return texts


def metric_name(place: int) -> str:
    """The External metric's name that KEDA gives to the trigger at a place."""
    return f"s{place}-prometheus"

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The one rule set of the scaling loop: adapter, verification, dashboard, report and HPA all take it from here.

Two signals. The guard is `avg_time_queue_ms`: how long a request waited for the GPU, in milliseconds, over the last
window. Triton counts it per model as `nv_inference_queue_duration_us` (microseconds, of all requests that
completed), beside `nv_inference_request_success` (how many did). The mean is the rate of the one over the
rate of the other.

Choices, each of which a test holds:

- Sums first, then one division. An average of per-model quotients lets an idle model pull the value down.
- `rate`, not `delta`: both are counters and start again at zero with the container.
- The window spans four scrapes or more, so that two missed ones still leave two samples.
- Zero traffic is the value 0, not a missing series, and never a division by zero: the adapter would turn
  NaN into 0, but +Inf into a huge negative number.
- Labels: `namespace` and `pod` are those that the operator puts on every scraped series (the target's, as
  honorLabels is off). The rule asks for no container name, so that it serves any image that speaks
  Triton's metrics.
- Triton counts an ensemble's request once more under the ensemble's own name, with no queue time.
  `exclude_models` (or `models`) keeps such models out of the mean.

The other is `speech_streams_demand`, one number for a whole speech service: how many streams it has to have room for.

- Streams in flight are counted by the limit that stands in front of each server (HAProxy's proxy `speech`). A server
  without a limit shows none: there they are estimated from the chunks that it completes, which holds below saturation.
- Streams that were refused in the last window (HAProxy's proxy `full`) are wanted as well.
- The rise of the last window goes on for as long as a new pod needs (`horizon_seconds`), less one square root of the
  streams: a rise as small as that is chance, and a quiet service would climb on it.
- The spare is room for what no signal foretells: `spare_streams`, but no more than four times what there is, so that an
  idle service goes back to its minimum; and `spare_share` of the streams, which is what counts on hundreds of pods.
- A missed scrape must not lower a sum, so the last sample of two and a half scrapes counts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

METRIC = "avg_time_queue_ms"
ARTICLE_METRIC = "article_avg_time_queue_ms"
DEMAND_METRIC = "speech_streams_demand"
QUEUE_SERIES = "nv_inference_queue_duration_us"
SUCCESS_SERIES = "nv_inference_request_success"
# Of the limit's exporter: streams that run, the most that may, and those that were refused.
STREAMS_SERIES = "haproxy_server_current_sessions"
LIMIT_SERIES = "haproxy_server_limit_sessions"
REFUSED_SERIES = "haproxy_backend_http_requests_total"
SPEECH, FULL = 'proxy="speech"', 'proxy="full"'
# Labels of the External metric's selector that are figures of the rule, no labels of a series.
HORIZON, SPARE, SHARE, CHUNKS = "horizon_seconds", "spare_streams", "spare_share", "chunks_per_second"
# Of the spare, no more than this many times the streams that there are. With less, a small service follows every swing.
SPARE_PER_STREAM = 4
CHUNK_MS = 160
PRESETS = ("queue_time", "article")
SCRAPE_INTERVAL = 15
SCRAPES_PER_WINDOW = 4
MICROSECONDS_PER_MILLISECOND = 1000


class RuleError(ValueError):
    """An input that can't become a correct rule."""


def seconds(value: object, name: str) -> int:
    """A whole number of seconds above zero, also when written as `15` or `15s`."""
    text = str(value).strip().removesuffix("s")
    if isinstance(value, bool) or not re.fullmatch(r"\d+(\.0+)?", text) or float(text) < 1:
        raise RuleError(f"{name} is {value!r}; expected whole seconds, 1 or more, for example 15")
    return int(float(text))


def window_seconds(scrape_interval: object = SCRAPE_INTERVAL, window: object = None) -> int:
    """The window of the rates: four scrapes, or what was asked for if that is enough."""
    least = SCRAPES_PER_WINDOW * seconds(scrape_interval, "scrape_interval")
    if window is None:
        return least
    chosen = seconds(window, "window")
    if chosen < least:
        raise RuleError(
            f"window is {chosen} s, which is less than {SCRAPES_PER_WINDOW} scrapes of"
            f" {least // SCRAPES_PER_WINDOW} s: after missed scrapes the metric would vanish;"
            f" expected {least} or more"
        )
    return chosen


def quoted(text: str) -> str:
    """A PromQL string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def literal_pattern(text: str) -> str:
    """An RE2 pattern that matches exactly this text."""
    return re.sub(r"([.+*?()|\[\]{}^$\\])", r"\\\1", text)


def alternatives(names: Iterable[str]) -> str:
    """A PromQL string literal whose pattern matches one of the names and nothing else."""
    return quoted("|".join(literal_pattern(name) for name in names))


def model_matchers(models: Sequence[str] = (), exclude_models: Sequence[str] = ()) -> list[str]:
    """Label matchers that keep the named models only, or keep the named ones out."""
    for option, names in (("models", models), ("exclude_models", exclude_models)):
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise RuleError(f"{option} is {names!r}; expected a list of model names")
    matchers = []
    if models:
        matchers.append(f"model=~{alternatives(models)}")
    if exclude_models:
        matchers.append(f"model!~{alternatives(exclude_models)}")
    return matchers


def mean_queue_time(matchers: str, by: str, window: int) -> str:
    """PromQL: mean time in the queue in milliseconds over the window, 0 where no request completed."""
    queue = f"sum by ({by}) (rate({QUEUE_SERIES}{{{matchers}}}[{window}s]))"
    served = f"sum by ({by}) (rate({SUCCESS_SERIES}{{{matchers}}}[{window}s]))"
    return f"({queue} / ({served} > 0) or {queue} * 0) / {MICROSECONDS_PER_MILLISECOND}"


def queue_time_query(
    namespace: str | None = None,
    by: Sequence[str] = ("pod",),
    scrape_interval: object = SCRAPE_INTERVAL,
    window: object = None,
    models: Sequence[str] = (),
    exclude_models: Sequence[str] = (),
    pods: Sequence[str] = (),
    service: str | None = None,
) -> str:
    """The same mean as plain PromQL, for the verification, dashboards and reports.

    `by` names labels of the scraped series: pod, or service for one value over all its pods.
    """
    for label in by:
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", str(label)):
            raise RuleError(f"by names {label!r}, which is no Prometheus label name")
    matchers = []
    if namespace:
        matchers.append(f"namespace={quoted(namespace)}")
    if service:
        matchers.append(f"service={quoted(service)}")
    if pods:
        matchers.append(f"pod=~{alternatives(pods)}")
    matchers += model_matchers(models, exclude_models)
    return mean_queue_time(",".join(matchers), ",".join(by), window_seconds(scrape_interval, window))


def adapter_rule(
    preset: str = "queue_time",
    scrape_interval: object = SCRAPE_INTERVAL,
    window: object = None,
    models: Sequence[str] = (),
    exclude_models: Sequence[str] = (),
    namespace: str = "default",
    metric: str = METRIC,
) -> dict:
    """One rule for prometheus-adapter's `rules.custom`.

    The preset `article` is the rule of NVIDIA's article as printed (with its namespace), wrong as it is,
    so that anyone can compare. Window and models mean nothing to it; an empty namespace means any.
    """
    if preset not in PRESETS:
        raise RuleError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
    overrides = {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    if preset == "article":
        where = f'namespace="{namespace}"' if namespace else 'namespace!=""'
        return {
            "seriesQuery": f'{QUEUE_SERIES}{{{where},pod!=""}}',
            "resources": {"overrides": overrides},
            "name": {"matches": QUEUE_SERIES, "as": metric},
            "metricsQuery": (
                f"avg(delta({QUEUE_SERIES}{{<<.LabelMatchers>>}}[30s])"
                f"/(1+delta({SUCCESS_SERIES}{{<<.LabelMatchers>>}}[30s]))/1000) by (<<.GroupBy>>)"
            ),
        }
    matchers = ",".join(["<<.LabelMatchers>>", *model_matchers(models, exclude_models)])
    return {
        "seriesQuery": f'{QUEUE_SERIES}{{namespace!="",pod!=""}}',
        "resources": {"overrides": overrides},
        "name": {"matches": f"^{QUEUE_SERIES}$", "as": metric},
        "metricsQuery": mean_queue_time(matchers, "<<.GroupBy>>", window_seconds(scrape_interval, window)),
    }


def adapter_rules(preset: str = "queue_time", **options: Any) -> list[dict]:
    """All rules of a preset, ready for `rules.custom`."""
    return [adapter_rule(preset, **options)]


def joined(*matchers: str) -> str:
    return ",".join(matcher for matcher in matchers if matcher)


def streams_of_pods(matchers: str, scrape_interval: int) -> str:
    """PromQL: streams that run on each pod, as its limit counts them."""
    return f"last_over_time({STREAMS_SERIES}{{{joined(SPEECH, matchers)}}}[{scrape_interval * 5 // 2}s])"


def refused_by_pods(matchers: str, window: int) -> str:
    """PromQL: streams that each pod's limit refused in the window."""
    return f"increase({REFUSED_SERIES}{{{joined(FULL, matchers)}}}[{window}s])"


def demand(
    matchers: str,
    by: str,
    horizon: object,
    spare: object,
    share: object,
    chunks_per_second: object,
    scrape_interval: int = SCRAPE_INTERVAL,
    models: str = "",
) -> str:
    """PromQL: streams that a service has to have room for. The figures may be a template's text."""
    window = SCRAPES_PER_WINDOW * scrape_interval
    counted = streams_of_pods(matchers, scrape_interval)
    chunks = f"rate({SUCCESS_SERIES}{{{joined(matchers, models)}}}[{window}s])"
    # A pod without a limit counts by the chunks that it completes.
    running = f"{counted} or {chunks} / {chunks_per_second} unless on (namespace, pod) {counted}"
    wanted = f"sum by ({by}) ({refused_by_pods(matchers, window)} or {running})"
    rise = f"(deriv(sum by ({by}) ({running})[{window}s:{scrape_interval}s]) or {wanted} * 0)"
    return (
        f"{wanted} + clamp_min({horizon} * {rise} - sqrt({wanted}), 0)"
        f" + clamp_max({SPARE_PER_STREAM} * {wanted}, {spare}) + {share} * {wanted}"
    )


def service_matchers(namespace: str, service: str) -> str:
    return f"namespace={quoted(namespace)},service={quoted(service)}"


def demand_query(
    namespace: str,
    service: str,
    horizon_seconds: float = 0,
    spare_streams: float = 0,
    chunks_per_second: float = 1000 / CHUNK_MS,
    scrape_interval: object = SCRAPE_INTERVAL,
    exclude_models: Sequence[str] = (),
    spare_share: float = 0,
) -> str:
    """The demand of one service as plain PromQL, for the verification, dashboards and reports."""
    return demand(
        service_matchers(namespace, service),
        "namespace,service",
        f"{horizon_seconds:g}",
        f"{spare_streams:g}",
        f"{spare_share:g}",
        f"{chunks_per_second:g}",
        seconds(scrape_interval, "scrape_interval"),
        ",".join(model_matchers(exclude_models=exclude_models)),
    )


def from_selector(label: str, otherwise: object) -> str:
    """The adapter's template text for a figure that the metric's selector carries."""
    return f'<<with index .LabelValuesByName "{label}">><<.>><<else>>{otherwise}<<end>>'


def external_rule(
    scrape_interval: object = SCRAPE_INTERVAL, exclude_models: Sequence[str] = (), metric: str = DEMAND_METRIC
) -> dict:
    """The rule for prometheus-adapter's `rules.external` that offers the demand of each speech service.

    The selector of the HPA's metric names the `service` and carries the service's own figures, so that one rule serves
    all services and a change of a figure is a change of that HPA alone. Without a figure its part is left out.
    """
    matchers = (
        'namespace="<<index .LabelValuesByName "namespace">>"'
        '<<with index .LabelValuesByName "service">>,service="<<.>>"<<end>>'
    )
    return {
        "seriesQuery": f'{SUCCESS_SERIES}{{namespace!="",service!=""}}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}}},
        "name": {"matches": f"^{SUCCESS_SERIES}$", "as": metric},
        "metricsQuery": demand(
            matchers,
            "namespace,service",
            from_selector(HORIZON, 0),
            from_selector(SPARE, 0),
            from_selector(SHARE, 0),
            from_selector(CHUNKS, f"{1000 / CHUNK_MS:g}"),
            seconds(scrape_interval, "scrape_interval"),
            ",".join(model_matchers(exclude_models=exclude_models)),
        ),
    }


def external_rules(**options: Any) -> list[dict]:
    """All rules for `rules.external`."""
    return [external_rule(**options)]


def rule_offers(rule: Mapping, metric: str) -> bool:
    """Whether an adapter rule, as found in its ConfigMap, can offer a metric of this name."""
    name = rule.get("name")
    renamed = name.get("as") if isinstance(name, Mapping) else None
    if renamed:
        pattern = re.escape(str(renamed))
        # ${1} or $1 stands for whatever the pattern in `matches` captured.
        pattern = re.sub(r"\\\$(\\\{\w+\\\}|\w+)", ".*", pattern)
        return re.fullmatch(pattern, metric) is not None
    return metric in str(rule.get("seriesQuery") or "")


def quantity(value: object) -> str:
    """A number as a Kubernetes quantity: 20 is `20`, 1.5 is `1500m`. No finer than thousandths."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite() or number <= 0:
        raise RuleError(f"target is {value!r}; expected a number above 0, for example 20 or 1.5")
    milli = number * 1000
    if milli != milli.to_integral_value():
        raise RuleError(f"target is {value!r}; expected at most three decimals, for example 1.5")
    return str(int(number)) if number == number.to_integral_value() else f"{int(milli)}m"


SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"),
    "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip

QUANTITY = re.compile(r"\s*([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:([eE][+-]?\d{1,3})|([KMGTPE]i|[numkMGTPE]|))\s*")


def parse_quantity(text: object) -> float | None:
    """The number behind a Kubernetes quantity, or None where it is none."""
    found = QUANTITY.fullmatch(str(text))
    if not found or isinstance(text, bool):
        return None
    mantissa, exponent, suffix = found.groups()
    if exponent:
        return float(Decimal(mantissa + exponent))
    if suffix not in SUFFIXES:
        return None
    return float(Decimal(mantissa) * SUFFIXES[suffix])


def hpa_metric(target_ms: object, metric: str = METRIC) -> dict:
    """One entry of an HPA's `spec.metrics` (autoscaling/v2): the mean over the pods held at the target."""
    return {
        "type": "Pods",
        "pods": {
            "metric": {"name": metric},
            "target": {"type": "AverageValue", "averageValue": quantity(target_ms)},
        },
    }


def demand_selector(
    service: str,
    horizon_seconds: int,
    spare_streams: int,
    spare_share: float,
    chunks_per_second: float | None = None,
) -> dict[str, str]:
    """The labels by which an HPA asks for a service's demand; chunks where the service has no limit that counts."""
    labels = {
        "service": service,
        HORIZON: f"{horizon_seconds:g}",
        SPARE: f"{spare_streams:g}",
        SHARE: f"{spare_share:g}",
    }
    return labels | ({CHUNKS: f"{chunks_per_second:g}"} if chunks_per_second else {})


def hpa_demand(planned_streams: int, selector: Mapping[str, str], metric: str = DEMAND_METRIC) -> dict:
    """One entry of an HPA's `spec.metrics` (autoscaling/v2): as many pods as the demand needs."""
    return {
        "type": "External",
        "external": {
            "metric": {"name": metric, "selector": {"matchLabels": dict(selector)}},
            "target": {"type": "AverageValue", "averageValue": quantity(planned_streams)},
        },
    }


def limit_query(namespace: str, service: str, by: Sequence[str] = ()) -> str:
    """PromQL: streams that the pods which there are may carry, by their limits."""
    return f"sum by ({','.join(by)}) ({LIMIT_SERIES}{{{joined(SPEECH, service_matchers(namespace, service))}}})"


def streams_query(
    namespace: str, service: str, by: Sequence[str] = ("pod",), scrape_interval: object = SCRAPE_INTERVAL
) -> str:
    """PromQL: streams in flight of each pod (or of the service), where a limit counts them."""
    interval = seconds(scrape_interval, "scrape_interval")
    return f"sum by ({','.join(by)}) ({streams_of_pods(service_matchers(namespace, service), interval)})"


def refused_query(
    namespace: str, service: str, by: Sequence[str] = (), scrape_interval: object = SCRAPE_INTERVAL
) -> str:
    """PromQL: streams refused in the last four scrapes."""
    window = window_seconds(scrape_interval)
    return f"sum by ({','.join(by)}) ({refused_by_pods(service_matchers(namespace, service), window)})"

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a speech service is scaled by: its preset, what was calibrated, and what follows from both. Pure rules.

`docs/decisions/0003` says why; `docs/scaling.md` what each part is worth.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules
from ansible_collections.speechops.riva.plugins.module_utils.inputs import finding

PRESETS = ("article", "economy", "balanced", "latency")
# The dial between cost and refused streams: room for a burst, in pods.
SPARE_PODS = {"economy": 0.5, "balanced": 1.75, "latency": 2.5}
# Beside each spare pod this share of the streams: a pod or two are nothing to a service of hundreds.
SPARE_SHARE_OF_A_POD = 0.06
# The article's own: its target, its number of pods, and the API's defaults, as its HPA has no behaviour.
ARTICLE_TARGET_MS = 0.5
API_DEFAULT_BEHAVIOR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
}
# Without a demand signal queue time is all there is, and has to speak early.
QUEUE_TIME_TARGET_MS = 10
GUARD_SHARE_OF_OBJECTIVE = 0.5
# The limit is what a pod carries; the HPA plans with a little less.
PLANNED_SHARE_OF_LIMIT = 0.97
POD_START_SECONDS = 4
STARTUP_LOADS, STARTUP_LEAST_SECONDS = 10, 300
HPA_SYNC_SECONDS = 15

# Keys of an entry of riva_calibration, and what each has to be.
CALIBRATION = {
    "stream_limit": int,
    "planned_streams": int,
    "queue_time_target_ms": float,
    "latency_objective_ms": int,
    "model_load_seconds": float,
    "cold_start_seconds": float,
    "longest_stream_seconds": int,
    "min_replicas": int,
    "max_replicas": int,
}


# What holds where the role's settings say nothing.
SETTINGS = {
    "scaling_preset": "balanced",
    "longest_stream_seconds": 600,
    "latency_objective_ms": 300,
    "chunk_ms": scaling_rules.CHUNK_MS,
    "scrape_interval": scaling_rules.SCRAPE_INTERVAL,
}


@dataclass(frozen=True)
class Plan:
    """All figures of one service's scaling. None: there is no such part."""

    preset: str
    min_replicas: int
    max_replicas: int
    queue_time_target_ms: float
    metric: str
    behavior: dict
    longest_stream_seconds: int
    stream_limit: int | None
    planned_streams: int | None
    horizon_seconds: int
    spare_streams: int
    spare_share: float
    chunks_per_second: float


def plain(number):
    """A whole number stays whole: 10, 10.0 and "10" are 10, 1.5 is 1.5."""
    value = float(number)
    return int(value) if value == int(value) else value


def horizon_seconds(load_seconds, scrape_interval=scaling_rules.SCRAPE_INTERVAL):
    """From a change of the demand to a pod that carries it: half a scrape, half a look of the HPA, start and load."""
    return round(float(scrape_interval) / 2 + HPA_SYNC_SECONDS / 2 + POD_START_SECONDS + load_seconds)


def spare_share(spare_pods):
    """The share of the streams that is kept free as well: 1.75 spare pods are 10.5 % of them."""
    return round(SPARE_SHARE_OF_A_POD * spare_pods, 4)


def behavior(load_seconds):
    """The HPA's behaviour for a service whose models load this long.

    Up at once: a pod that comes late is what bad service is made of. Down after a calm, and slowly: what is given away
    takes that long to come back.
    """

    def within(low, value, high):
        return int(min(high, max(low, math.ceil(value))))

    return {
        "scaleUp": API_DEFAULT_BEHAVIOR["scaleUp"],
        "scaleDown": {
            "stabilizationWindowSeconds": within(120, 4 * load_seconds, 1800),
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 1, "periodSeconds": within(30, load_seconds, 300)},
                {"type": "Percent", "value": 20, "periodSeconds": within(60, 2 * load_seconds, 600)},
            ],
        },
    }


def startup_seconds(most, measured, fetches):
    """How long a pod may load its models before it is started anew.

    most: riva_model_load_seconds. measured: what a load took, or None. fetches: whether the server itself may fetch
    its models or build its engines first, which no measured load tells. Ten loads are patience enough for a slow disk;
    a load that hangs is seen after them instead of an hour.
    """
    if not measured or fetches:
        return most
    return min(most, max(STARTUP_LEAST_SECONDS, math.ceil(STARTUP_LOADS * float(measured))))


def settled(service, calibration, defaults):
    """What the service itself sets, else what was calibrated for it, else what holds for all."""
    given = {key: value for key, value in service.items() if value is not None}
    measured = {
        key: value for key, value in (calibration or {}).get(service.get("name"), {}).items() if value is not None
    }
    return {**defaults, **measured, **given}


def measured_load(service, calibration):
    """Seconds that a load of the service took, as it says itself or was calibrated; None where nobody knows."""
    return settled(service, calibration, {}).get("model_load_seconds")


def start_seconds(found, settings):
    """Seconds from a pod's start to Ready that scaling has to reckon with; 0 where nobody measured.

    found: `model_load_seconds`, with the models in the store, and `cold_start_seconds`, with an empty one. Which of
    them a new pod meets, `cache_filled` of the settings says.
    """
    warm, cold = (float(found.get(key) or 0) for key in ("model_load_seconds", "cold_start_seconds"))
    return warm if settings.get("cache_filled", True) else max(warm, cold)


def plan(service, calibration, settings):
    """The Plan of one item of riva_services."""
    settings = {**SETTINGS, **settings}
    shared = {
        "scaling_preset": settings["scaling_preset"],
        "longest_stream_seconds": settings["longest_stream_seconds"],
        "latency_objective_ms": settings["latency_objective_ms"],
        "min_replicas": 1,
        "max_replicas": 3,
    }
    if float(settings.get("queue_time_target_ms") or 0):
        shared["queue_time_target_ms"] = settings["queue_time_target_ms"]
    found = settled(service, calibration, shared)
    article = found["scaling_preset"] == "article"
    limit = None if article or not found.get("stream_limit") else int(found["stream_limit"])
    planned = None if article else found.get("planned_streams")
    if planned is None and limit:
        planned = max(1, math.floor(limit * PLANNED_SHARE_OF_LIMIT))
    load = start_seconds(found, settings)
    interval = float(settings["scrape_interval"])
    spare = found.get("spare_pods", SPARE_PODS.get(found["scaling_preset"], 0))
    return Plan(
        preset=found["scaling_preset"],
        min_replicas=int(found["min_replicas"]),
        max_replicas=int(found["max_replicas"]),
        queue_time_target_ms=plain(target_ms(service, found, article, planned)),
        metric=scaling_rules.ARTICLE_METRIC if article else scaling_rules.METRIC,
        behavior=API_DEFAULT_BEHAVIOR if article else behavior(load),
        longest_stream_seconds=int(found["longest_stream_seconds"]),
        stream_limit=limit,
        planned_streams=int(planned) if planned else None,
        # Without the time that a pod needs there is nothing to look ahead to.
        horizon_seconds=horizon_seconds(load, interval) if load else 0,
        spare_streams=round(float(spare) * int(planned)) if planned else 0,
        spare_share=spare_share(float(spare)) if planned else 0,
        chunks_per_second=plain(1000 / float(settings["chunk_ms"])),
    )


def target_ms(service, found, article, planned):
    """The target of the time in the queue: as set, else the article's, half the objective beside a demand, or alone."""
    if article:
        return service.get("queue_time_target_ms") or ARTICLE_TARGET_MS
    if found.get("queue_time_target_ms") is not None:
        return found["queue_time_target_ms"]
    return GUARD_SHARE_OF_OBJECTIVE * float(found["latency_objective_ms"]) if planned else QUEUE_TIME_TARGET_MS


def chart_values(chosen):
    """The part of the riva chart's values that a Plan settles."""
    return {
        "longestStreamSeconds": chosen.longest_stream_seconds,
        "streams": {"limit": chosen.stream_limit} if chosen.stream_limit else {},
        "autoscaling": {
            "minReplicas": chosen.min_replicas,
            "maxReplicas": chosen.max_replicas,
            "queueTimeTargetMs": chosen.queue_time_target_ms,
            "metricName": chosen.metric,
            "behavior": chosen.behavior,
            **({"demand": demand_values(chosen)} if chosen.planned_streams else {}),
        },
    }


def demand_values(chosen):
    return {
        "plannedStreams": chosen.planned_streams,
        "horizonSeconds": chosen.horizon_seconds,
        "spareStreams": chosen.spare_streams,
        "spareShare": plain(chosen.spare_share),
        "chunksPerSecond": chosen.chunks_per_second,
    }


def hpa_metrics(name, chosen):
    """`spec.metrics` of the service's HPA, as the chart writes it."""
    metrics = [scaling_rules.hpa_metric(chosen.queue_time_target_ms, chosen.metric)]
    if chosen.planned_streams:
        selector = scaling_rules.demand_selector(
            name,
            chosen.horizon_seconds,
            chosen.spare_streams,
            chosen.spare_share,
            None if chosen.stream_limit else chosen.chunks_per_second,
        )
        metrics.append(scaling_rules.hpa_demand(chosen.planned_streams, selector))
    return metrics


# What may be wrong with the inputs, beyond their types.


def is_number(value, kind):
    if isinstance(value, bool):
        return False
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return math.isfinite(number) and number > 0 and (kind is float or number == int(number))


def check_calibration(calibration, names):
    """Findings of riva_calibration: services that there are not, unknown keys, values that are no figures."""
    found: list[dict] = []
    if calibration is None:
        return found
    if not isinstance(calibration, dict):
        return [finding("riva_calibration", f"riva_calibration is {calibration!r}", "Set it to a mapping by service.")]
    for name, entry in sorted(calibration.items()):
        place = f"riva_calibration.{name}"
        if not isinstance(entry, dict):
            found.append(
                finding(place, f"{place} is {entry!r}", "Set it to a mapping, as playbooks/calibrate.yml does.")
            )
            continue
        if name not in names:
            known = ", ".join(sorted(names))
            remedy = f"Name it after an item of riva_services ({known}), or remove it."
            found.append(finding(place, f"{place} is for no speech service that there is", remedy, "warning"))
        for key, value in sorted(entry.items()):
            if key not in CALIBRATION:
                near = difflib.get_close_matches(key, CALIBRATION, n=1)
                remedy = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(CALIBRATION)}."
                found.append(finding(f"{place}.{key}", f"{place}.{key} is not known", remedy))
            elif value is not None and not is_number(value, CALIBRATION[key]):
                words = "a number above 0" if CALIBRATION[key] is float else "a whole number, 1 or more"
                found.append(finding(f"{place}.{key}", f"{place}.{key} is {value!r}", f"Set it to {words}."))
    return found


FIGURES = (*CALIBRATION, "spare_pods")
# No room for a burst; no pods at all, from where KEDA wakes a service.
MAY_BE_ZERO = ("spare_pods", "min_replicas")


def check_scaling(services, calibration=None, preset="balanced"):
    """Findings of the scaling settings taken together; types are checked before."""
    services = [item for item in services if isinstance(item, dict)] if isinstance(services, list) else []
    found = check_calibration(calibration, {str(item.get("name")) for item in services})
    for service in services:
        name = service.get("name")
        for key in FIGURES:
            value = service.get(key)
            kind = CALIBRATION.get(key, float)
            if value is not None and not is_number(value, kind) and not (key in MAY_BE_ZERO and value in (0, 0.0)):
                remedy = f"Set {key} of {name} to {'a whole number, 1' if kind is int else 'a number above 0'} or more."
                found.append(finding("riva_services", f"{name}: {key} is {value!r}", remedy))
    if any(item["status"] == "failed" for item in found):
        return found
    for service in services:
        found += check_service(service, calibration, preset)
    return found


def check_service(service, calibration, preset):
    name, found = service.get("name"), []
    merged = settled(service, calibration, {"scaling_preset": preset, "min_replicas": 1, "max_replicas": 3})
    chosen = merged["scaling_preset"]
    limit, planned = merged.get("stream_limit"), merged.get("planned_streams")
    if chosen == "article":
        for key in ("stream_limit", "planned_streams", "spare_pods"):
            if service.get(key) is not None:
                message = f"{name}: {key} is set, but the preset article has none"
                found.append(
                    finding("riva_services", message, f"Remove {key} of {name}, or take another scaling_preset.")
                )
        return found
    if limit and planned and int(planned) > int(limit):
        message = f"{name}: planned_streams {planned} is more than stream_limit {limit}"
        remedy = f"Set planned_streams to {limit} or less: a pod that is planned to be full refuses streams."
        found.append(finding("riva_services", message, remedy))
    if int(merged["min_replicas"]) > int(merged["max_replicas"]):
        message = f"{name}: min_replicas {merged['min_replicas']} is more than max_replicas {merged['max_replicas']}"
        remedy = "Correct them in riva_services or in riva_calibration."
        if service.get("min_replicas") is None or service.get("max_replicas") is None:  # Else told already.
            found.append(finding("riva_services", message, remedy))
    if not limit and not planned:
        found.append(
            finding(
                "riva_services",
                f"{name}: nobody has said how many streams a pod carries, so it scales on queue time alone, which"
                " comes late, and a full pod refuses nothing",
                f"Run playbooks/calibrate.yml, or set stream_limit and model_load_seconds of {name}.",
                "warning",
            )
        )
    return found


def gpus_needed(services, calibration=None):
    """(name, GPUs of a pod, most pods) of each service."""
    return [
        (
            item.get("name"),
            int(item.get("gpus") or 1),
            int(settled(item, calibration, {"max_replicas": 3})["max_replicas"]),
        )
        for item in services or []
        if isinstance(item, dict)
    ]


def check_gpus(needed, allocatable):
    """A warning where all services at their most pods want more GPUs than the nodes offer.

    needed: as gpus_needed; allocatable: GPUs of each node. Nothing is said before there are any.
    """
    if not sum(allocatable):
        return []
    wanted = sum(gpus * pods for _name, gpus, pods in needed)
    fitting = {gpus: sum(node // gpus for node in allocatable) for _name, gpus, _pods in needed if gpus}
    found = []
    for name, gpus, pods in needed:
        if gpus and pods > fitting[gpus]:
            message = f"{name}: max_replicas is {pods}, but only {fitting[gpus]} pods of {gpus} GPU fit on the nodes"
            found.append(
                finding("riva_services", message, f"Set max_replicas of {name} to {fitting[gpus]}.", "warning")
            )
    if not found and wanted > sum(allocatable):
        message = f"the speech services may grow to {wanted} GPUs, but the nodes have {sum(allocatable)}"
        remedy = "Lower max_replicas in riva_services, so that one service can't starve another."
        found.append(finding("riva_services", message, remedy, "warning"))
    return found

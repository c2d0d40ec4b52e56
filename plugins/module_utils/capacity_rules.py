# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much speech services carry and how much of it is in use. Pure: objects in, figures and a table out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.speechops.riva.plugins.module_utils.load_cluster import gpus_per_pod, pod_facts
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import COUNTED, UNSEEN, Streams, serving

ROOM, TIGHT, FULL, UNKNOWN = "room", "nearly full", "full", "unknown"
# From here on, of all that a service can ever carry, somebody should know.
TIGHT_PERCENT = 85.0


@dataclass(frozen=True)
class Gpus:
    """GPUs of the nodes that can take a speech pod. fitting: pods of one service that still find theirs."""

    resource: str
    allocatable: int
    free: int
    nodes: int


def limit_of(streams: Streams, given: int | None) -> tuple[int | None, str]:
    """Return how many streams a pod carries, and who says so: the pods' own limit, else the calibration."""
    if streams.limits:
        return round(min(streams.limits.values())), "limit of the pods"
    return (int(given), "calibration") if given else (None, UNKNOWN)


def service_row(
    namespace: str,
    name: str,
    hpa: Mapping | None,
    deployment: Mapping,
    pods: Sequence[Mapping],
    streams: Streams,
    calibrated: int | None,
    fitting: int,
) -> dict:
    """Return what one service carries. *fitting*: further pods of it that find their GPUs."""
    status = deployment.get("status") or {}
    ready = status.get("readyReplicas") or 0
    there = sum((pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for pod in pods)
    waiting = sum((pod.get("status") or {}).get("phase") == "Pending" for pod in pods)
    fixed = deployment["spec"].get("replicas", 1)
    spec = hpa["spec"] if hpa else {"minReplicas": fixed, "maxReplicas": fixed}
    desired = ((hpa or {}).get("status") or {}).get("desiredReplicas") or fixed
    each, source = limit_of(streams, calibrated)
    most = spec["maxReplicas"]
    # A pod that waits for a GPU holds none; those that hold one may stay.
    reachable = min(most, there - waiting + fitting)
    seen = streams.source != UNSEEN
    used = round(sum(streams.in_flight.values()), 1) if seen else None
    names = [pod["metadata"]["name"] for pod in pods if pod_facts(pod)["ready"]]
    now = each * serving(names, streams.in_flight, streams.limits) if each else None
    at_most = each * reachable if each else None
    return {
        "name": name,
        "namespace": namespace,
        "streams": used if used is None or streams.source != COUNTED else int(used),
        "streams_source": streams.source,
        "streams_per_pod": each,
        "streams_per_pod_source": source,
        "carries_now": now,
        "carries_at_most": at_most,
        "used_percent": percent(used, now),
        "used_of_most_percent": percent(used, at_most),
        "replicas": {
            "ready": ready,
            "desired": desired,
            "min": spec.get("minReplicas", 1),
            "max": most,
            "reachable": reachable,
            "waiting": waiting,
        },
        "gpus_per_pod": gpus_per_pod(deployment),
        "fitting_pods": fitting,
        "pods": {pod: value for pod, value in sorted(streams.in_flight.items())},
        "state": state_of(used, at_most),
        "error": "",
    }


def missing_row(namespace: str, name: str, error: str) -> dict:
    """Return the row of a service that could not be read."""
    return {"name": name, "namespace": namespace, "state": UNKNOWN, "error": error}


def percent(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(100 * part / whole, 1)


def state_of(used: float | None, at_most: int | None) -> str:
    """Say how near a service is to what it can carry with all the pods that it may have and that find a GPU."""
    if used is None or at_most is None:
        return UNKNOWN
    if used >= at_most:
        return FULL
    return TIGHT if 100 * used >= TIGHT_PERCENT * at_most else ROOM


def document(cluster: str, gpus: Gpus, services: Sequence[Mapping]) -> dict:
    """What is known of one cluster, for other programs."""
    return {
        "cluster": cluster,
        "gpus": {"resource": gpus.resource, "allocatable": gpus.allocatable, "free": gpus.free, "nodes": gpus.nodes},
        "services": list(services),
    }


COLUMNS = ("SERVICE", "STREAMS", "CARRIES NOW", "USED", "AT MOST", "PODS", "STATE")


def cells(row: Mapping) -> tuple[str, ...]:
    """One row of the table as text."""
    subject = f"{row['namespace']}/{row['name']}"
    if row["error"]:
        return (subject, "-", "-", "-", "-", "-", row["error"])
    replicas = row["replicas"]
    pods = f"{replicas['ready']} ready, {replicas['desired']} wanted, {replicas['min']} to {replicas['max']}"
    about = "" if row["streams_source"] == COUNTED else "~"
    return (
        subject,
        "-" if row["streams"] is None else f"{about}{row['streams']:g}",
        text(row["carries_now"]),
        "-" if row["used_percent"] is None else f"{row['used_percent']:.0f} %",
        text(row["carries_at_most"]),
        pods,
        row["state"],
    )


def text(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def remarks(row: Mapping) -> list[str]:
    """Say below the table what explains a row."""
    if row["error"]:
        return []
    subject, replicas, found = f"{row['namespace']}/{row['name']}", row["replicas"], []
    if row["streams_per_pod"] is None:
        found.append(
            f"{subject}: nobody has said what one pod carries; run playbooks/calibrate.yml, or set stream_limit"
        )
    if row["streams_source"] == UNSEEN:
        found.append(f"{subject}: Prometheus knows no streams of it; playbooks/verify.yml says where the metrics end")
    elif row["streams_source"] != COUNTED:
        found.append(f"{subject}: ~ streams are estimated from the throughput; with a stream_limit they are counted")
    if replicas["waiting"]:
        found.append(f"{subject}: {replicas['waiting']} pods are pending (kubectl describe pod says why)")
    if replicas["reachable"] < replicas["max"]:
        found.append(
            f"{subject}: the GPUs have room for {replicas['reachable']} of at most {replicas['max']} pods "
            f"({row['gpus_per_pod']} GPU each)"
        )
    return found


def table(found: Mapping) -> list[str]:
    """Return the table of one cluster: its GPUs, a line a service, and what explains them."""
    gpus = found["gpus"]
    rows = [COLUMNS, *(cells(row) for row in found["services"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    right = {1, 2, 3, 4}
    lines = [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    heading = (
        f"{found['cluster']}: {gpus['free']} of {gpus['allocatable']} GPUs free on {gpus['nodes']} nodes"
        f" ({gpus['resource']})"
    )
    return [heading, *lines, *(f"-> {remark}" for row in found["services"] for remark in remarks(row))]

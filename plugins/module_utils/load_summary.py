# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the records of a load test to its figures. Pure: the same records always give the same summary.

Times are seconds since the start of the load test, latencies are milliseconds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import (
    changes,
    distribution,
    integral,
    of_kind,
    path_of,
    percentile,
    seconds_since,
    turning_points,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import schedule_of
from ansible_collections.speechops.riva.plugins.module_utils.load_words import headline, notes

SCHEMA = 2
# About so many points has each curve in the summary.
SERIES_POINTS = 240
SETTINGS = (
    "speech",
    "chunk_duration_ms",
    "stream_seconds",
    "stream_distribution",
    "objective_ms",
    "tail_seconds",
    "sample_seconds",
)
NEW_SIZE = re.compile(r"New size: (\d+)")


def summarise(records: list[dict]) -> dict:
    """Compute all figures of the report."""
    start = of_kind(records, "start")[0]
    plan = start["plan"]
    windows, samples = of_kind(records, "streams"), of_kind(records, "cluster")
    end = of_kind(records, "end")
    end_s = records[-1]["t"]
    summary = {
        "schema": SCHEMA,
        "headline": "",
        "label": plan.get("label") or "",
        "started": start["time"],
        "duration_s": round(end_s, 1),
        "end_reason": end[0]["reason"] if end else "cut off: the records stop without an end",
        "endpoint": plan["endpoint"],
        "service": f"{plan['namespace']}/{plan['name']}",
        "settings": {key: plan.get(key) for key in SETTINGS},
        "audio": start["audio"],
        "streams": stream_figures(records),
        "chunks": chunk_figures(windows),
        "bad_service": bad_service(of_kind(records, "stream")),
        "latency_ms": distribution([value for window in windows for value in window["latency_ms"]]),
        "real_time_factor": _of_streams(records, "real_time_factor", 4),
        "first_response_ms": _of_streams(records, "first_response_ms"),
        "final_ms": _of_streams(records, "final_ms"),
        "pacing_lag_ms": distribution([value for window in windows for value in window["pacing_lag_ms"]]),
        "phases": phase_figures(plan, records, end_s),
        "replicas": replica_figures(samples),
        "hpa": hpa_figures(start["time"], records),
        "pods": pod_figures(start["time"], samples),
        "times": time_figures(records),
        "streams_per_pod": streams_per_pod(records),
        **cost_figures(samples, end_s),
        "samples": {"taken": len(samples), "failed": len(of_kind(records, "cluster_error"))},
    }
    summary["capacity"] = capacity_figures(summary, plan, samples)
    summary["series"] = series_figures(records, end_s)
    summary["notes"] = notes(summary, plan, records)
    summary["headline"] = headline(summary)
    return summary


def stream_figures(records: list[dict]) -> dict:
    streams, windows = of_kind(records, "stream"), of_kind(records, "streams")
    states = Counter(stream["state"] for stream in streams)
    audio = round(sum(s["seconds"] * s["sent"] / s["chunks"] for s in streams if s["chunks"]), 1)
    load_end = max([s["t"] for s in streams], default=0)
    opened = max([window["opened"] for window in windows], default=0)
    failures = Counter((s["code"], s["details"]) for s in streams if s["state"] == "failed")
    refusals = Counter(s["details"] for s in streams if s["state"] == "refused")
    return {
        "opened": opened,
        "finished": states["finished"],
        "failed": states["failed"],
        "refused": states["refused"],
        "stopped": opened - states["finished"] - states["failed"] - states["refused"],
        "most_in_flight": max([window["in_flight"] for window in windows], default=0),
        "audio_s": audio,
        # Seconds of audio for each second of load, as NVIDIA's own client counts throughput.
        "rtfx": round(audio / load_end, 2) if load_end else None,
        "failures": [
            {"code": code, "details": details, "count": count}
            for (code, details), count in sorted(failures.items(), key=lambda item: -item[1])
        ],
        "refusals": [{"details": details, "count": count} for details, count in refusals.most_common()],
        "errors": dict(Counter(s["code"] for s in streams if s["state"] in ("failed", "refused")).most_common()),
    }


def bad_service(streams: list[dict]) -> dict:
    """Return the share of chunks that were answered later than the objective, or not at all.

    A refused stream counts with all its chunks, a failed one with those that got no answer. A stream that the end of
    the test cut counts with what was answered.
    """
    late = sum(stream["late"] for stream in streams)
    whole = [stream for stream in streams if stream["state"] != "stopped"]
    missing = {
        state: sum(s["chunks"] - s["answered"] for s in whole if s["state"] == state)
        for state in ("refused", "failed", "finished")
    }
    chunks = sum(s["chunks"] for s in whole) + sum(s["answered"] for s in streams if s["state"] == "stopped")
    bad = late + sum(missing.values())
    return {
        "chunks": chunks,
        "late": late,
        "refused": missing["refused"],
        "lost": missing["failed"] + missing["finished"],
        "percent": round(100 * bad / chunks, 3) if chunks else 0.0,
    }


def cost_figures(samples: list[dict], end_s: float) -> dict:
    """Return what the service cost: each pod counts from its creation until it is gone, so loading and draining do."""
    held = [{"t": s["t"], "pods": len(s["pods"]), "gpus": len(s["pods"]) * s.get("gpus_per_pod", 0)} for s in samples]
    return {
        "pod_seconds": round(integral(held, "pods", end_s), 0),
        "gpu_seconds": round(integral(held, "gpus", end_s), 0),
        "gpus_per_pod": samples[-1].get("gpus_per_pod", 0) if samples else None,
    }


def capacity_figures(summary: dict, plan: dict, samples: list[dict]) -> dict:
    """Return what the service can carry: a pod's limit, else its calibrated capacity, times its pods.

    used_percent: the most streams in flight, as a share of what the most pods that it may have carry.
    """
    limit = summary["streams_per_pod"]["limit"]
    each = limit if limit is not None else plan.get("stream_limit")
    most = samples[-1]["max"] if samples else None
    ready = max((sample["ready"] for sample in samples), default=None)
    full = each * most if each and most else None
    return {
        "streams_per_pod": each,
        "source": "limit of the pods" if limit is not None else "calibration" if each else "unknown",
        "at_most_ready": each * ready if each and ready is not None else None,
        "at_max_replicas": full,
        "used_percent": round(100 * summary["streams"]["most_in_flight"] / full, 1) if full else None,
    }


def pod_streams_over_time(records: list[dict]) -> tuple[str, Sequence[tuple[float, Mapping[str, float]]]]:
    """Return how the streams of each pod are known, and (seconds, streams by pod) over time.

    Best where the server names its pod in each answer: then it is the client's own count.
    """
    named = [stream for stream in of_kind(records, "stream") if stream.get("pod")]
    samples = of_kind(records, "cluster")
    if named and samples:
        found = []
        for sample in samples:
            at = sample["t"]
            there = Counter(stream["pod"] for stream in named if stream["opened"] <= at < stream["t"])
            ready = [pod["name"] for pod in sample["pods"] if pod["ready"] and not pod["leaving"]]
            found.append((at, {name: there[name] for name in sorted({*ready, *there})}))
        return "named by the server", found
    read = [sample for sample in samples if sample.get("streams")]
    source = next((sample["streams_source"] for sample in read if sample["streams_source"] == "counted"), "")
    source = source or next((sample["streams_source"] for sample in read), "unseen")
    read = [sample for sample in read if sample["streams_source"] == source]
    return source, [(sample["t"], sample["streams"]) for sample in read]


def streams_per_pod(records: list[dict]) -> dict:
    """Return the streams of each pod: the most and the mean at once; with the server's help, how many in all."""
    source, seen = pod_streams_over_time(records)
    named = Counter(stream["pod"] for stream in of_kind(records, "stream") if stream.get("pod"))
    values: dict[str, list[float]] = {}
    for _, pods in seen:
        for pod, streams in pods.items():
            values.setdefault(pod, []).append(streams)
    limits = [limit for sample in of_kind(records, "cluster") for limit in sample.get("limits", {}).values()]
    return {
        "source": source,
        "limit": max(limits, default=None),
        "most": max((max(found) for found in values.values()), default=None),
        "pods": [
            {
                "name": pod,
                "most": max(found),
                "mean": round(sum(found) / len(found), 2),
                "served": named[pod] if named else None,
            }
            for pod, found in sorted(values.items())
        ],
    }


def series_figures(records: list[dict], end_s: float) -> dict:
    """Return the curves of a test, short enough for a summary: one value for each point of one time axis.

    A report that compares tests needs nothing else. Values are those at the end of a point's stretch of time, but for
    latencies (percentiles of the stretch). None: not seen.
    """
    step = max(1.0, math.ceil(end_s / SERIES_POINTS))
    count = max(1, math.ceil(end_s / step))
    places = range(count)

    def placed(rows: list[dict]) -> list[dict | None]:
        """The last row of each stretch; where a stretch has none, that of the stretch before."""
        found: list[dict | None] = [None] * count
        for row in rows:
            found[min(count - 1, int(row["t"] / step))] = row
        for place in places[1:]:
            found[place] = found[place] or found[place - 1]
        return found

    def column(rows: list[dict | None], key: str) -> list:
        return [row.get(key) if row else None for row in rows]

    samples, windows = of_kind(records, "cluster"), of_kind(records, "streams")
    clusters, seconds = placed(samples), placed(windows)
    latencies: list[list[float]] = [[] for _ in places]
    for window in windows:
        latencies[min(count - 1, int(window["t"] / step))] += window["latency_ms"]
    latencies = [sorted(values) for values in latencies]
    held = [len(sample["pods"]) * (sample.get("gpus_per_pod") or 0) if sample else 0 for sample in clusters]
    _, pod_streams = pod_streams_over_time(records)
    per_pod = placed([{"t": at, "values": list(pods.values())} for at, pods in pod_streams])
    metrics = list(dict.fromkeys(metric["name"] for sample in samples for metric in sample["metrics"]))
    return {
        "step_s": step,
        "t": [round((place + 1) * step, 1) for place in places],
        **{key: column(clusters, key) for key in ("desired", "ready")},
        **{key: column(seconds, key) for key in ("level", "in_flight", "failed", "refused")},
        "gpu_seconds": [round(sum(held[: place + 1]) * step) for place in places],
        "latency_ms": {
            f"p{p}": [percentile(values, p) if values else None for values in latencies] for p in (50, 95, 99)
        },
        "streams_per_pod": {
            "most": [max(row["values"], default=None) if row else None for row in per_pod],
            "mean": [
                round(sum(row["values"]) / len(row["values"]), 2) if row and row["values"] else None for row in per_pod
            ],
        },
        "metrics": [
            {
                "name": name,
                "target": next((m["target"] for s in samples for m in s["metrics"] if m["name"] == name), None),
                "values": [
                    next((m["value"] for m in sample["metrics"] if m["name"] == name), None) if sample else None
                    for sample in clusters
                ],
            }
            for name in metrics
        ],
    }


def chunk_figures(windows: list[dict]) -> dict:
    sent, answered, late = (
        sum(window[key] for window in windows) for key in ("chunks_sent", "chunks_answered", "chunks_late")
    )
    return {
        "sent": sent,
        "answered": answered,
        "unanswered": sent - answered,
        "late": late,
        "late_percent": round(100 * late / sent, 2) if sent else 0.0,
    }


def _of_streams(records: list[dict], key: str, digits: int = 1) -> dict:
    return distribution([s[key] for s in of_kind(records, "stream") if s.get(key) is not None], digits)


def phase_figures(plan: dict, records: list[dict], end_s: float) -> list[dict]:
    """Return the figures of each phase, the tail last."""
    phases = schedule_of(plan).phases
    spans = [(phase.name, phase.start, phase.end, phase.streams) for phase in phases]
    if end_s > phases[-1].end:
        spans.append(("tail", phases[-1].end, end_s, 0))
    figures = []
    for index, (name, start, end, streams) in enumerate(spans):
        if start >= end_s:
            break
        windows = [w for w in of_kind(records, "streams") if w["phase"] == index]
        inside = [s for s in of_kind(records, "cluster") if start <= s["t"] < end]
        figures.append(
            {
                "name": name,
                "from_s": start,
                "to_s": round(min(end, end_s), 1),
                "streams": streams,
                **{
                    state: sum(s["state"] == state and start <= s["t"] < end for s in of_kind(records, "stream"))
                    for state in ("failed", "refused")
                },
                "most_desired": max([s["desired"] for s in inside], default=None),
                "most_ready": max([s["ready"] for s in inside], default=None),
                "chunks": chunk_figures(windows),
                "latency_ms": distribution([value for window in windows for value in window["latency_ms"]]),
            }
        )
    return figures


def replica_figures(samples: list[dict]) -> dict:
    path = path_of([sample["desired"] for sample in samples])
    return {
        "path": path,
        "turning_points": turning_points(path),
        "changes": changes(samples, "desired"),
        "ready_path": path_of([sample["ready"] for sample in samples]),
        "ready_changes": changes(samples, "ready"),
        "min": samples[-1]["min"] if samples else None,
        "max": samples[-1]["max"] if samples else None,
        "most_desired": max([sample["desired"] for sample in samples], default=None),
        "most_ready": max([sample["ready"] for sample in samples], default=None),
    }


def hpa_figures(start_time: str, records: list[dict]) -> dict:
    decisions = []
    for event in of_kind(records, "event"):
        size = NEW_SIZE.search(event["message"])
        if event["reason"] == "SuccessfulRescale" and size:
            at = seconds_since(start_time, event["time"])
            decisions.append({"t_s": at, "to": int(size.group(1)), "message": event["message"]})
    values: dict[str, dict] = {}
    for sample in of_kind(records, "cluster"):
        for metric in sample["metrics"]:
            seen = values.setdefault(metric["name"], {"target": metric["target"], "values": [], "unknown": 0})
            if metric["value"] is None:
                seen["unknown"] += 1
            else:
                seen["values"].append(metric["value"])
    return {
        "decisions": sorted(decisions, key=lambda decision: decision["t_s"] or 0.0),
        "metrics": [
            {
                "name": name,
                "target": seen["target"],
                "max": max(seen["values"], default=None),
                "mean": round(sum(seen["values"]) / len(seen["values"]), 3) if seen["values"] else None,
                "unknown_samples": seen["unknown"],
            }
            for name, seen in values.items()
        ],
    }


def pod_figures(start_time: str, samples: list[dict]) -> list[dict]:
    """Return each pod that was seen, with the times it was made, became ready and was last seen."""
    pods: dict[str, dict] = {}
    for sample in samples:
        for pod in sample["pods"]:
            seen = pods.setdefault(
                pod["name"],
                {
                    "name": pod["name"],
                    "node": "",
                    "created_s": seconds_since(start_time, pod["created"]),
                    "ready_s": None,
                    "last_seen_s": None,
                    "restarts": 0,
                },
            )
            seen["node"] = pod["node"] or seen["node"]
            if seen["ready_s"] is None:
                seen["ready_s"] = seconds_since(start_time, pod["ready"])
            seen["last_seen_s"] = sample["t"]
            seen["restarts"] = pod["restarts"]
    return sorted(pods.values(), key=lambda pod: (pod["created_s"] or 0.0, pod["name"]))


def time_figures(records: list[dict]) -> dict:
    """Return when the decisive things happened; None for what did not happen."""
    samples = of_kind(records, "cluster")
    load_end = max([stream["t"] for stream in of_kind(records, "stream")], default=None)
    times = {
        "first_scale_up_s": None,
        "first_new_pod_ready_s": None,
        "all_ready_s": None,
        "load_end_s": load_end,
        "back_at_min_s": None,
    }
    if not samples:
        return times
    first_up = next((c for c in changes(samples, "desired") if c["to"] > c["from"]), None)
    if first_up is None:
        return times
    most = max(sample["desired"] for sample in samples)
    times["first_scale_up_s"] = first_up["t_s"]
    after = [sample for sample in samples if sample["t"] >= first_up["t_s"]]
    times["first_new_pod_ready_s"] = next((s["t"] for s in after if s["ready"] > samples[0]["ready"]), None)
    times["all_ready_s"] = next((s["t"] for s in after if s["ready"] >= most), None)
    above = max(s["t"] for s in samples if s["desired"] > s["min"] or s["replicas"] > s["min"])
    times["back_at_min_s"] = next((s["t"] for s in samples if s["t"] > above), None)
    return times

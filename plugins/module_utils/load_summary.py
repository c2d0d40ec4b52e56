# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the records of a load test to its figures. Pure: the same records always give the same summary.

Times are seconds since the start of the load test, latencies are milliseconds.
"""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from itertools import groupby, pairwise

from ansible_collections.speechops.riva.plugins.module_utils.load_profile import Step, phases_of

PERCENTILES = (50, 90, 95, 99)
SETTINGS = ("chunk_duration_ms", "stream_seconds", "objective_ms", "tail_seconds", "sample_seconds")
NEW_SIZE = re.compile(r"New size: (\d+)")


def percentile(ordered: list[float], percent: float) -> float:
    """Return the nearest-rank percentile of values in ascending order: a value that was really measured."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def distribution(values: list[float]) -> dict:
    """Return count, mean, percentiles and maximum; only the count where nothing was measured."""
    if not values:
        return {"count": 0, "mean": None, **{f"p{p}": None for p in PERCENTILES}, "max": None}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "mean": round(sum(ordered) / len(ordered), 1),
        **{f"p{p}": percentile(ordered, p) for p in PERCENTILES},
        "max": ordered[-1],
    }


def path_of(values: list) -> list:
    """Drop repeats that follow each other: 1 1 2 3 3 1 becomes 1 2 3 1."""
    return [value for value, _ in groupby(values)]


def turning_points(path: list[int]) -> list[int]:
    """Keep the ends of a path and the places where it turns: 1 2 3 2 1 becomes 1 3 1."""
    if len(path) < 3:
        return list(path)
    inner = [b for (a, b), (_, c) in pairwise(pairwise(path)) if (b > a) != (c > b)]
    return [path[0], *inner, path[-1]]


def changes(samples: list[dict], key: str) -> list[dict]:
    """Return when a figure of the samples changed, and how."""
    return [
        {"t_s": new["t"], "from": old[key], "to": new[key]} for old, new in pairwise(samples) if new[key] != old[key]
    ]


def integral(samples: list[dict], key: str, end: float) -> float:
    """Return the sum of a figure over time; each sample holds until the next one."""
    times = [sample["t"] for sample in samples] + [end]
    return sum(sample[key] * max(0.0, times[i + 1] - times[i]) for i, sample in enumerate(samples))


def seconds_since(start: str, moment: str | None) -> float | None:
    if not moment:
        return None
    return round((_parse(moment) - _parse(start)).total_seconds(), 1)


def _parse(moment: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))


def of_kind(records: list[dict], kind: str) -> list[dict]:
    return [record for record in records if record["kind"] == kind]


def summarise(records: list[dict]) -> dict:
    """Compute all figures of the report."""
    start = of_kind(records, "start")[0]
    plan = start["plan"]
    windows, samples = of_kind(records, "streams"), of_kind(records, "cluster")
    end = of_kind(records, "end")
    end_s = records[-1]["t"]
    summary = {
        "schema": 1,
        "headline": "",
        "started": start["time"],
        "duration_s": round(end_s, 1),
        "end_reason": end[0]["reason"] if end else "cut off: the records stop without an end",
        "endpoint": plan["endpoint"],
        "service": f"{plan['namespace']}/{plan['name']}",
        "settings": {key: plan[key] for key in SETTINGS},
        "audio": start["audio"],
        "streams": stream_figures(records),
        "chunks": chunk_figures(windows),
        "latency_ms": distribution([value for window in windows for value in window["latency_ms"]]),
        "first_response_ms": _of_streams(records, "first_response_ms"),
        "final_ms": _of_streams(records, "final_ms"),
        "pacing_lag_ms": distribution([value for window in windows for value in window["pacing_lag_ms"]]),
        "phases": phase_figures(plan, records, end_s),
        "replicas": replica_figures(samples),
        "hpa": hpa_figures(start["time"], records),
        "pods": pod_figures(start["time"], samples),
        "times": time_figures(records),
        "pod_seconds": round(integral(samples, "replicas", end_s), 0),
        "samples": {"taken": len(samples), "failed": len(of_kind(records, "cluster_error"))},
    }
    summary["notes"] = notes(summary, plan, records)
    summary["headline"] = headline(summary)
    return summary


def stream_figures(records: list[dict]) -> dict:
    streams, windows = of_kind(records, "stream"), of_kind(records, "streams")
    states = Counter(stream["state"] for stream in streams)
    opened = max([window["opened"] for window in windows], default=0)
    failures = Counter((s["code"], s["details"]) for s in streams if s["state"] == "failed")
    return {
        "opened": opened,
        "finished": states["finished"],
        "failed": states["failed"],
        "stopped": opened - states["finished"] - states["failed"],
        "most_in_flight": max([window["in_flight"] for window in windows], default=0),
        "audio_s": round(sum(s["seconds"] * s["sent"] / s["chunks"] for s in streams if s["chunks"]), 1),
        "failures": [
            {"code": code, "details": details, "count": count}
            for (code, details), count in sorted(failures.items(), key=lambda item: -item[1])
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


def _of_streams(records: list[dict], key: str) -> dict:
    return distribution([s[key] for s in of_kind(records, "stream") if s.get(key) is not None])


def phase_figures(plan: dict, records: list[dict], end_s: float) -> list[dict]:
    """Return the figures of each phase, the tail last."""
    phases = phases_of([Step(**step) for step in plan["steps"]])
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
                "failed": sum(s["state"] == "failed" and start <= s["t"] < end for s in of_kind(records, "stream")),
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


def notes(summary: dict, plan: dict, records: list[dict]) -> list[str]:
    """Say what a reader must know before trusting the figures."""
    found = []
    lag, chunk = summary["pacing_lag_ms"]["p99"], plan["chunk_duration_ms"]
    if lag is not None and lag > chunk / 4:
        found.append(
            f"The sender itself ran late: 1 % of the chunks left more than {lag:g} ms after they were due "
            f"(a chunk is {chunk} ms). The load was less even than planned; run it where more CPU is free."
        )
    if summary["streams"]["opened"] >= plan["max_streams"]:
        found.append(f"The limit of {plan['max_streams']} streams (max_streams) was reached.")
    if summary["samples"]["failed"]:
        last = of_kind(records, "cluster_error")[-1]["message"]
        found.append(f"{summary['samples']['failed']} looks at the cluster failed; the last: {last}")
    for metric in summary["hpa"]["metrics"]:
        if metric["unknown_samples"]:
            found.append(
                f"The HPA showed <unknown> for {metric['name']} in {metric['unknown_samples']} "
                f"of {summary['samples']['taken']} samples."
            )
    if summary["end_reason"] not in ("back at the minimum", "profile done"):
        found.append(f"The test ended early or late: {summary['end_reason']}.")
    return found


def headline(summary: dict) -> str:
    """Say in one sentence what happened."""
    points = summary["replicas"]["turning_points"]
    if len(points) > 1:
        size = " → ".join(str(point) for point in points) + " replicas"
    elif points:
        size = f"stayed at {points[0]} replica{'' if points[0] == 1 else 's'}"
    else:
        size = "replicas not seen"
    streams = summary["streams"]
    parts = [size, f"{streams['failed']} of {streams['opened']} streams failed"]
    if summary["latency_ms"]["p95"] is not None:
        parts.append(f"p95 latency {summary['latency_ms']['p95']:.0f} ms")
    late, objective = summary["chunks"]["late_percent"], summary["settings"]["objective_ms"]
    parts.append(f"{late:g} % of chunks later than {objective:g} ms")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def verdict(summary: dict, max_failed: int, expected: list[int] | None) -> list[str]:
    """Say what was not as it should be: streams that failed, replicas that went another way."""
    problems = []
    streams, replicas = summary["streams"], summary["replicas"]
    if streams["failed"] > max_failed:
        causes = [f"{f['count']} times {f['code']} {f['details']}" for f in streams["failures"][:5]]
        problems.append(
            f"{streams['failed']} of {streams['opened']} streams failed, {max_failed} may (max_failed_streams): "
            + ", ".join(causes)
        )
    if expected:
        way = shown(replicas["path"])
        if not matches_path(replicas, expected):
            problems.append(f"the replicas went {way}, not {shown(expected)} (expect_replicas)")
        elif replicas["most_ready"] < max(expected):
            problems.append(
                f"{max(expected)} replicas were asked for, but only {replicas['most_ready']} became ready "
                "(expect_replicas)"
            )
    return problems


def matches_path(replicas: dict, expected: list[int]) -> bool:
    """Say whether the replicas went the expected way; sizes on the way up or down need not be named."""
    return expected in (replicas["path"], replicas["turning_points"])


def figure_rows(summary: dict) -> list[tuple[str, str, str]]:
    """Return the figures of the table: what it is, where it lies in the summary, the value as text."""
    rows = [
        ("Replicas desired", "replicas.path"),
        ("Replicas ready", "replicas.ready_path"),
        ("Streams opened", "streams.opened"),
        ("Streams finished", "streams.finished"),
        ("Streams failed", "streams.failed"),
        ("Most streams in flight", "streams.most_in_flight"),
        ("Audio sent (s)", "streams.audio_s"),
        ("Chunks sent", "chunks.sent"),
        ("Chunks late", "chunks.late"),
        ("Chunks late (%)", "chunks.late_percent"),
        ("Chunks without an answer", "chunks.unanswered"),
        *((f"Latency {name} (ms)", f"latency_ms.{name}") for name in ("p50", "p90", "p95", "p99", "max")),
        ("First response p95 (ms)", "first_response_ms.p95"),
        ("Final result p95 (ms)", "final_ms.p95"),
        ("First scale-up (s after start)", "times.first_scale_up_s"),
        ("First new pod ready (s after start)", "times.first_new_pod_ready_s"),
        ("All pods ready (s after start)", "times.all_ready_s"),
        ("Load ended (s after start)", "times.load_end_s"),
        ("Back at the minimum (s after start)", "times.back_at_min_s"),
        ("Pod-seconds", "pod_seconds"),
        ("Sender's lag p99 (ms)", "pacing_lag_ms.p99"),
        ("Duration (s)", "duration_s"),
    ]
    return [(label, place, shown(look_up(summary, place))) for label, place in rows]


def look_up(summary: dict, place: str):
    value = summary
    for key in place.split("."):
        value = value[key]
    return value


def shown(value) -> str:
    """Write a figure for people."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " → ".join(str(part) for part in value) or "-"
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def console_table(summary: dict) -> list[str]:
    """Return the table for the end of the playbook."""
    rows = figure_rows(summary)
    width = max(len(label) for label, _, _ in rows)
    lines = [f"{label.ljust(width)}  {text}" for label, _, text in rows]
    for failure in summary["streams"]["failures"]:
        lines.append(f"  failed {failure['count']} times: {failure['code']} {failure['details']}")
    return [summary["headline"], "", *lines, *(f"Note: {note}" for note in summary["notes"])]

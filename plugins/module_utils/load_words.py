# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a load test's summary says to people: headline, notes, verdict, rows of figures, the table at its end."""

from __future__ import annotations

from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import of_kind


def notes(summary: dict, plan: dict, records: list[dict]) -> list[str]:
    """Say what a reader must know before trusting the figures."""
    found = []
    lag, chunk = summary["pacing_lag_ms"]["p99"], plan["chunk_duration_ms"]
    if plan.get("speech", "asr") != "asr":
        first = "its first audio" if plan["speech"] == "tts" else "its translation"
        chunk = plan["text_seconds"] * 1000
        found.append(
            f"A stream is a caller who gives a text every {plan['text_seconds']:g} s, a chunk is a text, and its "
            f"latency the time to {first}."
        )
    if lag is not None and lag > chunk / 4:
        found.append(
            f"The sender itself ran late: 1 % of the chunks left more than {lag:g} ms after they were due "
            f"(a chunk is {chunk:g} ms). The load was less even than planned; run it where more CPU is free."
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
    errors = [sample["streams_error"] for sample in of_kind(records, "cluster") if sample.get("streams_error")]
    if errors:
        found.append(f"Prometheus did not say how many streams each pod has ({len(errors)} times asked): {errors[-1]}")
    elif summary["streams_per_pod"]["source"] == "estimated":
        found.append(
            "Streams per pod are estimated from the throughput of each pod, which says too little where pods are "
            "saturated; a stream limit on the pods (riva_services, stream_limit) counts them."
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
    if streams["refused"]:
        parts.append(f"{streams['refused']} were refused")
    if summary["latency_ms"]["p95"] is not None:
        parts.append(f"p95 latency {summary['latency_ms']['p95']:.0f} ms")
    late, objective = summary["chunks"]["late_percent"], summary["settings"]["objective_ms"]
    parts.append(f"{late:g} % of chunks later than {objective:g} ms")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def verdict(summary: dict, max_failed: int, expected: list[int] | None, max_refused: int = 0) -> list[str]:
    """Say what was not as it should be: streams that failed or were refused, replicas that went another way."""
    problems = []
    streams, replicas = summary["streams"], summary["replicas"]
    if streams["failed"] > max_failed:
        causes = [f"{f['count']} times {f['code']} {f['details']}" for f in streams["failures"][:5]]
        problems.append(
            f"{streams['failed']} of {streams['opened']} streams failed, {max_failed} may (max_failed_streams): "
            + ", ".join(causes)
        )
    if streams["refused"] > max_refused:
        problems.append(
            f"{streams['refused']} of {streams['opened']} streams were refused, {max_refused} may "
            "(max_refused_streams): the pods were full"
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
        ("Streams refused", "streams.refused"),
        ("Most streams in flight", "streams.most_in_flight"),
        ("Audio sent (s)", "streams.audio_s"),
        ("Throughput (s of audio a s)", "streams.rtfx"),
        ("Chunks sent", "chunks.sent"),
        ("Chunks late", "chunks.late"),
        ("Chunks late (%)", "chunks.late_percent"),
        ("Chunks without an answer", "chunks.unanswered"),
        ("Bad service (% of chunks)", "bad_service.percent"),
        *((f"Latency {name} (ms)", f"latency_ms.{name}") for name in ("p50", "p90", "p95", "p99", "max")),
        *((f"First result {name} (ms)", f"first_response_ms.{name}") for name in ("p50", "p90", "p95", "p99")),
        *((f"Final result {name} (ms)", f"final_ms.{name}") for name in ("p50", "p90", "p95", "p99")),
        *((f"Real-time factor {name}", f"real_time_factor.{name}") for name in ("p50", "p95", "p99")),
        ("Most streams of a pod", "streams_per_pod.most"),
        ("Streams that a pod carries", "capacity.streams_per_pod"),
        ("Streams that all pods carry", "capacity.at_max_replicas"),
        ("First scale-up (s after start)", "times.first_scale_up_s"),
        ("First new pod ready (s after start)", "times.first_new_pod_ready_s"),
        ("All pods ready (s after start)", "times.all_ready_s"),
        ("Load ended (s after start)", "times.load_end_s"),
        ("Back at the minimum (s after start)", "times.back_at_min_s"),
        ("Pod-seconds", "pod_seconds"),
        ("GPU-seconds", "gpu_seconds"),
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
    for refusal in summary["streams"]["refusals"]:
        lines.append(f"  refused {refusal['count']} times: {refusal['details']}")
    return [summary["headline"], "", *lines, *(f"Note: {note}" for note in summary["notes"])]

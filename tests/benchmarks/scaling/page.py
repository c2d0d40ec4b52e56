# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Replays on the page that compares load tests: the same streams under each rule, over one time axis.

A replay becomes the records that a load test writes, so figures and curves are computed by the same code. It knows no
latencies, only which chunks were late.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ansible_collections.speechops.riva.plugins.module_utils import scaling_plan, scaling_rules
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import summarise
from ansible_collections.speechops.riva.plugins.module_utils.report_compare import write_comparison

from . import rules, traces
from .replay import Cluster, Outcome, Replay
from .service import ServiceModel

SAMPLE_SECONDS = 5


def shown_rules(service: ServiceModel, load_seconds: float) -> dict[str, rules.Rule]:
    """By name, what the page compares: what others do, and the presets."""
    presets = {preset: rules.demand(service, load_seconds, spare) for preset, spare in scaling_plan.SPARE_PODS.items()}
    return {
        "article, 0.5 ms": rules.article(0.5),
        "article, 10 ms": rules.article(10),
        "peers, 20 streams": rules.peer(20),
        **presets,
    }


def metric_of(metric: rules.QueueTime | rules.StreamsPerPod | rules.Demand) -> tuple[str, float]:
    """Name and target, as an HPA shows them."""
    if isinstance(metric, rules.Demand):
        return scaling_rules.DEMAND_METRIC, metric.streams_per_pod
    if isinstance(metric, rules.StreamsPerPod):
        return "streams_per_pod", metric.target
    return (scaling_rules.ARTICLE_METRIC if metric.article else scaling_rules.METRIC), metric.target_ms


def records(name: str, rule: rules.Rule, trace: traces.Trace, cluster: Cluster, outcome: Outcome) -> list[dict]:
    """The records of a load test that went like this replay."""
    steps = [
        {"streams": round(streams), "duration": later - earlier, "ramp": later - earlier}
        for (earlier, _), (later, streams) in zip(trace.points, trace.points[1:], strict=False)
    ]
    plan = {
        "label": name,
        "endpoint": "a replay",
        "namespace": "replay",
        "name": f"trace {trace.name}",
        "steps": steps,
        "tail_seconds": 0.0,
        "chunk_duration_ms": 160,
        "stream_seconds": trace.lengths.longest,
        "stream_distribution": "lognormal",
        "objective_ms": 200.0,
        "sample_seconds": float(SAMPLE_SECONDS),
        "max_streams": outcome.streams + 1,
    }
    audio = {"files": 0, "seconds": 0.0, "samples_per_second": 16000}
    found = [{"kind": "start", "t": 0.0, "time": "2026-01-01T00:00:00+00:00", "plan": plan, "audio": audio}]
    before = {"chunks": 0.0, "late": 0.0}
    for entry in outcome.history:
        at = entry["t"]
        if at < 0 or at % SAMPLE_SECONDS:
            continue
        metrics = [
            {"name": metric_of(metric)[0], "kind": "averageValue", "target": metric_of(metric)[1], "value": value}
            for place, metric in enumerate(rule.metrics)
            for value in [entry["metrics"].get(place)]
        ]
        pods = [{"name": f"pod-{number}", "node": "", "created": None, "ready": None, "leaving": False, "restarts": 0}
                for number in range(entry["pods"])]  # fmt: skip
        found.append(
            {
                "kind": "cluster", "t": at, "t_asked": at, "min": cluster.minimum, "max": cluster.maximum,
                "desired": entry["replicas"], "replicas": entry["replicas"], "ready": entry["serving"],
                "metrics": metrics, "pods": pods, "gpus_per_pod": 1, "streams_source": "counted",
                "streams": {"fullest": entry["most_streams"]}, "limits": {"pod": rule.limit} if rule.limit else {},
            }
        )  # fmt: skip
        sent = round(entry["chunks"]) - round(before["chunks"])
        found.append(
            {
                "kind": "streams", "t": at, "phase": phase_of(steps, at),
                "level": round(float(trace.wanted(at))), "in_flight": entry["streams"], "opened": entry["opened"],
                "finished": 0, "failed": entry["cut"], "refused": entry["refused"], "chunks_sent": sent,
                "chunks_answered": sent, "chunks_late": round(entry["late"]) - round(before["late"]),
                "latency_ms": [], "pacing_lag_ms": [],
            }
        )  # fmt: skip
        before = entry
    found.append({"kind": "end", "t": float(trace.seconds), "reason": "profile done"})
    return found


def phase_of(steps: list[dict], at: float) -> int:
    """The index of the step at a time."""
    end = 0.0
    for number, step in enumerate(steps):
        end += step["duration"]
        if at < end:
            return number
    return len(steps)


def summary(
    name: str, rule: rules.Rule, trace: traces.Trace, cluster: Cluster, service: ServiceModel, seed: int = 0
) -> dict:
    """What a load test's summary.json would say of this replay."""
    counts, lengths = traces.draw_streams(trace, cluster.step, seed)
    outcome = Replay(cluster, service, rule, counts, lengths, trace.warm_up, seed).run(record=True)
    found = summarise(records(name, replace(rule), trace, cluster, outcome))
    # A replay has no record of each stream: these come from its own count.
    whole = outcome.chunks + outcome.refused + outcome.cut
    found["bad_service"] = {
        "chunks": round(whole),
        "late": round(outcome.late),
        "refused": round(outcome.refused),
        "lost": round(outcome.cut),
        "percent": round(100 * outcome.bad, 3),
    }
    found["streams"] |= {
        "refused": outcome.streams_refused,
        "failed": outcome.streams_cut,
        "finished": outcome.streams - outcome.streams_refused - outcome.streams_cut,
        "stopped": 0,
    }
    return {**found, "label": name, "folder": ""}


def write(folder: Path, trace: traces.Trace, cluster: Cluster, service: ServiceModel) -> str:
    """Write index.html: the rules that are shown, on one draw of the streams."""
    chosen = shown_rules(service, cluster.load_seconds)
    found = [summary(name, rule, trace, cluster, service) for name, rule in chosen.items()]
    return write_comparison(str(folder), found)

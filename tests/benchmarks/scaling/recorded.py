# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A recorded load test of the lab, cut down to what a replay needs, and the replay of it.

`python -m tests.benchmarks.scaling.recorded build/report/samples.jsonl extract.json --settings lab.json` makes such an
extract; the settings say what the lab ran: see SETTINGS.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from .hpa import Policy, ScalingRules
from .replay import Cluster, Replay
from .rules import Demand, QueueTime, Rule
from .service import ServiceModel

# The lab inventory's: 20 + 5 ms a chunk, 10 s to load; an HPA on queue time, a pod each 30 s.
SETTINGS = {
    "service": {"base_ms": 20, "per_item_ms": 5, "max_batch_size": 8, "chunk_ms": 160, "objective_ms": 300},
    "cluster": {"minimum": 1, "maximum": 3, "load_seconds": 10, "pod_start_seconds": 4},
    "rule": {"queue_time": {"target_ms": 10}},
    "scale_up": {"policies": [["Pods", 1, 30]], "stabilization_seconds": 0},
    "scale_down": {"policies": [["Pods", 1, 30]], "stabilization_seconds": 60},
}


def extract(samples: Path, until: float, settings: dict = SETTINGS) -> dict:
    """The streams that were opened and what the cluster showed, from a load test's samples."""
    streams, seen = [], []
    for line in samples.read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "stream" and entry["opened"] < until:
            streams.append([entry["opened"], entry["seconds"]])
        elif entry["kind"] == "cluster" and entry["t"] < until:
            value = entry["metrics"][0]["value"] if entry["metrics"] else None
            seen.append([entry["t"], entry["desired"], entry["ready"], value])
    return {"settings": settings, "streams": sorted(streams), "samples": seen}


def behaviour(settings: dict) -> ScalingRules:
    policies = tuple(Policy(*policy) for policy in settings["policies"])
    return ScalingRules(policies, settings["stabilization_seconds"])


def metrics(settings: dict) -> tuple:
    """The HPA's metrics: `queue_time` as QueueTime's, and `demand` as Demand's fields."""
    found: list = [QueueTime(**settings["queue_time"])] if "queue_time" in settings else []
    return (*found, *([Demand(**settings["demand"])] if "demand" in settings else ()))


def arrivals(streams: list[list[float]], seconds: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    opened = np.array([at for at, _ in streams])
    lengths = np.array([length for _, length in streams])
    counts = np.bincount((opened / step).astype(int), minlength=int(seconds / step) + 1)
    return counts, lengths[np.argsort(opened, kind="stable")]


def replay(recording: dict, scrape_phase: float, sync_phase: float, seed: int = 0) -> list[dict]:
    """What the replay makes of the recorded streams: its state each half second."""
    settings = recording["settings"]
    cluster = Cluster(**settings["cluster"])
    rule = Rule(
        "recorded",
        0,
        metrics(settings["rule"]),
        behaviour(settings["scale_up"]),
        behaviour(settings["scale_down"]),
        settings["rule"].get("limit"),
    )
    counts, lengths = arrivals(recording["streams"], recording["samples"][-1][0], cluster.step)
    service = ServiceModel(**settings["service"])
    run = Replay(cluster, service, rule, counts, lengths, 0, seed, (scrape_phase, sync_phase))
    return run.run(record=True).history


def compare(recording: dict, history: list[dict], step: float = 0.5) -> list[tuple[float, int, int]]:
    """(time, replicas in the lab, replicas in the replay) at every sample."""
    return [
        (at, desired, history[min(int(at / step), len(history) - 1)]["replicas"])
        for at, desired, _ready, _value in recording["samples"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Cut a load test's samples down to what a replay needs.")
    parser.add_argument("samples", type=Path)
    parser.add_argument("extract", type=Path)
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after the start")
    parser.add_argument("--settings", type=Path, help="JSON file with what the lab ran; default: the lab inventory's")
    options = parser.parse_args()
    settings = json.loads(options.settings.read_text()) if options.settings else SETTINGS
    found = extract(options.samples, options.until, settings)
    lines = [
        f'{{"settings": {json.dumps(found["settings"])},',
        f'"streams": {json.dumps(found["streams"], separators=(",", ":"))},',
        f'"samples": {json.dumps(found["samples"], separators=(",", ":"))}}}',
    ]
    options.extract.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

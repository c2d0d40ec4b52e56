# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Your own traffic under each preset, with what calibrate.yml measured: what is refused, and what it costs.

`python -m tests.benchmarks.scaling.own calls.csv --limit 20 --load-seconds 300 --max-replicas 12` reads a file as
`load_test_trace_file` takes it: single calls (`start,length`) or levels (`seconds,streams`), up to a week.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from ansible_collections.speechops.riva.plugins.module_utils import scaling_plan
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import CALLS, TraceError, read_trace

from . import report, rules, traces
from .replay import Cluster, Replay
from .service import ServiceModel

WEEK = 7 * 24 * 3600
# A second is fine enough for hours, half of one for minutes.
LONG = 4 * 3600


def service_of(limit: int, objective_ms: float, chunk_ms: float) -> ServiceModel:
    """A pod that carries so many streams: saturated a little above, as pods are whose capacity was measured."""
    most = limit / 0.98 * 1000 / chunk_ms
    per_item = 8 * 1000 / most / (8 + 2.5)
    return ServiceModel(base_ms=2.5 * per_item, per_item_ms=per_item, chunk_ms=chunk_ms, objective_ms=objective_ms)


def rule_of(preset: str, figures: dict) -> rules.Rule:
    """The rule as the chart gets it for this preset and these figures."""
    plan = scaling_plan.plan({"name": "own", "scaling_preset": preset, **figures}, {}, {})
    demand = rules.Demand(
        plan.planned_streams,
        plan.horizon_seconds,
        spare_streams=plan.spare_streams,
        spare_share=plan.spare_share,
        rise_ignored=1,
    )
    return rules.Rule(
        preset,
        scaling_plan.SPARE_PODS[preset],
        (demand, rules.QueueTime(plan.queue_time_target_ms)),
        scale_down=rules.scaling_rules(plan.behavior["scaleDown"]),
        limit=plan.stream_limit,
        hands_over=plan.stream_limit is not None,
    )


def draws(trace: dict, lengths: traces.Lengths, step: float, seeds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Arrivals a step, and lengths. Calls are taken as they are; levels are drawn, once a seed."""
    if trace["kind"] == CALLS:
        starts = np.array([start for start, _ in trace["rows"]])
        counts = np.bincount((starts / step).astype(int), minlength=int((starts.max() + lengths.longest) / step) + 1)
        return [(counts, np.array([min(length, lengths.longest) for _, length in trace["rows"]]))] * seeds
    drawn = traces.Trace("own", tuple((at, float(level)) for at, level in trace["rows"]), lengths, warm_up=0)
    return [traces.draw_streams(drawn, step, seed) for seed in range(seeds)]


def points(trace: dict, cluster: Cluster, figures: dict, lengths: traces.Lengths, seeds: int) -> list[report.Point]:
    """Each preset on this trace. Seeds differ in the moments of scrapes, and in what the balancer chooses."""
    service = service_of(figures["stream_limit"], figures["latency_objective_ms"], 160)
    found = []
    for preset in scaling_plan.SPARE_PODS:
        rule = rule_of(preset, figures)
        outcomes = [
            Replay(cluster, service, rule, counts, long, 0, seed).run()
            for seed, (counts, long) in enumerate(draws(trace, lengths, cluster.step, seeds))
        ]
        found.append(report.point(preset, rule.dial, outcomes))
    return found


def advice(found: list[report.Point], most_bad: float) -> str:
    """The cheapest preset that is good enough, or what to do where none is."""
    enough = [each for each in found if each.bad <= most_bad]
    if not enough:
        best = min(found, key=lambda each: each.bad)
        return (
            f"None keeps bad service below {100 * most_bad:g} %; best is {best.family} with {100 * best.bad:.2f} %."
            " Give it more pods at most (max_replicas), a larger spare (spare_pods), or models that load faster."
        )
    cheapest = min(enough, key=lambda each: each.pod_seconds)
    return f"The cheapest with at most {100 * most_bad:g} % bad service is {cheapest.family}."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling.own", description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--limit", type=int, required=True, help="stream_limit of riva_calibration")
    parser.add_argument("--load-seconds", type=float, required=True, help="model_load_seconds of riva_calibration")
    parser.add_argument("--min-replicas", type=int, default=1)
    parser.add_argument("--max-replicas", type=int, required=True)
    parser.add_argument("--longest", type=float, default=600, help="longest_stream_seconds (default 600)")
    parser.add_argument("--objective-ms", type=float, default=300, help="latency objective (default 300)")
    parser.add_argument("--median", type=float, default=60, help="of the stream lengths, where the trace has levels")
    parser.add_argument("--sigma", type=float, default=1, help="of their logarithm, where the trace has levels")
    parser.add_argument("--bad-percent", type=float, default=1, help="bad service that is good enough (default 1)")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    try:
        trace = read_trace(options.trace.read_text(encoding="utf-8").splitlines(), WEEK)
    except (OSError, TraceError) as error:
        sys.exit(f"{options.trace}: {error}")
    figures = {
        "stream_limit": options.limit,
        "model_load_seconds": options.load_seconds,
        "min_replicas": options.min_replicas,
        "max_replicas": options.max_replicas,
        "longest_stream_seconds": round(options.longest),
        "latency_objective_ms": options.objective_ms,
    }
    problems = [entry["message"] for entry in scaling_plan.check_scaling([{"name": "own", **figures}])]
    if problems:
        sys.exit("; ".join(problems))
    cluster = Cluster(
        minimum=options.min_replicas,
        maximum=options.max_replicas,
        load_seconds=options.load_seconds,
        grace_seconds=options.longest,
        step=1.0 if trace["rows"][-1][0] > LONG else 0.5,
    )
    lengths = traces.Lengths(options.median, options.sigma, options.longest)
    found = points(trace, cluster, figures, lengths, options.seeds)
    print(f"{report.table(found)}\n\n{advice(found, options.bad_percent / 100)}")


if __name__ == "__main__":
    main()

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.benchmarks.scaling --seeds 20: replay all rules on all traces; table, JSON and picture."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from . import page, report, rules, traces
from .replay import Cluster, Replay
from .service import ServiceModel, calibrated_streams, planned_streams

JSON = Path("build/bench/scaling.json")
PICTURE = Path("build/bench/scaling.png")
PAGES = Path("build/bench/report")
SERVICE = ServiceModel()
DAY_CLUSTER = Cluster(minimum=20, maximum=1000, step=1.0)
DAY_PEAK_STREAMS = 18_000


def burst_rules(load_seconds: float) -> list[rules.Rule]:
    limit = calibrated_streams(SERVICE)
    return [
        *(rules.article(target) for target in rules.ARTICLE_TARGETS_MS),
        *(rules.peer(streams) for streams in rules.PEER_STREAMS),
        *(rules.peer(streams, limit) for streams in rules.PEER_STREAMS),
        *(rules.demand(SERVICE, load_seconds, spare) for spare in rules.SPARES),
        *(rules.without_forecast(rules.demand(SERVICE, load_seconds, spare)) for spare in (0, 1, 1.75, 2.5)),
        *(rules.without_handing_over(rules.demand(SERVICE, load_seconds, spare)) for spare in (0, 1, 1.75, 2.5)),
        *(rules.oldest_first(rules.demand(SERVICE, load_seconds, spare)) for spare in (0, 1, 1.75, 2.5)),
        *(rules.without_limit(rules.demand(SERVICE, load_seconds, spare)) for spare in (0, 1, 1.75, 2.5)),
    ]


def day_rules(load_seconds: float) -> list[rules.Rule]:
    limit = calibrated_streams(SERVICE)
    return [
        *(rules.article(target) for target in (0.5, 10, 15)),
        *(rules.peer(streams) for streams in (20, 24)),
        # A full pod stays ready on hundreds of pods: else the balancer forgets its counts all the time.
        *(rules.limit_beside_readiness(rules.peer(streams, limit)) for streams in (24, 26)),
        *(rules.limit_beside_readiness(rules.demand(SERVICE, load_seconds, spare)) for spare in rules.DAY_SPARES),
        rules.limit_beside_readiness(rules.without_handing_over(rules.demand(SERVICE, load_seconds, 1.75))),
        rules.counts_kept(rules.demand(SERVICE, load_seconds, 1)),
        *(rules.oldest_first(rules.demand(SERVICE, load_seconds, spare)) for spare in (0, 1)),
    ]


def outcome_point(rule: rules.Rule, trace: traces.Trace, cluster: Cluster, seeds: int) -> tuple[report.Point, float]:
    """One rule on one trace, and how long it took. Every rule sees the same streams: a seed draws them."""
    started = time.monotonic()
    outcomes = []
    for seed in range(seeds):
        counts, lengths = traces.draw_streams(trace, cluster.step, seed)
        outcomes.append(Replay(cluster, SERVICE, rule, counts, lengths, trace.warm_up, seed).run())
    return report.point(rule.family, rule.dial, outcomes), time.monotonic() - started


def measure(
    chosen: list[rules.Rule],
    wanted: dict[str, traces.Trace],
    cluster: Cluster,
    seeds: int,
    jobs: int,
    say: Callable[[str], None],
) -> dict[str, list[report.Point]]:
    """All rules on all traces, `jobs` at a time, with a line for each that is done."""
    found: dict[str, list[report.Point]] = {name: [] for name in wanted}
    work = [(rule, trace) for trace in wanted.values() for rule in chosen]
    started = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(outcome_point, rule, trace, cluster, seeds) for rule, trace in work]
        for done, ((_rule, trace), future) in enumerate(zip(work, futures, strict=True), start=1):
            point, seconds = future.result()
            found[trace.name].append(point)
            left = (time.monotonic() - started) / done * (len(work) - done)
            say(
                f"{done:3}/{len(work)} {trace.name:6} {point.family:20} {point.dial:6g}  bad {100 * point.bad:6.2f} %"
                f"  pod-seconds {point.pod_seconds:10.0f}  ({seconds:.1f} s; about {left / 60:.0f} min left)"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__)
    parser.add_argument("--seeds", type=int, help="draws of the streams for each rule (default 20; of a day 1)")
    parser.add_argument("--trace", action="append", choices=sorted(traces.TRACES), help="only this trace; repeatable")
    parser.add_argument("--load-seconds", type=float, default=30, help="how long a model loads (default 30)")
    parser.add_argument("--day", action="store_true", help="a day of up to 1,000 pods instead; about 10 minutes")
    parser.add_argument("--json", type=Path, default=None, help=f"default {JSON}")
    parser.add_argument("--picture", type=Path, default=None, help=f"default {PICTURE}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="rules at a time (default: one a processor)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args()
    options.seeds = options.seeds or (1 if options.day else 20)
    if options.day:
        cluster, chosen = DAY_CLUSTER, day_rules(options.load_seconds)
        wanted = {"day": traces.day_trace(DAY_PEAK_STREAMS)}
    else:
        cluster = Cluster(load_seconds=options.load_seconds)
        chosen = burst_rules(options.load_seconds)
        wanted = {name: traces.TRACES[name] for name in options.trace or traces.TRACES}
    suffix = "-day" if options.day else ""
    target = options.json or JSON.with_stem(JSON.stem + suffix)

    def say(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr, flush=True)

    found = measure(chosen, wanted, cluster, options.seeds, options.jobs, say)
    report.write_json(
        target,
        {
            "seeds": options.seeds,
            "load_seconds": options.load_seconds,
            "limit": calibrated_streams(SERVICE),
            "planned_streams": planned_streams(SERVICE),
            "traces": {
                name: {"points": report.as_json(points), "comparison": report.compare(points)}
                for name, points in found.items()
            },
        },
    )
    for name, points in found.items():
        print(f"\n### Trace `{name}`\n\n{report.table(points)}\n\n{report.comparison_table(report.compare(points))}")
    shown = options.picture or PICTURE.with_stem(PICTURE.stem + suffix)
    report.picture(shown, found)
    print(f"\n{target}, {shown}", file=sys.stderr)
    if not options.day:
        for trace in wanted.values():
            print(page.write(PAGES / trace.name, trace, cluster, SERVICE), file=sys.stderr)


if __name__ == "__main__":
    main()

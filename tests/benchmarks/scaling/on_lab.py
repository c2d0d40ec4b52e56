# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules on a lab under the same load, and each run held against its replay.

`python -m tests.benchmarks.scaling.on_lab --lab lab` takes a lab on which site.yml has run; several of them, where the
machine has two processors for each, share the runs. A run takes about eight minutes; runs that are in the folder are
not made again, so it can be interrupted and typed again. Each run keeps the load test's samples, the extract that is
replayed, and how busy the machine was: on a busy machine a run says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from ansible_collections.speechops.riva.plugins.module_utils import report_compare, scaling_plan

from lab.settings import STATE

from . import recorded

FOLDER = Path("build/lab-comparison")
INVENTORY = Path("inventories/lab/group_vars/riva_clusters.yml")
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
# A pod of the stand-in that carries 10 streams: 8 chunks take 40 + 8 * 10 ms. Small, so that the load is.
SERVICE = {"base_ms": 40, "per_item_ms": 10, "max_batch_size": 8, "chunk_ms": 160, "objective_ms": 300}
LIMIT, PLANNED, LOAD_SECONDS, MOST_PODS = 10, 9, 12, 4
# What others plan with: two thirds of what a pod carries, as 20 of 30 streams.
PEERS = 7
PROFILE = [
    {"streams": 1, "duration": 45},
    {"streams": 8, "duration": 65, "ramp": 5},
    {"streams": 28, "duration": 90, "ramp": 20},
    {"streams": 1, "duration": 150, "ramp": 30},
]
STEP_AT = 45
LENGTHS = {"stream_distribution": "lognormal", "stream_median_seconds": 10, "stream_sigma": 0.8, "stream_seconds": 50}
SCRAPE, SYNC = 15, 15
# A machine with more to do than this, or a client later than that, makes a run invalid.
MOST_LOAD_A_CPU, MOST_LAG_MS = 1.0, 40


def services() -> dict[str, dict]:
    """By rule, the item of riva_services."""
    known = {"stream_limit": LIMIT, "planned_streams": PLANNED, "model_load_seconds": LOAD_SECONDS}
    as_default = {"autoscaling": {"behavior": scaling_plan.API_DEFAULT_BEHAVIOR}}
    # A limit that nobody reaches counts the streams; the guard is silenced.
    counted = {"stream_limit": 1000, "planned_streams": PEERS, "spare_pods": 0, "queue_time_target_ms": 600_000}
    return {
        "balanced": known,
        "article-10": {"scaling_preset": "article", "queue_time_target_ms": 10},
        "peers-20": {**counted, "values": as_default},
        "article-0.5": {"scaling_preset": "article"},
    }


def item(rule: str) -> dict:
    (given,) = yaml.safe_load(INVENTORY.read_text())["riva_services"]
    env = given["env"] | {"RIVA_STANDIN_SERVICE_BASE_MS": "40", "RIVA_STANDIN_SERVICE_PER_ITEM_MS": "10"}
    return {"name": given["name"], "min_replicas": 1, "max_replicas": MOST_PODS, "env": env, **services()[rule]}


def settings(rule: str) -> dict:
    """What the replay of this rule needs to know: see recorded.SETTINGS."""
    default = {name: direction(entry) for name, entry in scaling_plan.API_DEFAULT_BEHAVIOR.items()}
    found: dict = {
        "service": SERVICE,
        "cluster": {"minimum": 1, "maximum": MOST_PODS, "load_seconds": LOAD_SECONDS - 2, "pod_start_seconds": 4},
        "scale_up": default["scaleUp"],
        "scale_down": default["scaleDown"],
    }
    if rule.startswith("article"):
        target = float(rule.split("-")[1])
        # The stand-in has one model that works and one that waits for its turn for ever.
        queue = {"target_ms": target, "article": True, "window": 30, "idle_models": 1}
        return found | {"rule": {"queue_time": queue}}
    if rule.startswith("peers"):
        return found | {"rule": {"demand": {"streams_per_pod": PEERS}}}
    plan = scaling_plan.plan(item(rule), {}, {})
    metric = {
        "streams_per_pod": plan.planned_streams,
        "horizon": plan.horizon_seconds,
        "spare_streams": plan.spare_streams,
        "spare_share": plan.spare_share,
        "rise_ignored": 1,
    }
    queue = {"target_ms": plan.queue_time_target_ms}
    return found | {
        "rule": {"demand": metric, "queue_time": queue, "limit": LIMIT},
        "scale_down": direction(plan.behavior["scaleDown"]),
    }


def direction(entry: dict) -> dict:
    policies = [[policy["type"], policy["value"], policy["periodSeconds"]] for policy in entry["policies"]]
    return {"policies": policies, "stabilization_seconds": entry["stabilizationWindowSeconds"]}


class RunError(RuntimeError):
    """A run cannot be made; the message says why."""


class Machine:
    """How busy the machine is while a run goes on; a context manager."""

    def __enter__(self) -> Machine:
        self.seen: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(5):
            self.seen.append(os.getloadavg()[0])

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def figures(self) -> dict:
        loads = self.seen or [os.getloadavg()[0]]
        return {"processors": os.cpu_count(), "load_mean": round(sum(loads) / len(loads), 1), "load_most": max(loads)}


def play(lab: str, *arguments: str, **values: object) -> None:
    words = [str(PLAYBOOK), "-e", f"lab_name={lab}", *arguments, "-e", json.dumps(values)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RunError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def measure(lab: str, rule: str, folder: Path, wait: float) -> None:
    """The service gets the rule, and the load; what was seen stays in the folder."""
    play(lab, "site.yml", "--tags", "riva", riva_services=[item(rule)])
    # What the last run left: its pods go, and the metrics of its load are out of the windows.
    settle(lab)
    time.sleep(wait)
    options = {f"load_test_{name}": value for name, value in LENGTHS.items()}
    with Machine() as machine:
        play(
            lab,
            "playbooks/load_test.yml",
            load_test_profile=PROFILE,
            load_test_tail_seconds=1,
            load_test_objective_ms=SERVICE["objective_ms"],
            load_test_report_folder=str(folder.absolute()),
            load_test_label=folder.name,
            load_test_max_failed_streams=100_000,
            load_test_max_refused_streams=100_000,
            **options,
        )
    (folder / "machine.json").write_text(json.dumps(machine.figures) + "\n")


def settle(lab: str, timeout: float = 420) -> None:
    """One pod, ready, and no other."""
    kubectl = Path.home() / ".cache/speechops-lab/bin/kubectl"
    words = [
        kubectl,
        f"--kubeconfig={STATE / lab / 'admin.kubeconfig'}",
        "get",
        "pods",
        "-n",
        "riva",
        "-o",
        "json",
    ]
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        pods = json.loads(done.stdout)["items"] if done.returncode == 0 else []
        ready = [
            c
            for pod in pods
            for c in pod["status"].get("conditions", ())
            if c["type"] == "Ready" and c["status"] == "True"
        ]
        if len(pods) == len(ready) == 1:
            return
        time.sleep(5)
    raise RunError(f"{lab}: the service did not go back to one pod within {timeout:g} s")


def judge(folder: Path, rule: str) -> dict:
    """What one run showed, and how near its replay is for any phase of the scrapes."""
    summary = report_compare.read_summary(str(folder))
    machine = json.loads((folder / "machine.json").read_text())
    recording = recorded.extract(folder / "samples.jsonl", float("inf"), settings(rule))
    (folder / "extract.json").write_text(json.dumps(recording) + "\n")
    # The controller looks each 15 s; when, its decisions tell, to the second. A run without one is tried with several.
    decided = [entry["t_s"] % SYNC for entry in summary["hpa"]["decisions"] if entry["t_s"] is not None]
    phases = [decided[0], decided[0] + 0.5, decided[0] + 1] if decided else [0, 5, 10]
    apart = [
        max(abs(lab - replayed) for _at, lab, replayed in recorded.compare(recording, history))
        for sync in phases
        for scrape in range(0, SCRAPE, 3)
        for history in [recorded.replay(recording, scrape, sync)]
    ]
    ups = [change["t_s"] for change in summary["replicas"]["changes"] if change["to"] > change["from"]]
    after = [at - STEP_AT for at in ups if at >= STEP_AT]
    window = {"article": 30, "balanced": 0, "peers": 0}[rule.split("-")[0]]
    delays = SCRAPE + window / 2 + SYNC
    lag = summary["pacing_lag_ms"]["p99"]
    busy = machine["load_mean"] / machine["processors"]
    return {
        "rule": rule,
        "run": folder.name,
        "valid": busy <= MOST_LOAD_A_CPU and (lag or 0) <= MOST_LAG_MS,
        "load_mean": machine["load_mean"],
        "lag_p99_ms": lag,
        "bad_percent": summary["bad_service"]["percent"],
        "pod_seconds": summary["pod_seconds"],
        "opened": summary["streams"]["opened"],
        "failed": summary["streams"]["failed"],
        "refused": summary["streams"]["refused"],
        "path": summary["replicas"]["path"],
        "turns": max(0, len(summary["replicas"]["turning_points"]) - 2),
        "first_pod_after_step_s": after[0] if after else None,
        "unavoidable_s": delays,
        "most_apart": [min(apart), max(apart)],
    }


def table(rows: list[dict]) -> str:
    lines = [
        "| run | valid | load, mean | client's lag p99 | bad service | pod-seconds | streams | lost | refused"
        " | replicas | turns | first pod after the step (unavoidable) | replay apart, at most |",
        "|" + "---|" * 13,
    ]
    for row in rows:
        first = "-" if row["first_pod_after_step_s"] is None else f"{row['first_pod_after_step_s']:.0f} s"
        low, high = row["most_apart"]
        lines.append(
            f"| {row['run']} | {'yes' if row['valid'] else 'no'} | {row['load_mean']:g} | {row['lag_p99_ms']} ms"
            f" | {row['bad_percent']:.2f} % | {row['pod_seconds']:,.0f} | {row['opened']}"
            f" | {row['failed']} | {row['refused']}"
            f" | {' → '.join(map(str, row['path']))} | {row['turns']} | {first} ({row['unavoidable_s']:g} s)"
            f" | {low if low == high else f'{low} to {high}'} |"
        )
    return "\n".join(lines)


def share_out(
    runs: list[tuple[str, Path]],
    labs: list[str],
    make: Callable[[str, tuple[str, Path]], None],
    until: str | None = None,
) -> list[str]:
    """Each lab takes the next run when it has done one; a lab that fails takes no more. Returns what went wrong."""
    waiting: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
    for run in runs:
        waiting.put(run)

    def work(lab: str) -> str | None:
        while not waiting.empty():
            if until and time.strftime("%H:%M") >= until:
                return f"{lab}: no time for more; type the same again to go on"
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                break
            print(f"{time.strftime('%T')} {lab}: {run[1].name} …", file=sys.stderr, flush=True)
            try:
                make(lab, run)
            except RunError as error:
                return str(error)
        return None

    with ThreadPoolExecutor(len(labs)) as pool:
        return [problem for problem in pool.map(work, labs) if problem]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling.on_lab", description=__doc__)
    parser.add_argument("--lab", nargs="+", default=["lab"], help="labs on which site.yml has run (default lab)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default {FOLDER}")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each rule (default 2)")
    parser.add_argument("--until", help="begin no run after this time of the day, as HH:MM")
    parser.add_argument(
        "--wait", type=float, default=40, help="seconds between a rule's roll-out and its load (default 40)"
    )
    parser.add_argument("--judge", action="store_true", help="make no run, only judge those that are there")
    options = parser.parse_args()
    wanted = [(rule, options.folder / f"{rule}-{n}") for n in range(1, options.repeats + 1) for rule in services()]
    missing = [] if options.judge else [run for run in wanted if not (run[1] / "machine.json").exists()]
    failed = share_out(missing, options.lab, lambda lab, run: measure(lab, *run, options.wait), options.until)
    there = [(rule, folder) for rule, folder in wanted if (folder / "machine.json").exists()]
    rows = [judge(folder, rule) for rule, folder in there]
    print(table(rows))
    if len(there) > 1:
        summaries = [report_compare.read_summary(str(folder)) for _rule, folder in there[: report_compare.MOST_TESTS]]
        print(report_compare.write_comparison(str(options.folder), [replace_label(entry) for entry in summaries]))
    if failed:
        sys.exit("\n".join(failed))


def replace_label(summary: dict) -> dict:
    return {**summary, "folder": summary["label"]}


if __name__ == "__main__":
    main()

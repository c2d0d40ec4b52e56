"""How long a second, unchanged site.yml takes, beside the same releases by hand with one `helm upgrade --install` each.

``python -m tests.benchmarks.everyday --lab lab --rounds 3`` on a lab that site.yml has installed already. Both are
measured in turn, as whole processes, by the clock and in processor time, which other work on the machine changes less.
By hand means what somebody types who knows all charts and values: it checks nothing, and waits as Helm does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.settings import CACHE, STATE

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# The private values of a release that the inventory of the lab installs, and where its chart lies.
CHARTS = {"gpu-operator", "kube-prometheus-stack", "prometheus-adapter", "traefik"}


def processor_time() -> float:
    """Seconds that all ended children of this process have computed, with their own children."""
    times = os.times()
    return times.children_user + times.children_system


def timed(*words: str | Path) -> tuple[float, float]:
    """Seconds of a command as a whole process, by the clock and of the processor; what it printed where it failed."""
    start, computed = time.monotonic(), processor_time()
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{words[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return round(time.monotonic() - start, 2), round(processor_time() - computed, 2)


def releases(kubeconfig: Path) -> list[dict]:
    """All releases on the lab, with their values in files."""
    helm = [str(BIN / "helm"), f"--kubeconfig={kubeconfig}"]
    found = json.loads(subprocess.check_output([*helm, "list", "--all-namespaces", "--output=json"]))
    folder = Path(tempfile.mkdtemp(prefix="everyday-"))
    for release in found:
        values = [*helm, "get", "values", release["name"], f"--namespace={release['namespace']}", "--output=json"]
        release["values"] = folder / f"{release['name']}.json"
        release["values"].write_bytes(subprocess.check_output(values))
    return found


def by_hand(kubeconfig: Path, release: dict, charts: Path) -> tuple[float, float]:
    name = release["chart"].rsplit("-", 1)[0]
    chart = charts / name if name in CHARTS else ROOT / "roles" / "riva" / "files" / "chart"
    return timed(
        BIN / "helm",
        f"--kubeconfig={kubeconfig}",
        "upgrade",
        "--install",
        release["name"],
        chart,
        f"--namespace={release['namespace']}",
        f"--values={release['values']}",
        "--wait",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", default="lab")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", default=str(ROOT / "build" / "bench" / "everyday.json"))
    options = parser.parse_args()
    kubeconfig = STATE / options.lab / "admin.kubeconfig"
    charts = CACHE / "charts"
    rounds = []
    for number in range(options.rounds):
        site = timed(BIN / "ansible-playbook", "-e", f"lab_name={options.lab}", "site.yml")
        install = timed(BIN / "ansible-playbook", "-e", f"lab_name={options.lab}", "site.yml", "--skip-tags", "verify")
        hand = {release["name"]: by_hand(kubeconfig, release, charts) for release in releases(kubeconfig)}
        helm = tuple(round(sum(part), 2) for part in zip(*hand.values(), strict=True))
        rounds.append({"site": site, "site_without_verify": install, "helm": helm, "releases": hand})
        print(
            f"round {number + 1}, seconds by the clock and of the processor: "
            f"site.yml {site}, without its proofs {install}, by hand {helm} ({hand})",
            flush=True,
        )
    middle = {
        name: [statistics.median(r[name][part] for r in rounds) for part in (0, 1)]
        for name in ("site", "site_without_verify", "helm")
    }
    ratio = [round(middle["site"][part] / middle["helm"][part], 2) for part in (0, 1)]
    print(f"medians: {middle}; site.yml takes {ratio[0]} times as long as by hand, {ratio[1]} in processor time")
    path = Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rounds": rounds, "medians": middle, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()

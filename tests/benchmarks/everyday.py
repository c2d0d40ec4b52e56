"""How long a second, unchanged site.yml takes, beside the same releases by hand with one `helm upgrade --install` each.

``python -m tests.benchmarks.everyday --lab lab --rounds 3`` on a lab that site.yml has installed already. Both are
measured in turn, as whole processes. By hand means what somebody types who knows all charts and values: it checks
nothing, and waits as Helm does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# The private values of a release that the inventory of the lab installs, and where its chart lies.
CHARTS = {"gpu-operator", "kube-prometheus-stack", "prometheus-adapter", "traefik"}


def timed(*words: str | Path) -> float:
    """Seconds of a command, as a whole process; what it printed where it failed."""
    start = time.monotonic()
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{words[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - start


def releases(kubeconfig: str) -> list[dict]:
    """All releases on the lab, with their values in files."""
    helm = [str(BIN / "helm"), f"--kubeconfig={kubeconfig}"]
    found = json.loads(subprocess.check_output([*helm, "list", "--all-namespaces", "--output=json"]))
    folder = Path(tempfile.mkdtemp(prefix="everyday-"))
    for release in found:
        values = [*helm, "get", "values", release["name"], f"--namespace={release['namespace']}", "--output=json"]
        release["values"] = folder / f"{release['name']}.json"
        release["values"].write_bytes(subprocess.check_output(values))
    return found


def by_hand(kubeconfig: str, release: dict, charts: Path) -> float:
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
    kubeconfig = f"/var/lib/speechops-lab/{options.lab}/admin.kubeconfig"
    charts = Path.home() / ".cache" / "speechops-lab" / "charts"
    rounds = []
    for number in range(options.rounds):
        site = timed(BIN / "ansible-playbook", "-e", f"lab_name={options.lab}", "site.yml")
        install = timed(BIN / "ansible-playbook", "-e", f"lab_name={options.lab}", "site.yml", "--skip-tags", "verify")
        hand = {release["name"]: round(by_hand(kubeconfig, release, charts), 2) for release in releases(kubeconfig)}
        rounds.append({"site_s": round(site, 2), "site_without_verify_s": round(install, 2), "helm_s": hand})
        print(
            f"round {number + 1}: site.yml {site:.1f} s, without its proofs {install:.1f} s, "
            f"by hand {sum(hand.values()):.1f} s ({', '.join(f'{name} {value:.1f}' for name, value in hand.items())})"
        )
    middle = {
        "site_s": statistics.median(r["site_s"] for r in rounds),
        "site_without_verify_s": statistics.median(r["site_without_verify_s"] for r in rounds),
        "helm_s": statistics.median(sum(r["helm_s"].values()) for r in rounds),
    }
    ratio = middle["site_s"] / middle["helm_s"]
    print(f"medians: {middle}; site.yml takes {ratio:.2f} times as long as by hand")
    path = Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rounds": rounds, "medians": middle, "ratio": round(ratio, 2)}, indent=2) + "\n")


if __name__ == "__main__":
    main()

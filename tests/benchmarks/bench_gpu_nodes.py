"""Speed and size of validate_gpu_nodes on clusters of 1,000, 5,000 and 20,000 nodes, beside k8s_info with filters.

    python -m tests.benchmarks.bench_gpu_nodes

Everything in one run, on one real kube-apiserver: a whole play with the module, a whole play that asks the same
question with kubernetes.core.k8s_info and Jinja, and a paged read of the same nodes with curl.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import large_cluster
from tests.benchmarks.bare_apiserver import BareApiserver, missing
from tests.benchmarks.process_tree import Measured, measure

REPOSITORY = Path(__file__).resolve().parents[2]
RESULT = REPOSITORY / "build" / "bench" / "gpu_nodes.json"
MODULE = "ansible_collections.speechops.riva.plugins.modules.validate_gpu_nodes"
MIB = 1 << 20
PAGE = 500
JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"

QUESTION = {"products": ["*A100*", "*H100*"], "min_memory": 81920, "min_free_gpus": 1, "fail_on": "never"}

PLAY = """
- name: The question asked with the module
  hosts: localhost
  gather_facts: false
  tasks:
    - name: GPU nodes
      speechops.riva.validate_gpu_nodes: %(question)s
      register: answer
    - name: The answer
      ansible.builtin.debug:
        msg: "ANSWER {{ answer.matching_nodes }} {{ answer.gpus }} {{ answer.free_gpus }}"
"""

# What one would write without the module.
FILTERS = """
- name: The question asked with k8s_info and filters
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Nodes
      kubernetes.core.k8s_info:
        kubeconfig: %(kubeconfig)s
        kind: Node
      register: nodes
    - name: Pods
      kubernetes.core.k8s_info:
        kubeconfig: %(kubeconfig)s
        kind: Pod
        field_selectors: ["status.phase!=Succeeded", "status.phase!=Failed"]
      register: pods
    - name: The answer
      ansible.builtin.debug:
        msg: >-
          {%% set found = namespace(nodes=0, gpus=0, used=0, names={}) -%%}
          {%% for node in nodes.resources
                if node.metadata.labels['nvidia.com/gpu.product'] | default('')
                   is match('.*(A100|H100).*', ignorecase=true)
                and node.metadata.labels['nvidia.com/gpu.memory'] | default(0) | int >= 81920 * 0.92
                and not node.spec.unschedulable | default(false)
                and node.status.conditions | selectattr('type', 'eq', 'Ready')
                    | selectattr('status', 'eq', 'True') | list
                and node.status.allocatable['nvidia.com/gpu'] | default(0) | int >= 1 -%%}
          {%% set found.nodes = found.nodes + 1 -%%}
          {%% set found.gpus = found.gpus + node.status.allocatable['nvidia.com/gpu'] | int -%%}
          {%% set _ = found.names.update({node.metadata.name: true}) -%%}
          {%% endfor -%%}
          {%% for pod in pods.resources if pod.spec.nodeName | default('') in found.names -%%}
          {%% for container in pod.spec.containers -%%}
          {%% set found.used = found.used
                + (container.resources.limits | default({}))['nvidia.com/gpu'] | default(0) | int -%%}
          {%% endfor -%%}
          {%% endfor -%%}
          ANSWER {{ found.nodes }} {{ found.gpus }} {{ found.gpus - found.used }}
"""


class Bench:
    """The measurements of one run, as they come."""

    def __init__(self, server: BareApiserver, runs: int) -> None:
        self.server = server
        self.runs = runs
        self.environment = {
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "PYTHONPATH": str(REPOSITORY / "collections"),
        }
        question = {"kubeconfig": str(server.kubeconfig), **QUESTION}
        self.arguments = json.dumps({"ANSIBLE_MODULE_ARGS": question})
        self.plays = {}
        for name, text in (("module", PLAY), ("filters", FILTERS)):
            self.plays[name] = server.folder / f"{name}.yml"
            values = {"question": json.dumps(question), "kubeconfig": server.kubeconfig}
            self.plays[name].write_text(text % values)

    def play(self, name: str) -> tuple[Measured, str]:
        """A whole ansible-playbook and its answer."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
        command += ["-e", f"ansible_python_interpreter={sys.executable}", str(self.plays[name])]
        measured = measure(command, environment=self.environment)
        answer = re.search(r"ANSWER (\d+ \d+ -?\d+)", measured.output)
        if measured.code or not answer:
            raise RuntimeError(f"the play {name} failed:\n{measured.output[-3000:]}")
        return measured, answer.group(1)

    def module(self) -> Measured:
        """The module's own process, without ansible-playbook around it."""
        measured = measure([sys.executable, "-m", MODULE], self.arguments, self.environment)
        if '"matching_nodes"' not in measured.output:
            raise RuntimeError(f"the module failed:\n{measured.output[-3000:]}")
        return measured

    def curl(self, accept: str, page: int = PAGE) -> float:
        """Seconds for all pages of the nodes."""
        folder = self.server.folder
        body = folder / "page"
        command = ["curl", "--silent", "--fail", "--cacert", f"{folder}/ca.crt", "--cert", f"{folder}/admin.crt"]
        command += ["--key", f"{folder}/admin.key", "--header", f"Accept: {accept}", "--output", str(body)]
        token, before = "", time.perf_counter()
        while True:
            url = f"{self.server.url}/api/v1/nodes?pretty=false&limit={page}" + (f"&continue={token}" if token else "")
            subprocess.run([*command, url], check=True)
            with open(body, "rb") as file:
                found = re.search(rb"eyJ2IjoibWV0YS5rOHMua[\w-]+", file.read(4096))
            if not found:
                return time.perf_counter() - before
            token = found.group().decode()

    def size(self, nodes: int, compare: bool) -> dict:
        """All measurements at one size; the median of the runs, k8s_info once, in the middle of the others."""
        answered = [self.play("module") for _ in range(self.runs)]
        if compare:
            measured, answer = self.play("filters")
            answered += [self.play("module") for _ in range(self.runs)]
        plays, answers = zip(*answered, strict=True)
        modules = [self.module() for _ in range(self.runs)]
        row = {
            "nodes": nodes,
            "node_bytes": len(self.server.request("GET", "/api/v1/nodes?limit=200")[1]) // 200,
            "play_seconds": middle(plays, "seconds"),
            "play_processor": middle(plays, "processor"),
            "play_rss": middle(plays, "rss"),
            "play_pss": middle(plays, "pss"),
            "module_seconds": middle(modules, "seconds"),
            "module_rss": middle(modules, "rss"),
            "curl_seconds": statistics.median(self.curl(JSON) for _ in range(self.runs)),
            "curl_protobuf_seconds": statistics.median(self.curl(PROTOBUF) for _ in range(self.runs)),
            "answer": answers[0],
        }
        if compare:
            row |= {
                "filters_seconds": measured.seconds,
                "filters_processor": measured.processor,
                "filters_rss": measured.rss,
                "filters_pss": measured.pss,
                "filters_answer": answer,
            }
            if answer != answers[0]:
                raise RuntimeError(f"the answers differ: module {answers[0]}, filters {answer}")
        return row


def middle(measured: list[Measured], name: str) -> float:
    return statistics.median(getattr(entry, name) for entry in measured)


def targets(rows: list[dict]) -> list[dict]:
    """What was aimed at, and what came out."""
    by_nodes = {row["nodes"]: row for row in rows}
    found = []

    def add(name: str, value: float, met: bool) -> None:
        found.append({"target": name, "value": round(value, 3), "met": met})

    if (row := by_nodes.get(5000)) and "filters_seconds" in row:
        ratio = row["filters_seconds"] / row["play_seconds"]
        add("5,000 nodes, whole play: at least 20 times faster than k8s_info and filters", ratio, ratio >= 20)
        ratio = row["filters_processor"] / row["play_processor"]
        add("5,000 nodes, whole play: the same in processor time, whatever else the machine does", ratio, ratio >= 20)
        for kind, words in (("rss", "resident"), ("pss", "proportional")):
            ratio = row[f"play_{kind}"] / row[f"filters_{kind}"]
            text = f"5,000 nodes, whole play: at most 1/8 of its peak memory ({words})"
            add(text, ratio, ratio <= 1 / 8)
    for row in rows:
        ratio = row["module_seconds"] / row["curl_seconds"]
        add(f"{row['nodes']:,} nodes: module at most 2 times a paged read with curl", ratio, ratio <= 2)
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        slope = (last["module_seconds"] - first["module_seconds"]) / (last["nodes"] - first["nodes"])
        middle_row = rows[len(rows) // 2]
        expected = first["module_seconds"] + slope * (middle_row["nodes"] - first["nodes"])
        off = middle_row["module_seconds"] / expected
        text = f"time is linear: {middle_row['nodes']:,} nodes against the line through the others"
        add(text, off, 0.7 <= off <= 1.3)
        ratio = last["module_rss"] / first["module_rss"]
        add(f"module's peak memory, {last['nodes']:,} to {first['nodes']:,} nodes: at most 1.3", ratio, ratio <= 1.3)
        ratio = last["play_rss"] / first["play_rss"]
        add(f"play's peak memory, {last['nodes']:,} to {first['nodes']:,} nodes: at most 1.3", ratio, ratio <= 1.3)
    return found


COLUMNS = (
    ("nodes", "nodes", lambda row: f"{row['nodes']:,}"),
    ("play, module", "s", lambda row: f"{row['play_seconds']:.2f}"),
    ("play, k8s_info", "s", lambda row: f"{row['filters_seconds']:.1f}" if "filters_seconds" in row else "-"),
    ("play, module", "CPU s", lambda row: f"{row['play_processor']:.2f}"),
    (
        "play, k8s_info",
        "CPU s",
        lambda row: f"{row['filters_processor']:.1f}" if "filters_processor" in row else "-",
    ),
    ("module", "s", lambda row: f"{row['module_seconds']:.2f}"),
    ("a node", "ms", lambda row: f"{1000 * row['module_seconds'] / row['nodes']:.2f}"),
    ("curl JSON", "s", lambda row: f"{row['curl_seconds']:.2f}"),
    ("curl protobuf", "s", lambda row: f"{row['curl_protobuf_seconds']:.2f}"),
    ("play, module", "MiB", lambda row: f"{row['play_rss'] / MIB:.0f}"),
    ("play, k8s_info", "MiB", lambda row: f"{row['filters_rss'] / MIB:.0f}" if "filters_rss" in row else "-"),
    ("module", "MiB", lambda row: f"{row['module_rss'] / MIB:.0f}"),
)


def table(rows: list[dict]) -> str:
    """The measurements as a Markdown table."""
    head = [f"{name} ({unit})" if name != unit else name for name, unit, _text in COLUMNS]
    lines = [head, ["--:"] * len(head), *([text(row) for _name, _unit, text in COLUMNS] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processors": os.cpu_count(),
        "model": model.group(1) if model else platform.machine(),
        "memory_gib": round(memory / (1 << 30), 1),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    sizes = {"type": lambda text: [int(part) for part in text.split(",") if part]}
    parser.add_argument("--sizes", default=[1000, 5000, 20000], **sizes, help="numbers of nodes")
    parser.add_argument("--compare", default=[1000, 5000], **sizes, help="those at which k8s_info is asked too")
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement, of which the median counts")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the JSON goes")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a target is missed")
    chosen = parser.parse_args()
    if lacking := missing():
        print(lacking, file=sys.stderr)
        return 2
    rows: list[dict] = []
    report = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "sizes": rows}
    with BareApiserver() as server:
        bench = Bench(server, chosen.runs)
        made = 0
        for size in sorted(chosen.sizes):
            server.create("/api/v1/nodes", large_cluster.nodes(made, size))
            server.create("/api/v1/namespaces/default/pods", large_cluster.pods(made, size))
            made = size
            print(f"{size:,} nodes are there", flush=True)
            rows.append(bench.size(size, size in chosen.compare))
            print(table(rows[-1:]), flush=True)
    report["targets"] = targets(rows)
    chosen.result.parent.mkdir(parents=True, exist_ok=True)
    chosen.result.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{table(rows)}\n")
    for entry in report["targets"]:
        print(f"{'met   ' if entry['met'] else 'MISSED'} {entry['value']:8.3f}  {entry['target']}")
    print(f"\n{chosen.result}")
    return 1 if chosen.check and not all(entry["met"] for entry in report["targets"]) else 0


if __name__ == "__main__":
    sys.exit(main())

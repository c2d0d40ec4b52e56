"""1,000 runs of the validators through a proxy that spoils a tenth of the answers, with an apiserver restart half-way.

    PYTHONPATH=collections python -m tests.benchmarks.fault_runs

Each run has to come to the right answer, or to a clear error within its deadline. A wrong answer, a run that outlives
its deadline or a traceback is a failure. The real kube-apiserver runs as in the benchmark.
"""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace

import yaml
from ansible_collections.speechops.riva.plugins.module_utils import cluster as door
from ansible_collections.speechops.riva.plugins.module_utils import metric_chain, validation
from ansible_collections.speechops.riva.plugins.modules import validate_aggregation_layer, validate_gpu_nodes

from tests.benchmarks import large_cluster
from tests.benchmarks.bare_apiserver import BareApiserver, missing
from tests.benchmarks.fault_proxy import FaultProxy

NODES = 200
PAGE = 40
DEADLINE = 20
# Beyond its deadline, a run may take this long to say so on a busy machine.
GRACE = 3
# A silence is given up after this long here, instead of the door's own half minute.
SILENCE = 0.7
WORKERS = 6

Examine = Callable[[door.Cluster], tuple]


def gpu_question(**options: object) -> Examine:
    arguments = {name: spec.get("default") for name, spec in validate_gpu_nodes.own_arguments().items()}
    params = {**arguments, **options}
    wanted = validate_gpu_nodes.requirement(params)
    return lambda cluster: validate_gpu_nodes.examine(cluster, params, wanted)


def chain_question(cluster: door.Cluster) -> tuple:
    options = metric_chain.Options(
        metric="avg_time_queue_ms",
        namespace="default",
        hpa="riva-asr",
        deployment=None,
        series="nv_inference_queue_duration_us",
        prometheus_namespace="monitoring",
        prometheus_service="prometheus",
        prometheus_port=9090,
        prometheus_scheme="http",
        adapter_namespace="monitoring",
        adapter_service="prometheus-adapter",
        scrape_interval=15,
    )
    return metric_chain.Chain(cluster, options).examine()


QUESTIONS: dict[str, Examine] = {
    "GPU nodes": gpu_question(),
    "free GPUs": gpu_question(min_free_gpus=1, products=["*A100*"]),
    "GPU nodes that are missing": gpu_question(min_nodes=10_000, families=["turing"], check_discovery=True),
    "aggregation layer": lambda cluster: validate_aggregation_layer.examine(cluster, [], True, []),
    "custom metric": chain_question,
}


@dataclass
class Outcome:
    """What came of all runs."""

    counts: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0
    faults: Counter = field(default_factory=Counter)
    requests: int = 0

    @property
    def passed(self) -> bool:
        return not self.wrong


def small_nodes():
    for item in large_cluster.nodes(0, NODES):
        item["status"]["images"] = item["status"]["images"][:2]
        yield item


def fill(server: BareApiserver) -> None:
    """Nodes, pods, an APIService without a server behind it, and a speech service whose metric nobody serves."""
    server.create("/api/v1/nodes", small_nodes())
    server.create("/api/v1/namespaces/default/pods", large_cluster.pods(0, NODES))
    labels = {"app": "riva"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "riva", "image": "riva"}]}}
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "riva-asr"}
    metric = {
        "metric": {"name": "avg_time_queue_ms"},
        "target": {"type": "AverageValue", "averageValue": "20"},
    }
    objects: dict[str, dict] = {
        "/apis/apps/v1/namespaces/default/deployments": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "spec": {"selector": {"matchLabels": labels}, "template": pod},
        },
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers": {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "spec": {"scaleTargetRef": reference, "maxReplicas": 3, "metrics": [{"type": "Pods", "pods": metric}]},
        },
        "/api/v1/namespaces/default/pods": {"apiVersion": "v1", "kind": "Pod", **pod},
    }
    for path, item in objects.items():
        item["metadata"] = {**item.get("metadata", {}), "name": "riva-asr"}
        server.create(path, [item])
    server.create(
        "/apis/apiregistration.k8s.io/v1/apiservices",
        [
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": "v1beta1.metrics.k8s.io"},
                "spec": {
                    "group": "metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": True,
                    "service": {"namespace": "monitoring", "name": "metrics-server"},
                },
            }
        ],
    )


def ask(kubeconfig: str, examine: Examine, seconds: float = DEADLINE) -> tuple[list[dict], dict]:
    """One run, as the modules make it."""
    module = SimpleNamespace(params={"kubeconfig": kubeconfig}, no_log_values=set())
    cluster = door.connect(module, door.Deadline(seconds))
    params = {"wait": False, "wait_sleep": 1, "fail_on": "failed"}
    findings, facts = validation.look(cluster, examine, params)
    return [finding.to_dict() for finding in findings], facts


def told(found: tuple[list[dict], dict]) -> tuple[list[dict], dict]:
    """What counts of an answer: all but the number under which a request failed, which may be that of a fault."""
    findings, facts = found
    services = [{**entry, "http_status": entry["http_status"] == 200} for entry in facts.get("apiservices", [])]
    return findings, {**facts, "apiservices": services}


def is_clear_error(found: tuple[list[dict], dict]) -> bool:
    """The one finding that the API server could not be asked, with what to do."""
    findings, facts = found
    return (
        [finding["check"] for finding in findings] == ["api"]
        and not facts
        and bool(findings[0]["message"] and findings[0]["remedy"])
    )


def run_all(
    runs: int, kubeconfig: str, right: dict[str, tuple], half_way: Callable[[], None], progress: bool = False
) -> Outcome:
    """All runs, some at a time; `half_way` is called when half of them are over."""
    outcome, lock = Outcome(), threading.Lock()
    names = list(QUESTIONS)

    def one(index: int) -> None:
        name = names[index % len(names)]
        before = time.monotonic()
        try:
            found = ask(kubeconfig, QUESTIONS[name])
        except Exception as error:  # A traceback is what may not be.
            found = ([{"check": "traceback", "message": repr(error), "remedy": ""}], {})
        seconds = time.monotonic() - before
        with lock:
            outcome.longest = max(outcome.longest, seconds)
            if seconds > DEADLINE + GRACE:
                outcome.counts["hanging"] += 1
                outcome.wrong.append(f"{name}: {seconds:.1f} s")
            elif told(found) == told(right[name]):
                outcome.counts["right"] += 1
            elif is_clear_error(found):
                outcome.counts["clear error"] += 1
            else:
                outcome.counts["wrong"] += 1
                outcome.wrong.append(f"{name}: {found}")
            over = sum(outcome.counts.values())
            if progress and over % 100 == 0:
                print(f"{over} runs: {dict(outcome.counts)}", flush=True)
        if over == runs // 2:
            half_way()

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, range(runs)))
    return outcome


def fault_runs(runs: int, seed: int = 1, share: float = 0.1, progress: bool = False) -> Outcome:
    """The runs on an API server of their own."""
    before = door.READ_SECONDS, door.PAGE, door.LONG_PAGE
    with BareApiserver() as server:
        fill(server)
        wait_for_aggregator(server)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.folder / "apiserver.crt", server.folder / "apiserver.key")
        door.READ_SECONDS, door.PAGE, door.LONG_PAGE = SILENCE, PAGE, PAGE
        try:
            right = {name: ask(str(server.kubeconfig), examine) for name, examine in QUESTIONS.items()}
            for name, found in right.items():
                if is_clear_error(found):
                    raise RuntimeError(f"{name} has no answer without faults: {found}")

            def restart() -> None:
                server.stop_apiserver()
                server.start_apiserver()

            with FaultProxy(server.url, share, seed, server.tls(), context) as proxy:
                kubeconfig = server.folder / "proxy.kubeconfig"
                kubeconfig.write_text(yaml.safe_dump(server.kubeconfig_for(proxy.url)))
                outcome = run_all(runs, str(kubeconfig), right, restart, progress)
                outcome.faults, outcome.requests = proxy.injected, proxy.requests
        finally:
            door.READ_SECONDS, door.PAGE, door.LONG_PAGE = before
    return outcome


def wait_for_aggregator(server: BareApiserver) -> None:
    """Until the APIService's condition has been written, and so stays as it is."""
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
    for _ in range(100):
        if b"ServiceNotFound" in server.request("GET", path)[1]:
            return
        time.sleep(0.1)
    raise RuntimeError("the APIService got no condition")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--share", type=float, default=0.1, help="of the answers that are spoilt")
    chosen = parser.parse_args()
    if lacking := missing():
        print(lacking, file=sys.stderr)
        return 2
    before = time.monotonic()
    outcome = fault_runs(chosen.runs, chosen.seed, chosen.share, progress=True)
    print(f"{chosen.runs} runs in {time.monotonic() - before:.0f} s (seed {chosen.seed}): {dict(outcome.counts)}")
    print(f"longest run {outcome.longest:.1f} s; {outcome.requests} requests, faults: {dict(outcome.faults)}")
    for line in outcome.wrong[:20]:
        print(f"WRONG {line[:2000]}")
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())

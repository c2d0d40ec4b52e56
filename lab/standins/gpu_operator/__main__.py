"""Stand-in of the GPU Operator: labels GPU nodes, runs the operands, and says in ClusterPolicy's status how it went.

It takes the real operator's command line and needs no more rights than the upstream chart grants.
"""

from __future__ import annotations

import os
import sys
import threading

from . import policy as rules
from .kube import ApiError, Kube
from .service import log, now, repeat, run_until_told_to_end, say_what_it_is, serve_health

POLICIES = "/apis/nvidia.com/v1/clusterpolicies"
NODES = "/api/v1/nodes"
RESYNC, RETRY, SETTLE = 300, 5, 0.5


class Operator:
    """Reconciles when a policy, a node's labels or an operand changes, and every few minutes."""

    def __init__(self, api: Kube, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.daemon_sets = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
        self.changed = threading.Event()
        self.last: rules.Outcome | None = None

    def watch(self, path: str, metadata_only: bool, watched: str) -> None:
        """Note each change of what is watched: `labels`, `generation` or (of an operand) everything."""
        seen: dict[str, object] = {}

        def value(item: dict) -> object:
            if watched == "labels":
                return item["metadata"].get("labels")
            return item["metadata"].get("generation") if watched == "generation" else item.get("status")

        def step() -> float:
            listed = self.api.list(path, metadata_only)
            now_seen = {item["metadata"]["uid"]: value(item) for item in listed["items"]}
            if now_seen != seen:
                self.changed.set()
            seen.clear()
            seen.update(now_seen)
            version = listed["metadata"]["resourceVersion"]
            for kind, item in self.api.watch(path, version, RESYNC, metadata_only):
                uid = item["metadata"]["uid"]
                if kind == "DELETED":
                    seen.pop(uid, None)
                    self.changed.set()
                elif seen.get(uid) != value(item) or uid not in seen:
                    seen[uid] = value(item)
                    self.changed.set()
            return 1

        repeat(f"watch of {path.rpartition('/')[2]}", step)

    def run(self) -> None:
        for path, metadata_only, watched in (
            (POLICIES, True, "generation"),
            (NODES, True, "labels"),
            (self.daemon_sets, False, "status"),
        ):
            threading.Thread(target=self.watch, args=(path, metadata_only, watched), daemon=True).start()
        repeat("gpu-operator", self.reconcile_when_changed)

    def reconcile_when_changed(self) -> float:
        self.changed.wait(RESYNC)
        self.changed.clear()
        self.reconcile()
        return SETTLE

    def reconcile(self) -> None:
        policies = self.api.list(POLICIES)["items"]
        policies.sort(key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))
        for policy, first in zip(policies, [True] + [False] * len(policies), strict=False):
            if policy["metadata"].get("deletionTimestamp"):
                continue
            if first:
                self.reconcile_policy(policy)
            elif policy.get("status", {}).get("state") != "ignored":
                self.write_status(policy, {"state": "ignored", "namespace": self.namespace})

    def reconcile_policy(self, policy: dict) -> None:
        nodes = self.api.list(NODES, metadata_only=True)["items"]
        labels = {node["metadata"]["name"]: node["metadata"].get("labels", {}) for node in nodes}
        for name, has in labels.items():
            changes = rules.node_changes(has)
            if changes:
                self.api.merge(f"{NODES}/{name}", {"metadata": {"labels": changes}})
                log(f"labelled node {name}: {changes}")
        waiting = [operand.state for operand in rules.OPERANDS_RUN if not self.run_operand(operand, policy)]
        result = rules.outcome(
            waiting,
            any(rules.has_nfd_labels(has) for has in labels.values()),
            sum(rules.has_gpu(has) for has in labels.values()),
        )
        if result != self.last:
            log(f"{result.state}: {result.reason}: {result.message}")
            self.last = result
        old = policy.get("status", {})
        status = rules.new_status(old, result, self.namespace, now())
        if status != old:
            self.write_status(policy, status)

    def run_operand(self, operand: rules.Operand, policy: dict) -> bool:
        """Make one operand as the policy wants it; tell whether it is ready."""
        if not rules.enabled(operand, policy.get("spec", {})):
            self.api.delete(rules.daemon_set_path(operand, self.namespace))
            return True
        found: dict = {}
        for path, wanted in rules.operand_objects(operand, policy, self.namespace):
            found = self.api.apply(path, wanted, rules.MANAGER)
        return rules.rolled_out(found)

    def write_status(self, policy: dict, status: dict) -> None:
        try:
            self.api.merge(f"{POLICIES}/{policy['metadata']['name']}/status", {"status": status})
        except ApiError as error:
            if error.code != 404:
                raise


def main() -> int:
    say_what_it_is("gpu-operator")
    operator = Operator(Kube(), os.environ["OPERATOR_NAMESPACE"])
    serve_health(8081)
    return run_until_told_to_end(operator.run)


if __name__ == "__main__":
    sys.exit(main())

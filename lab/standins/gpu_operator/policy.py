"""The operator's rules: which labels a node gets, which operands are wanted, what the ClusterPolicy's status says.

Data in, data out. Names and texts are those of the real operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MANAGER = "gpu-operator"
PRESENT = "nvidia.com/gpu.present"
DEPLOY = "nvidia.com/gpu.deploy."
OPERANDS = f"{DEPLOY}operands"
MIG_MANAGER = f"{DEPLOY}mig-manager"
STATE_LABELS = tuple(
    f"{DEPLOY}{part}"
    for part in (
        "container-toolkit",
        "dcgm",
        "dcgm-exporter",
        "device-plugin",
        "driver",
        "gpu-feature-discovery",
        "node-status-exporter",
        "operator-validator",
    )
)
NFD_PREFIX = "feature.node.kubernetes.io/"
GPU_LABELS = tuple(f"{NFD_PREFIX}pci-{card}.present" for card in ("10de", "0302_10de", "0300_10de"))


def has_gpu(labels: Mapping[str, str]) -> bool:
    return any(labels.get(name) == "true" for name in GPU_LABELS)


def has_nfd_labels(labels: Mapping[str, str]) -> bool:
    return any(name.startswith(NFD_PREFIX) for name in labels)


def node_changes(labels: Mapping[str, str]) -> dict[str, str | None]:
    """The labels to set on a node, or to take away (None), so that the operands find it.

    A state label that is there keeps its value: that is how an administrator turns one operand off on one node.
    """
    changes: dict[str, str | None] = {}
    mine = [name for name in (*STATE_LABELS, MIG_MANAGER) if name in labels]
    if not has_gpu(labels):
        if labels.get(PRESENT) == "true":
            changes[PRESENT] = "false"
            changes.update(dict.fromkeys(mine))
        return changes
    if labels.get(PRESENT) != "true":
        changes[PRESENT] = "true"
    if labels.get(OPERANDS) == "false":
        changes.update(dict.fromkeys(mine))
        return changes
    changes.update({name: "true" for name in STATE_LABELS if name not in labels})
    if labels.get("nvidia.com/mig.capable") == "true" and MIG_MANAGER not in labels:
        changes[MIG_MANAGER] = "true"
    return changes


@dataclass(frozen=True)
class Operand:
    """One part that the operator runs on GPU nodes."""

    state: str
    part: str
    daemon_set: str
    account: str
    section: str
    label: str
    command: str
    rules: tuple[dict[str, list[str]], ...] = ()
    volumes: tuple[tuple[str, str, bool], ...] = ()


HARDWARE = ("hardware", "/run/speechops-lab", True)
NODE_RULE = {"apiGroups": [""], "resources": ["nodes"]}
OPERANDS_RUN = (
    Operand(
        state="state-operator-validation",
        part="validator",
        daemon_set="nvidia-operator-validator",
        account="nvidia-operator-validator",
        section="validator",
        label=f"{DEPLOY}operator-validator",
        command="nvidia-validator",
        rules=({**NODE_RULE, "verbs": ["get", "list", "watch"]},),
        volumes=(HARDWARE,),
    ),
    Operand(
        state="state-device-plugin",
        part="device-plugin",
        daemon_set="nvidia-device-plugin-daemonset",
        account="nvidia-device-plugin",
        section="devicePlugin",
        label=f"{DEPLOY}device-plugin",
        command="nvidia-device-plugin",
        volumes=(HARDWARE, ("device-plugin", "/var/lib/kubelet/device-plugins", False)),
    ),
    Operand(
        state="gpu-feature-discovery",
        part="gpu-feature-discovery",
        daemon_set="gpu-feature-discovery",
        account="nvidia-gpu-feature-discovery",
        section="gfd",
        label=f"{DEPLOY}gpu-feature-discovery",
        command="gpu-feature-discovery",
        rules=({**NODE_RULE, "verbs": ["get", "patch"]},),
        volumes=(HARDWARE,),
    ),
)


def enabled(operand: Operand, spec: Mapping[str, Any]) -> bool:
    return operand.section == "validator" or spec.get(operand.section, {}).get("enabled", True) is not False


def owner_of(policy: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "nvidia.com/v1",
        "kind": "ClusterPolicy",
        "name": policy["metadata"]["name"],
        "uid": policy["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def operand_objects(operand: Operand, policy: Mapping[str, Any], namespace: str) -> list[tuple[str, dict[str, Any]]]:
    """All objects of one operand as (API path, object), in the order to create them."""
    owned = {"labels": {"app": operand.daemon_set}, "ownerReferences": [owner_of(policy)]}
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": operand.account, "namespace": namespace, **owned},
    }
    objects: list[tuple[str, dict[str, Any]]] = [
        (f"/api/v1/namespaces/{namespace}/serviceaccounts/{operand.account}", account)
    ]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    if operand.rules:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": operand.account, **owned},
            "rules": list(operand.rules),
        }
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": operand.account, **owned},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": operand.account},
            "subjects": [{"kind": "ServiceAccount", "name": operand.account, "namespace": namespace}],
        }
        objects += [
            (f"{rbac}/clusterroles/{operand.account}", role),
            (f"{rbac}/clusterrolebindings/{operand.account}", binding),
        ]
    objects.append((daemon_set_path(operand, namespace), daemon_set(operand, policy, namespace)))
    return objects


def daemon_set_path(operand: Operand, namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{operand.daemon_set}"


def daemon_set(operand: Operand, policy: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    spec = policy.get("spec", {})
    own = spec.get(operand.section, {})
    common = spec.get("daemonsets", {})
    labels = {
        **common.get("labels", {}),
        "app": operand.daemon_set,
        "app.kubernetes.io/managed-by": "gpu-operator",
        "app.kubernetes.io/part-of": "nvidia-gpu",
    }
    container = {
        "name": operand.daemon_set,
        "image": f"{own.get('repository')}/{own.get('image')}:{own.get('version')}",
        "imagePullPolicy": own.get("imagePullPolicy", "IfNotPresent"),
        "command": [operand.command],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
            {"name": "MIG_STRATEGY", "value": spec.get("mig", {}).get("strategy") or "none"},
            *own.get("env", []),
        ],
        "volumeMounts": [
            {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
            for name, path, read_only in operand.volumes
        ],
    }
    if own.get("args"):
        container["args"] = own["args"]
    if own.get("resources"):
        container["resources"] = own["resources"]
    if operand.part == "validator":
        container["readinessProbe"] = {"httpGet": {"path": "/readyz", "port": 8000}, "periodSeconds": 5}
    pod: dict[str, Any] = {
        "serviceAccountName": operand.account,
        "nodeSelector": {operand.label: "true"},
        "tolerations": common.get("tolerations", []),
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}} for name, path, _ in operand.volumes
        ],
    }
    if common.get("priorityClassName"):
        pod["priorityClassName"] = common["priorityClassName"]
    if own.get("imagePullSecrets"):
        pod["imagePullSecrets"] = [{"name": name} for name in own["imagePullSecrets"]]
    annotations = common.get("annotations", {})
    strategy: dict[str, Any] = {"type": common.get("updateStrategy", "RollingUpdate")}
    if strategy["type"] == "RollingUpdate":
        unavailable = str(common.get("rollingUpdate", {}).get("maxUnavailable", "1"))
        strategy["rollingUpdate"] = {"maxUnavailable": int(unavailable) if unavailable.isdigit() else unavailable}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": operand.daemon_set,
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_of(policy)],
        },
        "spec": {
            "selector": {"matchLabels": {"app": operand.daemon_set}},
            "updateStrategy": strategy,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        },
    }


def rolled_out(found: Mapping[str, Any]) -> bool:
    """Whether a DaemonSet is ready. One that matches no node is: the real operator sees it so, too."""
    status = found.get("status", {})
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return False
    desired = status.get("desiredNumberScheduled", 0)
    return status.get("updatedNumberScheduled", 0) >= desired and status.get("numberReady", 0) >= desired


@dataclass(frozen=True)
class Outcome:
    """What a reconciliation came to."""

    state: str
    kind: str
    reason: str
    message: str


def outcome(not_ready: Iterable[str], nfd_labels: bool, gpu_nodes: int) -> Outcome:
    """The state is `ready` also where there is no GPU node: only the reason tells."""
    waiting = list(not_ready)
    if waiting:
        message = f"ClusterPolicy is not ready, states not ready: [{' '.join(waiting)}]"
        return Outcome("notReady", "Error", "OperandNotReady", message)
    if not nfd_labels:
        return Outcome("ready", "Ready", "NFDLabelsMissing", "No NFD labels found")
    if not gpu_nodes:
        message = "No GPU node found, watching for new nodes to join the cluster."
        return Outcome("ready", "Ready", "NoGPUNodes", message)
    message = "ClusterPolicy is ready as all resources have been successfully reconciled"
    return Outcome("ready", "Ready", "Reconciled", message)


def new_status(old: Mapping[str, Any], result: Outcome, namespace: str, time: str) -> dict[str, Any]:
    """The status to write. A condition keeps its time of change while it says the same."""
    ready = result.kind == "Ready"
    wanted = {
        "Ready": ("True", result.reason, result.message) if ready else ("False", "Error", ""),
        "Error": ("False", "Ready", "") if ready else ("True", result.reason, result.message),
    }
    before = {condition["type"]: condition for condition in old.get("conditions", [])}
    conditions = []
    for kind, (status, reason, message) in wanted.items():
        same = before.get(kind, {}).get("status") == status
        changed = before[kind]["lastTransitionTime"] if same else time
        conditions.append(
            {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": changed}
        )
    return {"state": result.state, "namespace": namespace, "conditions": conditions}

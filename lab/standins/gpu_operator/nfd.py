"""Stand-in of Node Feature Discovery, as far as GPUs go: `worker`, `master` and `gc`.

A worker finds a GPU by the node's description of it, or by a file of features as the real worker's local source reads
them. With `--label-node` it labels its node itself; without, it writes a NodeFeature object, as the real one does, and
the master turns that into labels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .hardware import DESCRIPTION, read_hardware
from .kube import ACCOUNT, ApiError, Kube
from .service import keep_trying, log, say_what_it_is, serve_health

PREFIX = "feature.node.kubernetes.io/"
# The form that the GPU Operator's chart tells NFD to use: the vendor alone.
GPU_LABELS = {f"{PREFIX}pci-10de.present": "true"}
FEATURES = Path("/etc/kubernetes/node-feature-discovery/features.d")
NODE_LABEL = "nfd.node.kubernetes.io/node-name"
INTERVAL = 15


def features_of(lines: Iterable[str]) -> dict[str, str]:
    """Labels from a features file: `name=value` or `name` a line; names without a prefix get NFD's."""
    labels = {}
    for line in (text.strip() for text in lines):
        if not line or line.startswith("#"):
            continue
        name, _, value = line.partition("=")
        labels[name if "/" in name else PREFIX + name] = value or "true"
    return labels


def label_changes(labels: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    """What to change on a node so that its NFD labels are the wanted ones; None takes a label away."""
    changes: dict[str, str | None] = {name: None for name in labels if name.startswith(PREFIX) and name not in wanted}
    changes.update({name: value for name, value in wanted.items() if labels.get(name) != value})
    return changes


def found_labels(description: Path = DESCRIPTION, features: Path = FEATURES) -> dict[str, str]:
    labels = {}
    for file in sorted(features.glob("[!.]*")) if features.is_dir() else ():
        if file.is_file():
            labels.update(features_of(file.read_text().splitlines()))
    hardware = read_hardware(description)
    if hardware is not None and hardware.count:
        labels.update(GPU_LABELS)
    # A real worker always finds something; the operator tells "no NFD" from "no GPU" by it.
    return {f"{PREFIX}system-os_release.ID": "speechops-lab", **labels}


def worker(label_node: bool) -> int:
    serve_health(8080)
    api = Kube()
    name = os.environ["NODE_NAME"]
    written: dict[str, str] | None = None

    def step() -> float:
        nonlocal written
        wanted = found_labels()
        if wanted != written:
            if label_node:
                set_labels(api, name, wanted)
            else:
                write_node_feature(api, name, wanted)
            written = wanted
            log(f"found on {name}: {', '.join(sorted(wanted))}")
        return INTERVAL

    return keep_trying("nfd-worker", step)


def set_labels(api: Kube, node: str, wanted: Mapping[str, str]) -> None:
    path = f"/api/v1/nodes/{node}"
    found = api.get(path)
    if found is None:
        return
    changes = label_changes(found["metadata"].get("labels", {}), wanted)
    if changes:
        api.merge(path, {"metadata": {"labels": changes}})
        log(f"labelled {node}: {changes}")


def write_node_feature(api: Kube, node: str, labels: Mapping[str, str]) -> None:
    namespace = (ACCOUNT / "namespace").read_text().strip()
    folder = f"/apis/nfd.k8s-sigs.io/v1alpha1/namespaces/{namespace}/nodefeatures"
    feature: dict[str, Any] = {
        "apiVersion": "nfd.k8s-sigs.io/v1alpha1",
        "kind": "NodeFeature",
        "metadata": {"name": node, "labels": {NODE_LABEL: node}},
        "spec": {"features": {"flags": {}, "attributes": {}, "instances": {}}, "labels": dict(labels)},
    }
    found = api.get(f"{folder}/{node}")
    if found is None:
        pod = api.get(f"/api/v1/namespaces/{namespace}/pods/{os.environ['POD_NAME']}")
        owners = [{"apiVersion": "v1", "kind": "Pod", "name": os.environ["POD_NAME"], "uid": os.environ["POD_UID"]}]
        owners += (pod or {}).get("metadata", {}).get("ownerReferences", [])
        for owner in owners:
            owner.pop("blockOwnerDeletion", None)
            owner.pop("controller", None)
        feature["metadata"]["ownerReferences"] = owners
        api.request("POST", folder, feature, Content_Type="application/json")
    elif found["spec"].get("labels") != labels:
        found["spec"] = feature["spec"]
        api.request("PUT", f"{folder}/{node}", found, Content_Type="application/json")


def master() -> int:
    serve_health(8080)
    api = Kube()
    path = "/apis/nfd.k8s-sigs.io/v1alpha1/nodefeatures"

    def label(feature: dict) -> None:
        node = feature["metadata"].get("labels", {}).get(NODE_LABEL, feature["metadata"]["name"])
        set_labels(api, node, feature["spec"].get("labels") or {})

    def step() -> float:
        listed = api.list(path)
        for feature in listed["items"]:
            label(feature)
        for kind, feature in api.watch(path, listed["metadata"]["resourceVersion"]):
            if kind in ("ADDED", "MODIFIED"):
                label(feature)
        return 1

    return keep_trying("nfd-master", step)


def prune() -> int:
    """Take NFD's labels from all nodes."""
    api = Kube()
    for node in api.list("/api/v1/nodes", metadata_only=True)["items"]:
        try:
            set_labels(api, node["metadata"]["name"], {})
        except ApiError as error:
            log(f"nfd-master: {error}")
            return 1
    return 0


def main(arguments: list[str]) -> int:
    role, *options = arguments or ["?"]
    say_what_it_is(f"nfd-{role}")
    if role == "worker":
        return worker("--label-node" in options)
    if role == "master":
        return prune() if {"-prune", "--prune"} & set(options) else master()
    if role == "gc":
        serve_health(8080)
        return keep_trying("nfd-gc", lambda: 3600)
    print(f"unknown part {role!r}: use worker, master or gc", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

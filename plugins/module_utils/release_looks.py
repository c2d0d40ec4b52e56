# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What is there of a Helm release: its record, its objects beside its manifest, its CRDs, and whether all is ready."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ansible_collections.speechops.riva.plugins.module_utils import drift, releases, workloads
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError, NotFound
from ansible_collections.speechops.riva.plugins.module_utils.leftovers import MANAGER

try:
    import yaml

    FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # YAML as Kubernetes reads it: a lone = is a text, not a type of its own.
    RESOLVERS = {key: value for key, value in FASTEST.yaml_implicit_resolvers.items() if key != "="}
    LOADER = type("Loader", (FASTEST,), {"yaml_implicit_resolvers": RESOLVERS})
    HAS_YAML = True
except ImportError:
    HAS_YAML = False

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

EXPECT = {
    "what": {"type": "str", "required": True},
    "resource": {"type": "str", "required": True},
    "name": {"type": "str"},
    "label_selector": {"type": "str"},
    "at_least": {"type": "int", "default": 1},
    "sum": {"type": "str"},
    "ready": {"type": "bool", "default": False},
    "fields": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "equals": {"type": "str"},
            "exists": {"type": "bool", "default": False},
        },
    },
    "conditions": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "type": {"type": "str", "required": True},
            "status": {"type": "str", "default": "True"},
            "reason": {"type": "str"},
        },
    },
    "remedy": {"type": "str", "default": ""},
}

KINDS = (
    ("apis/apps/v1", "deployments", "Deployment"),
    ("apis/apps/v1", "statefulsets", "StatefulSet"),
    ("apis/apps/v1", "daemonsets", "DaemonSet"),
    ("apis/batch/v1", "jobs", "Job"),
)


def objects(cluster, path, label_selector=None):
    """All objects of a list; none where the cluster does not know the kind (yet)."""
    return cluster.find_all(path, query={"labelSelector": label_selector} if label_selector else None) or []


def own_workloads(cluster, release, namespace):
    found = []
    for group, plural, kind in KINDS:
        for item in objects(cluster, f"/{group}/namespaces/{namespace}/{plural}"):
            if workloads.belongs_to(item, release, namespace):
                item["kind"] = kind
                found.append(item)
    return found


def expected_objects(cluster, expected):
    items = objects(cluster, expected["resource"], expected["label_selector"])
    kind = _kind(expected["resource"]) or expected["what"].split()[0]
    for item in items:
        item.setdefault("kind", kind)
    return [i for i in items if expected["name"] in (None, i["metadata"]["name"])]


def _kind(resource):
    plural = resource.rstrip("/").split("/")[-1]
    return {p: k for g, p, k in KINDS}.get(plural)


def readiness(cluster, params):
    """(states, workloads that are not ready, expectations that are not met) as they are now."""
    states, unready, unmet = [], [], []
    for item in own_workloads(cluster, params["release_name"], params["namespace"]):
        state = workloads.readiness(item)
        states.append({"subject": workloads.subject(item), **state})
        if not state["ready"]:
            unready.append(item)
    for expected in params["expect"]:
        state = workloads.meets(expected, expected_objects(cluster, expected))
        states.append({"subject": expected["what"], **state})
        if not state["ready"]:
            unmet.append((expected, state))
    return states, unready, unmet


def record(cluster, release, namespace):
    """The newest revision as Helm keeps it in the cluster; None where it keeps none there, or elsewhere."""
    query = {"labelSelector": releases.QUERY.format(name=release)}
    return releases.newest(cluster.list_all(f"/api/v1/namespaces/{namespace}/secrets", query=query))


def objects_of(manifest, namespace):
    """The objects of a manifest that are held against the cluster."""
    return drift.wanted(yaml.load_all(manifest, Loader=LOADER), namespace)


class Paths:
    """Where objects lie in the API, as its discovery says."""

    def __init__(self, cluster):
        self.cluster, self.known = cluster, {}

    def of(self, item):
        version, kind, meta = item["apiVersion"], item["kind"], item["metadata"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if root not in self.known:
            self.known[root] = {
                entry["kind"]: entry
                for entry in self.cluster.get(root).get("resources") or []
                if "/" not in entry["name"]
            }
        entry = self.known[root].get(kind)
        if entry is None:
            raise NotFound(f"the API server does not know {kind} of {version}")
        if not entry.get("namespaced"):
            meta.pop("namespace", None)
            return f"{root}/{entry['name']}/{meta['name']}"
        return f"{root}/namespaces/{meta['namespace']}/{entry['name']}/{meta['name']}"


class Drifted(NamedTuple):
    """One object that is not as its release has it."""

    item: dict  # as it has to be
    gone: bool
    differences: list  # (place, now, then); none where it is gone
    refused: ClusterError | None = None  # why the API server would not compare it, or not set it back


def drifted(cluster, items: Sequence[dict], mend: bool = False) -> Iterator[Drifted]:
    """The objects that others changed or removed, set back where *mend* says so, and those that are refused.

    An error that may pass is raised: nothing is known of the rest then.
    """
    targets = drift.scaled(cluster.list_all("/apis/autoscaling/v2/horizontalpodautoscalers"))
    paths = Paths(cluster)
    for item in (drift.without_replicas(item, targets) for item in items):
        differences: list = []
        try:
            path = paths.of(item)
            now = cluster.find(path)
            if now is not None:
                then = cluster.apply(path, item, MANAGER, dry_run=True)
                differences = drift.differences(drift.essence(now), drift.essence(then))
                if not differences:
                    continue
            if mend:
                cluster.apply(path, item, MANAGER)
        except ClusterError as error:
            if error.transient:
                raise
            yield Drifted(item, False, [], error)
        else:
            yield Drifted(item, now is None, differences)


def crds_of(text, groups):
    """{name: YAML} of the CRDs of these API groups in what `helm show crds` prints.

    Megabytes, of which only the beginning is read: a CRD's name ends with its group (the API server sees to that), and
    the whole goes to the API server as it is.
    """
    found = {}
    for document in re.split(r"^---.*$", text, flags=re.MULTILINE):
        head = yaml.load(re.split(r"^spec:", document, maxsplit=1, flags=re.MULTILINE)[0], Loader=LOADER)
        if not isinstance(head, dict) or "kind" not in head or "metadata" not in head:
            head = yaml.load(document, Loader=LOADER)
        if isinstance(head, dict) and head.get("kind") == "CustomResourceDefinition":
            name = head["metadata"]["name"]
            if name.partition(".")[2] in groups:
                found[name] = document
    return found


def crds_of_chart(module, chart, groups):
    """({name: YAML} of the CRDs of these API groups that a chart brings, why it can't be read).

    chart: Helm's words for the chart.
    """
    rc, out, err = module.run_command([module.params["helm_binary_path"], "show", "crds", *chart])
    return ({}, err.strip() or f"helm ended with {rc}") if rc else (crds_of(out, groups), "")


def applied_crd(cluster, name, text, dry_run):
    """(whether an apply changes what counts, the schema, the labels or the annotations) of one CRD."""
    before = cluster.find(f"{CRDS}/{name}")
    after = cluster.apply(f"{CRDS}/{name}", text, MANAGER, dry_run)
    return before is None or drift.essence(before) != drift.essence(after)

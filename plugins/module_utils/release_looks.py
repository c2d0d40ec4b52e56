# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What is there of a Helm release: its record, its objects beside its manifest, its CRDs, and whether all is ready."""

import hashlib
import re
import shutil
import subprocess
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

# What a CRD was made of: without it, or where it does not fit, the API server is asked by a dry run.
SEAL = "riva.speechops.io/applied"
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
            if drift.holds(now, item):
                continue
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


class Crd(NamedTuple):
    """One CRD of a chart."""

    metadata: dict
    text: str  # YAML, as it goes to the API server


def crds_of(text, groups):
    """{name: Crd} of the CRDs of these API groups in what `helm show crds` prints.

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
                found[name] = Crd(drift.without_nothing(head["metadata"]), document)
    return found


def crds_of_chart(program, chart, groups):
    """({name: Crd} of the CRDs of these API groups that a chart brings, why it can't be read).

    program: path of Helm.
    chart: Helm's words for the chart.
    """
    if not shutil.which(program):
        return {}, f"{program} is not there"  # In check mode it may come with this very run.
    # Megabytes, which a module's run_command would read in pieces of 9 KB.
    done = subprocess.run(
        [program, "show", "crds", *chart], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {}, done.stderr.strip() or f"helm ended with {done.returncode}"
    return crds_of(done.stdout, groups), ""


def seal(text, generation):
    """What a CRD that was made of this text says of it; its generation grows with each change of its spec."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}, generation {generation}"


def sealed(crd, now):
    """Whether the metadata of a CRD says that it is of the chart's text, and that nobody changed it since."""
    meta = (now or {}).get("metadata") or {}
    said = (meta.get("annotations") or {}).get(SEAL)
    return said == seal(crd.text, meta.get("generation")) and drift.holds(meta, crd.metadata)


def is_sealed(cluster, crd):
    """The same of the cluster's, by its metadata alone: a dry run of megabytes takes the API server seconds."""
    return sealed(crd, cluster.find(f"{CRDS}/{crd.metadata['name']}", metadata_only=True))


def would_change(cluster, crd):
    """Whether an apply would change what counts, the schema, the labels or the annotations."""
    path = f"{CRDS}/{crd.metadata['name']}"
    now = cluster.find(path)
    return now is None or drift.essence(now) != drift.essence(cluster.apply(path, crd.text, MANAGER, dry_run=True))


def apply_crd(cluster, crd):
    """The CRD is the chart's, and says so."""
    path = f"{CRDS}/{crd.metadata['name']}"
    made = cluster.apply(path, crd.text, MANAGER)
    cluster.annotate(path, {SEAL: seal(crd.text, made["metadata"]["generation"])}, MANAGER)

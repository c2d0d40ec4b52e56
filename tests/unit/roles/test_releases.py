# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done with a release that was left half-way, and when one is in place."""

from __future__ import annotations

import base64
import gzip
import json

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import release_looks
from ansible_collections.speechops.riva.plugins.module_utils.releases import (
    chart_of_words,
    decoded,
    deviations,
    missing_labels,
    newest,
    recovery,
)


def history(*statuses):
    return [{"revision": number, "status": status} for number, status in enumerate(statuses, 1)]


CASES = [
    ((), "none", None),
    (("deployed",), "none", None),
    (("superseded", "deployed"), "none", None),
    (("pending-install",), "uninstall", None),
    (("failed",), "uninstall", None),
    (("failed", "failed"), "uninstall", None),
    (("deployed", "pending-upgrade"), "rollback", 1),
    (("deployed", "failed"), "rollback", 1),
    (("superseded", "superseded", "failed", "pending-upgrade"), "rollback", 2),
    (("superseded", "deployed", "pending-rollback"), "rollback", 2),
    (("deployed", "uninstalling"), "uninstall", None),
    (("uninstalling",), "uninstall", None),
]


@pytest.mark.parametrize(("statuses", "action", "revision"), CASES)
def test_recovery(statuses, action, revision):
    plan = recovery(history(*statuses))
    assert (plan["action"], plan["revision"]) == (action, revision)
    assert plan["words"]


def test_the_order_of_the_history_does_not_matter():
    plan = recovery(list(reversed(history("superseded", "deployed", "failed"))))
    assert plan["revision"] == 2
    assert "revision 3 was left in failed" in plan["reason"]


def revision(number=1, status="deployed", chart=("traefik", "41.0.2"), config=None):
    """A revision as Helm has it."""
    metadata = dict(zip(("name", "version"), chart, strict=True))
    return {"version": number, "info": {"status": status}, "chart": {"metadata": metadata}, "config": config}


def secret(record):
    packed = gzip.compress(json.dumps(record).encode())
    data = {"release": base64.b64encode(base64.b64encode(packed)).decode()}
    return {"metadata": {"labels": {"version": str(record["version"])}}, "data": data}


TRAEFIK = ("traefik", "41.0.2")


@pytest.mark.parametrize(
    ("record", "values", "words"),
    [
        (revision(), {}, []),
        (revision(config={"replicas": 2, "ratio": 0.5}), {"replicas": 2, "ratio": 0.5}, []),
        # What Ansible holds as a tuple or as a key that is a number is another thing in JSON.
        (revision(config={"ports": [1, 2], "by": {"1": "a"}}), {"ports": (1, 2), "by": {1: "a"}}, []),
        (None, {}, ["Helm has no release of this name"]),
        (revision(status="failed"), {}, ["its last revision is failed"]),
        (revision(status="pending-upgrade"), {}, ["its last revision is pending-upgrade"]),
        (revision(chart=("traefik", "41.0.1")), {}, ["its chart is traefik 41.0.1, traefik 41.0.2 is wished"]),
        (revision(chart=("other", "41.0.2")), {}, ["its chart is other 41.0.2, traefik 41.0.2 is wished"]),
        (revision(config={"replicas": 2}), {"replicas": 3}, ["its values are others"]),
        (revision(config={"replicas": 2}), {"replicas": "2"}, ["its values are others"]),
        (revision(config={"replicas": 2}), {}, ["its values are others"]),
    ],
)
def test_what_of_a_release_is_not_as_wished(record, values, words):
    assert deviations(record, TRAEFIK, values) == words


def test_a_chart_that_only_helm_can_tell_is_a_deviation():
    assert deviations(revision(), None, {}) == ["which version of the chart is meant is known to Helm only"]


def test_the_newest_revision_counts():
    secrets = [secret(revision(number, status)) for number, status in ((9, "deployed"), (10, "failed"))]
    assert newest(secrets)["info"]["status"] == "failed"
    assert newest([]) is None


@pytest.mark.parametrize("data", [{}, {"release": "?"}, {"release": base64.b64encode(b"eA==").decode()}, None])
def test_a_record_that_cannot_be_read_is_none(data):
    assert decoded({"data": data}) is None


@pytest.mark.parametrize(
    ("reference", "version", "chart"),
    [
        ("traefik", "41.0.2", TRAEFIK),
        ("oci://mirror.example.com/charts/traefik", "41.0.2", TRAEFIK),
        (f"oci://mirror.example.com/charts/traefik@sha256:{'0' * 64}", "41.0.2", TRAEFIK),
        ("oci://mirror.example.com:5000/charts/traefik:41.0.2", "41.0.2", TRAEFIK),
        ("traefik", None, None),
        ("oci://mirror.example.com/charts/traefik", "", None),
        ("https://mirror.example.com/traefik-41.0.2.tgz", "41.0.2", None),
        # Files of one's own have the version that they have, and where nothing is, there is none.
        ("/srv/charts/traefik", "41.0.2", None),
        ("~/charts/traefik", "41.0.2", None),
        ("charts/traefik-41.0.2.tgz", "41.0.2", None),
    ],
)
def test_the_chart_that_words_name(reference, version, chart):
    assert chart_of_words(reference, version) == chart


@pytest.mark.parametrize(
    ("namespace", "labels", "words"),
    [
        (None, {}, []),
        (None, {"a": "b"}, ["its namespace is not there"]),
        ({"metadata": {"labels": {"a": "b", "other": "c"}}}, {"a": "b"}, []),
        ({"metadata": {"labels": {"a": "c"}}}, {"a": "b"}, ["its namespace lacks the label a=b"]),
        ({"metadata": {}}, {"a": "b"}, ["its namespace lacks the label a=b"]),
    ],
)
def test_labels_that_a_namespace_lacks(namespace, labels, words):
    assert missing_labels(namespace, labels) == words


CRD = "kind: CustomResourceDefinition\nmetadata:\n  name: {name}\nspec:\n  group: x\n"


def test_crds_of_the_groups_asked_for_go_on_as_they_are():
    middle, last = (
        CRD.format(name=name) for name in ("ingressroutes.traefik.io", "gateways.gateway.networking.k8s.io")
    )
    other = "# a note\nkind: Deployment\nmetadata:\n  name: a.traefik.io\nspec: {}\n"
    text = "---\n".join(["", other, middle, "# nothing\n", last])
    found = release_looks.crds_of(text, ["traefik.io"])
    assert found == {"ingressroutes.traefik.io": ({"name": "ingressroutes.traefik.io"}, f"\n{middle}")}
    assert set(release_looks.crds_of(text, ["traefik.io", "gateway.networking.k8s.io"])) == {
        "ingressroutes.traefik.io",
        "gateways.gateway.networking.k8s.io",
    }


def test_a_crd_whose_name_comes_last_is_found_too():
    text = "spec:\n  group: traefik.io\nkind: CustomResourceDefinition\nmetadata: {name: ingressroutes.traefik.io}\n"
    assert list(release_looks.crds_of(text, ["traefik.io"])) == ["ingressroutes.traefik.io"]


def sealed_crd(text="spec: {}", generation=3, **metadata):
    annotations = {"made-by": "the chart", release_looks.SEAL: release_looks.seal(text, 3)}
    return {"metadata": {"name": "a.b", "generation": generation, "annotations": annotations, **metadata}}


@pytest.mark.parametrize(
    ("now", "answer"),
    [
        (sealed_crd(labels={"another": "s"}), True),
        (None, False),
        ({}, False),
        # Made of another text, edited since, or without what the chart's metadata says.
        (sealed_crd("spec: {group: b}"), False),
        (sealed_crd(generation=4), False),
        (sealed_crd(annotations={release_looks.SEAL: release_looks.seal("spec: {}", 3)}), False),
        (sealed_crd(annotations={"made-by": "the chart"}), False),
    ],
)
def test_a_crd_that_nobody_changed_says_so_itself(now, answer):
    crd = release_looks.Crd({"name": "a.b", "annotations": {"made-by": "the chart"}}, "spec: {}")
    assert release_looks.sealed(crd, now) is answer

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What somebody else changed in a release: which objects are looked at, and what is said of a difference."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import drift, release_looks
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import Forbidden, NotFound, Unreachable


def made(kind, **more):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}, **more}


def test_only_what_may_be_set_back_is_looked_at():
    documents = [
        None,
        "text",
        made("ConfigMap"),
        made("Secret"),
        made("Job"),
        made("CustomResourceDefinition"),
        made("MutatingWebhookConfiguration"),
        {"kind": "ConfigMapList", "items": [made("ConfigMap"), made("Secret")]},
    ]
    assert [item["kind"] for item in drift.wanted(documents, "riva")] == ["ConfigMap", "ConfigMap"]


def test_an_api_that_leads_elsewhere_is_led_back():
    """What others put into it (a CA's certificate) stays: it is no field that the release has."""
    service = made("APIService", spec={"service": {"name": "adapter"}})
    assert [item["kind"] for item in drift.wanted([service], "riva")] == ["APIService"]


def test_a_namespace_is_that_of_the_release_where_none_is_said():
    (mine,) = drift.wanted([made("ConfigMap")], "riva")
    assert mine["metadata"]["namespace"] == "riva"
    other = {**made("ConfigMap"), "metadata": {"name": "a", "namespace": "monitoring"}}
    assert drift.wanted([other], "riva")[0]["metadata"]["namespace"] == "monitoring"


def test_null_says_nothing():
    (mine,) = drift.wanted([made("ConfigMap", data=None, spec={"a": None, "b": [{"c": None}]})], "riva")
    assert "data" not in mine
    assert mine["spec"] == {"b": [{}]}


def test_what_the_apiserver_keeps_does_not_count():
    now = {**made("Service"), "status": {"a": 1}}
    now["metadata"] = {"name": "a", "resourceVersion": "1", "managedFields": [], "generation": 2, "labels": {"x": "y"}}
    then = {**now, "status": {}, "metadata": {"name": "a", "resourceVersion": "2", "labels": {"x": "y"}}}
    assert drift.essence(now) == drift.essence(then)
    then["metadata"] = {"name": "a", "labels": {"x": "z"}}
    assert drift.essence(now) != drift.essence(then)


DIFFERENCES = [
    ({"a": 1}, {"a": 1}, []),
    ({"a": 1}, {"a": 2}, [("a", 1, 2)]),
    ({"a": {"b": 1, "c": 3}}, {"a": {"b": 2, "c": 3}}, [("a.b", 1, 2)]),
    ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, [("a[0].b", 1, 2)]),
    ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
    ({}, {"a": 1}, [("a", None, 1)]),
    ({"a": "1"}, {"a": 1}, [("a", "1", 1)]),
    ({str(n): n for n in range(9)}, {}, [(str(n), n, None) for n in range(5)]),
]


@pytest.mark.parametrize(("now", "then", "found"), DIFFERENCES)
def test_differences(now, then, found):
    assert drift.differences(now, then) == found


def test_a_line_says_what_was_changed_and_to_what_it_goes_back():
    line = drift.words("Deployment a/b", [("spec.replicas", 0, 1), ("spec.paused", True, None)])
    assert line == "Deployment a/b: spec.replicas is 0, the release has 1; spec.paused is True, the release has nothing"
    assert len(drift.words("x", [("data", "y" * 900, "z")])) < 120


def test_the_number_of_pods_is_the_autoscaler_s():
    hpa = {"metadata": {"namespace": "riva"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "a"}}}
    (item,) = drift.wanted([made("Deployment", spec={"replicas": 1, "paused": True})], "riva")
    assert drift.without_replicas(item, drift.scaled([hpa]))["spec"] == {"paused": True}
    assert drift.without_replicas(item, drift.scaled([])) == item
    other = {**hpa, "metadata": {"namespace": "other"}}
    assert drift.without_replicas(item, drift.scaled([other, {}])) == item


class Cluster:
    """Objects in memory; an apply of what is named in *refused* ends with that error."""

    def __init__(self, there, refused):
        self.there, self.refused, self.applied = there, refused, []

    def list_all(self, path):
        return []

    def get(self, path):
        return {"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": True}]}

    def find(self, path):
        return self.there.get(path.rsplit("/", 1)[1])

    def apply(self, path, item, manager, dry_run=False):
        name = item["metadata"]["name"]
        if name in self.refused:
            raise self.refused[name]
        if not dry_run:
            self.applied.append(name)
        return item


def config_map(name, text="as it was"):
    return {**made("ConfigMap"), "metadata": {"name": name, "namespace": "riva"}, "data": {"key": text}}


WANTED = [config_map(name) for name in ("whole", "changed", "gone", "refused")]
BY_HAND = [config_map(name, "by hand") for name in ("changed", "refused")]
THERE = {item["metadata"]["name"]: item for item in (WANTED[0], *BY_HAND)}


@pytest.mark.parametrize("mend", [False, True])
def test_a_release_s_objects_are_looked_at_and_set_back(mend):
    unknown = {**made("Strange"), "metadata": {"name": "unknown", "namespace": "riva"}}
    cluster = Cluster(THERE, {"refused": Forbidden("not yours")})
    found = {
        entry.item["metadata"]["name"]: entry for entry in release_looks.drifted(cluster, [*WANTED, unknown], mend)
    }
    assert list(found) == ["changed", "gone", "refused", "unknown"]
    assert found["changed"].differences == [("data.key", "by hand", "as it was")]
    assert (found["gone"].gone, found["gone"].differences) == (True, [])
    assert not any(found[name].refused for name in ("changed", "gone"))
    assert isinstance(found["refused"].refused, Forbidden)
    assert isinstance(found["unknown"].refused, NotFound)
    assert cluster.applied == (["changed", "gone"] if mend else [])


def test_an_apiserver_that_goes_away_is_no_answer():
    cluster = Cluster(THERE, {"changed": Unreachable("away")})
    with pytest.raises(Unreachable):
        list(release_looks.drifted(cluster, WANTED, mend=True))
    assert cluster.applied == []


@pytest.mark.parametrize(
    ("now", "item", "answer"),
    [
        ({"replicas": 2, "paused": False}, {"replicas": 2}, True),
        ({"replicas": 3}, {"replicas": 2}, False),
        ({}, {"replicas": 2}, False),
        (None, {"replicas": 2}, False),
        ({"ports": [{"port": 80, "protocol": "TCP"}]}, {"ports": [{"port": 80}]}, True),
        # An entry more may be another's own, or one too many: the API server knows the list's keys.
        ({"env": [{"name": "A"}, {"name": "B"}]}, {"env": [{"name": "A"}]}, False),
        ({"env": [{"name": "B"}, {"name": "A"}]}, {"env": [{"name": "A"}, {"name": "B"}]}, False),
        # Written otherwise, or left out where it is empty: again the API server's to say.
        ({"cpu": "1"}, {"cpu": "1000m"}, False),
        ({"volumes": [{"hostPath": {}}]}, {"volumes": [{"emptyDir": {}}]}, False),
        ({"hostNetwork": 1}, {"hostNetwork": True}, False),
        ({"port": "80"}, {"port": 80}, False),
    ],
)
def test_an_object_that_has_all_to_the_letter_needs_no_question(now, item, answer):
    assert drift.holds({"spec": now}, {"spec": item}) is answer

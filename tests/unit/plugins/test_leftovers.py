# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import pytest
from ansible_collections.speechops.riva.plugins.module_utils import leftovers

OURS = {("monitoring", "prometheus-adapter"), ("riva", "riva-asr")}


def helm(name="prometheus-adapter", namespace="monitoring"):
    return {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace}


def api(service=("monitoring", "prometheus-adapter"), annotations=None):
    spec = {"service": {"namespace": service[0], "name": service[1]}} if service else {}
    return {"metadata": {"name": "v1beta1.custom.metrics.k8s.io", "annotations": annotations}, "spec": spec}


@pytest.mark.parametrize(
    ("item", "services", "removable"),
    [
        (api(annotations=helm()), (), [True]),
        (api(annotations=helm()), {("monitoring", "prometheus-adapter")}, []),
        (api(annotations=helm("keda", "keda")), (), [False]),
        (api(), (), [False]),
        (api(service=None), (), []),
    ],
    ids=["ours and dead", "alive", "another release's", "nobody's", "served by the API server"],
)
def test_dead_apiservices(item, services, removable):
    assert [entry.removable for entry in leftovers.dead_apiservices([item], services, OURS)] == removable


def hooks(*clients, annotations=None):
    return {
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "admission", "annotations": annotations},
        "webhooks": [{"clientConfig": client} for client in clients],
    }


HERE, GONE = {"service": {"namespace": "a", "name": "here"}}, {"service": {"namespace": "a", "name": "gone"}}


@pytest.mark.parametrize(
    ("item", "removable"),
    [
        (hooks(GONE, annotations=helm()), [True]),
        (hooks(GONE), [False]),
        (hooks(HERE), []),
        (hooks(GONE, HERE), []),
        (hooks(GONE, {"url": "https://elsewhere.example"}), []),
        (hooks({"url": "https://elsewhere.example"}), []),
        (hooks(), []),
    ],
)
def test_dead_webhooks(item, removable):
    assert [entry.removable for entry in leftovers.dead_webhooks([item], {("a", "here")}, OURS)] == removable


def crd(*managers):
    fields = [{"manager": name} for name in managers]
    return {"metadata": {"name": "things.example.com", "managedFields": fields}}


@pytest.mark.parametrize(
    ("item", "objects", "expected"),
    [
        (crd("speechops.riva", "kube-apiserver"), [], [(True, "no object of its kind is there")]),
        (crd("speechops.riva"), ["a/one"], [(False, "in use by a/one")]),
        (
            crd("speechops.riva"),
            [f"a/{n}" for n in range(7)],
            [(False, "in use by a/0, a/1, a/2, a/3, a/4 and 2 more")],
        ),
        (crd("speechops.riva", "helm"), [], [(False, "also applied by helm")]),
        (crd("helm"), [], []),
        ({"metadata": {"name": "things.example.com"}}, [], []),
    ],
)
def test_crds(item, objects, expected):
    found = leftovers.crds([item], {"things.example.com": objects})
    assert [(entry.removable, entry.message) for entry in found] == expected


def claim(namespace="riva", labels=None, annotations=None):
    return {
        "metadata": {"name": "models", "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": {"resources": {"requests": {"storage": "50Gi"}}},
    }


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (claim(labels={"app.kubernetes.io/instance": "riva-asr"}), ["data, 50Gi"]),
        (claim(annotations=helm("riva-asr", "riva")), ["data, 50Gi"]),
        (claim(labels={"app.kubernetes.io/instance": "someone"}), []),
        (claim("elsewhere", {"app.kubernetes.io/instance": "riva-asr"}), []),
        (claim(), []),
    ],
)
def test_claims(item, expected):
    assert [entry.message for entry in leftovers.claims([item], OURS)] == expected


def test_secrets_are_known_by_their_label():
    def secret(labels):
        return {"metadata": {"name": "pull", "namespace": "riva", "labels": labels}}

    managed = "app.kubernetes.io/managed-by"
    found = leftovers.secrets([secret({managed: "speechops.riva"}), secret({managed: "Helm"}), secret(None)])
    assert len(found) == 1


@pytest.mark.parametrize(
    ("phase", "contents", "expected"),
    [
        (
            "Active",
            [("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default"), ("Event", "x")],
            (True, "is empty"),
        ),
        ("Active", [("Pod", "somebodys")], (False, "holds Pod somebodys")),
        ("Active", [("Secret", "mine"), ("Deployment", "a")], (False, "holds Deployment a, Secret mine")),
        ("Terminating", [], (False, "is Terminating: discovery failed")),
    ],
)
def test_namespaces(phase, contents, expected):
    conditions = [{"status": "True", "message": "discovery failed"}, {"status": "False", "message": "no"}]
    item = {"metadata": {"name": "riva"}, "status": {"phase": phase, "conditions": conditions}}
    found = leftovers.namespace_state(item, contents)
    assert (found.removable, found.message) == expected


@pytest.mark.parametrize(
    ("metadata", "alone"),
    [
        ({}, True),
        ({"deletionTimestamp": "2026-11-22T12:00:00Z"}, False),
        ({"ownerReferences": [{"kind": "ReplicaSet"}]}, False),
    ],
)
def test_what_goes_with_its_owner_does_not_hold_a_namespace(metadata, alone):
    assert leftovers.stands_alone({"metadata": metadata}) is alone


def test_the_table_has_a_line_for_each():
    found = leftovers.crds([crd("speechops.riva")], {}) + leftovers.secrets([])
    assert leftovers.table([entry.to_dict() for entry in found]) == (
        "CustomResourceDefinition  things.example.com  no object of its kind is there"
    )
    assert leftovers.table([]) == "nothing is left"

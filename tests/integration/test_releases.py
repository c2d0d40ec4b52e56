"""A release that is said to be in place is; whatever is taken from it shows, and is put back."""

from __future__ import annotations

import json

import pytest

from tests.integration.running_lab import CHARTS, HELM, run
from tests.integration.validators import answer, until

CHART = CHARTS / "traefik"
CRD = "ingressroutes.traefik.io"


@pytest.fixture(scope="module")
def traefik(installed):
    """The options with which release_info looks at the lab's Traefik."""
    words = (
        HELM,
        f"--kubeconfig={installed.kubeconfig}",
        "get",
        "values",
        "traefik",
        "--namespace=traefik",
        "--output=json",
    )
    return {
        "release_name": "traefik",
        "namespace": "traefik",
        "chart_ref": str(CHART),
        "values": json.loads(run(*words).stdout),
        "namespace_labels": {"kubernetes.io/metadata.name": "traefik"},
        "crd_groups": ["traefik.io"],
        "helm_binary_path": str(HELM),
    }


def mended(lab, name, traefik):
    """What a module that puts something back says to have changed."""
    options = ("chart_ref",) if name == "apply_crds" else ("release_name", "namespace")
    own = {"groups": traefik["crd_groups"]} if name == "apply_crds" else {}
    arguments = {key: traefik[key] for key in (*options, "helm_binary_path")}
    return answer(name, lab, **arguments, **own)


def test_all_that_was_installed_is_in_place(installed, traefik):
    found = answer("release_info", installed, **traefik)
    assert found["deviations"] == []
    assert found["status"] == "deployed"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"release_name": "nobody"}, "Helm has no release of this name"),
        ({"values": {}}, "its values are others"),
        ({"namespace_labels": {"wished": "yes"}}, "its namespace lacks the label wished=yes"),
        ({"chart_ref": str(CHART.parent / "prometheus-adapter")}, "prometheus-adapter"),
        ({"chart_ref": "traefik", "chart_repo_url": "https://charts.example.com"}, "is known to Helm only"),
        (
            {"expect": [{"what": "one more", "resource": "/apis/apps/v1/deployments", "name": "one-more"}]},
            "one more is not ready",
        ),
    ],
    ids=["release", "values", "label", "chart", "repository", "expectation"],
)
def test_another_wish_is_not_in_place(installed, traefik, other, words):
    found = answer("release_info", installed, **{**traefik, **other})
    assert not found["in_place"]
    assert words in found["deviations"][0]


def test_an_object_that_is_gone_shows_and_comes_back(installed, traefik):
    installed.kubectl("--namespace=traefik", "delete", "servicemonitor", "--all")
    try:
        assert answer("release_info", installed, **traefik)["deviations"] == [
            "others changed ServiceMonitor traefik/traefik"
        ]
    finally:
        assert mended(installed, "mend_release", traefik)["changed"]
    assert answer("release_info", installed, **traefik)["in_place"]


def test_a_crd_that_was_edited_shows_and_is_set_back(installed, traefik):
    place = "/spec/versions/0/schema/openAPIV3Schema/description"
    edit = json.dumps([{"op": "add", "path": place, "value": "edited"}])
    installed.kubectl("patch", "crd", CRD, "--type=json", f"--patch={edit}")
    try:
        assert answer("release_info", installed, **traefik)["deviations"] == [f"the CRD {CRD} is not the chart's"]
    finally:
        assert mended(installed, "apply_crds", traefik)["changed_crds"] == [CRD]
    assert answer("release_info", installed, **traefik)["in_place"]


def test_an_adapter_that_is_away_comes_back(installed):
    """Its dead APIServices don't end the run before its own role is there: so after a power cut, or a strange hand."""
    adapter = ("deployment", "prometheus-adapter", "--namespace=monitoring")
    installed.kubectl("scale", *adapter, "--replicas=0")
    dead = until(
        lambda: answer("validate_aggregation_layer", installed, fail_on="never"),
        lambda seen: {one["reason"] for one in seen["apiservices"]} == {"MissingEndpoints"},
    )
    assert not dead["ok"]
    installed.play("site.yml", "--tags", "kube_prometheus_stack,prometheus_adapter")
    assert installed.get(*adapter)["spec"]["replicas"] == 1
    assert answer("validate_aggregation_layer", installed, fail_on="never")["ok"]

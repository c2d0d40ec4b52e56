# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `make lint` holds the riva chart against (tests/conform.py) refuses what Kubernetes would."""

import copy

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import scaling_plan

from lab.binaries import KUBERNETES_VERSION
from tests import conform

META = {"$ref": "#/$defs/Meta", "$defs": {"Meta": {"type": "object"}}}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "string", "description": "x", "default": ""}}},
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
        ),
        # A property may be called as a word of the schema is.
        (
            {"properties": {"description": {"type": "string"}}},
            {"properties": {"description": {"type": "string"}}, "additionalProperties": False},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"type": "object", "additionalProperties": {"type": "string"}},
        ),
        ({"allOf": [{"$ref": "#/components/schemas/A"}], "default": {}}, {"allOf": [{"$ref": "#/$defs/A"}]}),
        ({"x-kubernetes-int-or-string": True, "anyOf": []}, {"type": ["integer", "string"]}),
        ({"format": "int-or-string", "oneOf": []}, {"type": ["integer", "string"]}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"], "nullable": True}),
        (
            {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
            {"type": "object", "properties": {}},
        ),
    ],
)
def test_a_schema_takes_what_it_names_and_nothing_else(schema, wanted):
    assert conform.strict(schema) == wanted


def test_a_definition_that_leads_back_to_itself_ends():
    definitions = {"A": {"$ref": "#/$defs/B"}, "B": {"items": {"$ref": "#/$defs/A"}}, "C": {}}
    assert conform.needed({"$ref": "#/$defs/A"}, definitions) == {"A", "B"}


def test_every_version_of_a_kind_of_others_has_a_schema():
    crd = {
        "spec": {
            "group": "g",
            "names": {"kind": "K"},
            "versions": [
                {"name": name, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"metadata": {}}}}}
                for name in ("v1", "v2")
            ],
        }
    }
    schemas = conform.of_definition(crd, META)
    assert list(schemas) == [("g", "v1", "K"), ("g", "v2", "K")]
    assert schemas["g", "v1", "K"]["properties"]["metadata"] == {"$ref": "#/$defs/Meta"}


def cut(place, key):
    del place[key]


# What somebody might mistype in a template: (kind, what is done to it, what is said).
MISTAKES = {
    "a field that is none": ("Deployment", lambda it: it["spec"].update(replica=1), "replica"),
    "deep below": (
        "Deployment",
        lambda it: it["spec"]["template"]["spec"]["containers"][0].update(imagePullPolice="Always"),
        "imagePullPolice",
    ),
    "of another type": ("Deployment", lambda it: it["spec"].update(minReadySeconds="soon"), "minReadySeconds"),
    "one too few": ("HorizontalPodAutoscaler", lambda it: cut(it["spec"], "maxReplicas"), "maxReplicas"),
    "a null": ("PodDisruptionBudget", lambda it: it["spec"].update(selector=None), "selector"),
    "in somebody else's kind": ("ServiceMonitor", lambda it: it["spec"].update(selektor={}), "selektor"),
    "in Traefik's": ("IngressRoute", lambda it: it["spec"]["routes"][0].update(service=[]), "service"),
    "in the metadata": ("ServiceMonitor", lambda it: it["metadata"].update(label={}), "label"),
    "an old version": ("HorizontalPodAutoscaler", lambda it: it.update(apiVersion="autoscaling/v2beta2"), "schema"),
}


@pytest.fixture(scope="module")
def objects():
    text = conform.render(conform.values_of("balanced-sdk-hpa"))
    return [item for item in yaml.safe_load_all(text) if item]


@pytest.mark.parametrize(("kind", "spoil", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_by_its_object(objects, kind, spoil, says):
    spoilt = copy.deepcopy(objects)
    (one,) = (item for item in spoilt if item["kind"] == kind)
    spoil(one)
    (told,) = conform.complaints(yaml.safe_dump_all(spoilt), KUBERNETES_VERSION)
    assert told.startswith(kind)
    assert says in told


def test_what_is_newer_than_the_oldest_kubernetes_is_told(objects):
    spoilt = copy.deepcopy(objects)
    (one,) = (item for item in spoilt if item["kind"] == "HorizontalPodAutoscaler")
    # Kubernetes 1.33 brought it.
    one["spec"]["behavior"]["scaleUp"]["tolerance"] = "0.05"
    assert conform.complaints(yaml.safe_dump_all(spoilt), KUBERNETES_VERSION) == []
    (told,) = conform.complaints(yaml.safe_dump_all(spoilt), conform.OLDEST)
    assert "tolerance" in told


def test_every_choice_of_the_user_is_rendered():
    presets = {settings.get("scaling_preset") for _oldest, settings, _service in conform.CASES.values()}
    assert presets - {None} == set(scaling_plan.PRESETS)

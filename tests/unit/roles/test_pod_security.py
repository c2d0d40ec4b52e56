# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the pods of our charts may do: the standard that each meets, and every exception by its name."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.unit import charts
from tests.unit.roles.pod_security import BASELINE, RESTRICTED, broken, containers, level

ROOT = Path(__file__).resolve().parents[3]

WITH_LIMIT = {"streams": {"limit": 20}, "networkPolicy": {"enabled": True}}
CLAIM = {"modelStore": {"type": "pvc"}}
FETCHES = {"modelInit": {"enabled": True, "models": ["a"]}}
NIM = {"engine": "nim", "image": {"tag": "1.0.0"}}
# What a service may look like: (values, standard, exceptions from restricted).
ROOT_OF_THE_SDK = {"running as non-root", "capabilities"}
SHAPES = {
    "the SDK, models in a folder of the node": (
        {**WITH_LIMIT, **FETCHES}, "privileged", {*ROOT_OF_THE_SDK, "hostPath volumes", "volume types"},
    ),
    "the SDK, caches of nodes filled": (
        {"modelInit": {**FETCHES["modelInit"], "preSeedNodes": ["gpu-1"]}},
        "privileged",
        {*ROOT_OF_THE_SDK, "hostPath volumes", "volume types"},
    ),
    "the SDK, models from a bucket on a claim": (
        {**CLAIM, "modelInit": {"enabled": True, "s3": {"path": "speech/a100"}}}, "baseline", ROOT_OF_THE_SDK,
    ),
    "the SDK on a claim": ({**WITH_LIMIT, **CLAIM, **FETCHES}, "baseline", ROOT_OF_THE_SDK),
    "a NIM on a claim": ({**NIM, **WITH_LIMIT, **CLAIM}, "restricted", set()),
    "a NIM on a folder of the node": (
        {**NIM, **WITH_LIMIT},
        "privileged",
        {"hostPath volumes", "volume types", "running as non-root", "user 0", "capabilities"},
    ),
}  # fmt: skip


def pods(values: dict, chart: str = "roles/riva/files/chart") -> list[dict]:
    found = charts.rendered(ROOT / chart, values)
    return [item["spec"]["template"]["spec"] for item in found if "template" in item.get("spec", {})]


@pytest.mark.parametrize(("values", "standard", "exceptions"), SHAPES.values(), ids=SHAPES)
def test_each_shape_of_a_service_meets_its_standard(values, standard, exceptions):
    found = pods(values)
    assert found
    worst = min((level(spec) for spec in found), key=("privileged", "baseline", "restricted").index)
    assert worst == standard
    assert {name for spec in found for name in broken(spec, RESTRICTED)} == exceptions


@pytest.mark.parametrize(("values", "_standard", "_exceptions"), SHAPES.values(), ids=SHAPES)
def test_what_holds_for_every_shape(values, _standard, _exceptions):
    for spec in pods(values):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, container["name"]
            assert security["capabilities"]["drop"] == ["ALL"], container["name"]
            # The server and what builds its models write where NVIDIA's image wants; ours write nowhere.
            if container["name"] not in ("riva", "riva-model-init"):
                assert security["readOnlyRootFilesystem"] is True, container["name"]


def test_traefik_meets_restricted():
    """The lab's chart has upstream's own values for this; the role sets none of them."""
    (spec,) = pods({}, "lab/charts/traefik")
    assert level(spec) == "restricted"
    assert all(item["securityContext"]["readOnlyRootFilesystem"] for item in containers(spec))


def test_what_the_user_sets_wins_key_by_key():
    (spec,) = pods({"securityContext": {"capabilities": {"add": []}, "runAsUser": 1000}})
    (server,) = spec["containers"]
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": []},
        "runAsUser": 1000,
    }


GOOD = {
    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "runAsNonRoot": True},
    "containers": [
        {
            "name": "one",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "ports": [{"containerPort": 1}],
        }
    ],
    "volumes": [{"name": "models", "emptyDir": {}}],
}
# Each rule, and what breaks it: a change of the pod and one of its container.
WORSE = {
    "host namespaces": ({"hostNetwork": True}, {}),
    "privileged containers": ({}, {"privileged": True}),
    "added capabilities": ({}, {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}),
    "hostPath volumes": ({"volumes": [{"name": "models", "hostPath": {"path": "/"}}]}, {}),
    "host ports": ({"containers": [{**GOOD["containers"][0], "ports": [{"hostPort": 80}]}]}, {}),
    "seccomp unconfined": ({}, {"seccompProfile": {"type": "Unconfined"}}),
    "unusual settings": ({}, {"procMount": "Unmasked"}),
    "volume types": ({"volumes": [{"name": "models", "nfs": {}}]}, {}),
    "privilege escalation": ({}, {"allowPrivilegeEscalation": True}),
    "running as non-root": ({}, {"runAsNonRoot": False}),
    "user 0": ({}, {"runAsUser": 0}),
    "seccomp": ({"securityContext": {"runAsNonRoot": True}}, {}),
    "capabilities": ({}, {"capabilities": {"drop": ["NET_RAW"]}}),
}


def test_a_pod_that_breaks_nothing():
    assert level(GOOD) == "restricted"


@pytest.mark.parametrize("rule", RESTRICTED)
def test_each_rule_sees_what_breaks_it(rule):
    pod, container = WORSE[rule]
    spec = copy.deepcopy({**GOOD, **pod})
    spec["containers"][0]["securityContext"].update(container)
    assert rule in broken(spec, RESTRICTED)
    assert level(spec) == ("privileged" if rule in BASELINE else "baseline")

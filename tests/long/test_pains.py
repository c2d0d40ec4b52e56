"""Pains of the metric's chain that the tests of tests/integration do not make: each made on the lab, and recognised.

docs/reliability.md has the whole list, with the test of each.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.integration.frail import Frail
from tests.integration.running_lab import HELM, eventually, run
from tests.integration.test_site import INVENTORY, changes, extra
from tests.integration.test_verify_broken_chain import other_rules, server
from tests.integration.validators import causes, until, validate

MONITORS = "servicemonitors.monitoring.coreos.com"
# Upstream's own rules begin with a look at all series; Prometheus takes no regular expression that is not one.
FAILS = {
    "seriesQuery": '{__name__=~"^(container_.*"}',
    "resources": {"template": "<<.Resource>>"},
    "name": {},
    "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
}


def by_zero(rules: list[dict]) -> None:
    for rule in rules:
        # NaN would come out as 0; this is an infinity.
        rule["metricsQuery"] = f"(({rule['metricsQuery']}) + 1) / 0"


def crashing(container: dict) -> None:
    container.update(command=["python3", "-c", "raise SystemExit(3)"], args=[])


def unready(container: dict) -> None:
    container["readinessProbe"] = {"tcpSocket": {"port": 9}, "periodSeconds": 1}


PAINS = {
    "a rule that divides by zero": (lambda service: other_rules(service, by_zero), "api", "impossible value"),
    "one rule that fails": (
        lambda service: other_rules(service, lambda rules: rules.append(FAILS)),
        "adapter_rule",
        "does not offer",
    ),
    "crashing pods": (lambda service: server(service, crashing), "pods", "CrashLoopBackOff"),
    "pods that are never ready": (lambda service: server(service, unready), "pods", "is Ready"),
}


@pytest.mark.parametrize(("breaks", "link", "words"), PAINS.values(), ids=PAINS.keys())
def test_a_pain_is_recognised(frail: Frail, breaks, link: str, words: str):
    frail.whole()

    def named(seen: dict) -> bool:
        return any(cause["check"] == link and words in cause["message"] for cause in causes(seen))

    with breaks(frail):
        result = until(frail.look, named, 150)
    assert named(result), result["table"]
    assert result["first_broken"] == link, result["table"]


DEAD = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": "v1.pain.example"},
    "spec": {
        "group": "pain.example",
        "version": "v1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"namespace": "pain", "name": "gone", "port": 443},
    },
}


def test_an_apiservice_that_is_left_dead(frail: Frail):
    """No namespace can end as long as it is there: the one that is deleted meanwhile stays in Terminating."""
    lab = frail.lab
    frail.create(DEAD)
    try:
        lab.kubectl("create", "namespace", "pain-ends")
        lab.kubectl("delete", "namespace", "pain-ends", "--wait=false")
        seen = until(
            lambda: validate("validate_aggregation_layer", lab, apiservices=["v1.pain.example"]),
            lambda result: any("does not exist" in cause["message"] for cause in causes(result)),
        )
        (cause,) = causes(seen)
        assert cause["check"] == "apiservice", seen["table"]
        assert "delete a left-over" in cause["remedy"]
        eventually(lambda: "DiscoveryFailed" in lab.kubectl("get", "namespace", "pain-ends", "-o", "yaml"), 60)
    finally:
        lab.kubectl("delete", "apiservice", "v1.pain.example")
    eventually(lambda: not lab.kubectl("get", "namespace", "pain-ends", "--ignore-not-found"), 120)


def test_old_crds_are_those_of_the_chart_again(installed):
    """Helm itself never changes a CRD that is there: a field that is new would be lost without a word."""
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
    old = json.dumps([{"op": "remove", "path": f"{schema}/scrapeClass"}])
    installed.kubectl("patch", "crd", MONITORS, "--type=json", "-p", old)
    told = changes(installed.play("site.yml", "--tags", "monitoring").stdout)
    assert len(told) == 1, told
    assert "The CRDs are those of the chart of release kube-prometheus-stack" in told[0]
    fields = installed.get("crd", MONITORS)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert "scrapeClass" in fields["properties"]


QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-more", "namespace": "riva"},
    "spec": {"hard": {"pods": "1"}},
}
ENDS = ["/bin/sh", "-c", "echo there is no model of that name; exit 3"]
# What a service is given, what is in its way, and the words that tell: of a log, of an event, of the remedy.
WAITS = {
    "a container that ends": ({"command": ENDS}, [], ["there is no model of that name", "CrashLoopBackOff", "logs"]),
    "a probe that fails": (
        {"command": ["/bin/sh", "-c", "exec sleep 3600"]},
        [],
        ["Startup probe failed", "what the probe asks"],
    ),
    "pods that a quota forbids": ({}, [QUOTA], ["exceeded quota: no-more", "Correct what the event names"]),
}


@pytest.mark.parametrize(("values", "in_the_way", "words"), WAITS.values(), ids=WAITS.keys())
def test_a_wait_that_runs_out_tells_why(installed, tmp_path, values, in_the_way, words):
    """The object with its last state, its pod with the node, the last words of its log or of the events, the remedy."""
    service = {**INVENTORY["riva_services"][0], "name": "waits", "max_replicas": 1, "values": values}
    for item in in_the_way:
        (tmp_path / "item.json").write_text(json.dumps(item))
        installed.kubectl("apply", "-f", tmp_path / "item.json")
    try:
        done = installed.play(
            "site.yml",
            "--tags",
            "riva",
            *extra(riva_services=[service], riva_timeout=60, riva_model_load_seconds=30),
            check=False,
        )
    finally:
        for item in in_the_way:
            installed.kubectl("delete", item["kind"], item["metadata"]["name"], "-n", "riva")
        helm = [HELM, f"--kubeconfig={installed.kubeconfig}"]
        run(*helm, "uninstall", "waits", "--namespace=riva", "--wait", check=False)
    assert done.returncode != 0
    told = " ".join(done.stdout.split())
    print(told[-2500:])
    for word in ("Deployment riva/waits", "0 of 1", *words):
        assert word in told, done.stdout[-4000:]
    if not in_the_way:
        assert re.search(r"pod waits-\S+", told)
        assert f"{installed.name}-gpu-" in told

"""Two speech services in one cluster: each has its own HPA, route and figures; the other is no part of them."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from tests.integration.callers import Callers
from tests.integration.running_lab import HELM, eventually, run
from tests.integration.test_site import INVENTORY, extra, recap

ONE, TWO = "riva-asr", "riva-two"
HOSTS = {ONE: "one.example.org", TWO: "two.example.org"}
CALLERS = 14
SERVICES = [
    {**INVENTORY["riva_services"][0], "name": name, "host": host, "max_replicas": 2} for name, host in HOSTS.items()
]


@pytest.fixture(scope="module")
def both(installed):
    """The second service beside the first one, until the module ends."""
    yield installed, installed.play("site.yml", "--tags", "always,riva,verify", *extra(riva_services=SERVICES)).stdout
    run(HELM, "uninstall", TWO, "--namespace=riva", "--wait", f"--kubeconfig={installed.kubeconfig}")
    installed.play("site.yml", "--tags", "always,riva")


def pods(lab, service: str) -> set[str]:
    listed = lab.get("pods", "-n", "riva", "-l", f"app.kubernetes.io/instance={service}")["items"]
    return {item["metadata"]["name"] for item in listed}


def demand(lab, service: str) -> float:
    """What this service's HPA is told, asked for as the HPA itself asks."""
    metrics = lab.get("hpa", service, "-n", "riva")["spec"]["metrics"]
    (metric,) = (item["external"]["metric"] for item in metrics if item["type"] == "External")
    labels = ",".join(f"{name}={value}" for name, value in metric["selector"]["matchLabels"].items())
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/riva/{metric['name']}"
    answer = lab.kubectl("get", "--raw", f"{path}?labelSelector={urllib.parse.quote(labels)}")
    (value,) = (item["value"] for item in json.loads(answer)["items"])
    return float(value[:-1]) / 1000 if value.endswith("m") else float(value)


def waits(lab, service: str) -> set[str]:
    """The pods whose time in the queue this service's HPA is given."""
    labels = urllib.parse.quote(f"app.kubernetes.io/instance={service}")
    path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/riva/pods/*/avg_time_queue_ms"
    answer = json.loads(lab.kubectl("get", "--raw", f"{path}?labelSelector={labels}"))
    return {item["describedObject"]["name"] for item in answer["items"]}


def test_both_are_proven_each_by_itself(both):
    lab, output = both
    assert recap(output)["failed"] == 0
    assert f"{ONE}: clients connect to" in output
    assert f"{TWO}: clients connect to" in output
    targets = {
        item["metadata"]["name"]: item["spec"]["scaleTargetRef"]["name"]
        for item in lab.get("hpa", "-n", "riva")["items"]
    }
    assert targets.items() >= {ONE: ONE, TWO: TWO}.items()
    routes = {item["metadata"]["name"] for item in lab.get("ingressroutes.traefik.io", "-n", "riva")["items"]}
    assert routes >= {ONE, TWO}


def test_a_load_on_one_is_not_seen_by_the_other(both):
    lab, _output = both
    address = lab.get("service", "traefik", "-n", "traefik")["status"]["loadBalancer"]["ingress"][0]["ip"]
    eventually(lambda: waits(lab, ONE) == pods(lab, ONE) and waits(lab, TWO) == pods(lab, TWO), 120)
    quiet = demand(lab, ONE)
    before = pods(lab, ONE)
    with Callers(f"{address}:50051", CALLERS, host=HOSTS[TWO]) as callers:
        eventually(lambda: demand(lab, TWO) >= CALLERS, 90)
        assert demand(lab, ONE) == quiet < CALLERS
        # Its HPA follows, the other one has nothing to follow.
        eventually(lambda: len(pods(lab, TWO)) == 2, 120)
        with Callers(f"{address}:50051", 2, host=HOSTS[ONE]) as others:
            others.until(more=4)
        callers.until(more=20)
        assert not waits(lab, ONE) & waits(lab, TWO)
    assert pods(lab, ONE) == before
    assert not callers.lost
    assert not others.lost
    assert {stream.pod.rsplit("-", 2)[0] for stream in callers.ended} == {TWO}
    assert {stream.pod.rsplit("-", 2)[0] for stream in others.ended} == {ONE}


def test_a_value_of_one_service_does_not_reach_the_other(both):
    """Another value for one of them: the other one's pods stay what they are."""
    lab, _output = both
    before = pods(lab, ONE)
    changed = [SERVICES[0], {**SERVICES[1], "values": {**SERVICES[1]["values"], "podLabels": {"team": "two"}}}]
    output = lab.play("site.yml", "--tags", "always,riva", *extra(riva_services=changed)).stdout
    assert recap(output)["changed"] == 1
    assert pods(lab, ONE) == before

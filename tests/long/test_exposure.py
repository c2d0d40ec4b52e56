"""How clients reach Traefik where no load balancer gives an address, and where nodes' own ports are taken.

The tests build on each other, in the order in which they stand.
"""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.integration.running_lab import HELM, open_kind, run
from tests.integration.test_site import extra, recap
from tests.integration.validators import answer, until, validate
from tests.integration.way_in import load_balancer


def look(lab) -> dict:
    return validate("validate_route", lab, namespace="riva", name="riva-asr", recognize=True)


def plan(lab) -> dict:
    """What the role asks: how Traefik is to be published."""
    return answer("plan_exposure", lab)


def address_words(lab) -> str:
    seen = until(lambda: look(lab), lambda result: result["ok"], 60)
    assert seen["ok"], seen["table"]
    return seen["findings"][0]["message"]


@pytest.fixture(scope="module")
def unserved(installed):
    """The lab without Traefik, and without anything that gives addresses; as it was at the end."""
    lab = installed
    balancer = load_balancer(lab)
    os.kill(balancer, signal.SIGSTOP)
    try:
        run(HELM, "uninstall", "traefik", "--namespace", "traefik", "--wait", KUBECONFIG=lab.kubeconfig)
        yield lab
    finally:
        os.kill(balancer, signal.SIGCONT)
        lab.play("site.yml", "--tags", "traefik", *extra(riva_exposure="existing"))


def pools(version: str) -> list[dict]:
    """Cilium's kind of pools, in a version of its group, and one of them."""
    kind = "CiliumLoadBalancerIPPool"
    one = {"apiVersion": f"cilium.io/{version}", "kind": kind, "metadata": {"name": "speech"}}
    return [open_kind("cilium.io", version, kind, "ciliumloadbalancerippools", scope="Cluster"), one]


def daemons(name: str, image: str) -> list[dict]:
    """A DaemonSet as others install it, for nodes that are not there."""
    labels = {"app": name}
    spec = {"nodeSelector": {"no-such": "node"}, "containers": [{"name": "main", "image": image}]}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
    ]


GIVERS = {
    "Cilium, v2": (pools("v2"), "CiliumLoadBalancerIPPool speech"),
    "Cilium, v2alpha1": (pools("v2alpha1"), "CiliumLoadBalancerIPPool speech"),
    "kube-vip": (daemons("kube-vip-ds", "ghcr.io/kube-vip/kube-vip:v1.0.0"), "kube-vip-ds runs"),
    "ServiceLB": (daemons("svclb-web-1a2b", "rancher/klipper-lb:v0.4.13"), "its DaemonSets svclb-* are there"),
}


@pytest.mark.parametrize("giver", GIVERS)
def test_what_gives_addresses_is_recognised(unserved, tmp_path, giver):
    """By its own objects on a real API server; MetalLB itself is in test_metallb.py."""
    objects, evidence = GIVERS[giver]
    files = []
    try:
        for number, item in enumerate(objects):
            files.append(tmp_path / f"{number}.json")
            files[-1].write_text(json.dumps(item))
            unserved.kubectl("apply", "-f", str(files[-1]))
            if item["kind"] == "CustomResourceDefinition":
                unserved.kubectl("wait", "crd", item["metadata"]["name"], "--for=condition=Established")
        seen = plan(unserved)
        assert seen["why"] == f"{giver.split(',')[0]} gives addresses here ({evidence})"
        assert (seen["service_type"], seen["certain"]) == ("LoadBalancer", False)
    finally:
        for file in reversed(files):
            unserved.kubectl("delete", "-f", str(file))
    assert until(lambda: plan(unserved), lambda seen: seen["found"] == [], 20)["found"] == []


def test_auto_ends_with_a_node_port_and_says_why(unserved):
    done = unserved.play("site.yml", "--tags", "traefik", *extra(traefik_address_seconds=8))
    assert "a node port address (no address came within 8 s" in " ".join(done.stdout.split())
    assert "node port address" in address_words(unserved)


def test_a_second_run_changes_nothing(unserved):
    done = unserved.play("site.yml", "--tags", "traefik", *extra(traefik_address_seconds=8))
    assert recap(done.stdout)["changed"] == 0


def test_existing_says_what_is_missing(unserved):
    settings = extra(riva_exposure="existing", traefik_address_seconds=5)
    done = unserved.play("site.yml", "--tags", "traefik", *settings, check=False)
    assert done.returncode != 0
    assert "no address came (waited 5 s)" in " ".join(done.stdout.split())
    assert "riva_exposure to metallb, nodeport or hostport" in " ".join(done.stdout.split())


def test_host_ports(unserved):
    done = unserved.play("site.yml", "--tags", "traefik", *extra(riva_exposure="hostport"))
    assert "a host port address (riva_exposure is hostport)" in " ".join(done.stdout.split())
    assert "host port address" in address_words(unserved)
    again = unserved.play("site.yml", "--tags", "traefik", *extra(riva_exposure="hostport"))
    assert recap(again.stdout)["changed"] == 0


def test_a_node_port_of_ones_own(unserved):
    settings = extra(riva_exposure="nodeport", traefik_node_port=31051)
    done = unserved.play("site.yml", "--tags", "traefik", *settings)
    assert "a node port address (riva_exposure is nodeport)" in " ".join(done.stdout.split())
    assert ":31051, a node port address" in address_words(unserved)
    assert recap(unserved.play("site.yml", "--tags", "traefik", *settings).stdout)["changed"] == 0

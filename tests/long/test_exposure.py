"""How clients reach Traefik where no load balancer gives an address, and where nodes' own ports are taken.

The tests build on each other, in the order in which they stand.
"""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.running_lab import run
from tests.integration.test_site import extra, recap
from tests.integration.validators import until, validate
from tests.integration.way_in import HELM, load_balancer


def look(lab) -> dict:
    return validate("validate_route", lab, namespace="riva", name="riva-asr", recognize=True)


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

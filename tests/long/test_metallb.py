"""MetalLB's own controller and speaker on the lab: the role installs the unmodified chart, and its address takes calls.

Both programs are built from their Go module (some minutes, once). The lab's own load balancer stands still meanwhile.
"""

from __future__ import annotations

import ipaddress
import os
import signal

import pytest

from lab.extras import METALLB_PROGRAMS, METALLB_VERSION
from lab.settings import Lab
from tests.integration.running_lab import run
from tests.integration.test_site import extra, recap
from tests.integration.validators import until, validate
from tests.integration.way_in import HELM, load_balancer


@pytest.fixture(scope="module")
def settings(installed):
    """What makes site.yml use MetalLB on this lab."""
    installed.command("add", "metallb", timeout=1800)
    network = ipaddress.ip_network(installed.network)
    pool = f"{network[2 * 256 + 200]}-{network[2 * 256 + 210]}"
    balancer = load_balancer(installed)
    os.kill(balancer, signal.SIGSTOP)
    try:
        run(HELM, "uninstall", "traefik", "--namespace", "traefik", "--wait", KUBECONFIG=installed.kubeconfig)
        yield {
            "riva_exposure": "metallb",
            "metallb_chart_ref": str(Lab().cache_folder / "metallb" / "chart"),
            "metallb_pools": [{"name": "speech", "addresses": [pool]}],
            # The chart in the repository's tree names no version of its own.
            "metallb_values": {name: {"image": {"tag": f"v{METALLB_VERSION}"}} for name in METALLB_PROGRAMS},
        }
    finally:
        run(HELM, "uninstall", "metallb", "--namespace", "metallb-system", KUBECONFIG=installed.kubeconfig, check=False)
        run(HELM, "uninstall", "traefik", "--namespace", "traefik", KUBECONFIG=installed.kubeconfig, check=False)
        os.kill(balancer, signal.SIGCONT)
        installed.play("site.yml", "--tags", "traefik")


def test_calls_come_in_by_an_address_of_the_pool(installed, settings):
    done = installed.play("site.yml", "--tags", "traefik", *extra(**settings))
    assert "a load balancer address (riva_exposure is metallb)" in " ".join(done.stdout.split())
    seen = until(
        lambda: validate("validate_route", installed, namespace="riva", name="riva-asr", recognize=True),
        lambda result: result["ok"],
        60,
    )
    assert seen["ok"], seen["table"]
    first = settings["metallb_pools"][0]["addresses"][0].split("-")[0]
    assert seen["address"] == f"{first}:50051"


def test_a_second_run_changes_nothing(installed, settings):
    done = installed.play("site.yml", "--tags", "traefik", *extra(**settings))
    assert recap(done.stdout)["changed"] == 0


def test_a_pool_with_a_nodes_address_is_refused(installed, settings):
    address = installed.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    bad = settings | {"metallb_pools": [{"name": "speech", "addresses": [f"{address}/32"]}]}
    done = installed.play("site.yml", "--tags", "traefik", *extra(**bad), check=False)
    assert done.returncode != 0
    assert f"{address} is the address of node" in done.stdout

"""MetalLB's own controller and speaker on the lab: the role installs the unmodified chart, and its address takes calls.

Both programs are built from their Go module (some minutes, once). The lab's own load balancer stands still meanwhile.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import processes
from lab.binaries import find_go
from lab.images import NOBODY, Image, program_layer, write_archive
from lab.settings import Lab
from tests.integration.running_lab import REPOSITORY, run
from tests.integration.test_site import extra, recap
from tests.integration.validators import until, validate
from tests.integration.way_in import HELM, load_balancer

VERSION = "v0.16.1"
MODULE = f"go.universe.tf/metallb@{VERSION}"
PROGRAMS = ("controller", "speaker")


def build(cache: Path) -> None:
    """Build what is missing of MetalLB's programs."""
    go = find_go(cache / "tools")
    missing = [name for name in PROGRAMS if not (cache / "metallb" / name).exists()]
    (cache / "metallb").mkdir(exist_ok=True)
    environment = {**os.environ, "GOBIN": str(cache / "metallb"), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    for name in missing:
        package = MODULE.replace("@", f"/{name}@")
        words = [go, "install", "-trimpath", "-ldflags=-s -w", package]
        done = subprocess.run(words, env=environment, cwd="/", capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"MetalLB can't be built here: {done.stderr[-500:]}")


def chart(cache: Path) -> Path:
    """The unmodified upstream chart, which lies in the Go module beside the programs."""
    go = find_go(cache / "tools")
    folder = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    return Path(folder) / MODULE / "charts" / "metallb"


def import_images(lab, cache: Path) -> None:
    work = cache / "metallb"
    images = []
    for name in PROGRAMS:
        layer = program_layer(work / f"{name}.layer", {name: work / name})
        user = NOBODY if name == "controller" else ""
        images.append(Image((f"quay.io/metallb/{name}:{VERSION}",), (layer,), entrypoint=(f"/{name}",), user=user))
    archive = cache / "images" / f"metallb-{VERSION}.archive"
    write_archive(archive, images)
    whole = Lab(lab.name, lab.network)
    for node in whole.nodes:
        pid = processes.node_process(whole, node.name)
        enter = ("nsenter", f"--target={pid}", "--mount", "--net", "--pid")
        run(*enter, sys.executable, "-m", "lab.image_import", str(archive), PYTHONPATH=str(REPOSITORY))


@pytest.fixture(scope="module")
def settings(installed):
    """What makes site.yml use MetalLB on this lab."""
    cache = Path.home() / ".cache" / "speechops-lab"
    build(cache)
    import_images(installed, cache)
    network = ipaddress.ip_network(installed.network)
    pool = f"{network[2 * 256 + 200]}-{network[2 * 256 + 210]}"
    balancer = load_balancer(installed)
    os.kill(balancer, signal.SIGSTOP)
    try:
        run(HELM, "uninstall", "traefik", "--namespace", "traefik", "--wait", KUBECONFIG=installed.kubeconfig)
        yield {
            "riva_exposure": "metallb",
            "metallb_chart_ref": str(chart(cache)),
            "metallb_pools": [{"name": "speech", "addresses": [pool]}],
            # The chart in the repository's tree names no version of its own.
            "metallb_values": {name: {"image": {"tag": VERSION}} for name in PROGRAMS},
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

"""MetalLB's own controller and speaker on the lab: the role installs the unmodified chart, and its address takes calls.

First on the nodes' own network, then with GoBGP as the router beside it. All programs are built from their Go modules
(some minutes, once). The lab's own load balancer stands still meanwhile. The tests build on each other.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest
import yaml

from lab.extras import METALLB_PROGRAMS, METALLB_VERSION, gobgp
from lab.settings import Lab
from tests.benchmarks.bare_apiserver import free_port
from tests.integration.running_lab import HELM, run
from tests.integration.test_site import changes, extra, recap
from tests.integration.validators import until, validate
from tests.integration.way_in import load_balancer


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


def uninstall(lab, release: str, namespace: str) -> None:
    """A test that runs alone finds nothing to uninstall."""
    words = ["uninstall", release, "--namespace", namespace, "--wait", "--ignore-not-found"]
    run(HELM, *words, KUBECONFIG=lab.kubeconfig)


def test_auto_takes_the_metallb_that_is_there(installed, settings):
    uninstall(installed, "traefik", "traefik")
    done = installed.play("site.yml", "--tags", "traefik", *extra(riva_exposure="auto"))
    told = " ".join(done.stdout.split())
    assert "a load balancer address (MetalLB gives addresses here (IPAddressPool speech))" in told


EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def test_nodes_that_are_all_excluded_are_told(installed, settings):
    installed.kubectl("label", "nodes", "--all", f"{EXCLUDED}=")
    try:
        done = installed.play("site.yml", "--tags", "metallb", *extra(**settings), check=False)
    finally:
        installed.kubectl("label", "nodes", "--all", f"{EXCLUDED}-")
    assert done.returncode != 0
    assert f"are labelled {EXCLUDED}" in " ".join(done.stdout.split())
    assert changes(done.stdout) == []


# As kubeadm leaves them; the lab's own kube-proxy runs beside its nodes' kubelets.
PROXY_FILE = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n"
PROXY = [
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "data": {"config.conf": PROXY_FILE + "ipvs: {strictARP: false}\n"},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "kube-proxy"}},
            "template": {
                "metadata": {"labels": {"k8s-app": "kube-proxy"}},
                "spec": {
                    "nodeSelector": {"no-such-node": "true"},
                    "containers": [{"name": "kube-proxy", "image": "docker.io/library/busybox:1.36"}],
                },
            },
        },
    },
]


def test_ipvs_without_strict_arp_is_told_and_mended_on_request(installed, settings, tmp_path):
    file = tmp_path / "proxy.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": PROXY}))
    play = ("site.yml", "--tags", "metallb")
    installed.kubectl("apply", "-f", str(file))
    try:
        refused = installed.play(*play, *extra(**settings), check=False)
        assert "kube-proxy uses IPVS without strictARP" in " ".join(refused.stdout.split())
        assert "Set metallb_set_strict_arp to true" in " ".join(refused.stdout.split())
        assert (refused.returncode != 0, changes(refused.stdout)) == (True, [])
        mending = settings | {"metallb_set_strict_arp": True}
        assert len(changes(installed.play(*play, *extra(**mending)).stdout)) == 2
        found = installed.get("configmap", "kube-proxy", "-n", "kube-system")["data"]["config.conf"]
        assert yaml.safe_load(found)["ipvs"]["strictARP"] is True
        template = installed.get("daemonset", "kube-proxy", "-n", "kube-system")["spec"]["template"]
        assert template["metadata"]["annotations"]["speechops.riva/strict-arp"] == "true"
        assert recap(installed.play(*play, *extra(**mending)).stdout)["changed"] == 0
    finally:
        installed.kubectl("delete", "-f", str(file))


# --- with a router

ROUTED = "198.51.100.0/28"
ROUTER_ASN, NODES_ASN = 64512, 64513


class Router:
    """GoBGP beside the nodes; what it learns becomes routes of this machine, as a router's own kernel would have it."""

    def __init__(self, lab, folder) -> None:
        network = ipaddress.ip_network(lab.network)
        self.address, self.folder, self.port = str(network[1]), folder, free_port()
        self.programs = gobgp(Lab())
        self.ended = threading.Event()
        self.file = folder / "gobgpd.json"
        self.file.write_text(
            json.dumps(
                {
                    "global": {
                        "config": {
                            "as": ROUTER_ASN,
                            "router-id": self.address,
                            "local-address-list": [self.address],
                        }
                    },
                    "peer-groups": [{"config": {"peer-group-name": "nodes", "peer-as": NODES_ASN}}],
                    "dynamic-neighbors": [{"config": {"prefix": lab.network, "peer-group": "nodes"}}],
                }
            )
        )

    def __enter__(self) -> Router:
        words = [self.programs / "gobgpd", "-f", self.file, "-t", "json", f"--api-hosts=127.0.0.1:{self.port}"]
        with open(self.folder / "gobgpd.log", "w") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        self.thread = threading.Thread(target=self.follow)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()
        self.process.terminate()
        self.process.wait(20)

    def learned(self) -> dict[str, list[str]]:
        """Of each prefix the next hops."""
        words = [self.programs / "gobgp", "-p", str(self.port), "global", "rib", "-j"]
        done = subprocess.run(words, capture_output=True, text=True)
        table = json.loads(done.stdout) if done.returncode == 0 and done.stdout.startswith("{") else {}
        return {
            prefix: sorted(set(re.findall(r'"nexthop": ?"([^"]+)"', json.dumps(paths))))
            for prefix, paths in table.items()
        }

    def follow(self) -> None:
        known: dict[str, list[str]] = {}
        while not self.ended.wait(1):
            now = self.learned()
            for prefix in known.keys() - now.keys():
                run("ip", "route", "del", prefix, check=False)
            for prefix, hops in now.items():
                if hops != known.get(prefix):
                    run("ip", "route", "replace", prefix, *(word for hop in hops for word in ("nexthop", "via", hop)))
            known = now
        for prefix in known:
            run("ip", "route", "del", prefix, check=False)


@pytest.fixture(scope="module")
def router(installed, tmp_path_factory):
    with Router(installed, tmp_path_factory.mktemp("router")) as made:
        yield made


@pytest.fixture(scope="module")
def routed(installed, settings, router):
    """MetalLB as it announces to a router: the speaker's own BGP, for FRR's programs are no Go module."""
    uninstall(installed, "traefik", "traefik")
    uninstall(installed, "metallb", "metallb-system")
    peer = {"name": "router", "address": router.address, "asn": ROUTER_ASN, "own_asn": NODES_ASN}
    return settings | {
        "metallb_mode": "bgp",
        "metallb_bgp_peers": [peer],
        "metallb_pools": [{"name": "speech", "addresses": [ROUTED]}],
        "metallb_values": settings["metallb_values"] | {"frrk8s": {"enabled": False}},
    }


def nodes_of(lab) -> list[str]:
    items = lab.get("nodes")["items"]
    return sorted(
        entry["address"] for item in items for entry in item["status"]["addresses"] if entry["type"] == "InternalIP"
    )


def test_calls_come_in_by_a_route_that_was_learned(installed, routed, router):
    done = installed.play("site.yml", "--tags", "traefik", *extra(**routed))
    first = str(ipaddress.ip_network(ROUTED)[0])
    assert f"clients connect to {first}:50051" in " ".join(done.stdout.split())
    assert until(router.learned, lambda table: table.get(f"{first}/32") == nodes_of(installed), 30) == {
        f"{first}/32": nodes_of(installed)
    }
    # The last next hop becomes a route within a second.
    time.sleep(2)
    seen = validate("validate_route", installed, namespace="riva", name="riva-asr", recognize=True)
    assert seen["ok"], seen["table"]
    assert seen["address"] == f"{first}:50051"
    again = installed.play("site.yml", "--tags", "traefik", *extra(**routed))
    assert recap(again.stdout)["changed"] == 0


def test_a_node_that_is_excluded_is_no_next_hop_any_more(installed, routed, router):
    (prefix,) = router.learned()
    node = installed.get("nodes")["items"][-1]["metadata"]["name"]
    installed.kubectl("label", "node", node, f"{EXCLUDED}=")
    try:
        seen = until(router.learned, lambda table: len(table.get(prefix, ())) == 2, 60)
        assert len(seen[prefix]) == 2
        time.sleep(2)
        call = validate("validate_route", installed, namespace="riva", name="riva-asr", recognize=True)
        assert call["ok"], call["table"]
    finally:
        installed.kubectl("label", "node", node, f"{EXCLUDED}-")
    assert len(until(router.learned, lambda table: len(table.get(prefix, ())) == 3, 60)[prefix]) == 3

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""MetalLB: clusters and pools that can't work are told before the first change, and its objects say what was asked."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import metallb


def node(name, address="10.0.0.1", ready="True", **labels):
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


NODES = [node("a", "10.0.0.1"), node("b", "2001:db8::5")]


def pool(*addresses, name="p"):
    return {"name": name, "addresses": list(addresses)}


POOLS = [
    ([pool("10.0.0.10-10.0.0.20", "2001:db8:1::/120")], []),
    ([], ["metallb_pools is empty"]),
    ([pool("10.0.0.0/28")], ["10.0.0.1 is the address of node a"]),
    ([pool("2001:db8::1-2001:db8::9")], ["2001:db8::5 is the address of node b"]),
    ([pool("10.0.0.20-10.0.0.10")], ["is no range"]),
    ([pool("10.0.0.20-2001:db8::9")], ["is no range"]),
    ([pool("ten")], ["is no range"]),
    ([pool("10.0.0.1/24")], ["is no range"]),
    ([pool("10.0.0.10-10.0.0.20"), pool("10.0.0.20-10.0.0.30", name="q")], ["overlaps pool p's 10.0.0.10-10.0.0.20"]),
]


@pytest.mark.parametrize(("pools", "words"), POOLS)
def test_pools(pools, words):
    wrong = metallb.check_pools(pools, NODES)
    assert len(wrong) == len(words)
    for (message, remedy), wanted in zip(wrong, words, strict=True):
        assert wanted in message
        assert remedy


def test_bgp_needs_a_router():
    good = [pool("10.0.1.0/28")]
    assert metallb.check_pools(good, NODES, "bgp", ["router"]) == []
    assert "metallb_bgp_peers is empty" in metallb.check_pools(good, NODES, "bgp")[0][0]


EXCLUDED = {metallb.EXCLUDED: ""}
ANNOUNCERS = [
    ([node("a"), node("b", **EXCLUDED)], {}, False, ""),
    ([node("a", **EXCLUDED)], {}, False, "are labelled node.kubernetes.io/exclude"),
    ([node("a", **EXCLUDED)], {}, True, ""),
    ([node("a"), node("b", edge="yes", **EXCLUDED)], {"edge": "yes"}, False, "all 1 nodes"),
    ([node("a")], {"edge": "yes"}, False, "no node has the labels"),
    ([node("a", ready="False")], {}, False, "no node that could announce is Ready"),
]


@pytest.mark.parametrize(("nodes", "labels", "ignore", "words"), ANNOUNCERS)
def test_nodes_that_announce(nodes, labels, ignore, words):
    wrong = metallb.check_nodes(nodes, labels, ignore)
    assert bool(wrong) == bool(words)
    assert words in (wrong[0][0] if wrong else "")


IPVS = "kind: KubeProxyConfiguration\nipvs:\n  minSyncPeriod: 0s\n  strictARP: false\nmode: ipvs\n"
PROXIES = [
    ("", False),
    ("mode: iptables\nipvs:\n  strictARP: false\n", False),
    ('mode: ""\n', False),
    (IPVS, True),
    (IPVS.replace("false", "true"), False),
    ('mode: "ipvs"\n', True),
    ("ipvs:\n  scheduler: rr\nmode: ipvs\n", True),
]


@pytest.mark.parametrize(("text", "needed"), PROXIES)
def test_strict_arp(text, needed):
    assert metallb.needs_strict_arp(text) is needed
    if needed:
        changed = metallb.with_strict_arp(text)
        assert not metallb.needs_strict_arp(changed)
        assert set(text.replace("strictARP: false", "").split()) <= set(changed.split())


def test_objects_for_the_nodes_own_network():
    first, announced = metallb.objects([pool("10.0.0.0/28") | {"auto_assign": False}], "l2", ["eth0"], {"edge": "yes"})
    assert (first["apiVersion"], first["kind"]) == ("metallb.io/v1beta1", "IPAddressPool")
    assert first["spec"] == {"addresses": ["10.0.0.0/28"], "autoAssign": False}
    assert announced["kind"] == "L2Advertisement"
    assert announced["spec"] == {
        "ipAddressPools": ["p"],
        "interfaces": ["eth0"],
        "nodeSelectors": [{"matchLabels": {"edge": "yes"}}],
    }


def test_objects_for_routers():
    peer = {"name": "r", "address": "10.0.0.254", "asn": 64500, "own_asn": 64501, "password_secret": "s"}
    made = metallb.objects([pool("10.0.0.0/28")], "bgp", peers=[peer])
    kinds = {item["kind"]: item for item in made}
    assert set(kinds) == {"IPAddressPool", "BGPPeer", "BGPAdvertisement"}
    assert kinds["BGPPeer"]["apiVersion"] == "metallb.io/v1beta2"
    assert kinds["BGPPeer"]["spec"] == {
        "myASN": 64501,
        "peerASN": 64500,
        "peerAddress": "10.0.0.254",
        "passwordSecret": {"name": "s"},
    }
    assert kinds["BGPAdvertisement"]["spec"] == {"ipAddressPools": ["p"]}

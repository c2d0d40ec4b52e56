# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MetalLB: can it work on this cluster, and which objects say what it hands out and announces. Pure rules."""

from __future__ import annotations

import ipaddress
import re

from ansible_collections.speechops.riva.plugins.module_utils.exposure import is_ready

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def address_range(text):
    """(first, last) address of a range (a-b) or a network (a/n). Raises ValueError where it is neither."""
    text = str(text).strip()
    if "-" in text:
        first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
        if first.version != last.version or int(first) > int(last):
            raise ValueError(f"{text} does not go upwards")
        return first, last
    network = ipaddress.ip_network(text)
    return network[0], network[-1]


def check_pools(pools, nodes, mode="l2", peers=()):
    """What is wrong with the pools, as (message, remedy)."""
    if not pools:
        return [("metallb_pools is empty", "Set metallb_pools to [{name: ..., addresses: [first-last]}].")]
    wrong = []
    owned = {
        entry["address"]: (node.get("metadata") or {}).get("name")
        for node in nodes
        for entry in (node.get("status") or {}).get("addresses") or []
        if entry.get("type") in ("InternalIP", "ExternalIP")
    }
    taken: list[tuple] = []
    for pool in pools:
        for text in pool["addresses"]:
            place = f"metallb_pools: pool {pool['name']} has {text}"
            try:
                first, last = address_range(text)
            except ValueError as error:
                wrong.append((f"{place}, which is no range: {error}", "Write 192.0.2.10-192.0.2.20 or 192.0.2.0/28."))
                continue
            wrong += [
                (f"{place}, and {address} is the address of node {name}", "Take addresses that nothing else uses.")
                for address, name in owned.items()
                if ipaddress.ip_address(address).version == first.version
                and first <= ipaddress.ip_address(address) <= last
            ]
            for other, low, high in taken:
                if low.version == first.version and first <= high and low <= last:
                    wrong.append((f"{place}, which overlaps {other}", "Give each address to one pool."))
            taken.append((f"pool {pool['name']}'s {text}", first, last))
    if mode == "bgp" and not peers:
        wrong.append(("metallb_mode is bgp and metallb_bgp_peers is empty", "Name the routers in metallb_bgp_peers."))
    return wrong


def check_nodes(nodes, labels, ignore_exclude_label):
    """What is wrong with the nodes that are to announce, as (message, remedy)."""
    chosen = [
        node
        for node in nodes
        if all(((node.get("metadata") or {}).get("labels") or {}).get(key) == value for key, value in labels.items())
    ]
    if not chosen:
        return [(f"no node has the labels of metallb_node_labels ({labels})", "Correct the labels, or leave them out.")]
    announcing = [
        node
        for node in chosen
        if ignore_exclude_label or EXCLUDED not in ((node.get("metadata") or {}).get("labels") or {})
    ]
    if not announcing:
        return [
            (
                f"all {len(chosen)} nodes that could announce are labelled {EXCLUDED}",
                "Set metallb_ignore_exclude_label to true, or remove the label from nodes that may take calls.",
            )
        ]
    if not any(is_ready(node) for node in announcing):
        return [("no node that could announce is Ready", "Mend the nodes first: kubectl describe nodes.")]
    return []


_STRICT = re.compile(r"^(\s*)strictARP:\s*(\S+)\s*$", re.MULTILINE)


def needs_strict_arp(text):
    """Whether this configuration of kube-proxy (config.conf) is IPVS without strictARP, which answers ARP for all."""
    mode = re.search(r"^mode:\s*[\"']?(\w*)", text or "", re.MULTILINE)
    if not mode or mode[1] != "ipvs":
        return False
    found = _STRICT.search(text)
    return not found or found[2] != "true"


def with_strict_arp(text):
    """The same configuration with strictARP."""
    if _STRICT.search(text):
        return _STRICT.sub(r"\1strictARP: true", text)
    if re.search(r"^ipvs:\s*$", text, re.MULTILINE):
        return re.sub(r"^ipvs:\s*$", "ipvs:\n  strictARP: true", text, count=1, flags=re.MULTILINE)
    return text.rstrip("\n") + "\nipvs:\n  strictARP: true\n"


def objects(pools, mode="l2", interfaces=(), node_labels=None, peers=()):
    """The pools, and one announcement for all of them."""
    made = [
        _object(
            "v1beta1",
            "IPAddressPool",
            pool["name"],
            {"addresses": list(pool["addresses"]), "autoAssign": bool(pool.get("auto_assign", True))},
        )
        for pool in pools
    ]
    spec = {"ipAddressPools": [pool["name"] for pool in pools]}
    if node_labels:
        spec["nodeSelectors"] = [{"matchLabels": dict(node_labels)}]
    if mode == "l2":
        if interfaces:
            spec["interfaces"] = list(interfaces)
        return [*made, _object("v1beta1", "L2Advertisement", "speech", spec)]
    made += [_object("v1beta2", "BGPPeer", peer["name"], _peer(peer)) for peer in peers]
    return [*made, _object("v1beta1", "BGPAdvertisement", "speech", spec)]


def _peer(peer):
    spec = {"myASN": int(peer["own_asn"]), "peerASN": int(peer["asn"]), "peerAddress": peer["address"]}
    if peer.get("password_secret"):
        spec["passwordSecret"] = {"name": peer["password_secret"]}
    return spec


def _object(version, kind, name, spec):
    return {"apiVersion": f"metallb.io/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How clients outside the cluster reach Traefik: what the cluster offers, what is chosen, and where it then is.

Pure rules: objects in, answers out.
"""

from __future__ import annotations

import ipaddress

ENTRY_POINT = "riva-grpc"
EXPOSURES = ("auto", "metallb", "existing", "nodeport", "hostport")

LOAD_BALANCER, NODE_PORT, CLUSTER_IP = "LoadBalancer", "NodePort", "ClusterIP"


def _names(items):
    return [(item.get("metadata") or {}).get("name") or "" for item in items]


def given_addresses(service):
    """The addresses that a Service of type LoadBalancer was given, as text."""
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return [entry.get("ip") or entry.get("hostname") for entry in given if entry.get("ip") or entry.get("hostname")]


def _image_names(workload):
    pod = ((workload.get("spec") or {}).get("template") or {}).get("spec") or workload.get("spec") or {}
    return [container.get("image") or "" for container in pod.get("containers") or []]


def providers(groups=(), pools=None, workloads=(), nodes=(), services=()):
    """What hands out addresses of LoadBalancer Services here: list of (name, evidence), the surest first.

    groups: names of the API groups; pools: {name of a provider: its pools}; workloads: DaemonSets and pods of
    kube-system; nodes; services: all of type LoadBalancer.
    """
    found = []
    pools = pools or {}
    for name, group, kind in (
        ("MetalLB", "metallb.io", "IPAddressPool"),
        ("Cilium", "cilium.io", "CiliumLoadBalancerIPPool"),
    ):
        if group in groups and pools.get(name):
            found.append((name, f"{kind} {', '.join(_names(pools[name])[:3])}"))
    vips = [_names([item])[0] for item in workloads if any("kube-vip" in image for image in _image_names(item))]
    if vips:
        found.append(("kube-vip", f"{vips[0]} runs"))
    if any(name.startswith("svclb-") for name in _names(workloads)):
        found.append(("ServiceLB", "its DaemonSets svclb-* are there"))
    elif any("+k3s" in (((n.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion") or "") for n in nodes):
        found.append(("ServiceLB", "the nodes run k3s, which brings it unless it was disabled"))
    served = [service for service in services if given_addresses(service)]
    if served and not found:
        meta = served[0].get("metadata") or {}
        found.append(("something", f"Service {meta.get('namespace')}/{meta.get('name')} has an address"))
    return found


def plan(exposure, found, service=None):
    """{service_type, host_port, certain, why}: what Traefik's Service shall be.

    found: of `providers`; service: Traefik's own, where it is there already. Not certain: it is tried with a
    LoadBalancer, and a node port is taken where no address comes.
    """
    if exposure == "nodeport":
        return _planned(NODE_PORT, "riva_exposure is nodeport")
    if exposure == "hostport":
        return _planned(CLUSTER_IP, "riva_exposure is hostport", host_port=True)
    if exposure in ("metallb", "existing"):
        return _planned(LOAD_BALANCER, f"riva_exposure is {exposure}")
    kind = ((service or {}).get("spec") or {}).get("type")
    if kind == LOAD_BALANCER and given_addresses(service):
        return _planned(LOAD_BALANCER, "the Service has an address already")
    if kind == NODE_PORT:
        # The address that clients know stays: a run must not move it because something new was installed.
        words = f"; {found[0][0]} is there, riva_exposure existing would use it" if found else ""
        return _planned(NODE_PORT, f"an earlier run got no address from a load balancer{words}")
    if found:
        name, evidence = found[0]
        return _planned(LOAD_BALANCER, f"{name} gives addresses here ({evidence})", certain=False)
    return _planned(LOAD_BALANCER, "nothing that gives addresses was recognised; it is tried", certain=False)


def _planned(service_type, why, host_port=False, certain=True):
    return {"service_type": service_type, "host_port": host_port, "certain": certain, "why": why}


def is_ready(item):
    """Whether a node or a pod says Ready, and is not about to go."""
    if (item.get("metadata") or {}).get("deletionTimestamp"):
        return False
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions)


def node_addresses(node):
    """Where a node is reached, ExternalIP before InternalIP."""
    listed = (node.get("status") or {}).get("addresses") or []
    return [
        entry["address"]
        for kind in ("ExternalIP", "InternalIP")
        for entry in listed
        if entry.get("type") == kind and entry.get("address")
    ]


def _host_port(pod, port_name):
    for container in (pod.get("spec") or {}).get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == port_name[:15] and port.get("hostPort"):
                return port["hostPort"]
    return None


def candidates(service, nodes=(), pods=(), port_name=ENTRY_POINT):
    """Where clients could connect to, best first: list of (host, port, way).

    service: Traefik's; nodes: all; pods: Traefik's own. With externalTrafficPolicy Local only the nodes with a
    ready pod of Traefik answer.
    """
    spec = (service or {}).get("spec") or {}
    ports = [port for port in spec.get("ports") or [] if port.get("name") == port_name]
    if not ports:
        return []
    found = [(host, ports[0]["port"], "load balancer") for host in given_addresses(service)]
    ready = [pod for pod in pods if is_ready(pod)]
    for pod in ready:
        number = _host_port(pod, port_name)
        host = (pod.get("status") or {}).get("hostIP")
        if number and host and (host, number, "host port") not in found:
            found.append((host, number, "host port"))
    if spec.get("type") == NODE_PORT and ports[0].get("nodePort"):
        usable = [node for node in nodes if is_ready(node)] or list(nodes)
        if spec.get("externalTrafficPolicy") == "Local":
            there = {(pod.get("spec") or {}).get("nodeName") for pod in ready}
            usable = [node for node in usable if _names([node])[0] in there]
        found += [(host, ports[0]["nodePort"], "node port") for node in usable for host in node_addresses(node)[:1]]
    return found


def is_address(name):
    """Whether a text is an IP address, and no host name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def as_text(host, port):
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def words_for(chosen, planned_why=""):
    """One sentence: where clients connect to, how, and why so."""
    host, port, way = chosen
    why = f" ({planned_why})" if planned_why else ""
    return f"clients connect to {as_text(host, port)}, a {way} address{why}"


NO_ADDRESS = (
    "Install something that gives addresses to LoadBalancer Services (MetalLB, kube-vip, Cilium LB-IPAM, ServiceLB), "
    "or set riva_exposure to metallb, nodeport or hostport; auto takes a node port by itself."
)


def no_answer(tried, error):
    """(message, remedy) where there are addresses, and none takes a connection from here."""
    shown = ", ".join(f"{as_text(host, port)} ({way})" for host, port, way in tried[:3])
    return (
        f"no connection to {shown}: {error}",
        "Check that Traefik runs, and the network between this machine and that address: routing, firewall, and "
        "whether the address is announced (ARP or BGP).",
    )

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How clients reach Traefik: what a cluster offers, what is chosen, and where it then is."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import exposure


def named(name, image="", version=""):
    item = {"metadata": {"name": name, "namespace": "kube-system"}}
    if image:
        item["spec"] = {"template": {"spec": {"containers": [{"image": image}]}}}
    if version:
        item["status"] = {"nodeInfo": {"kubeletVersion": version}}
    return item


def served(*addresses, kind="LoadBalancer"):
    ingress = [{"ip": address} for address in addresses]
    return {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": kind, "ports": [{"name": "riva-grpc", "port": 50051, "nodePort": 30051}]},
        "status": {"loadBalancer": {"ingress": ingress}},
    }


POD = {"metadata": {"name": "kube-vip-n1"}, "spec": {"containers": [{"image": "ghcr.io/kube-vip/kube-vip:v1"}]}}
OFFERS = [
    ({}, None, ""),
    ({"groups": ["metallb.io"], "pools": {"MetalLB": []}}, None, ""),
    ({"groups": ["metallb.io"], "pools": {"MetalLB": [named("speech")]}}, "MetalLB", "IPAddressPool speech"),
    ({"groups": [], "pools": {"MetalLB": [named("speech")]}}, None, ""),
    ({"groups": ["cilium.io"], "pools": {"Cilium": [named("p")]}}, "Cilium", "CiliumLoadBalancerIPPool p"),
    ({"workloads": [named("kube-vip-ds", "ghcr.io/kube-vip/kube-vip:v1")]}, "kube-vip", "kube-vip-ds runs"),
    ({"workloads": [POD]}, "kube-vip", "kube-vip-n1 runs"),
    ({"workloads": [named("svclb-traefik-1")]}, "ServiceLB", "svclb-*"),
    ({"nodes": [named("n", version="v1.33.1+k3s1")]}, "ServiceLB", "unless it was disabled"),
    ({"nodes": [named("n", version="v1.33.1+rke2r1")]}, None, ""),
    ({"services": [served("192.0.2.1")]}, "something", "Service shop/web has an address"),
    ({"services": [served()]}, None, ""),
]


@pytest.mark.parametrize(("objects", "name", "words"), OFFERS)
def test_what_gives_addresses(objects, name, words):
    found = exposure.providers(**objects)
    assert (found[0][0] if found else None) == name
    assert words in (found[0][1] if found else "")


METALLB = [("MetalLB", "IPAddressPool speech")]
PLANS = [
    ("nodeport", METALLB, None, "NodePort", True, "riva_exposure is nodeport"),
    ("hostport", [], None, "ClusterIP", True, "riva_exposure is hostport"),
    ("existing", [], None, "LoadBalancer", True, "riva_exposure is existing"),
    ("metallb", [], None, "LoadBalancer", True, "riva_exposure is metallb"),
    ("auto", METALLB, None, "LoadBalancer", False, "MetalLB gives addresses here (IPAddressPool speech)"),
    ("auto", [], None, "LoadBalancer", False, "it is tried"),
    ("auto", [], served("192.0.2.1"), "LoadBalancer", True, "has an address already"),
    ("auto", METALLB, served(), "LoadBalancer", False, "MetalLB"),
    # What clients know stays: a second run changes nothing, also where something new is there.
    ("auto", [], served(kind="NodePort"), "NodePort", True, "an earlier run got no address"),
    ("auto", METALLB, served(kind="NodePort"), "NodePort", True, "MetalLB is there, riva_exposure existing"),
]


@pytest.mark.parametrize(("wanted", "found", "service", "kind", "certain", "words"), PLANS)
def test_plan(wanted, found, service, kind, certain, words):
    plan = exposure.plan(wanted, found, service)
    assert (plan["service_type"], plan["certain"]) == (kind, certain)
    assert plan["host_port"] == (wanted == "hostport")
    assert words in plan["why"]


def node(name, *addresses, ready="True"):
    return {
        "metadata": {"name": name},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": kind, "address": address} for kind, address in addresses],
        },
    }


def pod(node_name, host, host_port=None, ready="True"):
    port = {"name": "riva-grpc", "containerPort": 50051} | ({"hostPort": host_port} if host_port else {})
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": node_name, "containers": [{"ports": [port]}]},
        "status": {"hostIP": host, "conditions": [{"type": "Ready", "status": ready}]},
    }


NODES = [
    node("a", ("InternalIP", "10.0.0.1")),
    node("b", ("InternalIP", "10.0.0.2"), ("ExternalIP", "192.0.2.2")),
    node("c", ("InternalIP", "10.0.0.3"), ready="False"),
]
LOCAL = served(kind="NodePort")
LOCAL["spec"]["externalTrafficPolicy"] = "Local"
PLACES = [
    (None, [], []),
    (served(), [], []),
    (served("192.0.2.1", "2001:db8::1"), [], ["192.0.2.1:50051", "[2001:db8::1]:50051"]),
    (served(kind="ClusterIP"), [pod("a", "10.0.0.1")], []),
    (served(kind="ClusterIP"), [pod("a", "10.0.0.1", 443), pod("b", "10.0.0.2", 443, "False")], ["10.0.0.1:443"]),
    (served(kind="NodePort"), [], ["10.0.0.1:30051", "192.0.2.2:30051"]),
    (LOCAL, [pod("b", "10.0.0.2")], ["192.0.2.2:30051"]),
    (LOCAL, [], []),
]


@pytest.mark.parametrize(("service", "pods", "places"), PLACES)
def test_where_clients_connect_to(service, pods, places):
    assert [exposure.as_text(host, port) for host, port, _way in exposure.candidates(service, NODES, pods)] == places


def test_the_words_say_which_and_why():
    words = exposure.words_for(("192.0.2.1", 50051, "load balancer"), "MetalLB gives addresses here")
    assert words == "clients connect to 192.0.2.1:50051, a load balancer address (MetalLB gives addresses here)"

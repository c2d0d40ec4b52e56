"""Settings of a lab, addresses of LoadBalancer Services, and what the machine must have."""

from __future__ import annotations

import ipaddress
import json
from types import SimpleNamespace

import pytest

from lab import components, load_balancer, preconditions
from lab.settings import Lab, SettingError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "Lab"}, "--name"),
        ({"name": "toolongname"}, "--name"),
        ({"name": ""}, "--name"),
        ({"name": "a/b"}, "--name"),
        ({"network": "10.87.0.0"}, "/22 or larger"),
        ({"network": "10.87.0.0/24"}, "/22 or larger"),
        ({"network": "10.87.0.1/22"}, "host bits"),
        ({"network": "nonsense"}, "--network 'nonsense'"),
        ({"network": "10.96.0.0/20"}, "overlaps 10.96.0.0/16"),
        ({"network": "10.0.0.0/8"}, "overlaps"),
        ({"network": "fd00::/64"}, "IPv4"),
        ({"gpu_nodes": 0}, "--gpu-nodes 0"),
        ({"gpu_nodes": 51}, "--gpu-nodes 51"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings, words):
    with pytest.raises(SettingError, match=words):
        Lab(**settings)


def test_addresses_do_not_meet():
    lab = Lab(gpu_nodes=50)
    nodes = {lab.address(node) for node in lab.nodes}
    assert len(nodes) == 51
    assert lab.host_address not in nodes
    assert all(address in lab.addresses and address not in lab.load_balancer_addresses for address in nodes)
    pods = [lab.pod_network(node) for node in lab.nodes]
    assert len(set(pods)) == 51


def test_gpu_models_differ_from_node_to_node():
    products = [node.gpu["product"] for node in Lab().nodes if node.gpu]
    assert products == ["Tesla-T4", "NVIDIA-A100-PCIE-40GB"]


POOL = ipaddress.IPv4Network("10.0.0.0/30")


@pytest.mark.parametrize(
    ("taken", "wanted", "expected"),
    [
        ([], None, "10.0.0.1"),
        (["10.0.0.1"], None, "10.0.0.2"),
        ([], "10.0.0.2", "10.0.0.2"),
    ],
)
def test_pick_address(taken, wanted, expected):
    assert load_balancer.pick_address(POOL, taken, wanted) == expected


@pytest.mark.parametrize(
    ("taken", "wanted", "words"),
    [
        (["10.0.0.1", "10.0.0.2"], None, "no free address"),
        (["10.0.0.2"], "10.0.0.2", "taken or not in"),
        ([], "10.0.9.9", "taken or not in"),
    ],
)
def test_no_address_is_an_error_that_says_why(taken, wanted, words):
    with pytest.raises(LookupError, match=words):
        load_balancer.pick_address(POOL, taken, wanted)


def test_missing_packages():
    listing = "# comment\n\netcd etcd-server\nctr containerd\ncontainerd containerd\n/usr/lib/x pkg-x\n"
    assert preconditions.missing_packages(listing, lambda program: program == "etcd") == ["containerd", "pkg-x"]
    assert preconditions.missing_packages(listing, lambda program: True) == []


def test_other_systems_are_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(preconditions.platform, "system", lambda: "Darwin")
    with pytest.raises(preconditions.CannotRun, match=r"needs Linux(.|\n)*inventories/onprem"):
        preconditions.check(Lab())


def test_without_root_it_says_so(monkeypatch):
    monkeypatch.setattr(preconditions.os, "geteuid", lambda: 1000)
    assert "root" in preconditions.problems(Lab())[0]


def test_without_aggregation_only_the_requestheader_flags_are_missing():
    flags = {lab.aggregation: set(components.apiserver(lab).command) for lab in (Lab(), Lab(aggregation=False))}
    missing = flags[True] - flags[False]
    assert missing
    assert all(flag.startswith(("--requestheader", "--proxy-client", "--enable-aggregator")) for flag in missing)


def test_a_node_spec_survives_its_file():
    lab = Lab()
    spec = components.node_spec(lab, lab.nodes[1], "/usr/bin/python3")
    read = json.loads(spec.to_json())
    assert read["gpu"]["product"] == "Tesla-T4"
    assert [part["name"] for part in read["components"]] == ["containerd", "kubelet", "kube-proxy"]


def test_only_other_command_lines_leave_a_node_running():
    def spec(lab: Lab, node: int = 0) -> str:
        return components.node_spec(lab, lab.nodes[node], "/usr/bin/python3").to_json()

    assert components.same_but_for_commands(spec(Lab()), spec(Lab(aggregation=False)))
    assert not components.same_but_for_commands(spec(Lab()), spec(Lab(gpu_nodes=3)))
    assert not components.same_but_for_commands(spec(Lab(), 0), spec(Lab(), 1))


def service(name, kind="LoadBalancer", address=None, wanted=None, of_class=None):
    ingress = [SimpleNamespace(ip=address)] if address else None
    return SimpleNamespace(
        metadata=SimpleNamespace(name=name, namespace="traefik", uid=name),
        spec=SimpleNamespace(type=kind, load_balancer_ip=wanted, load_balancer_class=of_class),
        status=SimpleNamespace(load_balancer=SimpleNamespace(ingress=ingress)),
    )


def test_services_that_are_there_get_addresses_and_the_watch_goes_on_from_there(monkeypatch):
    patched, watched = {}, {}

    class Api:
        def list_service_for_all_namespaces(self, **_options):
            items = [service("new"), service("inside", "ClusterIP"), service("old", address="10.9.3.1")]
            items.append(service("of-another-controller", of_class="molecule/metallb"))
            return SimpleNamespace(items=items, metadata=SimpleNamespace(resource_version="77"))

        def patch_namespaced_service_status(self, name, _namespace, body, **_options):
            patched[name] = body["status"]["loadBalancer"]["ingress"][0]["ip"]

    class Watch:
        def stream(self, _function, **options):
            watched.update(options)
            yield {"type": "DELETED", "object": service("old", address="10.9.3.1")}
            yield {"type": "ADDED", "object": service("later")}

    monkeypatch.setattr(load_balancer.client, "CoreV1Api", Api)
    monkeypatch.setattr(load_balancer.watch, "Watch", Watch)
    load_balancer.serve(ipaddress.ip_network("10.9.3.0/29"))
    assert patched == {"new": "10.9.3.2", "later": "10.9.3.1"}
    assert watched["resource_version"] == "77"


def test_what_a_bundle_brings_is_not_missed():
    listing = "etcd etcd-server\n/usr/lib/cni/ptp containernetworking-plugins build\n"
    assert preconditions.missing_packages(listing, lambda program: False) == [
        "containernetworking-plugins",
        "etcd-server",
    ]
    assert preconditions.missing_packages(listing, lambda program: False, from_bundle=True) == ["etcd-server"]


def test_every_line_of_the_list_is_a_program_its_package_and_perhaps_build():
    lines = [line.split() for line in preconditions.PACKAGES.read_text().splitlines() if not line.startswith("#")]
    assert all(len(words) == 2 or words[2:] == ["build"] for words in lines)
    assert not any(words[1].endswith("build") for words in lines)

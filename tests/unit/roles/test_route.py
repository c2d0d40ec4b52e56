# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way of a client's call, link by link."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import route


def service(kind="LoadBalancer", ingress=(), name="riva-grpc"):
    return {
        "spec": {"type": kind, "ports": [{"name": name, "port": 50051, "nodePort": 30051}]},
        "status": {"loadBalancer": {"ingress": list(ingress)}},
    }


NODE = {"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "9"}]}}

ADDRESSES = [
    (None, "failed", "no such Service"),
    (service(name="web"), "failed", "no port riva-grpc"),
    (service(), "failed", "no address"),
    (service(ingress=[{"ip": "10.0.0.1"}]), "ok", "10.0.0.1:50051"),
    (service(ingress=[{"hostname": "lb"}]), "ok", "lb:50051"),
    (service("NodePort"), "ok", "9:30051"),
    (service("ClusterIP"), "failed", "no address"),
]


@pytest.mark.parametrize(("given", "status", "words"), ADDRESSES)
def test_address(given, status, words):
    found = route.check_address(given, "traefik/traefik", [NODE])
    assert found.status == status
    assert words in found.message


def ingress_route(ingress_class="riva-traefik", entry="riva-grpc", name="riva-asr", scheme="h2c"):
    return {
        "metadata": {"annotations": {"kubernetes.io/ingress.class": ingress_class}},
        "spec": {"entryPoints": [entry], "routes": [{"services": [{"name": name, "scheme": scheme}]}]},
    }


ROUTES = [
    (ingress_route(), "ok", "riva-grpc"),
    (None, "failed", "no such IngressRoute"),
    (ingress_route(ingress_class="other"), "failed", "class is other"),
    (ingress_route(entry="web"), "failed", "entry point"),
    (ingress_route(name="other"), "failed", "does not lead"),
    (ingress_route(scheme="http"), "failed", "h2c"),
    ({}, "failed", "class is empty"),
]


@pytest.mark.parametrize(("given", "status", "words"), ROUTES)
def test_route(given, status, words):
    found = route.check_route(given, "riva/riva-asr", "riva-traefik", "riva-asr")
    assert found.status == status
    assert words in found.message


ENDPOINTS = [
    ([], "failed"),
    ([{"endpoints": None}], "failed"),
    ([{"endpoints": [{"conditions": {"ready": False}}]}], "failed"),
    ([{"endpoints": [{"conditions": {"ready": True}}, {"conditions": {"ready": False}}]}], "ok"),
    ([{"endpoints": [{}]}], "ok"),
]


@pytest.mark.parametrize(("slices", "status"), ENDPOINTS)
def test_endpoints(slices, status):
    assert route.check_endpoints(slices, "riva/riva-asr").status == status


@pytest.mark.parametrize(("answer", "status"), [(b"\x08\x01", 1), (b"\x08\x02", 2), (b"", 0)])
def test_health_answers(answer, status):
    assert route.health_status(answer) == status


HEALTH = [
    ({"status": 1}, "ok", ""),
    ({"status": 2}, "failed", "models"),
    ({"status": 0}, "failed", "models"),
    ({"code": "UNAVAILABLE", "details": "refused"}, "failed", "network"),
    ({"code": "UNIMPLEMENTED"}, "failed", "route"),
    ({"code": "INTERNAL"}, "failed", "log"),
    ({"code": "NO_LIBRARY"}, "unknown", "grpcio"),
]


@pytest.mark.parametrize(("said", "status", "remedy"), HEALTH)
def test_health(said, status, remedy):
    found = route.check_health("riva/riva-asr", **said)
    assert found.status == status
    assert remedy in found.remedy

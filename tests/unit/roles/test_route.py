# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way of a client's call, link by link."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import exposure, route


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
    found = route.check_address(given, "traefik/traefik", exposure.candidates(given, [NODE]))
    assert found.status == status
    assert words in found.message


def ingress_route(ingress_class="riva-traefik", entry="riva-grpc", name="riva-asr", scheme="h2c"):
    return {
        "metadata": {"annotations": {"kubernetes.io/ingress.class": ingress_class}},
        "spec": {"entryPoints": [entry], "routes": [{"services": [{"name": name, "scheme": scheme}]}]},
    }


ROUTES = [
    (ingress_route(), "ok", "riva-grpc"),
    ({"spec": ingress_route()["spec"] | {"ingressClassName": "riva-traefik"}}, "ok", "riva-grpc"),
    ({"spec": ingress_route()["spec"] | {"ingressClassName": "other"}}, "failed", "class is other"),
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
    ({"code": "UNAUTHENTICATED"}, "failed", "verify_metadata"),
    ({"code": "DEADLINE_EXCEEDED"}, "failed", "from here to it"),
    # As gRPC tells HTTP's codes that are none of its own.
    (
        {
            "code": "UNAVAILABLE",
            "details": "last error: UNKNOWN: ipv4:10.0.0.7:50051: Ssl handshake failed (TSI_PROTOCOL_FAILURE): "
            "SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
        },
        "failed",
        "see the check certificate",
    ),
    ({"code": "UNAVAILABLE", "details": "Received http2 header with status: 429"}, "failed", "riva_streams_per_client"),
    ({"code": "UNAVAILABLE", "details": "Received http2 header with status: 502"}, "failed", "reached no pod"),
    ({"code": "UNAVAILABLE", "details": "Received http2 header with status: 503"}, "failed", "no pod that is ready"),
    ({"code": "UNKNOWN", "details": "Received http2 header with status: 500"}, "failed", "riva_auth_address"),
    ({"code": "NO_LIBRARY"}, "unknown", "grpcio"),
]


@pytest.mark.parametrize(("said", "status", "remedy"), HEALTH)
def test_health(said, status, remedy):
    found = route.check_health("riva/riva-asr", **said)
    assert found.status == status
    assert remedy in found.remedy


LASTS = [
    ({"days": 90, "version": "TLSv1.3"}, "ok", "TLSv1.3, the certificate lasts 90 more days"),
    ({"days": 21}, "ok", "21 more days"),
    ({"days": 20}, "warning", "20 more days"),
    ({"days": 0}, "failed", "0 more days"),
    ({"error": "certificate has expired"}, "failed", "TLS does not come about: certificate has expired"),
]


@pytest.mark.parametrize(("seen", "status", "words"), LASTS)
def test_certificate(seen, status, words):
    found = route.check_certificate("riva/riva-asr", 21, **seen)
    assert found.status == status
    assert words in found.message
    assert bool(found.remedy) == (status != "ok")


REFUSED = [
    ({"by address": "CERTIFICATE_REQUIRED"}, "ok", "refused by address (CERTIFICATE_REQUIRED)"),
    ({"by address": "A", "by name": "A"}, "ok", "refused by address and by name (A)"),
    ({"by address": "", "by name": "A"}, "failed", "let in by address, though"),
    ({"by address": "", "by name": ""}, "failed", "let in by address and by name"),
]


@pytest.mark.parametrize(("refusals", "status", "words"), REFUSED)
def test_clients_without_a_certificate(refusals, status, words):
    found = route.check_refused("riva/riva-asr", refusals)
    assert found.status == status
    assert words in found.message


STREAMS = [
    ({"taken": 70.0}, "ok", "recognised 70 s"),
    ({"taken": 69.2}, "ok", "69 s"),
    ({"taken": 60.0}, "failed", "of 70 s of audio the server took 60.0 s"),
    ({"code": "UNAVAILABLE", "details": "cut after 60.0 s"}, "failed", "UNAVAILABLE cut after 60.0 s"),
    ({"code": "NO_LIBRARY"}, "unknown", "nvidia-riva-client is missing"),
]


@pytest.mark.parametrize("check", ["recognition", "long_stream"])
@pytest.mark.parametrize(("seen", "status", "words"), STREAMS)
def test_streams(check, seen, status, words):
    found = route.check_stream(check, "riva/riva-asr", 70, **seen)
    assert (found.check, found.status) == (check, status)
    assert words in found.message

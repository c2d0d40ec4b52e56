# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From variables to a route, its policy and its certificate; and the contradictions that are told before any change."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import way_in
from ansible_collections.speechops.riva.plugins.modules.check_secrets import missing_words

ASKED = {
    "kind": "IngressRoute",
    "gateway": {},
    "allowed_sources": ["192.0.2.0/24"],
    "streams_per_client": 20,
    "streams_at_once": 0,
    "new_streams_per_second": 5,
    "auth_address": "",
    "auth_headers": ["authorization"],
    "network_policy": "True",
    "network_policy_clients": [],
    "traefik_namespace": "traefik",
    "prometheus_namespace": "monitoring",
}


def test_values_of_a_service():
    service = {"name": "a", "host": "a.b", "header": {"name": "x", "value": 1}, "tls_secret": "a-tls"}
    values = way_in.route_values(service, {"ingress_class": "c", "route": ASKED})
    route = values["route"]
    assert (route["ingressClass"], route["host"]) == ("c", "a.b")
    assert route["header"] == {"name": "x", "value": "1"}
    assert route["tls"] == {"enabled": True, "secretName": "a-tls"}
    assert route["limits"] == {"streamsPerClient": 20, "streams": 0, "newStreamsPerSecond": 5}
    assert values["networkPolicy"]["enabled"] is True
    assert "tls" not in way_in.route_values({"name": "a"}, {"ingress_class": "c", "route": ASKED})["route"]


def test_what_was_not_set_is_left_out():
    given = {"a": None, "b": "", "c": 0, "d": False, "e": [{"f": None, "g": 1}], "h": {"i": ""}}
    assert way_in.set_only(given) == {"c": 0, "d": False, "e": [{"g": 1}], "h": {}}


def test_cert_managers_object():
    made = way_in.certificate_object("riva-tls", "traefik", {"name": "ca"}, ["b.c", "192.0.2.1", "a.c"], 90, 30)
    assert (made["apiVersion"], made["kind"]) == ("cert-manager.io/v1", "Certificate")
    spec = made["spec"]
    assert (spec["dnsNames"], spec["ipAddresses"]) == (["a.c", "b.c"], ["192.0.2.1"])
    assert (spec["duration"], spec["renewBefore"]) == ("2160h", "720h")
    assert spec["issuerRef"] == {"name": "ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert spec["privateKey"]["rotationPolicy"] == "Always"


CONTRADICTIONS = [
    ({}, None, ""),
    ({"traefik_mtls": True}, "traefik_mtls", "never be asked"),
    ({"traefik_mtls": "yes", "traefik_tls": "none"}, "traefik_mtls", "never be asked"),
    ({"traefik_mtls": True, "traefik_tls": "self_made"}, None, ""),
    ({"traefik_mtls": True, "traefik_tls": "secret"}, "traefik_mtls_ca_secret", "is not set"),
    ({"traefik_mtls": True, "traefik_tls": "secret", "traefik_mtls_ca_secret": "c"}, None, ""),
    ({"traefik_tls": "cert_manager"}, "traefik_tls_issuer", "has no name"),
    ({"traefik_tls": "cert_manager", "traefik_tls_issuer": {"name": "ca"}}, None, ""),
    ({"riva_route_kind": "GRPCRoute"}, "riva_gateway", "has no name"),
    ({"riva_route_kind": "GRPCRoute", "riva_gateway": {"name": "g"}}, None, ""),
    ({"riva_exposure": "metallb"}, "metallb_pools", "no address to give"),
    ({"riva_exposure": "metallb", "metallb_pools": [{"name": "a"}]}, None, ""),
    ({"riva_allowed_sources": ["192.0.2.0/24", "192.0.2.7"]}, None, ""),
    ({"riva_allowed_sources": ["192.0.2.0/33"]}, "riva_allowed_sources", "is no network"),
    ({"traefik_grace_seconds": 30}, "traefik_grace_seconds", "would cut the longest streams"),
    ({"traefik_grace_seconds": 30, "riva_longest_stream_seconds": 30}, None, ""),
]


@pytest.mark.parametrize(("variables", "subject", "words"), CONTRADICTIONS)
def test_contradictions(variables, subject, words):
    found = way_in.check_way_in(variables)
    assert [item["subject"] for item in found] == ([subject] if subject else [])
    for item in found:
        assert words in item["message"]
        assert item["remedy"]


SECRETS = [
    ("riva-tls", {"tls.crt", "tls.key"}, ""),
    ("riva-tls", {"tls.crt"}, "lacks tls.key"),
    ("riva-tls", None, "there is no such Secret in namespace traefik: make it, with tls.crt, tls.key"),
    ("", None, "traefik_tls_secret is empty"),
]


@pytest.mark.parametrize(("name", "keys", "words"), SECRETS)
def test_given_secrets(name, keys, words):
    secret = {"name": name, "keys": ["tls.crt", "tls.key"], "variable": "traefik_tls_secret"}
    said = missing_words(secret, "traefik", keys)
    assert words in said
    assert bool(said) == bool(words)

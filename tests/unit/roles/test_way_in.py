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
    "network_policy_namespace": "True",
    "network_policy_egress": [{"ports": [{"port": 8443}]}],
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
    assert values["networkPolicy"]["defaultDeny"] is True
    assert values["networkPolicy"]["extraEgress"] == [{"ports": [{"port": 8443}]}]
    assert "tls" not in way_in.route_values({"name": "a"}, {"ingress_class": "c", "route": ASKED})["route"]


def test_a_proxy_in_the_environment_may_be_called():
    """Else a service that fetches models by a proxy would wait for them for ever."""
    env = {"HTTPS_PROXY": "http://proxy.example:3128", "http_proxy": "proxy.example", "NO_PROXY": "10.0.0.0/8", "A": 1}
    values = way_in.route_values({"name": "a", "env": env}, {"ingress_class": "c", "route": ASKED})
    ports = [port["port"] for rule in values["networkPolicy"]["extraEgress"] for port in rule["ports"]]
    assert ports == [80, 3128, 8443]


POLICY = {
    "release": "proxy",
    "namespace": "way",
    "watched": ["speech"],
    "prometheus_namespace": "watch",
    "api_ports": [16443],
    "auth_address": "",
    "egress": [],
}
ENTRY = {"riva-grpc": {"port": 50051, "expose": {"default": True}}, "web": {"expose": {"default": False}}}


def test_traefiks_namespace_is_closed_but_for_what_traefik_needs():
    deny, allow = way_in.traefik_policies({"ports": ENTRY}, POLICY)
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {item["metadata"]["namespace"] for item in (deny, allow)} == {"way"}
    assert allow["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "proxy-way"
    calls, metrics = allow["spec"]["ingress"]
    assert calls == {"ports": [{"protocol": "TCP", "port": 50051}]}
    assert metrics["ports"] == [{"protocol": "TCP", "port": 9100}]
    (prometheus,) = metrics["from"]
    assert prometheus["namespaceSelector"]["matchExpressions"][0]["values"] == ["watch"]
    names, api, speech = allow["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53, 5353}
    assert [port["port"] for port in api["ports"]] == [443, 16443]
    assert speech["to"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["speech"]
    assert "ports" not in speech


@pytest.mark.parametrize(
    ("url", "namespace", "port"),
    [
        ("http://token-check.auth.svc:4181/", "auth", None),
        ("https://token-check.auth.svc.cluster.local", "auth", None),
        ("https://auth.example.com", None, 443),
        ("http://10.0.0.7:8080/check", None, 8080),
        # A name that only looks like one.
        ("http://token-check.auth:4181/", None, 4181),
    ],
)
def test_the_way_to_whoever_checks_tokens(url, namespace, port):
    rule = way_in.way_to(url)
    if namespace:
        (peer,) = rule["to"]
        assert peer["namespaceSelector"]["matchExpressions"][0]["values"] == [namespace]
        assert "ports" not in rule
    else:
        assert rule == {"ports": [{"protocol": "TCP", "port": port}]}


@pytest.mark.parametrize(
    ("ports", "open_"),
    [
        ({"web": {"expose": {"default": True}}}, [("TCP", 8000)]),
        ({**ENTRY, "riva-front": {"port": 50052, "expose": {"default": False}}}, [("TCP", 50051), ("TCP", 50052)]),
        ({"audio": {"port": 5000, "protocol": "UDP", "expose": {"default": "true"}}}, [("UDP", 5000)]),
        ({"riva-grpc": None, "own": {"port": 1}}, []),
    ],
)
def test_ports_that_take_calls_from_outside(ports, open_):
    assert [(port["protocol"], port["port"]) for port in way_in.open_ports(ports)] == open_


def test_the_token_check_may_be_called():
    more = {"auth_address": "https://a.b/x", "egress": [{"to": []}]}
    _deny, allow = way_in.traefik_policies({"ports": ENTRY}, {**POLICY, **more})
    assert allow["spec"]["egress"][3:] == [way_in.way_to("https://a.b/x"), {"to": []}]


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

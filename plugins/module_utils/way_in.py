# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the inventory's variables to a service's route, its NetworkPolicy and its certificate. Pure rules."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ansible_collections.speechops.riva.plugins.module_utils.exposure import is_address
from ansible_collections.speechops.riva.plugins.module_utils.inputs import finding, truth


def route_values(service, settings):
    """Values `route` and `networkPolicy` of the riva chart.

    service: an item of riva_services; settings: the role's, {} where a caller has none.
    """
    header = service.get("header") or {}
    route = {
        "ingressClass": settings["ingress_class"],
        "host": service.get("host") or "",
        "header": {"name": header.get("name", ""), "value": str(header.get("value", ""))},
    }
    if service.get("tls_secret"):
        route["tls"] = {"enabled": True, "secretName": service["tls_secret"]}
    asked = settings.get("route")
    if not asked:
        return {"route": route}
    gateway = asked["gateway"] or {}
    route |= {
        "kind": asked["kind"],
        "allowedSources": list(asked["allowed_sources"]),
        "limits": {
            "streamsPerClient": int(asked["streams_per_client"]),
            "streams": int(asked["streams_at_once"]),
            "newStreamsPerSecond": int(asked["new_streams_per_second"]),
        },
        "auth": {"address": asked["auth_address"], "requestHeaders": list(asked["auth_headers"])},
        "gateway": {
            "name": gateway.get("name", ""),
            "namespace": gateway.get("namespace", ""),
            "sectionName": gateway.get("section", ""),
        },
    }
    policy = {
        "enabled": truth(asked["network_policy"]),
        "traefik": {"namespace": asked["traefik_namespace"]},
        "prometheus": {"namespace": asked["prometheus_namespace"]},
        "clients": list(asked["network_policy_clients"]),
        "defaultDeny": truth(asked["network_policy_namespace"]),
        "extraEgress": proxy_rules(service.get("env") or {}) + list(asked["network_policy_egress"]),
    }
    return {"route": route, "networkPolicy": policy}


def _address(url):
    """The parts of a URL, or of HOST:PORT."""
    return urlsplit(url if "://" in url else f"http://{url}")


def port_of(url):
    """The port that a URL, or HOST:PORT, leads to."""
    address = _address(url)
    return address.port or (443 if address.scheme == "https" else 80)


def way_to(url):
    """A rule of egress to the server of a URL: its namespace where it is a Service, else its port anywhere.

    Most networks look at a packet once its Service is resolved, and a pod's port may be another one than its Service's.
    """
    host = (_address(url).hostname or "").split(".")
    if len(host) > 2 and host[2] == "svc":
        return {"to": [_in_namespaces([host[1]])]}
    return {"ports": [{"protocol": "TCP", "port": port_of(url)}]}


def proxy_rules(env):
    """Rules of egress for the proxies that an environment names, by their ports: C(HTTPS_PROXY) and its like."""
    found = set()
    for name, value in env.items():
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy") and value:
            found.add(port_of(str(value)))
    return [{"ports": [{"protocol": "TCP", "port": port}]} for port in sorted(found)]


# What upstream's chart (41.3.0) lets its own entry points listen on.
TRAEFIK_PORTS = {"web": 8000, "websecure": 8443, "traefik": 8080, "metrics": 9100}
FRONT = "riva-front"
DNS = [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]


def _in_namespaces(names, **labels):
    """A peer of a NetworkPolicy: all pods of these namespaces, or those with the labels."""
    words = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": sorted(names)}
    peer = {"namespaceSelector": {"matchExpressions": [words]}}
    return {**peer, "podSelector": {"matchLabels": labels}} if labels else peer


def open_ports(ports):
    """What of the chart's C(ports) takes calls from outside, as ports of a NetworkPolicy."""
    found = set()
    for name, port in (ports or {}).items():
        exposed = port and (name == FRONT or truth((port.get("expose") or {}).get("default", False)))
        number = port and int(port.get("port") or TRAEFIK_PORTS.get(name, 0))
        if exposed and number:
            found.add((port.get("protocol") or "TCP", number))
    return [{"protocol": protocol, "port": number} for protocol, number in sorted(found)]


def traefik_policies(values, asked):
    """NetworkPolicies of Traefik's namespace: nothing, but for what Traefik needs.

    values: of Traefik's chart. asked: C(release), C(namespace), C(watched) namespaces, C(prometheus_namespace),
    C(api_ports) of the API server behind its Service, C(auth_address), and rules of C(egress).
    """
    metrics = (values.get("ports") or {}).get("metrics") or {}
    # A policy can't name the API server, and some networks look at a packet before its Service is resolved.
    api = sorted({443, *(int(port) for port in asked["api_ports"])})
    egress = [
        {"ports": DNS},
        {"ports": [{"protocol": "TCP", "port": port} for port in api]},
        {"to": [_in_namespaces(asked["watched"])]},
    ]
    if asked["auth_address"]:
        egress.append(way_to(asked["auth_address"]))
    ingress = [
        {"ports": open_ports(values.get("ports"))},
        {
            "from": [_in_namespaces([asked["prometheus_namespace"]], **{"app.kubernetes.io/name": "prometheus"})],
            "ports": [{"protocol": "TCP", "port": int(metrics.get("port") or TRAEFIK_PORTS["metrics"])}],
        },
    ]
    labels = {
        "app.kubernetes.io/name": "traefik",
        "app.kubernetes.io/instance": f"{asked['release']}-{asked['namespace']}",
    }
    types = ["Ingress", "Egress"]
    specs = {
        f"{asked['release']}-namespace": {"podSelector": {}, "policyTypes": types},
        asked["release"]: {
            "podSelector": {"matchLabels": labels},
            "policyTypes": types,
            "ingress": ingress,
            "egress": egress + list(asked["egress"]),
        },
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": asked["namespace"]},
            "spec": spec,
        }
        for name, spec in specs.items()
    ]


def set_only(value):
    """Without the keys that nothing was set for (None, or the empty text that ansible-core before 2.19 makes of it)."""
    if isinstance(value, dict):
        return {key: set_only(inner) for key, inner in value.items() if inner is not None and inner != ""}
    if isinstance(value, list):
        return [set_only(inner) for inner in value]
    return value


def certificate_object(secret, namespace, issuer, names, days=90, renew_days=30):
    """cert-manager's Certificate for Traefik: its key is made in the cluster and changes with each renewal."""
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": secret, "namespace": namespace},
        "spec": {
            "secretName": secret,
            "duration": f"{int(days) * 24}h",
            "renewBefore": f"{int(renew_days) * 24}h",
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "usages": ["digital signature", "server auth"],
            "dnsNames": sorted(name for name in names if not is_address(name)),
            "ipAddresses": sorted(name for name in names if is_address(name)),
            "issuerRef": {
                "name": issuer["name"],
                "kind": issuer.get("kind") or "ClusterIssuer",
                "group": issuer.get("group") or "cert-manager.io",
            },
        },
    }


def check_way_in(variables):
    """Findings of variables that contradict one another; what a type check cannot see."""
    found = []
    tls = variables.get("traefik_tls", "none")
    mtls = truth(variables.get("traefik_mtls", False))
    if mtls and tls == "none":
        found.append(
            finding(
                "traefik_mtls",
                "traefik_mtls is true and traefik_tls is none: clients would never be asked for a certificate",
                "Set traefik_tls to secret, cert_manager or self_made.",
            )
        )
    if mtls and tls in ("secret", "cert_manager") and not variables.get("traefik_mtls_ca_secret"):
        found.append(
            finding(
                "traefik_mtls_ca_secret",
                f"traefik_mtls is true and traefik_tls is {tls}, but traefik_mtls_ca_secret is not set",
                "Set it to the Secret in traefik_namespace that holds the CA of the clients (key ca.crt).",
            )
        )
    if tls == "cert_manager" and not (variables.get("traefik_tls_issuer") or {}).get("name"):
        found.append(
            finding(
                "traefik_tls_issuer",
                "traefik_tls is cert_manager and traefik_tls_issuer has no name",
                "Set traefik_tls_issuer to {name: ..., kind: ClusterIssuer}.",
            )
        )
    if variables.get("riva_route_kind") == "GRPCRoute" and not (variables.get("riva_gateway") or {}).get("name"):
        found.append(
            finding(
                "riva_gateway",
                "riva_route_kind is GRPCRoute and riva_gateway has no name",
                "Set riva_gateway to {name: ..., namespace: ...}, the Gateway that the routes belong to.",
            )
        )
    if variables.get("riva_exposure") == "metallb" and not variables.get("metallb_pools"):
        found.append(
            finding(
                "metallb_pools",
                "riva_exposure is metallb and metallb_pools is empty: MetalLB would have no address to give",
                "Set metallb_pools to a list such as [{name: speech, addresses: [192.0.2.10-192.0.2.20]}], with "
                "addresses of the nodes' network that nothing else uses; existing takes a MetalLB that is there.",
            )
        )
    found += _check_sources(variables.get("riva_allowed_sources"))
    found += _check_grace(variables)
    return found


def _check_sources(sources):
    found = []
    for source in sources if isinstance(sources, list) else []:
        try:
            ipaddress.ip_network(str(source))
        except ValueError as error:
            found.append(
                finding(
                    "riva_allowed_sources",
                    f"riva_allowed_sources has {source!r}, which is no network: {error}",
                    "Write an address or a network, such as 192.0.2.7 or 192.0.2.0/24.",
                )
            )
    return found


def _check_grace(variables):
    grace, longest = variables.get("traefik_grace_seconds"), variables.get("riva_longest_stream_seconds", 600)
    if not all(str(value).isdigit() for value in (grace, longest)) or int(grace) >= int(longest):
        return []
    return [
        finding(
            "traefik_grace_seconds",
            f"traefik_grace_seconds is {grace}, less than riva_longest_stream_seconds ({longest}): an update of "
            "Traefik would cut the longest streams",
            "Leave traefik_grace_seconds out, it follows riva_longest_stream_seconds.",
            status="warning",
        )
    ]

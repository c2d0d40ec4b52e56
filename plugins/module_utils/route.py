# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a client's call: address, route, ready pods, answer. Pure rules: objects in, findings out."""

from __future__ import annotations

from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, UNKNOWN, Finding

ENTRY_POINT = "riva-grpc"
SERVING = 1


def address_of(service, nodes=(), port_name=ENTRY_POINT):
    """(host, port) that clients connect to, None where there is none yet."""
    spec = service.get("spec") or {}
    ports = [p for p in spec.get("ports") or [] if p.get("name") == port_name]
    if not ports:
        return None
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    for entry in given:
        host = entry.get("ip") or entry.get("hostname")
        if host:
            return host, ports[0]["port"]
    if spec.get("type") == "NodePort" and ports[0].get("nodePort"):
        for node in nodes:
            for address in (node.get("status") or {}).get("addresses") or []:
                if address.get("type") == "InternalIP":
                    return address["address"], ports[0]["nodePort"]
    return None


def check_address(service, subject, nodes=()):
    if service is None:
        return Finding("address", subject, FAILED, "there is no such Service", "Run the traefik role.")
    if not any(p.get("name") == ENTRY_POINT for p in (service.get("spec") or {}).get("ports") or []):
        return Finding(
            "address",
            subject,
            FAILED,
            f"the Service has no port {ENTRY_POINT}",
            "Expose the entry point: run the traefik role, and look at traefik_values.",
        )
    found = address_of(service, nodes)
    if not found:
        return Finding(
            "address",
            subject,
            FAILED,
            "the Service has no address that a client could reach",
            "Install something that gives addresses to LoadBalancer Services (MetalLB, kube-vip, Cilium, ServiceLB), "
            "or set traefik_service_type to NodePort.",
        )
    return Finding("address", subject, OK, f"clients connect to {found[0]}:{found[1]}")


def check_route(route, subject, ingress_class, service):
    """Does the IngressRoute belong to our Traefik and lead to the service over h2c."""
    if route is None:
        return Finding("route", subject, FAILED, "there is no such IngressRoute", "Run the riva role.")
    notes = (route.get("metadata") or {}).get("annotations") or {}
    spec = route.get("spec") or {}
    found_class = notes.get("kubernetes.io/ingress.class", "")
    if found_class != ingress_class:
        return Finding(
            "route",
            subject,
            FAILED,
            f"its class is {found_class or 'empty'}, Traefik serves {ingress_class}",
            "Set riva_ingress_class and traefik_ingress_class to the same name.",
        )
    if ENTRY_POINT not in (spec.get("entryPoints") or []):
        return Finding(
            "route",
            subject,
            FAILED,
            f"it does not use the entry point {ENTRY_POINT}",
            "Remove route.entryPoints from the service's values, and run the riva role.",
        )
    backends = [s for rule in spec.get("routes") or [] for s in rule.get("services") or []]
    wrong = [s for s in backends if s.get("name") == service and s.get("scheme") != "h2c"]
    if not any(s.get("name") == service for s in backends) or wrong:
        return Finding(
            "route",
            subject,
            FAILED,
            f"it does not lead to Service {service} over h2c",
            "Run the riva role, which writes the route anew.",
        )
    return Finding("route", subject, OK, f"leads from {ENTRY_POINT} to Service {service} over h2c")


def check_endpoints(slices, subject):
    """Does the service have pods that are ready to take calls."""
    endpoints = [e for s in slices for e in s.get("endpoints") or []]
    ready = [e for e in endpoints if (e.get("conditions") or {}).get("ready") is not False]
    if not ready:
        return Finding(
            "endpoints",
            subject,
            FAILED,
            f"none of {len(endpoints)} pods behind the Service is ready",
            "See why: kubectl -n {} describe pods -l app.kubernetes.io/instance={}".format(*subject.split("/")),
        )
    return Finding("endpoints", subject, OK, f"{len(ready)} of {len(endpoints)} pods are ready")


def health_status(answer):
    """The status in a grpc.health.v1.HealthCheckResponse: one enum in field 1; 0 where it is left out."""
    return answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0


def check_health(subject, status=None, code="", details=""):
    """What the health call through the load balancer said."""
    if status == SERVING:
        return Finding("answer", subject, OK, "the speech server says SERVING through the load balancer")
    if status is not None:
        return Finding(
            "answer",
            subject,
            FAILED,
            f"the speech server answers with status {status}, not SERVING (1)",
            "Wait until its models are loaded, or look at its log.",
        )
    if code == "NO_LIBRARY":
        return Finding("answer", subject, UNKNOWN, "the Python package grpcio is missing here", "pip install grpcio")
    remedies = {
        "UNAVAILABLE": "Nothing answered at the address: check the network from here to it, and Traefik's log.",
        "DEADLINE_EXCEEDED": "The address is silent: check the network from here to it (firewall, announcement).",
        "UNIMPLEMENTED": "Traefik found no route for the call (404): check the route's host and class.",
    }
    return Finding(
        "answer",
        subject,
        FAILED,
        f"the health call failed: {code} {details}".strip(),
        remedies.get(code, "Look at Traefik's log and at the speech server's log."),
    )

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a client's call: address, route, ready pods, answer. Pure rules: objects in, findings out."""

from __future__ import annotations

from ansible_collections.speechops.riva.plugins.module_utils import exposure
from ansible_collections.speechops.riva.plugins.module_utils.exposure import ENTRY_POINT
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, UNKNOWN, WARNING, Finding

SERVING = 1
# What Traefik itself answers to a call that it lets nowhere, and where to look.
HTTP_REFUSALS = {
    429: "A limit refused the call (429): see riva_new_streams_per_second, riva_streams_per_client and "
    "riva_streams_at_once.",
    500: "Traefik got no answer from the token check (500): does riva_auth_address answer in the cluster, and does "
    "Traefik's NetworkPolicy let it go there (traefik_network_policy_egress)?",
    502: "Traefik reached no pod that takes calls (502): look at the pods, and at the NetworkPolicies between them.",
    503: "Traefik knows no pod that is ready (503): look at the pods.",
    504: "A pod did not answer Traefik (504): look at the pods, and at the NetworkPolicies between them.",
}


def check_address(service, subject, found):
    """Has Traefik's Service an address for clients; found: of `exposure.candidates`."""
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
    if not found:
        return Finding(
            "address", subject, FAILED, "the Service has no address that a client could reach", exposure.NO_ADDRESS
        )
    return Finding("address", subject, OK, exposure.words_for(found[0]))


def check_route(route, subject, ingress_class, service):
    """Does the IngressRoute belong to our Traefik and lead to the service over h2c."""
    if route is None:
        return Finding("route", subject, FAILED, "there is no such IngressRoute", "Run the riva role.")
    notes = (route.get("metadata") or {}).get("annotations") or {}
    spec = route.get("spec") or {}
    # The annotation is the older form, which Traefik still takes.
    found_class = spec.get("ingressClassName") or notes.get("kubernetes.io/ingress.class", "")
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
        "DEADLINE_EXCEEDED": "The address is silent: check the network from here to it (firewall, announcement), and "
        "from Traefik to the pods and to riva_auth_address (NetworkPolicies).",
        "UNIMPLEMENTED": "Traefik found no route for the call (404): check the route's host, header and class.",
        "UNAUTHENTICATED": "The token check refused the call (401): set verify_metadata to what clients send.",
        "PERMISSION_DENIED": "This machine is not let in (403): see riva_allowed_sources, or the token check.",
    }
    remedy = remedies.get(code, "Look at Traefik's log and at the speech server's log.")
    # gRPC has one code for no answer, for TLS that fails and for some of HTTP's: the details tell them apart.
    if "handshake failed" in details.lower():
        remedy = (
            "Something answers, but its certificate, or this machine's own, is not taken: see the check certificate."
        )
    remedy = next((words for status, words in HTTP_REFUSALS.items() if details.endswith(f"status: {status}")), remedy)
    return Finding(
        "answer",
        subject,
        FAILED,
        f"the health call failed: {code} {details}".strip(),
        remedy,
    )


def check_certificate(subject, warn_days, days=0, version="", error=""):
    """How many days the certificate lasts that clients see, and whether they can trust it."""
    if error:
        return Finding(
            "certificate",
            subject,
            FAILED,
            f"TLS does not come about: {error}",
            "See docs/way-in.md: does the certificate name this host or address (traefik_tls_names), is its CA in "
            "traefik_client_ca_file, has it ended, is traefik_tls set?",
        )
    text = f"{version}, the certificate lasts {days} more days"
    if days < warn_days:
        remedy = "Renew it: run the traefik role (self_made), see cert-manager's Certificate, or replace the Secret."
        return Finding("certificate", subject, FAILED if days < 1 else WARNING, text, remedy)
    return Finding("certificate", subject, OK, text)


def check_refused(subject, refusals):
    """Are clients without a certificate refused; refusals: {by name|by address: OpenSSL's words, empty: let in}."""
    open_ways = sorted(way for way, words in refusals.items() if not words)
    if open_ways:
        return Finding(
            "client_certificate",
            subject,
            FAILED,
            f"a client without a certificate is let in {' and '.join(open_ways)}, though traefik_mtls is true",
            "Run the traefik role: the TLSOption named default has to be its own, and the only one of that name in "
            "traefik_watched_namespaces (kubectl get tlsoptions -A).",
        )
    words = sorted(set(refusals.values()))
    ways = " and ".join(sorted(refusals))
    return Finding(
        "client_certificate", subject, OK, f"a client without a certificate is refused {ways} ({', '.join(words)})"
    )


def check_stream(check, subject, seconds, taken=None, code="", details=""):
    """What became of audio that was sent: a short recognition, or a long stream."""
    if code == "NO_LIBRARY":
        return Finding(check, subject, UNKNOWN, "nvidia-riva-client is missing here", "pip install nvidia-riva-client")
    if taken is None:
        remedies = {
            "long_stream": "Something on the way cuts long streams: a time-out of another proxy or firewall before "
            "Traefik, or time-outs in traefik_values.",
            "recognition": "The way is open, the server does not recognise: look at its log, and whether its models "
            "are for the language (verify_language).",
        }
        return Finding(check, subject, FAILED, f"the stream failed: {code} {details}".strip(), remedies[check])
    # The server's last chunk may end a little before the audio does.
    if taken < seconds - 1:
        return Finding(
            check,
            subject,
            FAILED,
            f"of {seconds} s of audio the server took {taken:.1f} s",
            "Look at the speech server's log.",
        )
    return Finding(check, subject, OK, f"the server recognised {taken:.0f} s of audio sent from this machine")

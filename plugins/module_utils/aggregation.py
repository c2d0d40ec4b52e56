# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Whether the API server hands requests on to the servers behind it (the aggregation layer).

Two things prove it. The ConfigMap that every such server reads its trust from holds the CA of the request headers;
and a GET through the API server comes back with 200. The condition Available proves less: its probe skips TLS and
claims to be system:masters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.speechops.riva.plugins.module_utils.findings import (
    FAILED,
    OK,
    UNKNOWN,
    WARNING,
    Finding,
)
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping

TRUST_NAMESPACE = "kube-system"
TRUST_NAME = "extension-apiserver-authentication"
TRUST_KEY = "requestheader-client-ca-file"
TRUST_PATH = f"/api/v1/namespaces/{TRUST_NAMESPACE}/configmaps/{TRUST_NAME}"
TRUST_SUBJECT = f"{TRUST_NAMESPACE}/{TRUST_NAME}"
APISERVICES_PATH = "/apis/apiregistration.k8s.io/v1/apiservices"

FLAGS = (
    "start kube-apiserver with --requestheader-client-ca-file, --requestheader-allowed-names,"
    " --requestheader-extra-headers-prefix, --requestheader-group-headers, --requestheader-username-headers,"
    " --proxy-client-cert-file and --proxy-client-key-file (kubeadm sets them;"
    " https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/)"
)


@dataclass(frozen=True)
class ApiService:
    """An APIService as the rules need it."""

    name: str
    group: str = ""
    version: str = ""
    service: str = ""
    available: str = "Unknown"
    reason: str = ""
    message: str = ""

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def project_apiservice(item: Mapping) -> ApiService:
    """An APIService object without what nobody asks for."""
    metadata, spec = mapping(item.get("metadata")), mapping(item.get("spec"))
    service = mapping(spec.get("service"))
    condition: Mapping = {}
    conditions = mapping(item.get("status")).get("conditions")
    for entry in conditions if isinstance(conditions, list) else ():
        if mapping(entry).get("type") == "Available":
            condition = entry
    return ApiService(
        name=str(metadata.get("name") or "?"),
        group=str(spec.get("group") or ""),
        version=str(spec.get("version") or ""),
        service=f"{service.get('namespace')}/{service.get('name')}" if service.get("name") else "",
        available=str(condition.get("status") or "Unknown"),
        reason=str(condition.get("reason") or ""),
        message=" ".join(str(condition.get("message") or "").split()),
    )


def trust_state(configmap: Mapping) -> str:
    """present or absent, from the ConfigMap itself."""
    certificate = mapping(mapping(configmap).get("data")).get(TRUST_KEY)
    return "present" if isinstance(certificate, str) and "BEGIN CERTIFICATE" in certificate else "absent"


def trust_finding(state: str, detail: str = "", proven: bool = False) -> Finding:
    """The request header CA: there, not there, or not for us to see (then the live proof counts)."""
    if state == "present":
        return Finding("requestheader_ca", TRUST_SUBJECT, OK, f"the API server publishes {TRUST_KEY}")
    if state == "hidden":
        then = "a request through an APIService proves it all the same" if proven else "nothing else proves it"
        return Finding(
            "requestheader_ca",
            TRUST_SUBJECT,
            UNKNOWN,
            f"can't be seen ({detail}); {then}",
            f"to see it, grant: get configmaps {TRUST_NAME} in namespace {TRUST_NAMESPACE}",
        )
    # Some distributions build the trust otherwise: where the live proof stands, the absence is a doubt only.
    return Finding(
        "requestheader_ca",
        TRUST_SUBJECT,
        WARNING if proven else FAILED,
        f"the aggregation layer is not configured: {TRUST_KEY} is absent" + (f" ({detail})" if detail else ""),
        FLAGS,
    )


# What the aggregator says, in its own words, and what it means. (reason, text in the message, meaning, remedy)
CAUSES = (
    ("ServiceNotFound", "", "its Service does not exist", "install the server behind it, or delete a left-over"),
    ("ServicePortError", "", "its Service lacks the port", "correct spec.service.port or the Service"),
    ("EndpointsNotFound", "", "its Service has no endpoints", "kubectl get pods: does the selector match any?"),
    ("MissingEndpoints", "", "no pod behind its Service is ready", "look at these pods: kubectl describe, logs"),
    ("ServiceAccessError", "", "the API server can't read its Service", "look at the API server's log"),
    ("EndpointsAccessError", "", "the API server can't read its endpoints", "look at the API server's log"),
    (
        "FailedDiscoveryCheck",
        "x509",
        "the certificate of the server behind it is not the one in caBundle",
        "correct spec.caBundle, or let the server's chart set it again",
    ),
    (
        "FailedDiscoveryCheck",
        ": 401",
        "the server behind it refuses the API server (request header CA)",
        "restart the server behind it, so that it reads the request header CA again; else check the CA's flags",
    ),
    (
        "FailedDiscoveryCheck",
        ": 403",
        "the server behind it takes the API server for an anonymous caller: there is no proxy client certificate, or"
        " its name is none of the allowed names",
        f"{FLAGS}; --requestheader-allowed-names has to have the name in --proxy-client-cert-file",
    ),
    (
        "FailedDiscoveryCheck",
        "connection refused",
        "nothing listens at its address",
        "compare the Service's targetPort with the port that the pod listens on; look at the pod's log",
    ),
    (
        "FailedDiscoveryCheck",
        "bad status",
        "the server behind it answers with an error",
        "look at the log of the server behind it",
    ),
    (
        "FailedDiscoveryCheck",
        "",
        "the API server does not reach it (network)",
        "let the control plane reach the pod network: firewall, NetworkPolicy, CNI on the control plane,"
        " --enable-aggregator-routing",
    ),
)


def cause_of(service: ApiService) -> tuple[str, str]:
    """(what it means, remedy) of an APIService that is not Available."""
    for reason, text, meaning, remedy in CAUSES:
        if service.reason == reason and text in service.message:
            return meaning, remedy
    return "it is not available", f"kubectl describe apiservice {service.name}"


@dataclass(frozen=True)
class Probe:
    """What a GET through the API server came back with; status 0 is no answer."""

    status: int
    message: str = ""


def apiservice_finding(service: ApiService, probe: Probe) -> Finding:
    """One APIService backed by a Service: its condition and the live request, which is the proof."""
    subject = service.name
    if service.available != "True":
        meaning, remedy = cause_of(service)
        if probe.status == 200:
            return Finding(
                "apiservice",
                subject,
                WARNING,
                f"answers, but its condition Available is {service.available}: {meaning} ({said(service)})",
                remedy,
            )
        return Finding(
            "apiservice",
            subject,
            FAILED,
            f"{meaning} (Service {service.service}; {said(service)})",
            f"{remedy}; kubectl describe apiservice {subject}",
        )
    if probe.status == 200:
        return Finding("apiservice", subject, OK, f"Available, and answers through Service {service.service}")
    return Finding("apiservice", subject, FAILED, *probe_fault(service, probe))


def lacks_trust(service: ApiService, probe: Probe) -> bool:
    """Whether an API fails because the server behind it does not know who asks."""
    condition = service.reason == "FailedDiscoveryCheck" and any(code in service.message for code in (": 401", ": 403"))
    return condition or probe.status == 401 or (probe.status == 403 and "system:anonymous" in probe.message)


def said(service: ApiService) -> str:
    return ": ".join(part for part in (service.reason or "no reason given", service.message) if part)


def probe_fault(service: ApiService, probe: Probe) -> tuple[str, str]:
    """(message, remedy) where the condition says Available and the request failed all the same."""
    text = f" ({probe.message})" if probe.message else ""
    if probe.status == 401 or (probe.status == 403 and "system:anonymous" in probe.message):
        return (
            f"says Available, but the server behind it does not trust the API server's headers{text}",
            f"restart the server behind {service.service}; if that does not help, {FLAGS}",
        )
    if probe.status == 403:
        return (
            f"says Available, but the caller may not ask it{text}",
            f"grant the caller: get on the non-resource URL {service.path} (ClusterRole system:discovery has it)",
        )
    if probe.status == 404:
        return (
            f"is registered, but its path {service.path} is not served{text}",
            f"look at the log of the server behind {service.service}: does it serve this version?",
        )
    if probe.status == 503:
        return (
            f"says Available, but requests fail with 503{text}",
            f"look at the pods behind {service.service} and at the network between them and the control plane",
        )
    what = f"requests end with HTTP {probe.status}" if probe.status else "requests get no answer"
    return f"says Available, but {what}{text}", f"look at the log of the server behind {service.service}"


def missing_finding(name: str, required: bool) -> Finding:
    """A named APIService that nobody registered."""
    if required:
        return Finding(
            "apiservice",
            name,
            FAILED,
            "is not registered",
            "install what registers it (for custom.metrics.k8s.io: prometheus-adapter, with one rule or more)",
        )
    return Finding("apiservice", name, OK, "is not registered yet, so nobody else owns it")


def findings_of(
    trust: tuple[str, str],
    services: Sequence[ApiService],
    probes: Mapping[str, Probe],
    names: Sequence[str] = (),
    required: bool = True,
) -> list[Finding]:
    """All findings. `services` are those backed by a Service (and, of the named ones, all)."""
    known = {service.name: service for service in services}
    proven = any(probe.status == 200 for probe in probes.values())
    trusted = trust_finding(*trust, proven=proven)
    findings = []
    for service in services:
        if service.service:
            probe = probes.get(service.name, Probe(0, "was not asked"))
            finding = apiservice_finding(service, probe)
            if trusted.status == FAILED and finding.status == FAILED and lacks_trust(service, probe):
                finding = replace(finding, message=f"{finding.message} (follows from {trusted.check})", remedy="")
            findings.append(finding)
        else:
            findings.append(
                Finding("apiservice", service.name, OK, "is served by the API server itself, not through a Service")
            )
    findings += [missing_finding(name, required) for name in names if name not in known]
    if not names and not any(service.service for service in services):
        findings.append(
            Finding(
                "apiservice",
                "any",
                UNKNOWN,
                "no APIService is backed by a Service, so no request can prove the layer yet",
                "install prometheus-adapter (or metrics-server), then look again",
            )
        )
    return [trusted, *findings]

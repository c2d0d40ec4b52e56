#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: validate_route
short_description: Proves that a client's call reaches a speech service through the load balancer
version_added: 0.1.0
description:
  - Follows the way of a client's call, namely the address of Traefik's Service, the IngressRoute of the speech
    service, the ready pods behind it, and at last a gRPC health call from this machine through all of them.
  - With O(tls) it looks at the certificate as a client does, with O(mtls) it tries without a client certificate too.
  - On request it sends audio made here (a tone) for a real recognition, and a stream as long as you like.
  - It changes nothing.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation
  - speechops.riva.validation.attributes
options:
  name:
    description: Name of the speech service.
    type: str
    required: true
  namespace:
    description: Namespace of the speech service.
    type: str
    required: true
  route_host:
    description: Host name that the route answers to, and that the certificate is checked for; any where left out.
    type: str
    default: ""
  route_kind:
    description: Kind of the route. A GRPCRoute itself is not looked at, the calls through it are.
    type: str
    choices: [IngressRoute, GRPCRoute]
    default: IngressRoute
  metadata:
    description: Metadata that clients send with each call, such as a header of the route or an authorization.
    type: dict
    default: {}
  ingress_class:
    description: Class of the routes that Traefik serves.
    type: str
    default: riva-traefik
  traefik_service:
    description: Name of Traefik's Service.
    type: str
    default: traefik
  traefik_namespace:
    description: Namespace of Traefik.
    type: str
    default: traefik
  call_timeout:
    description: Seconds that the health call has.
    type: int
    default: 5
  tls:
    description: Whether clients use TLS. The certificate is checked for O(route_host), or for the address without it.
    type: bool
    default: false
  mtls:
    description: Whether clients without a certificate have to be refused, by name and by address.
    type: bool
    default: false
  ca_file:
    description: File with the CA of the server's certificate; the CAs of this machine where left out.
    type: path
  client_certificate_file:
    description: File with the certificate of a client, for mTLS.
    type: path
  client_key_file:
    description: File with its private key.
    type: path
  certificate_days:
    description: A certificate that lasts fewer days is a warning.
    type: int
    default: 21
  recognize:
    description: Whether two seconds of a tone are sent for recognition as well.
    type: bool
    default: false
  stream_seconds:
    description: Length in seconds of a stream in real time, to prove that nothing on the way cuts it; 0 for none.
    type: int
    default: 0
  language:
    description: Language that the streams ask for.
    type: str
    default: en-US
"""

EXAMPLES = r"""
- name: Clients reach the speech service
  speechops.riva.validate_route:
    kubeconfig: "{{ cluster_kubeconfig }}"
    name: riva-asr
    namespace: riva
    wait: true
"""

RETURN = r"""
ok:
  description: Whether nothing is broken.
  type: bool
  returned: always
status:
  description: The worst status among the findings.
  type: str
  returned: always
findings:
  description: One finding a link, as check, subject, status, message and remedy.
  type: list
  elements: dict
  returned: always
table:
  description: The findings as text.
  type: str
  returned: always
address:
  description: Address and port that clients connect to; empty where there is none.
  type: str
  returned: when the cluster answers
"""

import os
import ssl

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import certificates, exposure, outside_calls, route
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import CallFailed, Way
from ansible_collections.speechops.riva.plugins.module_utils.validation import argument_spec, run

# Options that name a file, and the variable behind each.
FILES = {
    "ca_file": "traefik_client_ca_file",
    "client_certificate_file": "traefik_client_certificate_file",
    "client_key_file": "traefik_client_key_file",
}


def candidates(cluster, service, namespace):
    """Where clients could connect to."""
    spec = (service or {}).get("spec") or {}
    kind = spec.get("type", exposure.CLUSTER_IP)
    local = spec.get("externalTrafficPolicy") == "Local"
    nodes = cluster.list_all("/api/v1/nodes") if kind == exposure.NODE_PORT else []
    pods = []
    if service and (kind == exposure.CLUSTER_IP or (kind == exposure.NODE_PORT and local)):
        selector = ",".join(f"{key}={value}" for key, value in (spec.get("selector") or {}).items())
        pods = cluster.list_all(f"/api/v1/namespaces/{namespace}/pods", query={"labelSelector": selector})
    return exposure.candidates(service, nodes, pods)


def way_of(address, params):
    """How a client calls: by the address, with the service's host name and header, over TLS where it is on."""
    metadata = tuple((name.lower(), str(value)) for name, value in (params["metadata"] or {}).items())
    return Way(
        host=address[0],
        port=address[1],
        server_name=params["route_host"],
        tls=params["tls"],
        ca_file=params["ca_file"] or "",
        certificate_file=params["client_certificate_file"] or "",
        key_file=params["client_key_file"] or "",
        metadata=metadata,
    )


def health(subject, way, seconds):
    """A gRPC health call through all links."""
    if outside_calls.grpc is None:
        return route.check_health(subject, code="NO_LIBRARY")
    try:
        return route.check_health(subject, route.health_status(outside_calls.health(way, seconds)))
    except CallFailed as error:
        return route.check_health(subject, code=error.code, details=error.details)


def handshakes(subject, way, params):
    """What a client sees of TLS: the certificate; with mTLS, whether one without a certificate is refused."""
    try:
        seen = outside_calls.certificate(way, params["call_timeout"])
    except (OSError, ssl.SSLError) as error:
        return [route.check_certificate(subject, 0, error=getattr(error, "verify_message", "") or str(error))]
    days = certificates.days_left(seen["end"])
    findings = [route.check_certificate(subject, params["certificate_days"], days, seen["version"])]
    if params["mtls"]:
        names = {"by address": ""}
        if way.server_name:
            names["by name"] = way.server_name
        tried = {words: outside_calls.refusal(way, name, params["call_timeout"]) for words, name in names.items()}
        findings.append(route.check_refused(subject, tried))
    return findings


def speech(check, subject, way, seconds, language):
    """Audio sent, as one short stream or as a long one in real time."""
    if outside_calls.riva_asr_pb2 is None:
        return route.check_stream(check, subject, seconds, code="NO_LIBRARY")
    call = outside_calls.recognition if check == "recognition" else outside_calls.stream
    try:
        return route.check_stream(check, subject, seconds, taken=call(way, seconds, language))
    except CallFailed as error:
        return route.check_stream(check, subject, seconds, code=error.code, details=error.details)


def outside(subject, way, params):
    """The findings of all calls from this machine; what can't work any more after a failure is left out."""
    findings = handshakes(subject, way, params) if way.tls else []
    findings.append(health(subject, way, params["call_timeout"]))
    if findings[-1].status != "ok":
        return findings
    if params["recognize"]:
        findings.append(speech("recognition", subject, way, 2, params["language"]))
    if params["stream_seconds"]:
        findings.append(speech("long_stream", subject, way, params["stream_seconds"], params["language"]))
    return findings


def examine(cluster, params):
    name, namespace = params["name"], params["namespace"]
    traefik = f"{params['traefik_namespace']}/{params['traefik_service']}"
    service = cluster.find(f"/api/v1/namespaces/{params['traefik_namespace']}/services/{params['traefik_service']}")
    found = candidates(cluster, service, params["traefik_namespace"])
    slices = cluster.list_all(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        query={"labelSelector": f"kubernetes.io/service-name={name}"},
    )
    subject = f"{namespace}/{name}"
    findings = [route.check_address(service, traefik, found)]
    if params["route_kind"] == "IngressRoute":
        rule = cluster.find(f"/apis/traefik.io/v1alpha1/namespaces/{namespace}/ingressroutes/{name}")
        findings.append(route.check_route(rule, subject, params["ingress_class"], name))
    findings.append(route.check_endpoints(slices, subject))
    if found:
        findings += outside(subject, way_of(found[0], params), params)
    return findings, {"address": exposure.as_text(*found[0][:2]) if found else ""}


def unreadable(params):
    """What is wrong with the files that TLS needs, each with the variable that names it."""
    if not params["tls"]:
        return []
    wrong = [
        f"{option} is {params[option]}, which can't be read; set {variable} to a file that this user can read"
        for option, variable in FILES.items()
        if params[option] and not os.access(params[option], os.R_OK)
    ]
    if params["mtls"] and not (params["client_certificate_file"] and params["client_key_file"]):
        wrong.append(
            "mtls is true and there is no client certificate; set traefik_client_certificate_file and "
            "traefik_client_key_file to the pair of a client that is let in"
        )
    return wrong


def main():
    spec = argument_spec(
        name={"type": "str", "required": True},
        namespace={"type": "str", "required": True},
        route_host={"type": "str", "default": ""},
        route_kind={"type": "str", "default": "IngressRoute", "choices": ["IngressRoute", "GRPCRoute"]},
        metadata={"type": "dict", "default": {}, "no_log": True},
        ingress_class={"type": "str", "default": "riva-traefik"},
        traefik_service={"type": "str", "default": "traefik"},
        traefik_namespace={"type": "str", "default": "traefik"},
        call_timeout={"type": "int", "default": 5},
        tls={"type": "bool", "default": False},
        mtls={"type": "bool", "default": False},
        ca_file={"type": "path"},
        client_certificate_file={"type": "path"},
        client_key_file={"type": "path", "no_log": False},
        certificate_days={"type": "int", "default": 21},
        recognize={"type": "bool", "default": False},
        stream_seconds={"type": "int", "default": 0},
        language={"type": "str", "default": "en-US"},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    title = f"Calls do not reach speech service {params['namespace']}/{params['name']}"
    run(module, title, lambda cluster: examine(cluster, params), unreadable(params))


if __name__ == "__main__":
    main()

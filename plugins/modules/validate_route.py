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
author:
  - speechops.riva maintainers (@speechops)
description:
  - Follows the way of a client's call, namely the address of Traefik's Service, the IngressRoute of the speech
    service, the ready pods behind it, and at last a gRPC health call from this machine through all of them.
  - It reads only. No audio is sent.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
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
    description: Host name that the route answers to; any where left out.
    type: str
    default: ""
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
  wait:
    description: Whether to look again until nothing is broken.
    type: bool
    default: false
  wait_timeout:
    description: Seconds for the whole module.
    type: int
    default: 120
  wait_sleep:
    description: Seconds between two looks.
    type: int
    default: 5
  fail_on:
    description: From which status of a finding on the task fails.
    type: str
    choices: [failed, warning, never]
    default: failed
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import route
from ansible_collections.speechops.riva.plugins.module_utils.cluster import NotFound
from ansible_collections.speechops.riva.plugins.module_utils.validation import argument_spec, run

try:
    import grpc
except ImportError:
    grpc = None

HEALTH = "/grpc.health.v1.Health/Check"


def one(cluster, path):
    try:
        return cluster.get(path)
    except NotFound:
        return None


def call(address, host, seconds):
    """(status, code, details) of a gRPC health call; raw bytes, since the message is empty."""
    if grpc is None:
        return None, "NO_LIBRARY", ""
    options = [("grpc.enable_http_proxy", 0)]
    if host:
        options.append(("grpc.default_authority", host))
    target = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    with grpc.insecure_channel(target, options=options) as channel:
        check = channel.unary_unary(HEALTH, request_serializer=bytes, response_deserializer=bytes)
        try:
            return route.health_status(check(b"", timeout=seconds)), "", ""
        except grpc.RpcError as error:
            return None, error.code().name, error.details() or ""


def examine(cluster, params):
    name, namespace = params["name"], params["namespace"]
    traefik = f"{params['traefik_namespace']}/{params['traefik_service']}"
    service = one(cluster, f"/api/v1/namespaces/{params['traefik_namespace']}/services/{params['traefik_service']}")
    is_node_port = ((service or {}).get("spec") or {}).get("type") == "NodePort"
    nodes = cluster.list_all("/api/v1/nodes") if is_node_port else []
    rule = one(cluster, f"/apis/traefik.io/v1alpha1/namespaces/{namespace}/ingressroutes/{name}")
    slices = cluster.list_all(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        query={"labelSelector": f"kubernetes.io/service-name={name}"},
    )
    subject = f"{namespace}/{name}"
    findings = [
        route.check_address(service, traefik, nodes),
        route.check_route(rule, subject, params["ingress_class"], name),
        route.check_endpoints(slices, subject),
    ]
    address = route.address_of(service, nodes) if service else None
    if address:
        findings.append(route.check_health(subject, *call(address, params["route_host"], params["call_timeout"])))
    return findings, {"address": f"{address[0]}:{address[1]}" if address else ""}


def main():
    spec = argument_spec(
        name={"type": "str", "required": True},
        namespace={"type": "str", "required": True},
        route_host={"type": "str", "default": ""},
        ingress_class={"type": "str", "default": "riva-traefik"},
        traefik_service={"type": "str", "default": "traefik"},
        traefik_namespace={"type": "str", "default": "traefik"},
        call_timeout={"type": "int", "default": 5},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    title = f"Calls do not reach speech service {module.params['namespace']}/{module.params['name']}"
    run(module, title, lambda cluster: examine(cluster, module.params))


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: plan_exposure
short_description: Says how Traefik's Service is to be published on this cluster
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Looks for what gives addresses to Services of type LoadBalancer, namely MetalLB with pools, Cilium with pools,
    kube-vip, ServiceLB of k3s, or a Service that has got an address from anything else. It reads only.
  - It tells as well which ports the API server listens on, for NetworkPolicies that let Traefik reach it.
  - With O(exposure=auto) a Service that has an address stays as it is. Where nothing was recognised, the answer is to
    try it with a LoadBalancer (RV(certain) is false), unless the Service has been made a NodePort before.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation.attributes
options:
  exposure:
    description: How clients reach the service.
    type: str
    choices: [auto, metallb, existing, nodeport, hostport]
    default: auto
  service:
    description: Name of Traefik's Service.
    type: str
    default: traefik
  namespace:
    description: Namespace of Traefik.
    type: str
    default: traefik
  timeout:
    description: Seconds that the apiserver has for its answers.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: It is known how Traefik's Service is published
  speechops.riva.plan_exposure:
    kubeconfig: "{{ cluster_kubeconfig }}"
    exposure: auto
"""

RETURN = r"""
service_type:
  description: Type of Traefik's Service.
  type: str
  returned: success
host_port:
  description: Whether Traefik's pods listen on their nodes' own port.
  type: bool
  returned: success
certain:
  description: Whether an address is known to come. Where it is not, a node port is taken in the end.
  type: bool
  returned: success
why:
  description: Why so, in words.
  type: str
  returned: success
api_server_ports:
  description: Ports that the API server itself listens on, behind the Service C(kubernetes).
  type: list
  elements: int
  returned: success
found:
  description: What gives addresses here, as name and evidence.
  type: list
  elements: list
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import exposure
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError

POOLS = {"metallb.io": ("MetalLB", "ipaddresspools"), "cilium.io": ("Cilium", "ciliumloadbalancerippools")}


def api_server_ports(cluster):
    """Where the API server listens; its Service's own port is another one, and policies see this one."""
    query = {"labelSelector": "kubernetes.io/service-name=kubernetes"}
    slices = cluster.list_all("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", query=query)
    return sorted({port["port"] for item in slices for port in item.get("ports") or [] if port.get("port")})


def pools_of(cluster, group, kinds):
    """Pools in whichever version of their group they are: Cilium's moved from v2alpha1 to v2."""
    for version in group["versions"]:
        found = cluster.find_all(f"/apis/{version['groupVersion']}/{kinds}")
        if found:
            return found
    return []


def node_kind(node):
    """What the rules need of a node."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    return {"status": {"nodeInfo": {"kubeletVersion": info.get("kubeletVersion")}}}


def look(cluster):
    """What gives addresses here."""
    groups = {group["name"]: group for group in cluster.get("/apis").get("groups") or []}
    pools = {name: pools_of(cluster, groups[group], kinds) for group, (name, kinds) in POOLS.items() if group in groups}
    system = "/namespaces/kube-system"
    workloads = cluster.list_all(f"/apis/apps/v1{system}/daemonsets") + cluster.list_all(f"/api/v1{system}/pods")
    services = [
        item
        for item in cluster.list_all("/api/v1/services")
        if (item.get("spec") or {}).get("type") == exposure.LOAD_BALANCER
    ]
    return exposure.providers(groups, pools, workloads, cluster.list_all("/api/v1/nodes", node_kind), services)


def main():
    spec = auth_argument_spec()
    spec.update(
        exposure={"type": "str", "default": "auto", "choices": list(exposure.EXPOSURES)},
        service={"type": "str", "default": "traefik"},
        namespace={"type": "str", "default": "traefik"},
        timeout={"type": "int", "default": 30},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    found, service = [], None
    try:
        cluster = connect(module, Deadline(params["timeout"]))
        ports = api_server_ports(cluster)
        if params["exposure"] == "auto":
            service = cluster.find(f"/api/v1/namespaces/{params['namespace']}/services/{params['service']}")
            found = look(cluster)
    except ClusterError as error:
        module.fail_json(msg=f"It can't be seen what gives addresses here: {error}\n    {error.remedy}")
    plan = exposure.plan(params["exposure"], found, service)
    module.exit_json(changed=False, found=found, api_server_ports=ports, **plan)


if __name__ == "__main__":
    main()

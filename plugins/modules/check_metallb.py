#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: check_metallb
short_description: Says whether MetalLB can work on this cluster
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Looks at the pools, at the nodes that are to announce their addresses, and at kube-proxy, which in IPVS mode needs
    strictARP. It reads only.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation.attributes
options:
  pools:
    description: Pools, as name and addresses.
    type: list
    elements: dict
    default: []
  mode:
    description: How addresses are announced.
    type: str
    choices: [l2, bgp]
    default: l2
  peers:
    description: Names of the BGP peers.
    type: list
    elements: str
    default: []
  node_labels:
    description: Labels of the nodes that announce; all where empty.
    type: dict
    default: {}
  ignore_exclude_label:
    description: Whether nodes announce although they are excluded from load balancers.
    type: bool
    default: false
  set_strict_arp:
    description: Whether a kube-proxy without strictARP is to be changed; it is an error otherwise.
    type: bool
    default: false
  timeout:
    description: Seconds that the apiserver has for its answers.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: The cluster is fit for MetalLB
  speechops.riva.check_metallb:
    kubeconfig: "{{ cluster_kubeconfig }}"
    pools:
      - name: speech
        addresses: [192.0.2.10-192.0.2.20]
"""

RETURN = r"""
kube_proxy:
  description: kube-proxy's ConfigMap as it has to be, where it has to be changed; none otherwise.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import metallb
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError

KUBE_PROXY = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"


def changed_kube_proxy(cluster):
    """kube-proxy's ConfigMap with strictARP, where it needs that and lacks it; else None."""
    text = ((cluster.find(KUBE_PROXY) or {}).get("data") or {}).get("config.conf", "")
    if not metallb.needs_strict_arp(text):
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "data": {"config.conf": metallb.with_strict_arp(text)},
    }


def main():
    spec = auth_argument_spec()
    spec.update(
        pools={"type": "list", "elements": "dict", "default": []},
        mode={"type": "str", "default": "l2", "choices": ["l2", "bgp"]},
        peers={"type": "list", "elements": "str", "default": []},
        node_labels={"type": "dict", "default": {}},
        ignore_exclude_label={"type": "bool", "default": False},
        set_strict_arp={"type": "bool", "default": False},
        timeout={"type": "int", "default": 30},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    try:
        cluster = connect(module, Deadline(params["timeout"]))
        nodes = cluster.list_all("/api/v1/nodes")
        kube_proxy = changed_kube_proxy(cluster)
    except ClusterError as error:
        module.fail_json(msg=f"The cluster can't be looked at: {error}\n    {error.remedy}")
    wrong = metallb.check_pools(params["pools"], nodes, params["mode"], params["peers"])
    wrong += metallb.check_nodes(nodes, params["node_labels"], params["ignore_exclude_label"])
    if kube_proxy and not params["set_strict_arp"]:
        wrong.append(
            (
                "kube-proxy uses IPVS without strictARP, so every node would answer for MetalLB's addresses",
                "Set metallb_set_strict_arp to true, or strictARP in kube-proxy's configuration yourself.",
            )
        )
    if wrong:
        lines = [f"{message}\n    {remedy}" for message, remedy in wrong]
        module.fail_json(msg="MetalLB would not work here:\n" + "\n".join(lines))
    module.exit_json(changed=False, kube_proxy=kube_proxy)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: published_address
short_description: Waits until Traefik's Service has an address that takes connections
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Reads where clients could connect to (addresses of the load balancer, host ports, node ports), opens a connection
    from this machine, and returns the first that takes one. Nothing is sent.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation.attributes
options:
  service:
    description: Name of Traefik's Service.
    type: str
    default: traefik
  namespace:
    description: Namespace of Traefik.
    type: str
    default: traefik
  why:
    description: Why it is published so; told with the address.
    type: str
    default: ""
  required:
    description: Whether the task fails without an address. Without it, RV(address) is empty then.
    type: bool
    default: true
  wait_timeout:
    description: Seconds until an address has to take connections.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Clients have an address
  speechops.riva.published_address:
    kubeconfig: "{{ cluster_kubeconfig }}"
    service: traefik
    namespace: traefik
"""

RETURN = r"""
address:
  description: Host and port that clients connect to; empty where there is none.
  type: str
  returned: success
host:
  description: The host of it.
  type: str
  returned: success
hosts:
  description: All hosts under which clients may reach Traefik, for the names of a certificate.
  type: list
  elements: str
  returned: success
msg:
  description: Where clients connect to, how, and why so.
  type: str
  returned: always
"""

import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import exposure, waiting
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError

CONNECT_SECONDS = 3


def candidates(cluster, namespace, name):
    """Where clients could connect to now."""
    service = cluster.find(f"/api/v1/namespaces/{namespace}/services/{name}")
    if service is None:
        return []
    selector = ",".join(f"{key}={value}" for key, value in ((service.get("spec") or {}).get("selector") or {}).items())
    pods = cluster.list_all(f"/api/v1/namespaces/{namespace}/pods", query={"labelSelector": selector})
    kind = (service.get("spec") or {}).get("type")
    nodes = cluster.list_all("/api/v1/nodes") if kind == exposure.NODE_PORT else []
    return exposure.candidates(service, nodes, pods)


def first_that_answers(found):
    """(the first candidate that takes a connection, None), or (None, why the last one did not)."""
    words = ""
    for host, port, way in found:
        try:
            with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
                return (host, port, way), ""
        except OSError as error:
            words = str(error)
    return None, words


def main():
    spec = auth_argument_spec()
    spec.update(
        service={"type": "str", "default": "traefik"},
        namespace={"type": "str", "default": "traefik"},
        why={"type": "str", "default": ""},
        required={"type": "bool", "default": True},
        wait_timeout={"type": "int", "default": 60},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    found, chosen, words = [], None, ""
    try:
        cluster = connect(module, Deadline(params["wait_timeout"] + 10))
        end = time.monotonic() + params["wait_timeout"]
        while chosen is None:
            found = candidates(cluster, params["namespace"], params["service"])
            chosen, words = first_that_answers(found)
            if chosen is None and (module.check_mode or time.monotonic() > end):
                break
            if chosen is None:
                waiting.say(
                    f"an address of Service {params['namespace']}/{params['service']}: {words or 'it has none yet'}",
                    params["wait_timeout"] - (end - time.monotonic()),
                    params["wait_timeout"],
                )
                time.sleep(1)
    except ClusterError as error:
        module.fail_json(msg=f"The address can't be read: {error}\n    {error.remedy}")
    hosts = sorted({host for host, _port, _way in found})
    if chosen:
        text = exposure.words_for(chosen, params["why"])
        module.exit_json(changed=False, msg=text, address=exposure.as_text(*chosen[:2]), host=chosen[0], hosts=hosts)
    if found:
        message, remedy = exposure.no_answer(found, words)
    else:
        message, remedy = "no address came", exposure.NO_ADDRESS
    where = f"Service {params['namespace']}/{params['service']}"
    text = f"{where}: {message} (waited {params['wait_timeout']} s)\n    {remedy}"
    if params["required"] and not module.check_mode:
        module.fail_json(msg=text, hosts=hosts)
    module.exit_json(changed=False, msg=text, address="", host="", hosts=hosts)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validate_aggregation_layer
short_description: Proves that the API server hands requests on to the servers behind it
version_added: 0.1.0
description:
  - Checks that the API server publishes the CA of its request headers (ConfigMap
    C(kube-system/extension-apiserver-authentication), key C(requestheader-client-ca-file)).
  - Checks that each APIService backed by a Service is C(Available) and that a GET through it comes back with 200.
    The condition alone proves little, since the API server's own probe skips TLS and claims to be
    C(system:masters).
  - Tells the reasons apart, a missing Service from a missing port, from pods that are not ready, from a network that
    does not let through, from a certificate, from trust.
  - Where the ConfigMap can't be seen, that is V(unknown), and the live request decides.
options:
  apiservices:
    description: Names of the APIServices to check. By default every one that is backed by a Service.
    type: list
    elements: str
    default: []
  require_apiservices:
    description:
      - Whether an APIService named in O(apiservices) has to be registered.
      - Without it, one that is not registered is V(ok), as before its server is installed.
    type: bool
    default: true
  leave_out:
    description: Names of APIServices that are not looked at, for what is installed and proven later.
    version_added: 1.0.0
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation
  - speechops.riva.validation.attributes
"""

EXAMPLES = r"""
- name: The aggregation layer works
  speechops.riva.validate_aggregation_layer:
    kubeconfig: /etc/riva/admin.kubeconfig

- name: The custom metrics API answers within two minutes
  speechops.riva.validate_aggregation_layer:
    kubeconfig: /etc/riva/admin.kubeconfig
    apiservices: [v1beta1.custom.metrics.k8s.io]
    wait: true
    wait_timeout: 120
"""

RETURN = r"""
ok:
  description: Whether nothing is as bad as O(fail_on) or worse. With V(never), whether nothing failed.
  returned: always
  type: bool
  sample: true
status:
  description: The worst status among the findings, one of V(ok), V(unknown), V(warning), V(failed).
  returned: always
  type: str
  sample: ok
findings:
  description: What was checked and how it is.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: What was checked.
      type: str
      returned: always
    subject:
      description: The object that it was checked on.
      type: str
      returned: always
    status:
      description: One of V(ok), V(unknown), V(warning), V(failed). V(unknown) means that it could not be seen.
      type: str
      returned: always
    message:
      description: What was found.
      type: str
      returned: always
    remedy:
      description: What to do or type next. Empty where nothing has to be done.
      type: str
      returned: always
table:
  description: The findings as text, one line each.
  returned: always
  type: str
apiservices:
  description: The APIServices that were checked.
  returned: when they could be listed
  type: list
  elements: dict
  contains:
    name:
      description: Name of the APIService.
      type: str
      returned: always
    service:
      description: Namespace and name of the Service behind it. Empty if the API server serves it itself.
      type: str
      returned: always
    available:
      description: Status of its condition C(Available), one of V(True), V(False), V(Unknown).
      type: str
      returned: always
    reason:
      description: Reason of that condition.
      type: str
      returned: always
    http_status:
      description: Status of the GET through the API server; V(0) is no answer. Null if it was not asked.
      type: int
      returned: always
requestheader:
  description: Whether the CA of the request headers is published, one of V(present), V(absent), V(hidden).
  returned: when the APIServices could be listed
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import aggregation
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import (
    ClusterError,
    DoorShut,
    Forbidden,
    NotFound,
    one_line,
)
from ansible_collections.speechops.riva.plugins.module_utils.validation import argument_spec, run


def read_trust(cluster):
    """(state, detail) of the request header CA."""
    try:
        return aggregation.trust_state(cluster.get(aggregation.TRUST_PATH)), ""
    except NotFound:
        return "absent", "the ConfigMap does not exist"
    except Forbidden as error:
        return "hidden", one_line(error)


def probe(cluster, path):
    """A GET through the API server, whatever comes of it."""
    try:
        cluster.get(path)
    except DoorShut:
        raise
    except ClusterError as error:
        return aggregation.Probe(error.status or 0, one_line(error))
    return aggregation.Probe(200)


def examine(cluster, names, required, left_out):
    services = cluster.list_all(aggregation.APISERVICES_PATH, aggregation.project_apiservice)
    services = [service for service in services if (service.name in names if names else service.service)]
    services = [service for service in services if service.name not in left_out]
    services.sort(key=lambda service: service.name)
    trust = read_trust(cluster)
    probes = {service.name: probe(cluster, service.path) for service in services if service.service}
    facts = {
        "apiservices": [
            {
                "name": service.name,
                "service": service.service,
                "available": service.available,
                "reason": service.reason,
                "http_status": probes[service.name].status if service.name in probes else None,
            }
            for service in services
        ],
        "requestheader": trust[0],
    }
    return aggregation.findings_of(trust, services, probes, names, required), facts


def main():
    module = AnsibleModule(
        argument_spec=argument_spec(
            apiservices={"type": "list", "elements": "str", "default": []},
            require_apiservices={"type": "bool", "default": True},
            leave_out={"type": "list", "elements": "str", "default": []},
        ),
        supports_check_mode=True,
    )
    params = module.params
    run(
        module,
        "the API aggregation layer does not work",
        lambda cluster: examine(cluster, params["apiservices"], params["require_apiservices"], params["leave_out"]),
    )


if __name__ == "__main__":
    main()

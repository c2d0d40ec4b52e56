#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: find_leftovers
short_description: Says what Helm releases left behind in a cluster, and which of it may go
version_added: 1.0.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Looks for what stays when the releases of this collection are removed. APIServices and webhook configurations whose
    Service is gone; CRDs that M(speechops.riva.apply_crds) brought, and whether objects of their kind exist; volumes;
    Secrets that this collection made; namespaces, and what is in them.
  - It reads only. C(playbooks/uninstall.yml) removes what it names.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation.attributes
options:
  releases:
    description: The releases that were there. What belongs to others is told, and never called removable.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the release.
        type: str
        required: true
      namespace:
        description: Its namespace.
        type: str
        required: true
  timeout:
    description: Seconds for everything together.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: It is known what stays
  speechops.riva.find_leftovers:
    kubeconfig: "{{ cluster_kubeconfig }}"
    releases:
      - {name: prometheus-adapter, namespace: monitoring}
  register: leftovers
"""

RETURN = r"""
leftovers:
  description: >-
    One entry an object. C(group) is one of V(dead), V(crd), V(data), V(secret), V(namespace); C(removable) says that
    nothing which somebody else may need goes with it.
  type: list
  elements: dict
  returned: always
  sample:
    - group: crd
      api_version: apiextensions.k8s.io/v1
      kind: CustomResourceDefinition
      name: podmonitors.monitoring.coreos.com
      namespace: ""
      removable: true
      message: no object of its kind is there
table:
  description: The same, as text.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import leftovers
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
WEBHOOKS = {
    "ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
}
# Of these groups nothing is stored.
VIRTUAL = (
    "metrics.k8s.io",
    "custom.metrics.k8s.io",
    "external.metrics.k8s.io",
    "events.k8s.io",
    "authorization.k8s.io",
)


def namespaced_kinds(cluster):
    """[(path of the version, plural, kind)] of all that a namespace can hold; a dead API is left out."""
    versions = ["/api/v1"]
    for group in cluster.get("/apis").get("groups", ()):
        if group["name"] not in VIRTUAL:
            versions.append(f"/apis/{group['preferredVersion']['groupVersion']}")
    found = []
    for path in versions:
        try:
            resources = cluster.get(path).get("resources", ())
        except ClusterError:
            continue
        found += [
            (path, entry["name"], entry["kind"])
            for entry in resources
            if entry.get("namespaced") and "/" not in entry["name"] and "list" in entry.get("verbs", ())
        ]
    return found


def identity(item):
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def standing(item):
    """The name of what stands alone; None is not kept."""
    return item["metadata"]["name"] if leftovers.stands_alone(item) else None


def crds_and_objects(cluster):
    """(CRDs of ours, what exists of each)."""
    mine = [item for item in cluster.list_all(CRDS) if leftovers.ours_by_manager(item)]
    objects = {}
    for item in mine:
        spec = item["spec"]
        version = next((entry["name"] for entry in spec["versions"] if entry.get("served")), None)
        if version:
            path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
            names = cluster.list_all(path, identity)
            objects[item["metadata"]["name"]] = ["/".join(part for part in name if part) for name in names]
    return mine, objects


def namespaces(cluster, names):
    kinds = namespaced_kinds(cluster)
    found = []
    for name in names:
        item = cluster.find(f"/api/v1/namespaces/{name}")
        if item is None:
            continue
        contents = []
        for path, plural, kind in kinds:
            if kind in leftovers.FLEETING:
                continue
            listed = cluster.list_all(f"{path}/namespaces/{name}/{plural}", standing)
            contents += [(kind, entry) for entry in listed]
        found.append(leftovers.namespace_state(item, contents))
    return found


def look(cluster, releases):
    """All that is left, the worst first."""
    known = {(entry["namespace"], entry["name"]) for entry in releases}
    names = sorted({entry["namespace"] for entry in releases})
    services = set(cluster.list_all("/api/v1/services", identity))
    found = leftovers.dead_apiservices(cluster.list_all(APISERVICES), services, known)
    for kind, path in WEBHOOKS.items():
        items = [{**item, "kind": kind} for item in cluster.list_all(path)]
        found += leftovers.dead_webhooks(items, services, known)
    found += leftovers.crds(*crds_and_objects(cluster))
    for name in names:
        found += leftovers.claims(cluster.list_all(f"/api/v1/namespaces/{name}/persistentvolumeclaims"), known)
        selector = {"labelSelector": f"{leftovers.MANAGED_BY}={leftovers.MANAGER}"}
        found += leftovers.secrets(cluster.list_all(f"/api/v1/namespaces/{name}/secrets", query=selector))
    return found + namespaces(cluster, names)


def main():
    spec = auth_argument_spec()
    release = {"name": {"type": "str", "required": True}, "namespace": {"type": "str", "required": True}}
    spec.update(
        releases={"type": "list", "elements": "dict", "required": True, "options": release},
        timeout={"type": "int", "default": 120},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        found = look(connect(module, Deadline(module.params["timeout"])), module.params["releases"])
    except ClusterError as error:
        module.fail_json(msg=f"What is left in the cluster can't be told: {error}\n    {error.remedy}")
    entries = [entry.to_dict() for entry in found]
    module.exit_json(changed=False, leftovers=entries, table=leftovers.table(entries))


if __name__ == "__main__":
    main()

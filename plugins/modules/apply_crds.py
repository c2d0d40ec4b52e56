#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: apply_crds
short_description: Applies the custom resource definitions of a Helm chart server-side
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Helm installs the CRDs of a chart once and never upgrades them. This module applies them before the release, so
    that the release finds the schemas that it was written for.
  - Only CRDs of the API groups named are applied, so that a chart's optional parts leave others' CRDs alone.
  - Nothing is ever removed, since a CRD takes all its objects with it.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
options:
  chart_ref:
    description: Chart; a name in a repository, a URL, an OCI reference, a folder or a tgz file.
    type: str
    required: true
  chart_version:
    description: Version of the chart; the newest where left out.
    type: str
  chart_repo_url:
    description: URL of the repository where the chart is a bare name.
    type: str
  helm_binary_path:
    description: Path of the helm program.
    type: path
    required: true
  groups:
    description: API groups whose CRDs are applied.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds for everything together.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: The apiserver says what would change, and changes nothing.
  diff_mode:
    support: none
    description: CRDs are too long to be read as a difference; their names are returned.
"""

EXAMPLES = r"""
- name: The operator's CRDs are those of its chart
  speechops.riva.apply_crds:
    kubeconfig: "{{ cluster_kubeconfig }}"
    helm_binary_path: /usr/local/bin/helm
    chart_ref: kube-prometheus-stack
    chart_repo_url: https://prometheus-community.github.io/helm-charts
    chart_version: 88.5.3
    groups: [monitoring.coreos.com]
"""

RETURN = r"""
crds:
  description: Names of the CRDs of these groups in the chart.
  type: list
  elements: str
  returned: success
changed_crds:
  description: Names of those that were made or changed.
  type: list
  elements: str
  returned: success
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils.cluster import (
    ClusterError,
    Deadline,
    NotFound,
    auth_argument_spec,
    connect,
)
from ansible_collections.speechops.riva.plugins.module_utils.leftovers import MANAGER
from ansible_collections.speechops.riva.plugins.module_utils.releases import chart_words
from ansible_collections.speechops.riva.plugins.module_utils.workloads import condition

try:
    import yaml
except ImportError:
    HAS_YAML = False
else:
    HAS_YAML = True

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def kubernetes_loader():
    """YAML as Kubernetes reads it: a lone = is a text (Prometheus' CRDs have it), not a type of its own."""
    fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {key: value for key, value in fastest.yaml_implicit_resolvers.items() if key != "="}
    return type("Loader", (fastest,), {"yaml_implicit_resolvers": resolvers})


def chart_crds(module):
    """The CRDs that the chart and its parts bring, of the groups asked for."""
    params = module.params
    rc, out, err = module.run_command([params["helm_binary_path"], "show", "crds", *chart_words(params)])
    if rc != 0:
        module.fail_json(msg=f"The chart {params['chart_ref']} can't be read: {err.strip()}")
    found = {}
    for item in yaml.load_all(out, Loader=kubernetes_loader()):
        if not isinstance(item, dict) or item.get("kind") != "CustomResourceDefinition":
            continue
        if (item.get("spec") or {}).get("group") in params["groups"]:
            found[item["metadata"]["name"]] = item
    return found


def current(cluster, name):
    try:
        return cluster.get(f"{CRDS}/{name}")
    except NotFound:
        return None


def apply(cluster, crd, dry_run):
    """Server-side apply of one CRD; what the apiserver made of it."""
    return cluster.apply(f"{CRDS}/{crd['metadata']['name']}", crd, MANAGER, dry_run)


def differs(before, after):
    """Whether an apply changed what counts: the schema, or the labels and annotations."""
    if before is None:
        return True

    def essence(crd):
        meta = crd.get("metadata") or {}
        return crd.get("spec"), meta.get("labels"), meta.get("annotations")

    return essence(before) != essence(after)


def wait_established(cluster, names):
    """Until the apiserver serves them: a release with objects of a new kind would fail before."""
    left = list(names)
    while left:
        left = [
            name
            for name in left
            if (condition(cluster.get(f"{CRDS}/{name}"), "Established") or {}).get("status") != "True"
        ]
        if left and cluster.deadline.passed():
            raise cluster.too_late(f"the apiserver does not serve {', '.join(left)} yet")
        if left:
            time.sleep(0.5)


def main():
    spec = auth_argument_spec()
    spec.update(
        chart_ref={"type": "str", "required": True},
        chart_version={"type": "str"},
        chart_repo_url={"type": "str"},
        helm_binary_path={"type": "path", "required": True},
        groups={"type": "list", "elements": "str", "required": True},
        timeout={"type": "int", "default": 120},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if not HAS_YAML:
        module.fail_json(msg="PyYAML is missing: install the collection's requirements")
    crds = chart_crds(module)
    changed = []
    try:
        cluster = connect(module, Deadline(module.params["timeout"]))
        for name, crd in sorted(crds.items()):
            before = current(cluster, name)
            if differs(before, apply(cluster, crd, module.check_mode)):
                changed.append(name)
        if not module.check_mode:
            wait_established(cluster, changed)
    except ClusterError as error:
        module.fail_json(msg=f"The CRDs can't be applied: {error}\n    {error.remedy}")
    module.exit_json(changed=bool(changed), crds=sorted(crds), changed_crds=changed)


if __name__ == "__main__":
    main()

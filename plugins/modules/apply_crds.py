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
  - Each gets the annotation C(riva.speechops.io/applied) with the checksum of what it was made of and its generation,
    so that a later look needs its metadata only. One that lacks it, or was edited since, is applied again.
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
  description: Names of those that were made, changed or got their annotation.
  type: list
  elements: str
  returned: success
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import release_looks
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError
from ansible_collections.speechops.riva.plugins.module_utils.releases import chart_words
from ansible_collections.speechops.riva.plugins.module_utils.workloads import condition


def wait_established(cluster, names):
    """Until the apiserver serves them: a release with objects of a new kind would fail before."""
    left = list(names)
    while left:
        left = [
            name
            for name in left
            if (condition(cluster.get(f"{release_looks.CRDS}/{name}"), "Established") or {}).get("status") != "True"
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
    if not release_looks.HAS_YAML:
        module.fail_json(msg="PyYAML is missing: install the collection's requirements")
    crds, problem = release_looks.crds_of_chart(
        module.params["helm_binary_path"], chart_words(module.params), module.params["groups"]
    )
    if problem:
        module.fail_json(msg=f"The chart {module.params['chart_ref']} can't be read: {problem}")
    changed = []
    try:
        cluster = connect(module, Deadline(module.params["timeout"]))
        for name, crd in sorted(crds.items()):
            if release_looks.is_sealed(cluster, crd):
                continue
            if module.check_mode:
                release_looks.would_change(cluster, crd)  # The API server says already what it would refuse.
            else:
                release_looks.apply_crd(cluster, crd)
            changed.append(name)
        if not module.check_mode:
            wait_established(cluster, changed)
    except ClusterError as error:
        module.fail_json(msg=f"The CRDs can't be applied: {error}\n    {error.remedy}")
    module.exit_json(changed=bool(changed), crds=sorted(crds), changed_crds=changed)


if __name__ == "__main__":
    main()

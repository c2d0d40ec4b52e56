#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mend_release
short_description: Sets back what somebody else changed in the objects of a Helm release
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Helm compares values and versions; what was edited or deleted in the cluster since stays so. This module holds each
    object of the release's manifest against what is there, by a server-side apply as a dry run, and applies those that
    differ.
  - What others added beside it is left alone, and so is the number of pods that an autoscaler sets. So are Secrets,
    CRDs, webhooks, APIServices, Jobs, pods, claims and namespaces.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
options:
  release_name:
    description: Name of the Helm release.
    type: str
    required: true
  namespace:
    description: Namespace of the Helm release.
    type: str
    required: true
  helm_binary_path:
    description: Path of the helm program.
    type: path
    required: true
  timeout:
    description: Seconds for everything together.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Says what would be set back.
  diff_mode:
    support: full
    description: Shows the values as they are and as the release has them.
"""

EXAMPLES = r"""
- name: The release is as Helm made it
  speechops.riva.mend_release:
    kubeconfig: "{{ cluster_kubeconfig }}"
    helm_binary_path: /usr/local/bin/helm
    release_name: riva-asr
    namespace: riva
"""

RETURN = r"""
drifted:
  description: What was changed by others, a line for each object.
  type: list
  elements: str
  returned: success
  sample: ["Deployment riva/riva-asr: spec.strategy.type is 'Recreate', the release has 'RollingUpdate'"]
left_alone:
  description: Objects that the API server would not compare, or not set back, with its reason.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import drift, release_looks
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError
from ansible_collections.speechops.riva.plugins.module_utils.kubeconfig import local_path
from ansible_collections.speechops.riva.plugins.module_utils.workloads import subject


def manifest(module):
    """The objects that Helm made of this release, as it keeps them."""
    params = module.params
    command = [params["helm_binary_path"], "get", "manifest", params["release_name"]]
    command += ["--namespace", params["namespace"]]
    if params.get("context"):
        command += ["--kube-context", params["context"]]
    environment = {"KUBECONFIG": local_path(params["kubeconfig"])} if params.get("kubeconfig") else {}
    rc, out, err = module.run_command(command, environ_update=environment)
    if rc != 0:
        module.fail_json(msg=f"Helm can't tell what release {params['release_name']} consists of: {err.strip()}")
    return release_looks.objects_of(out, params["namespace"])


def main():
    spec = auth_argument_spec()
    spec.update(
        release_name={"type": "str", "required": True},
        namespace={"type": "str", "required": True},
        helm_binary_path={"type": "path", "required": True},
        timeout={"type": "int", "default": 120},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if not release_looks.HAS_YAML:
        module.fail_json(msg="PyYAML is missing: install the collection's requirements")
    items = manifest(module)
    drifted, left_alone, before, after = [], [], [], []
    try:
        cluster = connect(module, Deadline(module.params["timeout"]))
        for entry in release_looks.drifted(cluster, items, mend=not module.check_mode):
            name, found = subject(entry.item), entry.differences
            if entry.refused:
                left_alone.append(f"{name}: {entry.refused}")
                continue
            drifted.append(f"{name} is gone, the release has it" if entry.gone else drift.words(name, found))
            before += [f"{name} {place}: {now}" for place, now, _then in found]
            after += [f"{name} {place}: {then}" for place, _now, then in found]
    except ClusterError as error:
        module.fail_json(msg=f"The release can't be held against the cluster: {error}\n    {error.remedy}")
    result = {"changed": bool(drifted), "drifted": drifted, "left_alone": left_alone}
    if module._diff:
        result["diff"] = {"before": "\n".join(before) + "\n", "after": "\n".join(after) + "\n"}
    module.exit_json(**result)


if __name__ == "__main__":
    main()

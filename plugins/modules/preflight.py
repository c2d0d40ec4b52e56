#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: preflight
short_description: Checks inputs and cluster before the first change
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - On the controller, every variable of the roles is held against the roles' argument specs. Unknown names and keys
    (with the nearest one that is known), wrong types, missing ones and contradictions between speech services end
    the play, and so do values that can't be (names, ranges, addresses, versions, placeholders for secrets). Each is
    told with the file and line that it was set in, where Ansible knows them.
  - Then the cluster is asked whether it answers, how old it is, and, where no GPU Operator is to be installed,
    whether it has GPUs. Charts given as a path have to be there, in the version that is asked for, and so have the
    Secrets that no role makes.
  - The roles' variables are read from the host's variables; a task calls it without options.
  - O(kubeconfig) and O(context) are set from C(cluster_kubeconfig) and C(cluster_context).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation.attributes
options:
  kubeconfig:
    description: Path of the kubeconfig; set from C(cluster_kubeconfig).
    type: path
  charts:
    description: Charts by the name of their variable; set from the variables that end in C(_chart_ref).
    type: dict
    default: {}
  chart_versions:
    description: >-
      The versions that are asked for of charts given as a path, by the same names; set from the variables that end
      in C(_chart_version).
    type: dict
    default: {}
  role:
    description:
      - Only the variables of this role are checked, and no cluster is asked; for hosts that are no clusters.
    type: str
  helm_binary_path:
    description: Path of the helm program that the roles use.
    type: path
  secrets:
    description:
      - Secrets that have to be there, each with name, namespace, keys, variable and why; set from the variables that
        name them. What is in them is not returned.
    type: list
    elements: dict
    default: []
  gpus_expected_now:
    description: Whether nodes have to have GPUs already; set from C(gpu_operator_enabled).
    type: bool
    default: false
  gpus_needed:
    description:
      - For each speech service its name, the GPUs of a pod and the most pods; set from C(riva_services). A warning says
        where more is asked for than the nodes have.
    type: list
    elements: raw
    default: []
  adapter_namespace:
    description:
      - Namespace of prometheus-adapter; set from C(prometheus_adapter_namespace). C(external.metrics.k8s.io) must not
        belong to anything elsewhere.
    type: str
    default: monitoring
  autoscaler:
    description: Who scales; set from C(riva_autoscaler). With V(keda) that API belongs to KEDA.
    type: str
    default: hpa
    choices: [hpa, keda]
  keda_namespace:
    description: Namespace of KEDA; set from C(keda_namespace).
    type: str
    default: keda
  min_compute_capability:
    description: The least compute capability that the services' engines need; set from C(riva_engine). Any where empty.
    type: str
    default: ''
  timeout:
    description: Seconds that the apiserver has for its answers.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Inputs and cluster are fit for what the roles will do
  speechops.riva.preflight:
"""

RETURN = r"""
findings:
  description: What is wrong, as check, subject, status, message and remedy.
  type: list
  elements: dict
  returned: always
kubernetes:
  description: Version of the cluster.
  type: str
  returned: when the cluster answers
helm:
  description: What the Helm that is there says of its version; empty where there is none that runs.
  type: str
  returned: success
  sample: v3.17.3+ge4da497
api_groups:
  description: The API groups that the cluster serves; without one of them there is no need to ask for its objects.
  type: list
  elements: str
  returned: when the cluster answers
  sample: [apps, autoscaling, keda.sh]
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import (
    chart_files,
    chart_sources,
    input_secrets,
    inputs,
    scaling_plan,
)
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import (
    ClusterError,
    DeadlineExceeded,
    Forbidden,
    KubeconfigError,
    NotFound,
    Unreachable,
)
from ansible_collections.speechops.riva.plugins.module_utils.kubeconfig import local_path


def chart_findings(charts, versions):
    found = []
    for variable, reference in sorted(charts.items()):
        words = inputs.chart_problem(reference, os.path.exists, os.path.isdir)
        if not words and chart_sources.is_path(reference):
            chart = chart_files.metadata(local_path(reference))
            found += inputs.check_chart_file(variable, reference, chart, versions.get(variable))
        if words:
            found.append(
                inputs.finding(
                    variable,
                    f"{variable} is {reference}, {words}",
                    f"Set {variable} to the folder or tgz file of the chart, to its name in a repository, "
                    "or to an oci:// or https:// address.",
                )
            )
    return found


def api_finding(error):
    if isinstance(error, KubeconfigError):
        return inputs.finding("cluster_kubeconfig", str(error), error.remedy)
    remedy = error.remedy
    if isinstance(error, Unreachable | DeadlineExceeded):
        remedy = (
            "Check that the API server runs, that the address in cluster_kubeconfig (context cluster_context) "
            "is right, and the network between."
        )
    return inputs.finding("cluster_kubeconfig", str(error), remedy)


def external_metrics(cluster):
    """The APIService of the external metrics; None where there is none, or it can't be seen."""
    try:
        return cluster.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io")
    except (NotFound, Forbidden):
        return None


def maker_of(cluster, namespace, name):
    """The ExternalSecret that is to make a Secret, in words; empty where there is none."""
    for version in ("v1", "v1beta1"):
        try:
            path = f"/apis/external-secrets.io/{version}/namespaces/{namespace}/externalsecrets"
            for item in cluster.list_all(path):
                target = ((item.get("spec") or {}).get("target") or {}).get("name") or item["metadata"]["name"]
                if target == name:
                    return f"ExternalSecret {item['metadata']['name']}"
            return ""
        except (NotFound, Forbidden):
            continue
    return ""


def secret_findings(cluster, secrets):
    found = []
    for secret in secrets:
        try:
            keys = cluster.keys_of_secret(secret["namespace"], secret["name"])
        except Forbidden:
            continue  # Who may not see Secrets can't say that one is missing.
        maker = maker_of(cluster, secret["namespace"], secret["name"]) if keys is None else ""
        found += input_secrets.check_secret(secret, keys, maker)
    return found


def helm_version(module):
    """What the Helm that is there says of itself; empty where there is none that runs."""
    program = shutil.which(module.params["helm_binary_path"] or "")
    return module.run_command([program, "version", "--short"])[1].strip() if program else ""


def main():
    spec = auth_argument_spec()
    spec.update(
        kubeconfig={"type": "path"},
        charts={"type": "dict", "default": {}},
        chart_versions={"type": "dict", "default": {}},
        role={"type": "str"},
        helm_binary_path={"type": "path"},
        secrets={"type": "list", "elements": "dict", "default": [], "no_log": False},
        gpus_expected_now={"type": "bool", "default": False},
        gpus_needed={"type": "list", "elements": "raw", "default": []},
        adapter_namespace={"type": "str", "default": "monitoring"},
        autoscaler={"type": "str", "default": "hpa", "choices": ["hpa", "keda"]},
        keda_namespace={"type": "str", "default": "keda"},
        min_compute_capability={"type": "str", "default": ""},
        timeout={"type": "int", "default": 10},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    findings = chart_findings(params["charts"], params["chart_versions"])
    version, groups = "", {}
    try:
        cluster = connect(module, Deadline(params["timeout"]))
        version = cluster.get("/version").get("gitVersion", "")
        findings += inputs.check_kubernetes(version)
        groups = {"api_groups": [group["name"] for group in cluster.get("/apis").get("groups") or []]}
        nodes = cluster.list_all("/api/v1/nodes", inputs.node_facts)
        findings += inputs.check_nodes(nodes, params["gpus_expected_now"])
        findings += scaling_plan.check_gpus(params["gpus_needed"], [node["gpus"] for node in nodes])
        findings += inputs.check_capability(nodes, params["min_compute_capability"])
        findings += inputs.check_external_metrics(
            external_metrics(cluster), params["adapter_namespace"], params["autoscaler"], params["keda_namespace"]
        )
        findings += secret_findings(cluster, params["secrets"])
    except ClusterError as error:
        findings.append(api_finding(error))
    module.exit_json(changed=False, findings=findings, kubernetes=version, helm=helm_version(module), **groups)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: plan_upgrade
short_description: Says what an upgrade would do to each Helm release, and what forbids it
version_added: 1.0.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Compares the chart that each release runs with the chart that its variables name, and asks Helm whether that chart
    is made for this cluster's Kubernetes.
  - What projects say of their versions is looked up; which Kubernetes KEDA was tested with, and which releases of the
    GPU Operator may follow each other.
  - It reads only. C(playbooks/upgrade.yml) stops before the first change where a finding is V(failed).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation.attributes
options:
  releases:
    description: The releases, each with the chart that it is to run.
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
      chart_ref:
        description: Chart; a name in a repository, a URL, an OCI reference, a folder or a tgz file.
        type: str
        required: true
      chart_version:
        description: Version of the chart. A folder or a file has its own.
        type: str
      chart_repo_url:
        description: URL of the repository, where the chart is a bare name.
        type: str
      chart_digest:
        description: SHA-256 of the chart's archive, or V(index), as M(speechops.riva.fetch_chart) takes it.
        type: str
        default: ""
      digest_variable:
        description: The variable that sets the digest, for messages.
        type: str
        default: chart_digest
      variable:
        description: The variable that sets the version, for messages.
        type: str
        required: true
  helm_binary_path:
    description: Path of the helm program.
    type: path
    required: true
  allow_downgrade:
    description: Whether an older chart may follow a newer one.
    type: bool
    default: false
  timeout:
    description: Seconds for the questions to the API server.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: There is a plan
  speechops.riva.plan_upgrade:
    kubeconfig: "{{ cluster_kubeconfig }}"
    helm_binary_path: /usr/local/bin/helm
    releases:
      - name: traefik
        namespace: traefik
        chart_ref: traefik
        chart_version: 41.3.0
        chart_repo_url: https://traefik.github.io/charts
        chart_digest: index
        variable: traefik_chart_version
  register: plan
"""

RETURN = r"""
plan:
  description: One entry a release, with the chart versions C(now) and C(then), and the C(revision) to go back to.
  type: list
  elements: dict
  returned: always
  sample:
    - {release: traefik/traefik, revision: 3, now: 41.2.0, then: 41.3.0}
findings:
  description: One entry a release, as check, subject, status, message and remedy.
  type: list
  elements: dict
  returned: always
"""

import json
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import chart_archives, upgrades
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import ChartError, source_of
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError

RELEASE = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "chart_ref": {"type": "str", "required": True},
    "chart_version": {"type": "str"},
    "chart_repo_url": {"type": "str"},
    "chart_digest": {"type": "str", "default": ""},
    "digest_variable": {"type": "str", "default": "chart_digest"},
    "variable": {"type": "str", "required": True},
}


def helm(module, *words):
    """(exit code, output, errors) of Helm on the module's cluster."""
    command = [module.params["helm_binary_path"], *words]
    if module.params["kubeconfig"]:
        command.append(f"--kubeconfig={module.params['kubeconfig']}")
    if module.params["context"]:
        command.append(f"--kube-context={module.params['context']}")
    return module.run_command(command)


def history(module, release):
    rc, out, err = helm(
        module, "history", release["name"], f"--namespace={release['namespace']}", "--max=256", "--output=json"
    )
    if rc == 0:
        return json.loads(out)
    if "not found" in err:
        return []
    return module.fail_json(msg=f"The history of {release['namespace']}/{release['name']} can't be read: {err.strip()}")


def chart_of(module, release):
    """The path of the chart, held against its digest."""
    try:
        source = source_of(release, release["digest_variable"])
        return chart_archives.archive(module.run_command, module.params["helm_binary_path"], source)
    except ChartError as error:
        return module.fail_json(msg=str(error))


def metadata(module, release, chart):
    """(name, version) of the chart."""
    rc, out, err = module.run_command([module.params["helm_binary_path"], "show", "chart", chart])
    if rc != 0:
        module.fail_json(msg=f"The chart {release['chart_ref']} can't be read: {err.strip()}")
    parts = (line.partition(":") for line in out.splitlines() if re.match("(name|version):", line))
    found = {key: value.strip(" \"'") for key, _colon, value in parts}
    return found.get("name", ""), found.get("version", "")


def refusal(module, release, chart, kubernetes):
    """What Helm says against the chart for this Kubernetes; values are not judged here."""
    words = ["template", release["name"], chart, f"--kube-version={kubernetes}"]
    rc, _out, err = module.run_command([module.params["helm_binary_path"], *words])
    return err if rc else ""


def main():
    spec = auth_argument_spec()
    spec.update(
        releases={"type": "list", "elements": "dict", "required": True, "options": RELEASE},
        helm_binary_path={"type": "path", "required": True},
        allow_downgrade={"type": "bool", "default": False},
        timeout={"type": "int", "default": 60},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        kubernetes = connect(module, Deadline(module.params["timeout"])).get("/version")["gitVersion"]
    except ClusterError as error:
        module.fail_json(msg=f"The version of Kubernetes can't be told: {error}\n    {error.remedy}")
    plan = []
    for release in module.params["releases"]:
        chart = chart_of(module, release)
        name, version = metadata(module, release, chart)
        entry = upgrades.plan(
            f"{release['namespace']}/{release['name']}",
            release["variable"],
            history(module, release),
            version,
            refusal(module, release, chart, kubernetes),
            module.params["allow_downgrade"],
            name,
            kubernetes,
        )
        plan.append(entry)
    findings = [entry.pop("finding") for entry in plan]
    module.exit_json(changed=False, plan=plan, findings=findings)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: show_findings
short_description: Shows findings as a table or as JSON
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Prints what the validators of this collection found on one cluster, one line a finding, with what to do below each
    one that is not ok.
  - The status is coloured where Ansible colours its own output, thus neither without a terminal nor with C(NO_COLOR).
  - It never fails on what it shows.
extends_documentation_fragment:
  - speechops.riva.validation.attributes
options:
  findings:
    description: Findings, as check, subject, status, message and remedy. Equal ones are shown once.
    type: list
    elements: dict
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  format:
    description: V(table) is for people; V(json) is one line for programs, with C(cluster), C(status), C(findings).
    type: str
    choices: [table, json]
    default: table
"""

EXAMPLES = r"""
- name: The nodes are looked at
  speechops.riva.validate_gpu_nodes:
    kubeconfig: /etc/riva/admin.kubeconfig
    fail_on: never
  register: nodes

- name: What was found is shown
  speechops.riva.show_findings:
    findings: "{{ nodes.findings }}"
    cluster: "{{ inventory_hostname }}"
"""

RETURN = r"""
report:
  description: What was shown, equal findings once.
  type: dict
  returned: always
  contains:
    cluster:
      description: Name of the cluster.
      type: str
      returned: always
    status:
      description: The worst status among the findings, one of V(ok), V(unknown), V(warning), V(failed).
      type: str
      returned: always
    findings:
      description: The findings.
      type: list
      elements: dict
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils.findings import document


def own_arguments():
    return {
        "findings": {"type": "list", "elements": "dict", "required": True},
        "cluster": {"type": "str", "required": True},
        "format": {"type": "str", "choices": ["table", "json"], "default": "table"},
    }


def main():
    # What is printed, the action plugin of the same name prints on the controller.
    module = AnsibleModule(argument_spec=own_arguments(), supports_check_mode=True)
    module.exit_json(changed=False, report=document(module.params["cluster"], module.params["findings"]))


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: check_secrets
short_description: Says whether Secrets are there with the keys that are needed
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Looks whether Secrets exist and have the keys that are needed, and not empty ones. What is in them is not returned.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation.attributes
options:
  namespace:
    description: Namespace of the Secrets.
    type: str
    required: true
  secrets:
    description: The Secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the Secret.
        type: str
        required: true
      keys:
        description: Keys that it needs.
        type: list
        elements: str
        required: true
      variable:
        description: Name of the variable that names it, for messages.
        type: str
        required: true
  timeout:
    description: Seconds that the apiserver has for its answers.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: The certificate's Secret is there
  speechops.riva.check_secrets:
    kubeconfig: "{{ cluster_kubeconfig }}"
    namespace: traefik
    secrets:
      - name: riva-tls
        keys: [tls.crt, tls.key]
        variable: traefik_tls_secret
"""

RETURN = r"""
missing:
  description: What is missing, in words.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError


def missing_words(secret, namespace, keys):
    """What is missing of one Secret, and what would be right; empty where nothing is."""
    name, variable = secret["name"], secret["variable"]
    if not name:
        return f"{variable} is empty: set it to a Secret in namespace {namespace}"
    wanted = ", ".join(secret["keys"])
    if keys is None:
        return f"{variable} is {name}, and there is no such Secret in namespace {namespace}: make it, with {wanted}"
    lacking = [key for key in secret["keys"] if key not in keys]
    if lacking:
        return f"{variable} is {name}, whose Secret in namespace {namespace} lacks {', '.join(lacking)}"
    return ""


def main():
    spec = auth_argument_spec()
    secret = {
        "name": {"type": "str", "required": True},
        "keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
        "variable": {"type": "str", "required": True},
    }
    spec.update(
        namespace={"type": "str", "required": True},
        secrets={"type": "list", "elements": "dict", "required": True, "options": secret, "no_log": False},
        timeout={"type": "int", "default": 30},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    namespace = module.params["namespace"]
    try:
        cluster = connect(module, Deadline(module.params["timeout"]))
        words = [
            missing_words(
                secret, namespace, cluster.keys_of_secret(namespace, secret["name"]) if secret["name"] else None
            )
            for secret in module.params["secrets"]
        ]
    except ClusterError as error:
        module.fail_json(msg=f"The Secrets can't be looked at: {error}\n    {error.remedy}")
    missing = [text for text in words if text]
    if missing:
        module.fail_json(msg="\n".join(missing), missing=missing)
    module.exit_json(changed=False, missing=[])


if __name__ == "__main__":
    main()

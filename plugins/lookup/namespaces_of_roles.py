# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: namespaces_of_roles
short_description: Namespaces that belong to Kubernetes or to what other roles install
version_added: 1.0.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - The namespaces V(default) and V(kube-system), and those of the roles that install what a speech service stands on,
    as their variables have them. Who has a namespace among these does not have it alone, so nothing may be denied
    there for all.
  - The roles C(riva) and C(traefik) are not among them. They allow what they need themselves, also side by side.
options:
  _terms:
    description: Nothing is taken.
    required: false
"""

EXAMPLES = r"""
- name: It is known whether the namespace is the service's own
  ansible.builtin.debug:
    msg: "{{ riva_namespace not in query('speechops.riva.namespaces_of_roles') }}"
"""

RETURN = r"""
_raw:
  description: The namespaces.
  type: list
  elements: str
  sample: [default, kube-system, gpu-operator, keda, monitoring, metallb-system, nvidia-device-plugin]
"""

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

# By variable, with the default of its role: its own defaults are not there while another role runs.
DEFAULTS = {
    "gpu_operator_namespace": "gpu-operator",
    "keda_namespace": "keda",
    "kube_prometheus_stack_namespace": "monitoring",
    "metallb_namespace": "metallb-system",
    "nvidia_device_plugin_namespace": "nvidia-device-plugin",
    "prometheus_adapter_namespace": "monitoring",
}


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        read = lookup_loader.get("ansible.builtin.vars", loader=self._loader, templar=self._templar)
        found = ["default", "kube-system"]
        for name, default in DEFAULTS.items():
            found += read.run([name], variables, default=default)
        return list(dict.fromkeys(found))

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validate_gpu_stack
short_description: Says whether the wanted way to usable GPUs fits what the cluster has
version_added: 0.2.0
description:
  - Reads nodes, DaemonSets, RuntimeClasses, pods that start and ServiceMonitors, and holds what is to be installed
    against them. Two device plugins, two drivers, two Node Feature Discoveries, none at all, a RuntimeClass that is
    missing, k3s' and RKE2's containerd, pods stuck in Init and metrics that nobody reads are named before a change.
  - With O(hardware) so are pains of the hosts that this way does not mend itself, like Secure Boot or nouveau.
  - Warnings are also told as Ansible's own, unless O(fail_on) is V(never).
  - RV(decisions) are the values that follow for what was left open.
options:
  stack:
    description: The way that is wanted.
    type: str
    default: operator
    choices: [operator, manual, preinstalled]
  driver:
    description: Whether the GPU Operator is to bring the driver. Decided from what is there where left out.
    type: bool
  precompiled:
    description: Whether that driver's modules come built and signed, as with the chart's C(driver.usePrecompiled).
    type: bool
    default: false
  toolkit:
    description: Whether the GPU Operator is to bring the container toolkit.
    type: bool
    default: true
  toolkit_environment:
    description: Variables for the toolkit, by name.
    type: dict
    default: {}
  nfd:
    description: Whether the chart is to bring Node Feature Discovery. Decided from what is there where left out.
    type: bool
  runtime_class:
    description: Name of NVIDIA's RuntimeClass.
    type: str
    default: nvidia
  dcgm_exporter:
    description: Whether the GPUs' metrics are to be exported.
    type: bool
    default: true
  init_timeout:
    description: Seconds that a pod of NVIDIA's may stand in an init container; the driver's build can take 20 minutes.
    type: int
    default: 1800
  release_name:
    description: Name of the release that is to be installed; its own parts are not taken for strangers.
    type: str
    default: gpu-operator
  release_namespace:
    description: Namespace of that release.
    type: str
    default: gpu-operator
  hardware:
    description: What M(speechops.riva.gpu_hardware_info) returned as C(hardware), by node name.
    type: dict
    default: {}
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation
  - speechops.riva.validation.attributes
"""

EXAMPLES = r"""
- name: The GPU Operator fits the cluster
  speechops.riva.validate_gpu_stack:
    kubeconfig: /etc/riva/admin.kubeconfig
    stack: operator
  register: found
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
  description: What was checked and how it is, each as check, subject, status, message and remedy.
  returned: always
  type: list
  elements: dict
table:
  description: The findings as text, one line each.
  returned: always
  type: str
decisions:
  description: What follows from what is there.
  returned: when the cluster could be read
  type: dict
  contains:
    driver:
      description: Whether the GPU Operator brings the driver.
      type: bool
      returned: always
    nfd:
      description: Whether the chart brings Node Feature Discovery.
      type: bool
      returned: always
    distribution:
      description: One of V(k3s), V(rke2), V(other).
      type: str
      returned: always
    toolkit_environment:
      description: Variables for the toolkit, each with C(name) and C(value).
      type: list
      elements: dict
      returned: always
"""

import time
from datetime import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import gpu_stack
from ansible_collections.speechops.riva.plugins.module_utils.findings import WARNING, describe
from ansible_collections.speechops.riva.plugins.module_utils.validation import argument_spec, run


def own_arguments():
    return {
        "stack": {"type": "str", "default": gpu_stack.OPERATOR, "choices": list(gpu_stack.STACKS)},
        "driver": {"type": "bool"},
        "precompiled": {"type": "bool", "default": False},
        "toolkit": {"type": "bool", "default": True},
        "toolkit_environment": {"type": "dict", "default": {}},
        "nfd": {"type": "bool"},
        "runtime_class": {"type": "str", "default": "nvidia"},
        "dcgm_exporter": {"type": "bool", "default": True},
        "init_timeout": {"type": "int", "default": 1800},
        "release_name": {"type": "str", "default": "gpu-operator"},
        "release_namespace": {"type": "str", "default": "gpu-operator"},
        "hardware": {"type": "dict", "default": {}},
    }


def seconds_of(stamp):
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return time.time()


def names_of(cluster, path):
    """Names of all objects of a kind; None where the cluster does not know the kind."""
    return cluster.find_all(path, lambda item: str((item.get("metadata") or {}).get("name")))


def kept(items):
    return [item for item in items if item is not None]


def read(cluster):
    now = time.time()
    classes = cluster.list_all(
        "/apis/node.k8s.io/v1/runtimeclasses",
        lambda item: (str((item.get("metadata") or {}).get("name")), str(item.get("handler") or "")),
    )
    return gpu_stack.Found(
        nodes=cluster.list_all("/api/v1/nodes", gpu_stack.read_node),
        daemonsets=kept(cluster.list_all("/apis/apps/v1/daemonsets", gpu_stack.read_daemonset)),
        runtime_classes=dict(classes),
        stuck=kept(
            cluster.list_all(
                "/api/v1/pods",
                lambda pod: gpu_stack.read_stuck(pod, now, seconds_of),
                {"fieldSelector": "status.phase=Pending"},
            )
        ),
        service_monitors=names_of(cluster, "/apis/monitoring.coreos.com/v1/servicemonitors"),
    )


def examine(cluster, params):
    wanted = gpu_stack.Wanted(
        stack=params["stack"],
        driver=params["driver"],
        precompiled=params["precompiled"],
        toolkit=params["toolkit"],
        nfd=params["nfd"],
        runtime_class=params["runtime_class"],
        toolkit_environment=params["toolkit_environment"],
        dcgm_exporter=params["dcgm_exporter"],
        init_timeout=params["init_timeout"],
        release=params["release_name"],
        namespace=params["release_namespace"],
    )
    found, hardware = read(cluster), params["hardware"]
    facts = {"decisions": gpu_stack.decisions(found, wanted, hardware)}
    return gpu_stack.findings_of(found, wanted, hardware), facts


def main():
    module = AnsibleModule(argument_spec=argument_spec(**own_arguments()), supports_check_mode=True)

    def look(cluster):
        findings, facts = examine(cluster, module.params)
        if module.params["fail_on"] != "never":
            for finding in findings:
                if finding.status == WARNING:
                    module.warn(describe(finding))
        return findings, facts

    run(module, "nothing was changed, since this way to usable GPUs does not fit the cluster", look)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validate_gpu_nodes
short_description: Says which nodes meet a GPU requirement and why others do not
version_added: 0.1.0
description:
  - Reads the nodes, the labels of GPU Feature Discovery (GFD) in every form, and what the device plugin offers,
    and holds them against a requirement.
  - A node meets it if it is Ready, can be scheduled on, has no untolerated taint, offers enough of the resource, and
    everything asked for is labelled and right. What is not labelled counts as not met.
  - Tells apart a node without a GPU, without Node Feature Discovery, without GFD and without a device plugin.
  - Free GPUs are what the nodes offer less what pods hold; that is only read when asked for.
options:
  min_nodes:
    description: How many nodes have to meet the requirement.
    type: int
    default: 1
  min_gpus:
    description: How many GPUs (of O(resource)) those nodes have to offer together.
    type: int
  min_gpus_per_node:
    description: How many GPUs (of O(resource)) a node has to offer to count.
    type: int
    default: 1
  min_free_gpus:
    description:
      - How many GPUs have to be free on those nodes after what running and starting pods request.
      - V(0) only computes RV(free_gpus).
    type: int
  min_fitting_pods:
    description:
      - How many more pods of O(gpus_per_pod) GPUs each have to fit; the GPUs of a pod have to be on one node.
      - Compare it with C(maxReplicas) of a HorizontalPodAutoscaler, the service's own pods in O(count_as_free).
    type: int
  gpus_per_pod:
    description: GPUs that one pod takes, for O(min_fitting_pods).
    type: int
    default: 1
  count_as_free:
    description: Pods whose GPUs count as free, because they belong to what is to be placed.
    type: list
    elements: dict
    default: []
    suboptions:
      namespace:
        description: Namespace of the pods. By default every namespace.
        type: str
      labels:
        description: Labels that the pods carry.
        type: dict
        required: true
  products:
    description:
      - Shell patterns, one of which C(nvidia.com/gpu.product) has to match, without regard to case.
      - Suffixes for sharing and MIG may be left out.
    type: list
    elements: str
    default: []
  families:
    description: GPU families, one of which the node has to be of. Without a label it follows from the capability.
    type: list
    elements: str
    default: []
    choices: [volta, turing, ampere, ada-lovelace, hopper, blackwell, rubin]
  min_memory:
    description: Memory a GPU in MiB, by its nominal figure, for example V(16384) for 16 GB.
    type: int
  memory_tolerance:
    description:
      - Share by which the labelled memory may fall short of O(min_memory).
      - The driver reports less than the nominal figure, a T4 of 16384 MiB has 15360.
    type: float
    default: 0.08
  min_compute_capability:
    description: Compute capability, for example V(7.5). Put it in quotes.
    type: str
  min_driver:
    description: Driver version, for example V(535.54).
    type: str
  min_cuda:
    description: CUDA version that the driver supports, for example V(12.4). Put it in quotes.
    type: str
  check_discovery:
    description:
      - Whether to look for a running pod of GPU Feature Discovery on each node that carries its labels.
      - Labels outlive it, so where it has stopped they may be stale. That is a warning.
      - Reads the pods of the whole cluster.
    type: bool
    default: false
  expected_hardware:
    description:
      - The truth to hold the labels against, by node name; M(speechops.riva.gpu_hardware_info) returns it.
      - Labels differ from the hardware after a GPU was swapped, MIG was changed or the driver upgraded while GPU
        Feature Discovery did not look. It is a failure where pods may land on the wrong GPU, else a warning.
    type: dict
    default: {}
  mig:
    description:
      - What is asked of Multi-Instance GPU (MIG).
      - V(any) asks for nothing, V(disabled) wants whole GPUs, V(capable) GPUs that could be split, V(single) and
        V(mixed) GPUs that are split under that strategy.
    type: str
    default: any
    choices: [any, disabled, capable, single, mixed]
  mig_profiles:
    description: MIG profiles that the node has to offer, for example V(1g.10gb).
    type: list
    elements: str
    default: []
  sharing:
    description: How the GPUs have to be shared. V(none) refuses sharing.
    type: str
    default: any
    choices: [any, none, time-slicing, mps]
  max_sharing_factor:
    description: How many containers may share one GPU at most.
    type: int
  resource:
    description: Name of the resource to count, for example V(nvidia.com/gpu.shared) or V(nvidia.com/mig-1g.10gb).
    type: str
    default: nvidia.com/gpu
  device_class:
    description:
      - DeviceClass of NVIDIA's DRA driver from which pods get their GPUs by ResourceClaim (Kubernetes 1.34 or newer).
      - With it the nodes' ResourceSlices are read in place of labels and O(resource), and free GPUs are those that no
        ResourceClaim holds. O(count_as_free) then selects claims by their namespace and labels.
      - A slice says neither how a GPU is shared nor what its MIG layout is; with V(mig.nvidia.com) each device is a
        MIG slice.
    type: str
    choices: [gpu.nvidia.com, mig.nvidia.com]
    version_added: 1.0.0
  node_selector:
    description: Labels that a node has to carry to be looked at, as in a pod.
    type: dict
    default: {}
  tolerations:
    description: Tolerations of the pods to be placed, as in a pod.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.validation
  - speechops.riva.validation.attributes
"""

EXAMPLES = r"""
- name: A node with a GPU of 16 GB is there
  speechops.riva.validate_gpu_nodes:
    kubeconfig: /etc/riva/admin.kubeconfig
    min_memory: 16384
    min_compute_capability: "7.0"

- name: Three replicas of two GPUs each fit, those that run already counted in
  speechops.riva.validate_gpu_nodes:
    kubeconfig: /etc/riva/admin.kubeconfig
    families: [ampere, ada-lovelace, hopper]
    sharing: none
    gpus_per_pod: 2
    min_fitting_pods: 3
    count_as_free:
      - namespace: riva
        labels:
          app.kubernetes.io/instance: riva-asr

- name: The labels are those of the hardware that the nodes really have
  speechops.riva.validate_gpu_nodes:
    kubeconfig: /etc/riva/admin.kubeconfig
    expected_hardware:
      gpu-1: "{{ hostvars['gpu-1'].hardware.labels }}"

- name: Four GPUs of compute capability 8.0 can be claimed
  speechops.riva.validate_gpu_nodes:
    kubeconfig: /etc/riva/admin.kubeconfig
    device_class: gpu.nvidia.com
    min_compute_capability: "8.0"
    min_free_gpus: 4

- name: The device plugin has come up within ten minutes
  speechops.riva.validate_gpu_nodes:
    kubeconfig: /etc/riva/admin.kubeconfig
    min_nodes: 2
    wait: true
    wait_timeout: 600
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
  description: What was checked and how it is.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: What was checked.
      type: str
      returned: always
    subject:
      description: The object that it was checked on.
      type: str
      returned: always
    status:
      description: One of V(ok), V(unknown), V(warning), V(failed). V(unknown) means that it could not be seen.
      type: str
      returned: always
    message:
      description: What was found.
      type: str
      returned: always
    remedy:
      description: What to do or type next. Empty where nothing has to be done.
      type: str
      returned: always
table:
  description: The findings as text, one line each.
  returned: always
  type: str
nodes:
  description: The nodes that show a GPU, those that meet the requirement first, 100 at most.
  returned: when the nodes could be read
  type: list
  elements: dict
  contains:
    name:
      description: Name of the node.
      type: str
      returned: always
    matches:
      description: Whether it meets the requirement.
      type: bool
      returned: always
    reasons:
      description: Why it does not.
      type: list
      elements: str
      returned: always
    gpus:
      description: How many of O(resource) it offers (its allocatable).
      type: int
      returned: always
    free_gpus:
      description: How many of them are free. Null unless asked for.
      type: int
      returned: always
    product:
      description: The label C(nvidia.com/gpu.product).
      type: str
      returned: always
    family:
      description: GPU family, from its label or the compute capability.
      type: str
      returned: always
    memory_mib:
      description: Memory a GPU in MiB, as the driver reports it.
      type: int
      returned: always
    compute_capability:
      description: Compute capability.
      type: str
      returned: always
    driver:
      description: Driver version.
      type: str
      returned: always
    cuda:
      description: CUDA version that the driver supports.
      type: str
      returned: always
    mig_strategy:
      description: The label C(nvidia.com/mig.strategy).
      type: str
      returned: always
    mig_profiles:
      description: MIG profiles found in the labels and resources.
      type: list
      elements: str
      returned: always
    sharing:
      description: One of V(none), V(time-slicing), V(mps).
      type: str
      returned: always
    sharing_factor:
      description: Containers that share a GPU.
      type: int
      returned: always
nodes_total:
  description: How many nodes were looked at, GPU or not.
  returned: when the nodes could be read
  type: int
matching_nodes:
  description: How many nodes meet the requirement.
  returned: when the nodes could be read
  type: int
gpus:
  description: GPUs that the matching nodes offer together.
  returned: when the nodes could be read
  type: int
free_gpus:
  description: GPUs that are free on the matching nodes. Null unless O(min_free_gpus) or O(min_fitting_pods) is given.
  returned: when the nodes could be read
  type: int
fitting_pods:
  description: Pods of O(gpus_per_pod) GPUs that still fit. Null unless asked for, like RV(free_gpus).
  returned: when the nodes could be read
  type: int
"""

from collections import Counter
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import (
    gpu_findings,
    gpu_labels,
    gpu_requirement,
    gpu_slices,
)
from ansible_collections.speechops.riva.plugins.module_utils.validation import argument_spec, run

MOST_NODES = 100
LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"


def own_arguments():
    return {
        "min_nodes": {"type": "int", "default": 1},
        "min_gpus": {"type": "int"},
        "min_gpus_per_node": {"type": "int", "default": 1},
        "min_free_gpus": {"type": "int"},
        "min_fitting_pods": {"type": "int"},
        "gpus_per_pod": {"type": "int", "default": 1},
        "count_as_free": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"namespace": {"type": "str"}, "labels": {"type": "dict", "required": True}},
        },
        "products": {"type": "list", "elements": "str", "default": []},
        "families": {
            "type": "list",
            "elements": "str",
            "default": [],
            "choices": list(gpu_labels.FAMILIES),
        },
        "min_memory": {"type": "int"},
        "memory_tolerance": {"type": "float", "default": gpu_requirement.MEMORY_TOLERANCE},
        "min_compute_capability": {"type": "str"},
        "min_driver": {"type": "str"},
        "min_cuda": {"type": "str"},
        "check_discovery": {"type": "bool", "default": False},
        "expected_hardware": {"type": "dict", "default": {}},
        "mig": {
            "type": "str",
            "default": "any",
            "choices": ["any", "disabled", "capable", "single", "mixed"],
        },
        "mig_profiles": {"type": "list", "elements": "str", "default": []},
        "sharing": {"type": "str", "default": "any", "choices": ["any", "none", "time-slicing", "mps"]},
        "max_sharing_factor": {"type": "int"},
        "resource": {"type": "str", "default": gpu_labels.RESOURCE},
        "device_class": {"type": "str", "choices": list(gpu_labels.DEVICE_CLASSES)},
        "node_selector": {"type": "dict", "default": {}},
        "tolerations": {"type": "list", "elements": "dict", "default": []},
    }


def requirement(params):
    names = gpu_requirement.Requirement.__dataclass_fields__
    values: dict = {name: params[name] for name in names}
    values["resource"] = params["device_class"] or params["resource"]
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return gpu_requirement.Requirement(**{**values, **lists})


def project_pod(pod, resource, own):
    """(node and GPUs held there, node on which GPU Feature Discovery runs), None where a pod has neither."""
    held, node = gpu_labels.project_pod(pod, resource, own), gpu_labels.discovery_node(pod)
    return (held, node) if held or node else None


def read_pods(cluster, resource, own):
    """(GPUs held on each node, nodes on which GPU Feature Discovery runs)."""
    pods = cluster.list_all(
        "/api/v1/pods",
        partial(project_pod, resource=resource, own=own),
        {"fieldSelector": LIVE_PODS},
        fields=gpu_labels.pod_fields(resource),
    )
    used: Counter[str] = Counter()
    discovered = set()
    for held, node in pods:
        if held:
            used[held[0]] += held[1]
        if node:
            discovered.add(node)
    return used, discovered


def read_devices(cluster, nodes, params, wanted):
    """(the nodes with what their ResourceSlices say, GPUs that claims hold on each), for a DeviceClass."""
    slices = [one for one in cluster.list_all(f"{gpu_slices.API}/resourceslices", gpu_slices.project_slice) if one]
    held = None
    if wanted.asks_for_free:
        project = partial(gpu_slices.project_claim, own=params["count_as_free"])
        held = gpu_slices.held_by_node(cluster.list_all(f"{gpu_slices.API}/resourceclaims", project), slices)
    return gpu_slices.with_slices(nodes, slices, params["device_class"]), held


def examine(cluster, params, wanted):
    selector = ",".join(f"{key}={value}" for key, value in params["node_selector"].items())
    query = {"labelSelector": selector} if selector else {}
    project = partial(gpu_labels.project_node, known={})
    nodes = cluster.list_all("/api/v1/nodes", project, query, fields=gpu_labels.node_fields())
    used = discovered = None
    if params["device_class"]:
        nodes, used = read_devices(cluster, nodes, params, wanted)
    elif wanted.asks_for_free or params["check_discovery"]:
        used, discovered = read_pods(cluster, wanted.resource, params["count_as_free"])
    used = used if wanted.asks_for_free else None
    discovered = discovered if params["check_discovery"] and not params["device_class"] else None
    verdicts = gpu_requirement.judge_all(nodes, wanted, used)
    matching = [verdict for verdict in verdicts if verdict.matches]
    shown = [verdict for verdict in verdicts if verdict.matches or gpu_labels.sees_gpu(verdict.node)]
    shown.sort(key=lambda verdict: (not verdict.matches, verdict.node.name))
    free = used is not None
    facts = {
        "nodes": [verdict.to_dict() for verdict in shown[:MOST_NODES]],
        "nodes_total": len(verdicts),
        "matching_nodes": len(matching),
        "gpus": sum(verdict.gpus for verdict in matching),
        "free_gpus": sum(verdict.free or 0 for verdict in matching) if free else None,
        "fitting_pods": gpu_requirement.fitting_pods(matching, wanted.gpus_per_pod) if free else None,
    }
    of_hardware = gpu_findings.hardware_findings(nodes, params["expected_hardware"])
    return [*gpu_findings.findings_of(verdicts, wanted, discovered), *of_hardware], facts


def main():
    module = AnsibleModule(argument_spec=argument_spec(**own_arguments()), supports_check_mode=True)
    wanted = requirement(module.params)
    run(
        module,
        "the cluster's nodes do not meet the GPU requirement",
        lambda cluster: examine(cluster, module.params, wanted),
        gpu_requirement.requirement_errors(wanted) + gpu_findings.hardware_errors(module.params["expected_hardware"]),
    )


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: speech_capacity
short_description: Shows how much speech services carry and how much of it is in use
version_added: 1.0.0
description:
  - For each speech service it says how many streams run, how many its ready pods carry, how many all the pods carry
    that it may have and that find a GPU, and how many pods there are. For the cluster it says how many GPUs are free.
  - It reads only, and shows a table or one line of JSON.
  - Streams are counted by the pods' stream limit, as Prometheus has it; without one they are estimated from the
    throughput. What a pod carries is its limit, else O(services[].stream_limit).
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  namespace:
    description: Namespace of the speech services.
    type: str
    default: riva
  services:
    description: The speech services.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      stream_limit:
        description: Streams that one pod carries, where its pods have no limit of their own.
        type: int
  chunk_ms:
    description: Milliseconds of audio in one request, for the estimate.
    type: int
    default: 160
  resource:
    description: Name under which the nodes offer GPUs.
    type: str
    default: nvidia.com/gpu
  format:
    description: V(table) is for people; V(json) is one line for programs.
    type: str
    choices: [table, json]
    default: table
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.prometheus
  - speechops.riva.validation.attributes
author:
  - speechops.riva maintainers (@speechops)
"""

EXAMPLES = r"""
- name: It is known how much room there is
  speechops.riva.speech_capacity:
    kubeconfig: /etc/riva/admin.kubeconfig
    cluster: "{{ inventory_hostname }}"
    services:
      - {name: riva-asr, stream_limit: 28}
"""

RETURN = r"""
capacity:
  description: What was found.
  returned: success
  type: dict
  contains:
    cluster:
      description: Name of the cluster.
      type: str
      returned: always
    gpus:
      description: The GPUs as C(resource), C(allocatable), C(free), and on how many C(nodes).
      type: dict
      returned: always
    services:
      description:
        - One entry a service, with C(streams), C(streams_per_pod), C(carries_now), C(carries_at_most), C(used_percent),
          C(replicas) (ready, desired, min, max, reachable, waiting), C(state) and C(error).
        - C(state) is V(room), V(nearly full) from 85 percent of C(carries_at_most) on, V(full) or V(unknown).
      type: list
      elements: dict
      returned: always
table:
  description: The table, line by line.
  returned: success
  type: list
  elements: str
"""

from collections import Counter
from functools import partial
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import capacity_rules, gpu_labels, gpu_requirement
from ansible_collections.speechops.riva.plugins.module_utils.cluster import (
    Cluster,
    Deadline,
    auth_argument_spec,
    connect,
)
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError, DoorShut, NotFound
from ansible_collections.speechops.riva.plugins.module_utils.load_cluster import gpus_per_pod, selector_text
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import (
    UNSEEN,
    Prometheus,
    Streams,
    read_streams,
)

SECONDS_FOR_ALL = 60
LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"
# The speech pods tolerate this taint, and so its nodes count.
TOLERATIONS = ({"key": "nvidia.com/gpu", "operator": "Exists"},)


def own_arguments() -> dict:
    return {
        "cluster": {"type": "str", "required": True},
        "namespace": {"type": "str", "default": "riva"},
        "services": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {"name": {"type": "str", "required": True}, "stream_limit": {"type": "int"}},
        },
        "chunk_ms": {"type": "int", "default": 160},
        "resource": {"type": "str", "default": gpu_labels.RESOURCE},
        "prometheus_namespace": {"type": "str", "default": "monitoring"},
        "prometheus_service": {"type": "str", "default": "kube-prometheus-stack-prometheus"},
        "prometheus_port": {"type": "int", "default": 9090},
        "format": {"type": "str", "choices": ["table", "json"], "default": "table"},
    }


def main() -> None:
    module = AnsibleModule(argument_spec={**auth_argument_spec(), **own_arguments()}, supports_check_mode=True)
    try:
        found = examine(connect(module, Deadline(SECONDS_FOR_ALL)), module.params)
    except ClusterError as error:
        module.fail_json(msg=f"{error}; {error.remedy}" if error.remedy else str(error))
    # What is shown, the action plugin of the same name shows on the controller.
    module.exit_json(changed=False, capacity=found, table=capacity_rules.table(found))


def examine(cluster: Cluster, params: dict) -> dict:
    nodes = free_gpus(cluster, params["resource"])
    gpus = capacity_rules.Gpus(
        params["resource"],
        sum(verdict.gpus for verdict in nodes),
        sum(verdict.free or 0 for verdict in nodes),
        len(nodes),
    )
    rows = [service(cluster, params, given, nodes) for given in params["services"]]
    return capacity_rules.document(params["cluster"], gpus, rows)


def free_gpus(cluster: Cluster, resource: str) -> list:
    """The nodes that can take a speech pod, with what is free on them."""
    wanted = gpu_requirement.Requirement(resource=resource, tolerations=TOLERATIONS)
    project = partial(gpu_labels.project_node, known={})
    nodes = cluster.list_all("/api/v1/nodes", project, fields=gpu_labels.node_fields())
    held = cluster.list_all(
        "/api/v1/pods",
        partial(gpu_labels.project_pod, resource=resource),
        {"fieldSelector": LIVE_PODS},
        fields=gpu_labels.pod_fields(resource),
    )
    used: Counter = Counter()
    for node, amount in held:
        used[node] += amount
    return [verdict for verdict in gpu_requirement.judge_all(nodes, wanted, used) if verdict.matches]


def service(cluster: Cluster, params: dict, given: dict, nodes: list) -> dict:
    """The row of one service; one that can't be read is told in its row."""
    namespace, name = params["namespace"], given["name"]
    within = f"namespaces/{quote(namespace)}"
    try:
        deployment = cluster.get(f"/apis/apps/v1/{within}/deployments/{quote(name)}")
        hpa = cluster.find(f"/apis/autoscaling/v2/{within}/horizontalpodautoscalers/{quote(name)}")
        labels = selector_text(deployment["spec"]["selector"].get("matchLabels") or {})
        pods = cluster.get(f"/api/v1/{within}/pods", {"labelSelector": labels})["items"]
    except NotFound:
        return capacity_rules.missing_row(namespace, name, "there is no such speech service")
    except DoorShut:
        raise
    except ClusterError as error:
        return capacity_rules.missing_row(namespace, name, str(error))
    fitting = gpu_requirement.fitting_pods(nodes, max(1, gpus_per_pod(deployment)))
    return capacity_rules.service_row(
        namespace, name, hpa, deployment, pods, streams(cluster, params, name), given.get("stream_limit"), fitting
    )


def streams(cluster: Cluster, params: dict, name: str) -> Streams:
    """Streams of a service; none where Prometheus can't be asked."""
    where = Prometheus(*(params[f"prometheus_{key}"] for key in ("namespace", "service", "port")))
    try:
        return read_streams(
            lambda query: cluster.get(where.query_path, {"query": query}), params["namespace"], name, params["chunk_ms"]
        )
    except DoorShut:
        raise
    except ClusterError:
        return Streams(UNSEEN, {}, {})


if __name__ == "__main__":
    main()

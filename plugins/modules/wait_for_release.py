#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: wait_for_release
short_description: Waits until the workloads of a Helm release are ready, and says why they are not
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Looks at every Deployment, StatefulSet, DaemonSet and Job of a Helm release, and at further objects that are
    named, until all of them are ready or one deadline has passed.
  - While it waits it prints a line every few seconds that says what is still awaited. When the deadline passes it
    fails with one finding an object, gathered from its conditions, its pods, the last lines of their logs and their
    events, with a remedy.
  - It reads only. In check mode it looks once and does not fail.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.expect
options:
  release_name:
    description: Name of the Helm release.
    type: str
    required: true
  namespace:
    description: Namespace of the Helm release.
    type: str
    required: true
  timeout:
    description: Seconds after which the wait ends, for everything together.
    type: int
    default: 300
  sleep:
    description: Seconds between two looks.
    type: int
    default: 3
  slice:
    description: Seconds between two lines of progress.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: Looks once and does not fail.
  diff_mode:
    support: none
    description: Nothing is changed.
"""

EXAMPLES = r"""
- name: The adapter answers
  speechops.riva.wait_for_release:
    kubeconfig: "{{ cluster_kubeconfig }}"
    release_name: prometheus-adapter
    namespace: monitoring
    timeout: 180
    expect:
      - what: APIService v1beta1.custom.metrics.k8s.io
        resource: /apis/apiregistration.k8s.io/v1/apiservices
        name: v1beta1.custom.metrics.k8s.io
        conditions:
          - type: Available
"""

RETURN = r"""
ready:
  description: Whether everything is ready.
  type: bool
  returned: always
states:
  description: One entry an object, with what was seen last.
  type: list
  elements: dict
  returned: always
  sample:
    - {subject: Deployment monitoring/prometheus-adapter, ready: true, have: 1, want: 1, reason: ""}
findings:
  description: Why objects are not ready, as check, subject, status, message and remedy.
  type: list
  elements: dict
  returned: always
progress:
  description: What is still awaited, in one line, with the pods that are not ready, their nodes and where they stand.
  type: str
  returned: always
waited:
  description: Seconds waited.
  type: float
  returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import release_looks, workloads
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError


def last_logs(cluster, namespace, pods, limit=4):
    """{pod: the end of its log} of the first pods in trouble; of none where the kubelet or the rights don't give it."""
    logs: dict[str, str] = {}
    # A kubelet that is away must not take the time of the wait.
    kept, cluster.deadline = cluster.deadline, Deadline(5)
    try:
        for pod in pods:
            wanted = workloads.log_to_read(pod) if workloads.pod_trouble(pod) else None
            if wanted is None or len(logs) >= limit:
                continue
            name = pod["metadata"]["name"]
            query = {"container": wanted[0], "previous": str(wanted[1]).lower(), "tailLines": 5, "limitBytes": 4000}
            try:
                logs[name] = cluster.get(f"/api/v1/namespaces/{namespace}/pods/{name}/log", query, text=True)
            except ClusterError:
                logs[name] = ""
    finally:
        cluster.deadline = kept
    return logs


def findings_of(cluster, namespace, pods, unready, unmet):
    """Why things are not ready; also of pods that an operator made, which carry no mark of the release."""
    events = release_looks.objects(cluster, f"/api/v1/namespaces/{namespace}/events")
    logs = last_logs(cluster, namespace, pods)
    found = [workloads.explain(item, pods, events, logs) for item in unready]
    found.extend(workloads.unmet_finding(expected, state) for expected, state in unmet)
    found.extend(workloads.other_trouble(pods, unready, events, logs=logs))
    return found


def wait(cluster, params, seconds):
    """(states, findings, pods) of the last look: the one that found all ready, or the last before time was over."""
    end = time.monotonic() + seconds
    while True:
        try:
            states, unready, unmet = release_looks.readiness(cluster, params)
            if not unready and not unmet:
                return states, [], []
            if time.monotonic() + params["sleep"] > end:
                pods = release_looks.objects(cluster, f"/api/v1/namespaces/{params['namespace']}/pods")
                return states, findings_of(cluster, params["namespace"], pods, unready, unmet), pods
        except ClusterError as error:
            # The apiserver may be restarting: as long as there is time, it is asked again.
            if not error.transient or time.monotonic() + params["sleep"] > end:
                return [], [api_finding(error)], []
        time.sleep(params["sleep"])


def api_finding(error):
    return {
        "check": "api",
        "subject": "cluster",
        "status": "failed",
        "message": str(error),
        "remedy": error.remedy,
    }


def main():
    spec = auth_argument_spec()
    spec.update(
        release_name={"type": "str", "required": True},
        namespace={"type": "str", "required": True},
        timeout={"type": "int", "default": 300},
        sleep={"type": "int", "default": 3},
        slice={"type": "int", "default": 10},
        expect={"type": "list", "elements": "dict", "default": [], "options": release_looks.EXPECT},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    started = time.monotonic()
    seconds = 0 if module.check_mode else module.params["timeout"]
    try:
        # One request more than the wait itself may be under way when it ends.
        states, findings, pods = wait(connect(module, Deadline(seconds + 40)), module.params, seconds)
    except ClusterError as error:
        states, findings, pods = [], [api_finding(error)], []
    module.exit_json(
        changed=False,
        ready=not findings,
        states=states,
        findings=findings,
        progress=workloads.progress(states, pods) if states else "; ".join(f["message"] for f in findings),
        waited=round(time.monotonic() - started, 1),
    )


if __name__ == "__main__":
    main()

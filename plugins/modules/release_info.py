#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_info
short_description: Says whether a Helm release is in place, and what is missing where it is not
version_added: 1.0.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Looks at everything that installing a release again would look at, in one process instead of a dozen; the newest
    revision that Helm keeps, its chart and values, the labels of its namespace, the chart's CRDs, its objects, and
    whether it is ready.
  - What it can't tell is a deviation. So a release that is said to be in place needs nothing; of one that is not, the
    modules that change something find out themselves what there is to do.
  - Helm's records are read where it keeps them by default, in Secrets of the namespace.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.chart
  - speechops.riva.expect
  - speechops.riva.validation.attributes
options:
  release_name:
    description: Name of the release.
    type: str
    required: true
  namespace:
    description: Namespace of the release.
    type: str
    required: true
  values:
    description: Values that the release should have.
    type: dict
    default: {}
  namespace_labels:
    description: Labels that the namespace should have.
    type: dict
    default: {}
  crd_groups:
    description: API groups whose CRDs should be those of the chart.
    type: list
    elements: str
    default: []
  helm_binary_path:
    description: Path of the helm program, which is asked for the chart's CRDs.
    type: path
    required: true
  timeout:
    description: Seconds for everything together.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: It is known whether the adapter is in place
  speechops.riva.release_info:
    kubeconfig: "{{ cluster_kubeconfig }}"
    helm_binary_path: /usr/local/bin/helm
    release_name: prometheus-adapter
    namespace: monitoring
    chart_ref: prometheus-adapter
    chart_version: 5.1.0
    chart_repo_url: https://prometheus-community.github.io/helm-charts
  register: adapter
"""

RETURN = r"""
status:
  description: Status of the release's newest revision; empty where Helm keeps none here.
  type: str
  returned: always
  sample: deployed
in_place:
  description: Whether nothing is left to do.
  type: bool
  returned: always
deviations:
  description: What is not as wished, or could not be told. The first look that finds something ends the looking.
  type: list
  elements: str
  returned: always
  sample: ["its chart is traefik 41.0.1, traefik 41.0.2 is wished"]
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import (
    chart_archives,
    chart_files,
    release_looks,
    releases,
)
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import ChartError, source_of
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError
from ansible_collections.speechops.riva.plugins.module_utils.kubeconfig import local_path
from ansible_collections.speechops.riva.plugins.module_utils.workloads import subject


def chart_wished(params):
    """(name, version) of the chart that is meant; None where only Helm can tell."""
    path = local_path(params["chart_ref"])
    if not os.path.exists(path) or params["chart_repo_url"]:
        return releases.chart_of_words(params["chart_ref"], params["chart_version"])
    chart = chart_files.metadata(path)
    # Where it has neither, Helm says what is wrong with it.
    return (chart["name"], str(chart["version"])) if {"name", "version"} <= chart.keys() else None


def crd_deviations(module, cluster):
    groups = module.params["crd_groups"]
    if not groups:
        return []
    try:
        source = source_of(module.params, "chart_digest")
        # In check mode Helm may not be there yet.
        run = partial(module.run_command, handle_exceptions=False)
        path = chart_archives.archive(run, module.params["helm_binary_path"], source)
    except ChartError as error:
        return [str(error)]
    crds, problem = release_looks.crds_of_chart(module.params["helm_binary_path"], [path], groups)
    if problem:
        return ["the chart's CRDs can't be read"]
    return [
        f"the CRD {name} is not the chart's"
        for name, crd in sorted(crds.items())
        if not release_looks.is_sealed(cluster, crd) and release_looks.would_change(cluster, crd)
    ]


def drifted(cluster, manifest, namespace):
    """The objects of the manifest that others changed or removed; mend_release too leaves alone what is refused."""
    found = release_looks.drifted(cluster, release_looks.objects_of(manifest, namespace))
    return [f"others changed {subject(entry.item)}" for entry in found if not entry.refused]


def unready(cluster, params):
    states, _workloads, _unmet = release_looks.readiness(cluster, params)
    return [f"{state['subject']} is not ready" for state in states if not state["ready"]]


def looks(module, cluster, record):
    """One look after the other, the cheap ones first; each a list of what is not as wished."""
    params = module.params
    yield releases.deviations(record, chart_wished(params), params["values"])
    if params["namespace_labels"]:
        namespace = cluster.find(f"/api/v1/namespaces/{params['namespace']}")
        yield releases.missing_labels(namespace, params["namespace_labels"])
    # Helm reads the chart, and the API server its CRDs, while the objects are looked at.
    with ThreadPoolExecutor(1) as beside:
        crds = beside.submit(crd_deviations, module, cluster)
        yield unready(cluster, params)
        yield drifted(cluster, (record or {}).get("manifest") or "", params["namespace"])
        yield crds.result()


def main():
    spec = auth_argument_spec()
    spec.update(
        release_name={"type": "str", "required": True},
        namespace={"type": "str", "required": True},
        chart_ref={"type": "str", "required": True},
        chart_version={"type": "str"},
        chart_repo_url={"type": "str"},
        chart_digest={"type": "str", "default": ""},
        values={"type": "dict", "default": {}},
        namespace_labels={"type": "dict", "default": {}},
        crd_groups={"type": "list", "elements": "str", "default": []},
        helm_binary_path={"type": "path", "required": True},
        expect={"type": "list", "elements": "dict", "default": [], "options": release_looks.EXPECT},
        timeout={"type": "int", "default": 60},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if not release_looks.HAS_YAML:
        module.fail_json(msg="PyYAML is missing: install the collection's requirements")
    record = None
    found: list[str]
    try:
        cluster = connect(module, Deadline(module.params["timeout"]))
        record = release_looks.record(cluster, module.params["release_name"], module.params["namespace"])
        found = next((found for found in looks(module, cluster, record) if found), [])
    except ClusterError as error:
        found = [f"the cluster can't be asked: {error}"]
    module.exit_json(changed=False, status=releases.status(record), in_place=not found, deviations=found)


if __name__ == "__main__":
    main()

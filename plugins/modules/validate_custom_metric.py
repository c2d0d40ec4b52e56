#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validate_custom_metric
short_description: Proves that a HorizontalPodAutoscaler gets its custom metric, or names the first broken link
version_added: 0.1.0
description:
  - Checks that the custom metrics API has a plausible value for every Ready pod of the target, that Prometheus has a
    fresh sample of each of them, and that the HorizontalPodAutoscaler (HPA) scales on it.
  - A pod that became Ready less than four scrapes ago is not asked for yet, unless all of them are new.
  - The API stamps its values with its own clock, so freshness is asked of Prometheus, through the API server's proxy.
  - Where something is missing it follows the chain to the pods and names the first broken link in RV(first_broken).
    The links are C(hpa), C(api), C(adapter_rule), C(scaled_object), C(prometheus), C(series), C(target),
    C(service_monitor), C(service_port), C(pod_port), C(exporter), C(pods), seen from the HPA. What only follows from
    the first broken link says so.
  - Links between a fresh sample and its pod are proven by the sample, and not read.
  - Where the HPA has the External metric C(speech_streams_demand) too, its chain is followed as well, from
    C(external.metrics.k8s.io) to the port of the pods' limit. Its findings come after those of O(metric).
  - An HPA that KEDA made from a ScaledObject has other links before Prometheus, which are KEDA's metrics server and the
    ScaledObject's triggers, C(scaled_object). RV(pod_values) are Prometheus' own then. A service at zero pods that
    nobody calls is whole.
options:
  metric:
    description: Name of the metric in the custom metrics API, as a metric of pods.
    type: str
    default: avg_time_queue_ms
  namespace:
    description: Namespace of the speech service.
    type: str
    required: true
  hpa:
    description: Name of the HPA. Its target gives the pods. Give this or O(deployment).
    type: str
  deployment:
    description: Name of the Deployment whose pods are looked at, where no HPA is to be checked.
    type: str
  series:
    description: The series in Prometheus that the metric is made of.
    type: str
    default: nv_inference_queue_duration_us
  prometheus_scheme:
    description: How Prometheus is spoken to.
    type: str
    default: http
    choices: [http, https]
  adapter_namespace:
    description: Namespace of prometheus-adapter.
    type: str
    default: monitoring
  adapter_service:
    description: Name of the Service, Deployment and ConfigMap of prometheus-adapter (its release).
    type: str
    default: prometheus-adapter
  scrape_interval:
    description: Seconds between two scrapes. A sample older than four of them is stale.
    type: int
    default: 15
  keda_namespace:
    description: Namespace of KEDA, where it made the HPA.
    type: str
    default: keda
  keda_service:
    description: Name of the Service of KEDA's metrics server.
    type: str
    default: keda-operator-metrics-apiserver
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - speechops.riva.prometheus
  - speechops.riva.validation
  - speechops.riva.validation.attributes
notes:
  - Always needs C(get) on C(horizontalpodautoscalers), C(deployments), C(apiservices), C(services/proxy) and on
    C(pods/<metric>) of C(custom.metrics.k8s.io), and C(list) on C(pods). For the demand also C(get) on
    C(speech_streams_demand) of C(external.metrics.k8s.io).
  - Where something is broken also C(get) on C(configmaps), C(namespaces), C(pods/proxy), and C(list) on C(services),
    C(servicemonitors), C(prometheuses).
"""

EXAMPLES = r"""
- name: The autoscaler gets the time that requests wait
  speechops.riva.validate_custom_metric:
    kubeconfig: /etc/riva/admin.kubeconfig
    namespace: riva
    hpa: riva-asr
    wait: true
    wait_timeout: 300

- name: Report the chain without failing
  speechops.riva.validate_custom_metric:
    kubeconfig: /etc/riva/admin.kubeconfig
    namespace: riva
    hpa: riva-asr
    fail_on: never
  register: chain
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
first_broken:
  description: The failed link nearest to the pods, which is the one to repair. Null if no link failed.
  returned: when the cluster could be read
  type: str
  sample: service_port
pod_values:
  description: Value of the metric for each pod, in the metric's unit (milliseconds for C(avg_time_queue_ms)).
  returned: when the cluster could be read
  type: dict
  sample:
    riva-asr-7d4b9c-abcde: 3.2
pods:
  description: Names of the target's Ready pods.
  returned: when the cluster could be read
  type: list
  elements: str
demand:
  description: Streams that the service has to have room for. Null if the HPA does not scale on them, or nobody knows.
  returned: when the cluster could be read
  type: float
  sample: 42.0
hpa:
  description: State of the HPA. Null if it was not asked for or does not exist.
  returned: when the cluster could be read
  type: dict
  contains:
    current_replicas:
      description: Replicas that it counts.
      type: int
      returned: always
    desired_replicas:
      description: Replicas that it wants.
      type: int
      returned: always
    conditions:
      description: Its conditions with type, status, reason and message.
      type: list
      elements: dict
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules
from ansible_collections.speechops.riva.plugins.module_utils.keda_chain import EitherChain
from ansible_collections.speechops.riva.plugins.module_utils.metric_chain import Options
from ansible_collections.speechops.riva.plugins.module_utils.validation import argument_spec, run


def own_arguments():
    return {
        "metric": {"type": "str", "default": scaling_rules.METRIC},
        "namespace": {"type": "str", "required": True},
        "hpa": {"type": "str"},
        "deployment": {"type": "str"},
        "series": {"type": "str", "default": scaling_rules.QUEUE_SERIES},
        "prometheus_namespace": {"type": "str", "default": "monitoring"},
        "prometheus_service": {"type": "str", "default": "kube-prometheus-stack-prometheus"},
        "prometheus_port": {"type": "int", "default": 9090},
        "prometheus_scheme": {"type": "str", "default": "http", "choices": ["http", "https"]},
        "adapter_namespace": {"type": "str", "default": "monitoring"},
        "adapter_service": {"type": "str", "default": "prometheus-adapter"},
        "scrape_interval": {"type": "int", "default": 15},
        "keda_namespace": {"type": "str", "default": "keda"},
        "keda_service": {"type": "str", "default": "keda-operator-metrics-apiserver"},
    }


def main():
    module = AnsibleModule(
        argument_spec=argument_spec(**own_arguments()),
        supports_check_mode=True,
        mutually_exclusive=[("hpa", "deployment")],
        required_one_of=[("hpa", "deployment")],
    )
    options = Options(**{name: module.params[name] for name in own_arguments()})
    errors = []
    if options.scrape_interval < 1:
        errors.append(f"scrape_interval is {options.scrape_interval}; expected 1 or more seconds")
    if not 1 <= options.prometheus_port <= 65535:
        errors.append(f"prometheus_port is {options.prometheus_port}; expected a port from 1 to 65535")
    run(
        module,
        f"the chain of the metric {options.metric} in namespace {options.namespace} is broken",
        lambda cluster: EitherChain(cluster, options).examine(),
        errors,
    )


if __name__ == "__main__":
    main()

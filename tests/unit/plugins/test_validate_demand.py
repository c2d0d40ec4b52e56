# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""validate_custom_metric on an HPA with the demand as its second metric: whole, and broken at each link."""

import copy

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules

from tests.unit.plugins.whole_chain import (
    ADAPTER,
    APISERVICES,
    CONFIG,
    HPA,
    MONITORS,
    PAGE,
    PODS,
    PODS_ALL,
    SERVICES,
    apiservice,
    chain,
    check_custom_metric,
    edit,
    quick,
)

__all__ = ["chain", "quick"]  # Fixtures.

DEMAND = "speech_streams_demand"
NAME = "v1beta1.external.metrics.k8s.io"
EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1"
VALUE = f"{EXTERNAL}/namespaces/riva/{DEMAND}"
STREAMS = "haproxy_server_current_sessions"
SELECTOR = scaling_rules.demand_selector("riva-asr", 31, 33, 0.1)
LIMIT_PAGE = f'{STREAMS}{{proxy="speech",server="riva"}} 4\n'


class Prometheus:
    """Plays the limit's series beside what the first chain's Prometheus answers."""

    def __init__(self, first):
        self.first = first
        self.ages = dict.fromkeys(PODS_ALL, 3.0)
        self.up = dict.fromkeys(PODS_ALL, 1)
        self.count = 2

    def answer(self, query):
        if STREAMS in query and query.startswith("time()"):
            found = [({"pod": name}, age) for name, age in self.ages.items()]
        elif 'endpoint="limit-metrics"' in query:
            found = [({"pod": name}, state) for name, state in self.up.items()]
        elif STREAMS in query and query.startswith("count by"):
            found = [({"pod": name, "namespace": "riva"}, 1) for name in self.ages]
        elif scaling_rules.SUCCESS_SERIES in query and query.startswith("count("):
            found = [({}, self.count)] if self.count else []
        else:
            return self.first.answer(query)
        return {"data": {"result": [{"metric": labels, "value": [1, str(value)]} for labels, value in found]}}


def external_apiservice(**options):
    item = apiservice(**options)
    item["metadata"]["name"], item["spec"]["group"] = NAME, "external.metrics.k8s.io"
    return item


@pytest.fixture
def two(chain):
    """The whole chain, with a limit in each pod and the demand in the HPA."""
    prometheus = chain.limits = Prometheus(chain.prometheus)
    path = next(path for path in chain.routes if path.endswith("/query"))
    chain.routes[path] = lambda query, _count: prometheus.answer(query["query"])
    external = scaling_rules.hpa_demand(19, SELECTOR)
    edit(chain, HPA, lambda item: item["spec"]["metrics"].append(external))
    seen = {"type": "External", "external": {"metric": {"name": DEMAND}, "current": {"averageValue": "12"}}}
    edit(chain, HPA, lambda item: item["status"].update(currentMetrics=[seen]))
    pods = copy.deepcopy(chain.routes[PODS])
    ports = [{"name": "limited-grpc", "containerPort": 50052}, {"name": "limit-metrics", "containerPort": 9101}]
    for item in pods["items"]:
        item["spec"]["initContainers"] = [{"name": "stream-limit", "restartPolicy": "Always", "ports": ports}]
    chain.routes[PODS] = pods
    limit_port = {"name": "limit-metrics", "port": 9101, "targetPort": 9101}
    edit(chain, SERVICES, lambda item: item["spec"]["ports"].append(limit_port))
    edit(chain, MONITORS, lambda item: item["spec"]["endpoints"].append({"port": "limit-metrics"}))
    config = {"rules": scaling_rules.adapter_rules(), "externalRules": scaling_rules.external_rules()}
    chain.routes |= {
        f"{APISERVICES}/{NAME}": external_apiservice(),
        EXTERNAL: {"resources": [{"name": DEMAND}]},
        VALUE: lambda query, _count: values(query, "24"),
        CONFIG: {"data": {"config.yaml": yaml.safe_dump(config)}},
    }
    for name in PODS_ALL:
        chain.routes[f"{PODS}/http:{name}:9101/proxy/metrics"] = (200, LIMIT_PAGE)
    return chain


def values(query, *found):
    """Only the selector of the HPA gets an answer."""
    wanted = {part.partition("=")[0]: part.partition("=")[2] for part in query["labelSelector"].split(",")}
    return {"items": [{"value": value} for value in found] if wanted == SELECTOR else []}


def about_demand(result):
    at = next(place for place, entry in enumerate(result["findings"]) if DEMAND in entry["message"])
    return result["findings"][at:]


def test_both_chains_are_whole(two, run_module):
    result = check_custom_metric(run_module, two)
    assert result["status"] == "ok", result["table"]
    assert result["demand"] == 24
    assert "room is wanted for 24 streams, 2 pods of 19" in result["table"]
    assert "scales on speech_streams_demand too" in result["table"]
    assert [entry["check"] for entry in about_demand(result)][:3] == ["hpa", "api", "adapter_rule"]
    asked = {path for path, _query, _headers in two.requests}
    assert asked.isdisjoint({SERVICES, MONITORS, f"{PODS}/http:riva-asr-1:9101/proxy/metrics"})


def test_without_the_second_metric_nobody_asks_for_it(chain, run_module):
    result = check_custom_metric(run_module, chain)
    assert result["demand"] is None
    assert not any("external.metrics" in path for path, _query, _headers in chain.requests)


def no_value(api):
    api.routes[VALUE] = lambda query, _count: values(query)
    edit(api, HPA, lambda item: item["status"].update(currentMetrics=[]))


def not_offered(api):
    no_value(api)
    api.routes[EXTERNAL] = {"resources": []}
    api.routes[VALUE] = (404, {"message": "the server could not find the metric"})


def no_rule(api):
    not_offered(api)
    api.routes[CONFIG] = {"data": {"config.yaml": yaml.safe_dump({"rules": scaling_rules.adapter_rules()})}}


def rule_finds_nothing(api):
    not_offered(api)
    api.limits.count = 0


def wrong_address(api):
    not_offered(api)
    argument = "--prometheus-url=http://prometheus.default.svc:9090"
    api.routes[ADAPTER] = {"spec": {"template": {"spec": {"containers": [{"args": [argument]}]}}}}


def no_samples(api):
    no_value(api)
    api.limits.ages, api.limits.up = {}, {}


def dead(api):
    no_samples(api)
    api.limits.up = dict.fromkeys(PODS_ALL, 0)


def limit_page(api, answer):
    no_samples(api)
    for name in PODS_ALL:
        api.routes[f"{PODS}/http:{name}:9101/proxy/metrics"] = answer


REFUSED = (503, {"message": "error trying to reach service: dial tcp 10.0.0.1:9101: connect: connection refused"})
BROKEN = {
    "APIService absent": (lambda api: api.routes.pop(f"{APISERVICES}/{NAME}"), "api", "is not registered"),
    "APIService of KEDA": (
        lambda api: api.routes.update({f"{APISERVICES}/{NAME}": external_apiservice(service="keda")}),
        "api",
        f"remove the other owner of {NAME}",
    ),
    "impossible value": (
        lambda api: api.routes.update({VALUE: lambda query, _count: values(query, "-9223372036854775808m")}),
        "api",
        "impossible value",
    ),
    "the HPA alone does not get it": (
        lambda api: edit(api, HPA, lambda item: item["status"].update(currentMetrics=[])),
        "hpa",
        "does not get speech_streams_demand, and scales without it",
    ),
    "no rule": (no_rule, "adapter_rule", "filter external_rules) into the chart's rules.external"),
    "rule finds nothing": (rule_finds_nothing, "adapter_rule", "its seriesQuery finds nothing"),
    "wrong Prometheus": (wrong_address, "adapter_rule", "the adapter asks http://prometheus.default.svc:9090"),
    "not offered yet": (not_offered, "adapter_rule", "does not offer speech_streams_demand yet"),
    "target down": (dead, "target", "Prometheus can't read riva-asr-1, riva-asr-2"),
    "ServiceMonitor without the limit's port": (
        lambda api: (no_samples(api), edit(api, MONITORS, lambda item: item["spec"]["endpoints"].pop())),
        "service_port",
        "has no port named limit-metrics",
    ),
    "Service without the limit's port": (
        lambda api: (no_samples(api), edit(api, SERVICES, lambda item: item["spec"]["ports"].pop())),
        "service_port",
        "has no port named limit-metrics",
    ),
    "limit not listening": (lambda api: limit_page(api, REFUSED), "pod_port", "nothing listens on port 9101"),
    "limit's page broken": (lambda api: limit_page(api, (500, "oh")), "exporter", "answers with HTTP 500"),
    "page without the series": (lambda api: limit_page(api, (200, PAGE)), "exporter", f"has no {STREAMS}"),
}


@pytest.mark.parametrize(("breaks", "link", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_the_first_broken_link_is_named(two, run_module, breaks, link, text):
    breaks(two)
    result = check_custom_metric(run_module, two, fail_on="never")
    assert result["first_broken"] == link, result["table"]
    failed = [entry for entry in result["findings"] if entry["status"] == "failed"]
    assert {entry["check"] for entry in failed if entry["remedy"]} == {link}, result["table"]
    assert text in " ".join(entry["message"] + entry["remedy"] for entry in failed)
    # The other metric's chain is whole, and says so.
    assert result["findings"][0]["status"] == "ok"
    assert result["pod_values"] == dict.fromkeys(PODS_ALL, 2.5)


def test_a_dead_limit_does_not_hide_behind_the_servers_own_target(two, run_module):
    """Both ports of a pod are targets: each chain looks at its own."""
    dead(two)
    two.prometheus.up = dict.fromkeys(PODS_ALL, 1)
    result = check_custom_metric(run_module, two, fail_on="never")
    assert result["first_broken"] == "target"


def test_without_permission_the_link_is_named(two, run_module):
    refusal = {"kind": "Status", "reason": "Forbidden", "message": f"{DEMAND}.external.metrics.k8s.io is forbidden"}
    two.routes[VALUE] = (403, refusal)
    result = check_custom_metric(run_module, two, fail_on="never")
    assert result["first_broken"] == "api"
    assert "lacks the permission" in result["table"]


def test_streams_estimated_from_chunks_come_from_the_servers_own_port(two, run_module):
    for item in two.routes[PODS]["items"]:
        item["spec"].pop("initContainers")
    result = check_custom_metric(run_module, two)
    series = [entry for entry in result["findings"] if entry["check"] == "series"]
    assert [entry["subject"] for entry in series] == ["nv_inference_queue_duration_us", "nv_inference_request_success"]

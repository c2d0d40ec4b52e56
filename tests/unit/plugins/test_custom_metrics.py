# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from datetime import UTC, datetime

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import chain_links as links
from ansible_collections.speechops.riva.plugins.module_utils import custom_metrics, scaling_rules, scraping

METRIC = "avg_time_queue_ms"
SERIES = "nv_inference_queue_duration_us"


def entry(link, status, own=True):
    return links.verdict(link, "x", status, "message", "remedy", own)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], None),
        ([entry("hpa", "ok"), entry("api", "unknown"), entry("series", "warning")], None),
        ([entry("hpa", "failed")], "hpa"),
        ([entry("hpa", "failed"), entry("target", "failed"), entry("series", "failed")], "target"),
        ([entry("pods", "failed"), entry("hpa", "failed")], "pods"),
    ],
)
def test_first_broken(verdicts, expected):
    assert links.first_broken(verdicts) == expected


def test_what_follows_says_so_and_has_no_remedy():
    verdicts = [entry("pod_port", "failed"), entry("series", "failed", own=False), entry("hpa", "failed")]
    hpa, series, port = links.findings_of(verdicts)
    assert (hpa.message, hpa.remedy) == ("message", "remedy")
    assert (series.message, series.remedy) == ("message (follows from pod_port)", "")
    assert (port.check, port.remedy) == ("pod_port", "remedy")


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        (None, {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "c"}, False),
        ({"matchLabels": {"a": "b"}}, None, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {"a": "b"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Near"}]}, {"a": ""}, False),
        ({"matchExpressions": [None]}, {}, False),
    ],
)
def test_selector_matches(selector, labels, expected):
    assert links.selector_matches(selector, labels) is expected


def test_selector_text():
    expressions = [
        {"key": "c", "operator": "In", "values": ["d", "e"]},
        {"key": "f", "operator": "Exists"},
        {"key": "g", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"a": "b"}, "matchExpressions": expressions}
    assert links.selector_text(selector) == "a=b,c in (d,e),f,!g"


def pod(name="p", ready=True, phase="Running", ports=(("metrics", 8002),), trouble=""):
    return links.Pod(name, ready, phase, {"app": "riva"}, tuple(ports), trouble)


@pytest.mark.parametrize(
    ("item", "ready", "trouble"),
    [
        ({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}, True, ""),
        (
            {
                "metadata": {"deletionTimestamp": "now"},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
            False,
            "",
        ),
        (
            {"status": {"containerStatuses": [{"name": "riva", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}},
            False,
            "riva: ImagePullBackOff",
        ),
        (
            {
                "status": {
                    "conditions": [
                        {"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}
                    ]
                }
            },
            False,
            "not scheduled: Insufficient nvidia.com/gpu",
        ),
        (
            {
                "metadata": {"deletionTimestamp": "now"},
                "status": {
                    "conditions": [
                        {
                            "type": "DisruptionTarget",
                            "status": "True",
                            "message": "Taint manager: deleting due to NoExecute taint",
                        }
                    ]
                },
            },
            False,
            "Taint manager: deleting due to NoExecute taint",
        ),
        ({"metadata": None, "spec": None, "status": None}, False, ""),
        ({"spec": {"containers": [None, {"ports": [None, {"containerPort": "x"}]}]}}, False, ""),
    ],
)
def test_project_pod(item, ready, trouble):
    found = links.project_pod(item)
    assert (found.ready, found.trouble) == (ready, trouble)


@pytest.mark.parametrize(
    ("pods", "status", "text"),
    [
        ([pod()], "ok", "1 of 1"),
        ([pod(), pod("q", False)], "ok", "1 of 2"),
        (
            [
                pod(),
                pod("q", False, "Pending", trouble="not scheduled: x"),
                pod("r", False, "Pending", trouble="not scheduled: x"),
            ],
            "warning",
            "1 of 3 pods are Ready; 2 found no node: q Pending (not scheduled: x)",
        ),
        ([], "failed", "has no pods"),
        (
            [pod(ready=False, phase="Pending", trouble="not scheduled: x")],
            "failed",
            "none of 1 pods is Ready: p Pending (not",
        ),
    ],
)
def test_pods_verdict(pods, status, text):
    found = links.pods_verdict("Deployment riva", pods, [entry for entry in pods if entry.ready]).finding
    assert (found.status, text in found.message) == (status, True)


def test_a_pod_that_a_lost_node_has_is_told_with_the_node():
    lost = links.Pod("p", False, "Terminating", {}, trouble="Taint manager: deleting", node="gpu-1")
    message = links.pods_verdict("Deployment riva", [lost], []).finding.message
    assert message == "none of 1 pods is Ready: p Terminating on gpu-1 (Taint manager: deleting)"


NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (["2026-11-22T11:00:00Z", "2026-11-22T11:59:30Z"], [0]),
        (["2026-11-22T11:59:00Z", "2026-11-22T11:59:01Z"], [0]),
        (["2026-11-22T11:59:50Z", "2026-11-22T11:59:59Z"], [0, 1]),
        (["2026-11-22T13:00:00Z", "2026-11-22T11:59:59Z"], [0]),
        (["", "yesterday"], [0, 1]),
        (["2026-11-22T11:00:00", None], [0, 1]),
    ],
)
def test_settled(since, expected):
    pods = [links.Pod(str(i), True, "Running", {}, ready_since=moment) for i, moment in enumerate(since)]
    pods.append(links.Pod("9", False, "Running", {}))
    assert [int(entry.name) for entry in links.settled(pods, NOW, 60)] == expected


def hpa(metric=METRIC, **conditions):
    found = {"AbleToScale": ("True", "ReadyForNewScale"), "ScalingActive": ("True", "ValidMetricFound")} | conditions
    return {
        "spec": {"metrics": [{"type": "Pods", "pods": {"metric": {"name": metric}}}]},
        "status": {
            "currentReplicas": 1,
            "desiredReplicas": 2,
            "conditions": [{"type": kind, "status": state[0], "reason": state[1]} for kind, state in found.items()],
        },
    }


@pytest.mark.parametrize(
    ("found", "status", "own", "text"),
    [
        (hpa(), "ok", True, "1 replicas, 2 desired"),
        (hpa("other"), "failed", True, "uses: other"),
        ({"spec": {"metrics": [{"type": "Resource"}]}}, "failed", True, "uses: Resource"),
        ({"spec": None}, "failed", True, "uses: none"),
        (hpa(ScalingActive=("False", "FailedGetPodsMetric")), "failed", False, "FailedGetPodsMetric"),
        (hpa(ScalingActive=("False", "ScalingDisabled")), "failed", True, "ScalingDisabled"),
        (hpa(AbleToScale=("False", "FailedGetScale")), "failed", True, "FailedGetScale"),
        (hpa(ScalingLimited=("True", "TooManyReplicas")), "warning", True, "maxReplicas"),
        (hpa(ScalingLimited=("True", "TooFewReplicas")), "ok", True, ""),
        ({"spec": hpa()["spec"]}, "failed", False, "no conditions yet"),
    ],
)
def test_hpa_verdict(found, status, own, text):
    given = custom_metrics.hpa_verdict("riva-asr", found, METRIC)
    assert (given.finding.status, given.own) == (status, own)
    assert text in given.finding.message


def value(name, amount):
    return {"describedObject": {"kind": "Pod", "name": name}, "value": amount}


@pytest.mark.parametrize(
    ("listed", "items", "status", "text"),
    [
        (True, [value("a", "1500m"), value("b", "0")], "ok", "a 1.5, b 0"),
        (True, [value("a", "1"), value("b", "2"), value("gone", "3")], "ok", "2 Ready pods"),
        (True, [value("a", "1")], "failed", "no value for b (1 of 2"),
        (True, [], "failed", "no value for a, b"),
        (False, [], "failed", "does not list"),
        (True, [value("a", "-9223372036854775808m"), value("b", "1")], "failed", "impossible value for a"),
        (True, [value("a", "fast"), value("b", "1")], "failed", "impossible value for a"),
        (True, [None, {}], "failed", "no value"),
    ],
)
def test_values_verdict(listed, items, status, text):
    found = custom_metrics.values_verdict(
        METRIC, listed, custom_metrics.values_of({"items": items}), ["a", "b"]
    ).finding
    assert (found.status, text in found.message) == (status, True)


def test_offers():
    assert custom_metrics.offers({"resources": [{"name": f"pods/{METRIC}"}]}, METRIC)
    assert not custom_metrics.offers({"resources": [{"name": f"namespaces/{METRIC}"}, None]}, METRIC)
    assert not custom_metrics.offers({}, METRIC)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://prom.monitoring.svc:9090", True),
        ("http://prom.monitoring.svc.cluster.local.:9090/", True),
        ("http://prom.monitoring:9090", True),
        ("http://prom.default.svc:9090", False),
        ("http://other.monitoring.svc:9090", False),
        ("http://prom.monitoring.svc", False),
        ("http://prom:9090", False),
        ("https://metrics.example.org/prometheus", True),
        ("http://10.1.2.3:9090", True),
        ("", False),
        ("prom", False),
    ],
)
def test_points_to(url, expected):
    assert custom_metrics.points_to(url, "prom.monitoring:9090") is expected


RULE = scaling_rules.adapter_rule()


@pytest.mark.parametrize(
    ("config", "listed", "found", "url", "status", "text"),
    [
        ([RULE], True, 3, "", "ok", "a rule offers"),
        ([RULE], False, 0, "http://p.m:9090", "failed", "finds nothing"),
        ([RULE], False, 2, "http://q.m:9090", "failed", "asks http://q.m:9090, not p.m:9090"),
        ([RULE], False, 2, "http://p.m:9090", "failed", "does not offer avg_time_queue_ms yet"),
        ([RULE], False, None, "http://p.m:9090", "unknown", "not known"),
        ([], False, None, "", "failed", "no rule offers"),
        ([{"name": {"as": "other"}}], False, None, "", "failed", "1 rules: other"),
    ],
)
def test_adapter_verdict(config, listed, found, url, status, text):
    given = custom_metrics.adapter_verdict("m/a", config, METRIC, listed, found, url, "p.m:9090").finding
    assert (given.status, text in given.message) == (status, True)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("sum(a{<<.LabelMatchers>>}) by (<<.GroupBy>>)", 'sum(a{pod!=""}) by (pod)'),
        ("sum(a{<< .LabelMatchers >>,x='y'})", "sum(a{pod!=\"\",x='y'})"),
        ("a or vector(0)", "a or vector(0)"),
        ('sum(<<.Series>>{<<.LabelMatchers>>,pod=~"<<index .LabelValuesByName "pod">>"})', None),
        ("", None),
        (None, None),
    ],
)
def test_parsable_query(query, wanted):
    assert custom_metrics.parsable_query({"metricsQuery": query}) == wanted


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        ({"type": "vectorSelector", "name": "a", "matchers": [{"name": "pod", "type": "!="}]}, {"a"}),
        ({"type": "call", "func": {"name": "rate"}, "args": [{"type": "matrixSelector", "name": "a"}]}, {"a"}),
        (
            {
                "type": "binaryExpr",
                "lhs": {"type": "vectorSelector", "name": "a"},
                "rhs": {"type": "aggregation", "expr": {"type": "vectorSelector", "name": "b"}, "grouping": ["pod"]},
            },
            {"a", "b"},
        ),
        ({"type": "vectorSelector", "name": ""}, set()),
        ({"type": "vectorSelector", "name": 3}, set()),
        ({"type": "numberLiteral", "val": "0"}, set()),
        (None, set()),
        ("text", set()),
    ],
)
def test_named_series(tree, wanted):
    assert custom_metrics.named_series(tree) == wanted


@pytest.mark.parametrize(
    ("named", "existing", "status", "text"),
    [
        ({"a", "b"}, {"a", "b", "c"}, "ok", "a rule offers"),
        (set(), set(), "ok", "a rule offers"),
        ({"a", "b"}, {"a"}, "warning", "names b, which Prometheus does not have: the value of m is computed without"),
        ({"a", "b"}, {"c"}, "failed", "names a, b, which Prometheus does not have: the value of m is no measurement"),
    ],
)
def test_query_verdict(named, existing, status, text):
    found = custom_metrics.query_verdict("m/a", "m", named, existing).finding
    assert (found.status, text in found.message) == (status, True), found


@pytest.mark.parametrize(
    ("ages", "elsewhere", "status", "text"),
    [
        ({"a": 3.0, "b": 14.0}, [], "ok", "14 s old"),
        ({"a": 3.0, "b": 61.0}, [], "failed", "newest sample of b is 61 s old"),
        ({"a": 3.0, "b": float("nan")}, [], "failed", "newest sample of b"),
        ({"a": 3.0}, [{"pod": "a", "namespace": "riva"}], "failed", "no sample of b (1 of 2"),
        ({}, [], "failed", "no sample of a, b"),
        ({}, [{"namespace": "riva"}], "failed", "without the label pod"),
        ({}, [{"exported_pod": "a"}], "failed", "it is exported_pod"),
        ({}, [{"pod": "a", "namespace": "other"}], "failed", "exists in namespace other"),
    ],
)
def test_series_verdict(ages, elsewhere, status, text):
    found = scraping.series_verdict(SERIES, ages, ["a", "b"], 60, elsewhere).finding
    assert (found.status, text in found.message) == (status, True)


@pytest.mark.parametrize(
    ("up", "status", "text"),
    [
        ({"a": 1, "b": 1}, "ok", "reads 2"),
        ({"a": 1}, "failed", "no target for b"),
        ({"a": 1, "b": 0}, "failed", "can't read b: connection refused"),
    ],
)
def test_target_verdict(up, status, text):
    found = scraping.target_verdict(up, ["a", "b"], {"b": "connection refused"}).finding
    assert (found.status, text in found.message) == (status, True)


def test_target_errors():
    targets = [
        {"labels": {"namespace": "riva", "pod": "a"}, "lastError": "context\ndeadline"},
        {"labels": {"namespace": "riva", "pod": "b"}, "lastError": ""},
        {"labels": {"namespace": "x", "pod": "c"}, "lastError": "no"},
        None,
    ]
    assert scraping.target_errors({"data": {"activeTargets": targets}}, "riva") == {"a": "context deadline"}


def test_samples_of():
    result = [{"metric": {"pod": "a"}, "value": [1, "2.5"]}, {"metric": {}, "value": [1, "x"]}, {"value": 3}, None]
    assert scraping.samples_of({"data": {"result": result}}) == [({"pod": "a"}, 2.5)]
    assert scraping.samples_of({"data": None}) == []


def service(labels=None, ports=None):
    port = {"name": "metrics", "port": 8002, "targetPort": "metrics"}
    return {
        "metadata": {"name": "riva-asr", "namespace": "riva", "labels": {"app": "riva"} if labels is None else labels},
        "spec": {"selector": {"app": "riva"}, "ports": [port] if ports is None else ports},
    }


def monitor(selector=None, labels=None, endpoints=None, spaces=None):
    return {
        "metadata": {"name": "riva-asr", "namespace": "riva", "labels": labels or {}},
        "spec": {
            "selector": {"matchLabels": {"app": "riva"}} if selector is None else selector,
            "endpoints": endpoints or [{"port": "metrics", "interval": "15s"}],
            **({"namespaceSelector": spaces} if spaces is not None else {}),
        },
    }


def prometheus(**spec):
    return {"metadata": {"name": "prom", "namespace": "monitoring"}, "spec": spec}


ALL = {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}}


@pytest.mark.parametrize(
    ("services", "monitors", "prometheuses", "text"),
    [
        ([service()], [monitor()], [prometheus(**ALL)], None),
        ([service()], [monitor(spaces={"any": True})], [prometheus(**ALL)], None),
        ([service()], [monitor(spaces={"matchNames": ["riva"]})], [prometheus(**ALL)], None),
        ([], [monitor()], [prometheus(**ALL)], "no Service selects the pods"),
        ([service()], [], [prometheus(**ALL)], "no ServiceMonitor selects"),
        ([service({})], [monitor()], [prometheus(**ALL)], "no ServiceMonitor selects"),
        ([service()], [monitor(spaces={"matchNames": ["x"]})], [prometheus(**ALL)], "no ServiceMonitor selects"),
        ([service()], [monitor()], [], "no Prometheus object"),
        ([service()], [monitor()], [prometheus()], "not selected by Prometheus prom"),
        ([service()], [monitor()], [prometheus(serviceMonitorSelector={})], "not selected by"),
        (
            [service()],
            [monitor()],
            [prometheus(**ALL | {"serviceMonitorSelector": {"matchLabels": {"release": "kps"}}})],
            "'release': 'kps'",
        ),
        (
            [service()],
            [monitor(labels={"release": "kps"})],
            [prometheus(**ALL | {"serviceMonitorSelector": {"matchLabels": {"release": "kps"}}})],
            None,
        ),
        (
            [service()],
            [monitor()],
            [prometheus(**ALL | {"serviceMonitorNamespaceSelector": {"matchLabels": {"team": "x"}}})],
            "not selected by",
        ),
    ],
)
def test_service_monitor_verdict(services, monitors, prometheuses, text):
    found, _monitor, _service = scraping.service_monitor_verdict(services, monitors, prometheuses, {"team": "speech"})
    assert found.finding.status == ("ok" if text is None else "failed")
    assert (text or "selected by Prometheus") in found.finding.message


@pytest.mark.parametrize(
    ("endpoints", "ports", "status", "text"),
    [
        ([{"port": "metrics"}], None, "ok", "asks for"),
        ([{"port": "http"}], None, "failed", "no port named http"),
        ([{"targetPort": 8002}], None, "ok", "itself"),
        ([{"port": "metrics"}], [], "failed", "has: none"),
        ([{"port": "metrics"}], [{"port": 8002}], "failed", "no port named metrics"),
    ],
)
def test_service_port_verdict(endpoints, ports, status, text):
    found, _port, _endpoint = scraping.service_port_verdict(monitor(endpoints=endpoints), service(ports=ports))
    assert (found.finding.status, text in found.finding.message) == (status, True)


@pytest.mark.parametrize(
    ("port", "numbers", "status"),
    [
        ({"port": 8002, "targetPort": "metrics"}, {"p": 8002}, "ok"),
        ({"port": 8002, "targetPort": 9000}, {"p": 9000}, "ok"),
        ({"port": 8002, "targetPort": "9000"}, {"p": 9000}, "ok"),
        ({"port": 8002}, {"p": 8002}, "ok"),
        ({"port": 8002, "targetPort": "metrics-triton"}, {}, "failed"),
    ],
)
def test_pod_port_verdict(port, numbers, status):
    found, given = scraping.pod_port_verdict(port, [pod()])
    assert (given, found.finding.status) == (numbers, status)


PAGE = f'# HELP {SERIES} x\n{SERIES}{{model="a"}} 3\n'


@pytest.mark.parametrize(
    ("scrape", "link", "status", "text"),
    [
        (scraping.Scrape(200, PAGE), "exporter", "ok", "export"),
        (scraping.Scrape(200, f"{SERIES} 3\n"), "exporter", "ok", "export"),
        (scraping.Scrape(200, f"# HELP {SERIES} x\n{SERIES}_total 3\n"), "exporter", "failed", "has no"),
        (scraping.Scrape(200, ""), "exporter", "failed", "has no"),
        (scraping.Scrape(500, "boom"), "exporter", "failed", "HTTP 500 (boom)"),
        (scraping.Scrape(0, "silent"), "exporter", "failed", "no answer"),
        (scraping.Scrape(403, "get pods/proxy"), "exporter", "failed", "HTTP 403"),
        (scraping.Scrape(503, "dial tcp 10.0.0.1:8002: connect: connection refused"), "pod_port", "failed", "nothing"),
    ],
)
def test_exporter_verdicts(scrape, link, status, text):
    (found,) = scraping.exporter_verdicts({"p": scrape}, {"p": 8002}, SERIES)
    assert (found.link, found.finding.status, text in found.finding.message) == (link, status, True)


def test_prometheus_url():
    containers = [{"args": ["/adapter", "--prometheus-url=http://p.m.svc:9090"]}]
    assert (
        custom_metrics.prometheus_url({"spec": {"template": {"spec": {"containers": containers}}}})
        == "http://p.m.svc:9090"
    )
    assert custom_metrics.prometheus_url({"spec": None}) == ""

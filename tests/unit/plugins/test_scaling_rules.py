# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import re

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules as rules

QUEUE, DONE = "nv_inference_queue_duration_us", "nv_inference_request_success"


def mean(matchers, by, window):
    queue = f"sum by ({by}) (rate({QUEUE}{{{matchers}}}[{window}]))"
    done = f"sum by ({by}) (rate({DONE}{{{matchers}}}[{window}]))"
    return f"({queue} / ({done} > 0) or {queue} * 0) / 1000"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, mean("<<.LabelMatchers>>", "<<.GroupBy>>", "60s")),
        ({"scrape_interval": 5}, mean("<<.LabelMatchers>>", "<<.GroupBy>>", "20s")),
        ({"scrape_interval": "15s", "window": 120}, mean("<<.LabelMatchers>>", "<<.GroupBy>>", "120s")),
        ({"models": ["a.b"]}, mean('<<.LabelMatchers>>,model=~"a\\\\.b"', "<<.GroupBy>>", "60s")),
        ({"exclude_models": ["e", "f"]}, mean('<<.LabelMatchers>>,model!~"e|f"', "<<.GroupBy>>", "60s")),
    ],
)
def test_the_adapters_query(options, expected):
    assert rules.adapter_rule(**options)["metricsQuery"] == expected


def test_the_adapters_rule():
    rule = rules.adapter_rule()
    assert rule["seriesQuery"] == 'nv_inference_queue_duration_us{namespace!="",pod!=""}'
    assert rule["resources"] == {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}}
    assert rule["name"] == {"matches": "^nv_inference_queue_duration_us$", "as": "avg_time_queue_ms"}
    assert rules.adapter_rules("queue_time") == [rule]


def test_the_articles_rule_is_as_printed():
    assert rules.adapter_rule("article") == {
        "seriesQuery": 'nv_inference_queue_duration_us{namespace="default",pod!=""}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"matches": "nv_inference_queue_duration_us", "as": "avg_time_queue_ms"},
        "metricsQuery": "avg(delta(nv_inference_queue_duration_us{<<.LabelMatchers>>}[30s])"
        "/(1+delta(nv_inference_request_success{<<.LabelMatchers>>}[30s]))/1000) by (<<.GroupBy>>)",
    }
    assert 'namespace="riva"' in rules.adapter_rule("article", namespace="riva")["seriesQuery"]
    anywhere = rules.adapter_rule("article", namespace="", metric="article_avg_time_queue_ms")
    assert anywhere["seriesQuery"] == 'nv_inference_queue_duration_us{namespace!="",pod!=""}'
    assert anywhere["metricsQuery"] == rules.adapter_rule("article")["metricsQuery"]
    assert anywhere["name"]["as"] == "article_avg_time_queue_ms"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"namespace": "riva"}, mean('namespace="riva"', "pod", "60s")),
        ({"namespace": "riva", "by": ["service"]}, mean('namespace="riva"', "service", "60s")),
        ({"namespace": "riva", "by": ["namespace", "pod"]}, mean('namespace="riva"', "namespace,pod", "60s")),
        ({"namespace": 'r"i', "pods": ["a-1", "b.2"]}, mean('namespace="r\\"i",pod=~"a-1|b\\\\.2"', "pod", "60s")),
        ({"service": "riva-asr", "models": ["m"]}, mean('service="riva-asr",model=~"m"', "pod", "60s")),
    ],
)
def test_the_plain_query(arguments, expected):
    assert rules.queue_time_query(**arguments) == expected


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (rules.adapter_rule, {"preset": "best"}, "preset is 'best'"),
        (rules.adapter_rule, {"scrape_interval": 0}, "scrape_interval is 0"),
        (rules.adapter_rule, {"scrape_interval": True}, "scrape_interval is True"),
        (rules.adapter_rule, {"scrape_interval": "1m"}, "scrape_interval is '1m'"),
        (rules.adapter_rule, {"scrape_interval": 15, "window": 30}, "expected 60 or more"),
        (rules.adapter_rule, {"models": "asr"}, "models is 'asr'"),
        (rules.queue_time_query, {"by": ["pod) or vector(1"]}, "no Prometheus label name"),
    ],
)
def test_a_wrong_input_is_named(function, arguments, message):
    with pytest.raises(rules.RuleError, match=message.replace("(", r"\(").replace(")", r"\)")):
        function(**arguments)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(20, "20"), (1.5, "1500m"), ("0.5", "500m"), (0.001, "1m"), ("2.0", "2"), (1000, "1000")],
)
def test_quantity(value, expected):
    assert rules.quantity(value) == expected
    assert rules.parse_quantity(rules.quantity(value)) == float(value)


@pytest.mark.parametrize("value", [0, -1, "fast", None, True, "nan", "inf", 0.0001, ""])
def test_no_quantity(value):
    with pytest.raises(rules.RuleError, match="target is"):
        rules.quantity(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0), ("1500m", 1.5), ("12", 12.0), ("3k", 3000.0), ("1Ki", 1024.0), ("250u", 0.00025),
        ("2e3", 2000.0), ("1E", 1e18), ("-9223372036854775808m", -9223372036854775.808), (7, 7.0),
        ("", None), ("fast", None), ("1mi", None), (None, None), (True, None), ("NaN", None), ("1 2", None),
    ],
)  # fmt: skip
def test_parse_quantity(text, expected):
    assert rules.parse_quantity(text) == expected


def test_the_hpas_metric():
    assert rules.hpa_metric(1.5) == {
        "type": "Pods",
        "pods": {
            "metric": {"name": "avg_time_queue_ms"},
            "target": {"type": "AverageValue", "averageValue": "1500m"},
        },
    }


@pytest.mark.parametrize(
    ("rule", "metric", "expected"),
    [
        (rules.adapter_rule(), "avg_time_queue_ms", True),
        (rules.adapter_rule(), "other", False),
        ({"name": {"as": "${1}_per_second"}}, "requests_per_second", True),
        ({"name": {"as": "$1"}}, "requests", True),
        ({"seriesQuery": "requests_total{}"}, "requests_total", True),
        ({"name": None}, "x", False),
        ({}, "x", False),
    ],
)
def test_rule_offers(rule, metric, expected):
    assert rules.rule_offers(rule, metric) is expected


RUNNING = (
    'last_over_time(haproxy_server_current_sessions{proxy="speech",M}[37s])'
    " or rate(nv_inference_request_success{M}[60s]) / C"
    ' unless on (namespace, pod) last_over_time(haproxy_server_current_sessions{proxy="speech",M}[37s])'
)
REFUSED = 'increase(haproxy_backend_http_requests_total{proxy="full",M}[60s])'
WANTED = f"sum by (namespace,service) ({REFUSED} or {RUNNING})"
DEMAND = (
    f"{WANTED} + clamp_min(H * (deriv(sum by (namespace,service) ({RUNNING})[60s:15s]) or {WANTED} * 0)"
    f" - sqrt({WANTED}), 0) + clamp_max(4 * {WANTED}, S) + P * {WANTED}"
)


def filled(matchers, chunks, horizon, spare, share):
    text = DEMAND.replace("C unless", f"{chunks} unless").replace("H *", f"{horizon} *").replace(", S)", f", {spare})")
    text = text.replace("P *", f"{share} *")
    return text.replace("M}", f"{matchers}}}")


def test_the_demand_of_a_service():
    query = rules.demand_query("riva", "riva-asr", horizon_seconds=34, spare_streams=50.75, spare_share=0.105)
    assert query == filled('namespace="riva",service="riva-asr"', "6.25", "34", "50.75", "0.105")


def given(query, **labels):
    """What the adapter's template makes of a selector's labels, for the few forms that the rule uses."""

    def chosen(found):
        value = labels.get(found[1])
        return found[2].replace("<<.>>", value) if value else found[3] or ""

    with_else = r'<<with index \.LabelValuesByName "(\w+)">>(.*?)(?:<<else>>([^<]*))?<<end>>'
    query = re.sub(with_else, chosen, query)
    return re.sub(r'<<index \.LabelValuesByName "(\w+)">>', lambda found: labels.get(found[1], ""), query)


def test_one_external_rule_serves_every_service():
    rule = rules.external_rule()
    assert rule["seriesQuery"] == 'nv_inference_request_success{namespace!="",service!=""}'
    assert rule["name"] == {"matches": "^nv_inference_request_success$", "as": "speech_streams_demand"}
    assert rule["resources"] == {"overrides": {"namespace": {"resource": "namespace"}}}
    labels = rules.demand_selector("riva-asr", 34, 50, 0.03)
    assert labels == {
        "service": "riva-asr",
        "horizon_seconds": "34",
        "spare_streams": "50",
        "spare_share": "0.03",
    }
    asked = rules.demand_query("riva", "riva-asr", 34, 50, spare_share=0.03)
    assert given(rule["metricsQuery"], namespace="riva", **labels) == asked
    bare = given(rule["metricsQuery"], namespace="riva")
    assert bare == filled('namespace="riva"', "6.25", "0", "0", "0")
    assert "<<" not in bare


def test_the_hpas_demand():
    assert rules.hpa_demand(19, rules.demand_selector("riva-asr", 34, 33, 0.1, 6.25)) == {
        "type": "External",
        "external": {
            "metric": {
                "name": "speech_streams_demand",
                "selector": {
                    "matchLabels": {
                        "service": "riva-asr",
                        "horizon_seconds": "34",
                        "spare_streams": "33",
                        "spare_share": "0.1",
                        "chunks_per_second": "6.25",
                    }
                },
            },
            "target": {"type": "AverageValue", "averageValue": "19"},
        },
    }

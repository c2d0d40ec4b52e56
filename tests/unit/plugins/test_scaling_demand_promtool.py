# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demand of a speech service on Prometheus' own engine, over what happens to pods and scrapes."""

from functools import partial

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules as rules

from tests.unit.prometheus import holds, judged


def limited(service, pod, streams, refused="0x60", done="0+900x60"):
    labels = f'namespace="riva",service="{service}",pod="{service}-{pod}"'
    return [
        {"series": f'haproxy_server_current_sessions{{{labels},proxy="speech",server="riva"}}', "values": streams},
        # What is asked beside speech: no demand.
        {"series": f'haproxy_server_current_sessions{{{labels},proxy="asides",server="riva"}}', "values": "3x60"},
        {"series": f'haproxy_backend_http_requests_total{{{labels},proxy="full"}}', "values": refused},
        {"series": f'haproxy_backend_http_requests_total{{{labels},proxy="asides"}}', "values": "0+90x60"},
        *chunks(service, pod, "asr", done),
    ]


def chunks(service, pod, model, done):
    labels = f'namespace="riva",service="{service}",pod="{service}-{pod}",model="{model}"'
    return [{"series": f"nv_inference_request_success{{{labels}}}", "values": done}]


# 10 streams a pod are 10 * 6.25 * 15 s = 937.5 chunks a scrape; 8 streams are 750.
INPUT = [
    *limited("two-pods", "a", "10x60"),
    *limited("two-pods", "b", "5x60"),
    *limited("idle", "a", "0x60"),
    *limited("refusing", "a", "20x60", "0+4x60"),
    *limited("refusing-reset", "a", "20x60", "0+4x37 4+4x21"),
    *limited("missed-scrape", "a", "10x60"),
    *limited("missed-scrape", "b", "10x39 _ 10x20"),
    *limited("restarted", "a", "10x38 0x22", "100+0x38 0x22"),
    *limited("new-pod", "a", "10x60"),
    *limited("new-pod", "b", "_x38 2x22", "_x38 0x22"),
    *limited("gone-pod", "a", "10x60"),
    *limited("gone-pod", "b", "10x20", done="0+900x20"),
    # The limit's page is gone, but the server works on: 8 streams by its chunks.
    *limited("limit-down", "a", "10x20", done="0+750x60"),
    *limited("hot-pod", "a", "20x60"),
    *limited("hot-pod", "b", "0x60"),
    *limited("rising", "a", "0+1x60"),
    *chunks("no-limit", "a", "asr", "0+750x60"),
    *chunks("no-limit", "b", "asr", "0+750x60"),
    *chunks("no-limit-two-models", "a", "asr", "0+750x60"),
    *chunks("no-limit-two-models", "a", "punctuation", "0x60"),
    *chunks("no-limit-idle", "a", "asr", "0x60"),
    *chunks("no-limit-restarted", "a", "asr", "0+750x30 0+750x29"),
    *limited("half-limited", "a", "10x60"),
    *chunks("half-limited", "b", "asr", "0+750x60"),
]
WANTED = {
    "two-pods": 15,
    "idle": 0,
    # 20 run, 16 were refused in the last minute.
    "refusing": 36,
    "refusing-reset": 36,
    "missed-scrape": 20,
    "restarted": 0,
    "new-pod": 12,
    "gone-pod": 10,
    "limit-down": 8,
    "hot-pod": 20,
    "rising": 40,
    "no-limit": 16,
    "no-limit-two-models": 8,
    "no-limit-idle": 0,
    "no-limit-restarted": 8,
    "half-limited": 18,
}


def ask(tmp_path, query, expected, moment="10m"):
    done = asked(tmp_path, query, expected, moment)
    assert done.returncode == 0, done.stdout + done.stderr


def asked(tmp_path, query, expected, moment="10m"):
    tests = [
        {
            "expr": f"round(({query(service)}) * 10) / 10",
            "eval_time": moment,
            "exp_samples": [{"labels": f'{{namespace="riva", service="{service}"}}', "value": value}],
        }
        for service, value in expected.items()
    ]
    return judged(tmp_path, {"input_series": INPUT, "promql_expr_test": tests})


def test_streams_that_run_or_were_refused(tmp_path):
    ask(tmp_path, lambda service: rules.demand_query("riva", service), WANTED)


def test_a_scrape_that_comes_late_lowers_nothing(tmp_path):
    ask(tmp_path, lambda service: rules.demand_query("riva", service), {"missed-scrape": 20}, "10m5s")


def test_every_service_of_a_namespace_by_itself(tmp_path):
    query = rules.demand('namespace="riva"', "namespace,service", 0, 0, 0, 6.25)

    def one(service):
        return f'({query}) and on (service) label_replace(vector(1), "service", "{service}", "", "")'

    ask(tmp_path, one, {"two-pods": 15, "no-limit": 16})


@pytest.mark.parametrize(
    ("service", "horizon", "spare", "share", "expected"),
    [
        # A stream each 15 s is 2 in 30 s, which is less than the root of 40.
        ("rising", 30, 0, 0, 40),
        # 10 in 150 s, less the root: 40 + 10 - 6.3.
        ("rising", 150, 0, 0, 43.7),
        ("two-pods", 600, 0, 0, 15),
        # Refusals count once, and are no trend.
        ("refusing", 600, 0, 0, 36),
        ("two-pods", 0, 7, 0, 22),
        # A tenth of the streams beside it; of the refused ones as well.
        ("two-pods", 0, 7, 0.1, 23.5),
        ("refusing", 0, 0, 0.1, 39.6),
        ("idle", 0, 0, 0.1, 0),
        # No more than four times what there is, so an idle service keeps nothing.
        ("two-pods", 0, 80, 0, 75),
        ("idle", 30, 50, 0, 0),
        # A pod that has just come has no trend of its own, and spoils none.
        ("new-pod", 0, 5, 0, 17),
    ],
)
def test_what_is_added(tmp_path, service, horizon, spare, share, expected):
    query = partial(rules.demand_query, "riva", horizon_seconds=horizon, spare_streams=spare, spare_share=share)
    ask(tmp_path, query, {service: expected})


@pytest.mark.parametrize("moment", ["0s", "15s", "30s"])
def test_a_service_has_a_demand_from_its_first_scrape_on(tmp_path, moment):
    ask(tmp_path, lambda name: rules.demand_query("riva", name, 30, 5), {"two-pods": 20}, moment)


def test_the_pictures_queries(tmp_path):
    def samples(expr, expected):
        return {
            "expr": expr,
            "eval_time": "10m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in expected],
        }

    tests = [
        samples(rules.streams_query("riva", "hot-pod"), [('{pod="hot-pod-a"}', 20), ('{pod="hot-pod-b"}', 0)]),
        samples(rules.streams_query("riva", "hot-pod", by=()), [("{}", 20)]),
        samples(rules.refused_query("riva", "refusing"), [("{}", 16)]),
    ]
    holds(tmp_path, {"input_series": INPUT, "promql_expr_test": tests})


@pytest.mark.parametrize(
    ("broken", "into", "service"),
    [
        ("last_over_time(", "max_over_time(", "restarted"),
        ("[37s]", "[15s]", "missed-scrape"),
        ('proxy="speech",', "", "two-pods"),
        ("increase(", "delta(", "refusing-reset"),
        (" / 6.25", "", "no-limit"),
        (" unless on (namespace, pod)", " unless on (namespace, service)", "half-limited"),
        (" or rate(nv_inference_request_success", " and rate(nv_inference_request_success", "no-limit"),
        ("clamp_max(4 * ", "clamp_max(4 + ", "idle"),
        (", 0)", ", -99)", "rising"),
        (" - sqrt(", " + sqrt(", "rising"),
    ],
)
def test_a_broken_demand_is_seen(tmp_path, broken, into, service):
    def query(name, spare=7):
        return rules.demand_query("riva", name, 30, spare)

    expected = {service: WANTED[service] + min(7, 4 * WANTED[service])}
    moment = "10m5s" if service == "missed-scrape" else "10m"
    assert asked(tmp_path, query, expected, moment).returncode == 0
    assert broken in query(service)
    assert asked(tmp_path, lambda name: query(name).replace(broken, into), expected, moment).returncode

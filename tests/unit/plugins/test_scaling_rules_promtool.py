# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules on Prometheus' own engine."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules as rules

from tests.unit.prometheus import judged


def series(pod, model, queue, done):
    labels = f'{{namespace="riva",pod="{pod}",model="{model}"}}'
    return [
        {"series": f"nv_inference_queue_duration_us{labels}", "values": queue},
        {"series": f"nv_inference_request_success{labels}", "values": done},
    ]


# Every 15 s 300 requests, each of which waited 3 ms.
INPUT = [
    *series("steady", "asr", "0+900000x40", "0+300x40"),
    *series("beside-an-idle-model", "asr", "0+900000x40", "0+300x40"),
    *series("beside-an-idle-model", "idle", "0x40", "0x40"),
    *series("ensemble", "asr", "0+900000x40", "0+300x40"),
    *series("ensemble", "asr|all", "0x40", "0+300x40"),
    *series("restarted", "asr", "0+900000x20 0+900000x19", "0+300x20 0+300x19"),
    *series("no-traffic", "asr", "0x40", "0x40"),
    # Its first scrape was 45 s before the first moment that is asked for.
    *series("new-pod", "asr", "_x18 0+900000x22", "_x18 0+300x22"),
    # Half its requests wait 3 ms, half of them 9 ms: the mean is 6, whatever the other pods do.
    *series("hot-pod", "asr", "0+900000x40", "0+300x40"),
    *series("hot-pod", "large", "0+2700000x40", "0+300x40"),
    *series("two-missed", "asr", "0+900000x36 _ _ 35100000 36000000", "0+300x36 _ _ 11700 12000"),
]
PODS = [
    "steady", "beside-an-idle-model", "ensemble", "restarted", "no-traffic", "new-pod", "hot-pod", "two-missed"
]  # fmt: skip
TRUE = dict.fromkeys(PODS, 3) | {"no-traffic": 0, "hot-pod": 6}


def adapter_query(**options):
    matchers = f'namespace="riva",pod=~"{"|".join(PODS)}"'
    query = rules.adapter_rule(**options)["metricsQuery"]
    return query.replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (adapter_query(exclude_models=["asr|all"]), TRUE),
        (adapter_query(models=["asr", "large", "idle"]), TRUE),
        (adapter_query(models=["asr"]), TRUE | {"hot-pod": 3}),
        (adapter_query(), TRUE | {"ensemble": 1.5}),
        (rules.queue_time_query("riva", exclude_models=["asr|all"], window=90), TRUE),
    ],
    ids=["without the ensemble", "named models", "one model", "all models", "plain"],
)
@pytest.mark.parametrize("moment", ["5m15s", "9m15s"])
def test_mean_time_in_the_queue(tmp_path, query, expected, moment):
    done = asked(tmp_path, query, expected, moment)
    assert done.returncode == 0, done.stdout + done.stderr


def asked(tmp_path, query, expected, moment):
    samples = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in expected.items()]
    test = {"expr": f"round(({query}) * 1e6) / 1e6", "eval_time": moment, "exp_samples": samples}
    return judged(tmp_path, {"input_series": INPUT, "promql_expr_test": [test]})


@pytest.mark.parametrize(
    ("broken", "into"),
    [
        # Each of these is a mistake that somebody has made; none may pass unseen.
        ("rate(", "delta("),
        ("[60s]", "[30s]"),
        (" > 0) or ", ") or "),
        (" or sum by (pod) (rate(nv_inference_queue_duration_us{MATCHERS}[60s])) * 0", ""),
        (" / 1000", ""),
        ("sum by (pod) (rate(nv_inference_request_success", "avg by (pod) (rate(nv_inference_request_success"),
        (',model!~"asr\\\\|all"', ""),
    ],
    ids=["no counters", "too short a window", "divided by nothing", "no zero", "microseconds", "averages", "ensemble"],
)
def test_a_broken_rule_is_seen(tmp_path, broken, into):
    query = adapter_query(exclude_models=["asr|all"])
    matchers = query.partition("{")[2].partition("}")[0]
    broken = broken.replace("MATCHERS", matchers)
    assert broken in query
    assert any(asked(tmp_path, query.replace(broken, into), TRUE, moment).returncode for moment in ("5m15s", "9m15s"))

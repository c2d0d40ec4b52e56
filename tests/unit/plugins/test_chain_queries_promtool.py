# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the chain asks of Prometheus, on Prometheus' own engine: a target dropped a minute ago is no target."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import scraping

from tests.unit.prometheus import holds

SERIES = "nv_inference_queue_duration_us"
PODS = ["here", "dropped"]
# Read every 15 s until 10m, or dropped at 8m: Prometheus still shows its last sample for five minutes.
INPUT = [
    {"series": f'{SERIES}{{namespace="riva",pod="here"}}', "values": "0x40"},
    {"series": f'{SERIES}{{namespace="riva",pod="dropped"}}', "values": "0x32"},
    {"series": f'{SERIES}{{namespace="riva"}}', "values": "0x32"},
    {"series": 'up{namespace="riva",pod="here",instance="a:8002"}', "values": "1x40"},
    {"series": 'up{namespace="riva",pod="dropped",instance="b:8002"}', "values": "1x32"},
]
HERE = '{namespace="riva",pod="here"}'
UP = '{__name__="up",namespace="riva",pod="here",instance="a:8002"}'


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (scraping.up_query("riva", PODS, 60), [(UP, 1)]),
        (scraping.count_query(f'{SERIES}{{namespace!="",pod!=""}}', 60), [("{}", 1)]),
        (scraping.labels_query(SERIES, 60), [(HERE, 1)]),
        (scraping.age_query(SERIES, "riva", PODS), [('{pod="here"}', 0), ('{pod="dropped"}', 120)]),
    ],
    ids=["up", "count", "labels", "age"],
)
def test_only_what_is_fresh_counts(tmp_path, query, expected):
    samples = [{"labels": labels, "value": value} for labels, value in expected]
    test = {"expr": query, "eval_time": "10m", "exp_samples": samples}
    holds(tmp_path, {"input_series": INPUT, "promql_expr_test": [test]})

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A user's own trace under each preset."""

import numpy as np
import pytest
from ansible_collections.speechops.riva.plugins.module_utils import scaling_plan
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import TraceError, read_trace

from tests.benchmarks.scaling import own, traces
from tests.benchmarks.scaling.replay import Cluster
from tests.benchmarks.scaling.service import calibrated_streams

FIGURES = {
    "stream_limit": 20, "model_load_seconds": 30, "min_replicas": 1, "max_replicas": 4,
    "longest_stream_seconds": 60, "latency_objective_ms": 300,
}  # fmt: skip
LENGTHS = traces.Lengths(20, 0.5, 60)
# A call each second for four minutes, then three a second, of twenty seconds each.
CALLS = read_trace(["start,length", *(f"{at},20" for at in [*range(240), *np.arange(240, 360, 1 / 3)])])
LEVELS = read_trace(["seconds,streams", "0,5", "120,5", "180,50", "300,50", "400,5"])


@pytest.mark.parametrize("limit", [8, 20, 60])
def test_the_pod_carries_what_was_calibrated(limit):
    assert calibrated_streams(own.service_of(limit, 300, 160)) == pytest.approx(limit, rel=0.06, abs=1)


def test_a_rule_is_what_the_chart_gets():
    rule = own.rule_of("balanced", FIGURES)
    plan = scaling_plan.plan({"name": "own", "scaling_preset": "balanced", **FIGURES}, {}, {})
    assert (rule.limit, rule.metrics[0].streams_per_pod) == (20, plan.planned_streams)
    assert rule.metrics[0].spare_streams == plan.spare_streams


def test_calls_are_taken_as_they_are():
    ((counts, lengths),) = own.draws(CALLS, LENGTHS, 0.5, 1)
    assert counts.sum() == len(lengths) == 600
    assert set(lengths) == {20}


@pytest.mark.parametrize("trace", [CALLS, LEVELS], ids=["calls", "levels"])
def test_more_spare_costs_more_and_refuses_less(trace):
    found = own.points(trace, Cluster(maximum=4, grace_seconds=60), FIGURES, LENGTHS, 2)
    economy, balanced, latency = found
    assert economy.pod_seconds < balanced.pod_seconds <= latency.pod_seconds
    assert economy.bad >= balanced.bad >= latency.bad
    assert economy.bad > 0


def test_the_cheapest_that_is_good_enough_is_named():
    found = own.points(CALLS, Cluster(maximum=4, grace_seconds=60), FIGURES, LENGTHS, 1)
    assert "economy" in own.advice(found, 1.0)
    assert "max_replicas" in own.advice(found, -1.0)


def test_a_day_is_not_too_long():
    lines = ["seconds,streams", "0,5", "86400,5"]
    with pytest.raises(TraceError):
        read_trace(lines)
    assert read_trace(lines, own.WEEK)["rows"][-1] == [86400.0, 5]

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The replay's model of a pod against the stand-in's own batcher, chunk by chunk."""

import random

import numpy as np
import pytest

from lab.standins.riva.batcher import NS_PER_MS
from tests.benchmarks.scaling.service import (
    JITTER_MS,
    ServiceModel,
    calibrated_streams,
    fluid_step,
    planned_streams,
    run_batcher,
    serve,
)

SERVICES = [ServiceModel(), ServiceModel(base_ms=20, per_item_ms=5)]


def chunks_of(service, levels, seconds_each, seed):
    """Arrivals of chunks where the number of streams steps through the levels; each stream keeps its phase."""
    draw = random.Random(seed)
    phases = [draw.random() * service.chunk_ms for _ in range(max(levels))]
    arrivals = []
    for number, streams in enumerate(levels):
        first = int(number * seconds_each * 1000 / service.chunk_ms)
        last = int((number + 1) * seconds_each * 1000 / service.chunk_ms)
        for turn in range(first, last):
            for phase in phases[:streams]:
                at = turn * service.chunk_ms + phase + draw.expovariate(1 / JITTER_MS)
                arrivals.append(int(at * NS_PER_MS))
    return sorted(arrivals)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("utilisation", [0.2, 0.4, 0.6, 0.8, 0.9, 0.97])
def test_waiting_time_over_utilisation(service, utilisation):
    # A run of its own, with other phases than the curve was measured with.
    streams = int(utilisation * service.saturation_streams)
    requests = run_batcher(service, streams, 60, seed=99)
    waited = np.mean([request.started_ns - request.arrived_ns for request in requests]) / NS_PER_MS
    assert service.curve.wait_ms[streams] == pytest.approx(waited, rel=0.15, abs=0.5)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("overload", [1.1, 1.5, 2.0])
def test_overload_and_recovery(service, overload):
    """Half a minute above saturation, then less: the fluid's waiting time follows the batcher's, second by second."""
    many, few = round(overload * service.saturation_streams), round(0.4 * service.saturation_streams)
    levels = [few, many, few, few]
    requests = serve(service, chunks_of(service, levels, 30, seed=3))
    starts = np.array([request.arrived_ns for request in requests]) / 1e9
    waits = np.array([request.started_ns - request.arrived_ns for request in requests]) / NS_PER_MS
    late = np.array([request.finished_ns - request.arrived_ns for request in requests]) / NS_PER_MS
    backlog, expected, late_chunks = np.zeros(1), [], 0.0
    for step in range(2 * 30 * len(levels)):
        streams = np.array([levels[step // 60]])
        backlog, _completed, wait_ms, late_now = fluid_step(service, streams, backlog, 0.5)
        expected.append(wait_ms[0])
        late_chunks += late_now[0]
    for second in range(120):
        measured = waits[(starts >= second) & (starts < second + 1)].mean()
        assert np.mean(expected[2 * second : 2 * second + 2]) == pytest.approx(measured, rel=0.1, abs=150), second
    assert late_chunks == pytest.approx((late > service.objective_ms).sum(), rel=0.05)


def test_backlog_is_seconds_of_work():
    service = ServiceModel()
    double = np.array([2 * round(service.saturation_streams)])
    backlog, completed, _, late = fluid_step(service, double, np.zeros(1), 10.0)
    assert backlog[0] == pytest.approx(10, rel=0.05)
    assert completed[0] == pytest.approx(10 * service.chunks_per_second)
    assert late[0] > 0


@pytest.mark.parametrize(("service", "streams"), [(SERVICES[0], (30, 28)), (SERVICES[1], (21, 20))])
def test_calibrated_and_planned_streams(service, streams):
    assert (calibrated_streams(service), planned_streams(service)) == streams


def test_objective_limits_the_calibrated_streams():
    assert calibrated_streams(ServiceModel(objective_ms=60)) < 28

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The replay's PromQL functions against hand-made series."""

import math

import numpy as np
import pytest

from tests.benchmarks.scaling import prometheus


def counter(rate, at, start=0.0):
    return [(float(t), start + rate * t) for t in at]


@pytest.mark.parametrize(
    ("case", "samples", "now", "seconds", "expected"),
    [
        ("a steady counter", counter(5, range(0, 121, 15), 100), 120, 60, 5),
        ("between two scrapes", counter(5, range(0, 121, 15), 100), 127, 60, 5),
        ("two missed scrapes of four", counter(5, [75, 120], 100), 120, 60, 5),
        ("one sample is none", counter(5, [120]), 120, 60, math.nan),
        ("no sample", counter(5, [10]), 120, 60, math.nan),
        ("a reset", [(75.0, 1000.0), (90.0, 1075.0), (105.0, 75.0), (120.0, 150.0)], 120, 60, 5),
        ("idle", counter(0, range(0, 121, 15), 70), 120, 60, 0),
    ],
)
def test_rate(case, samples, now, seconds, expected):
    assert prometheus.rate(samples, now, seconds)[0] == pytest.approx(expected, nan_ok=True), case


def test_rate_does_not_reach_before_zero():
    # The counter was 0 at 100 s; extrapolating to the window's start would invent 40 s of traffic.
    samples = [(105.0, 25.0), (120.0, 100.0)]
    assert prometheus.rate(samples, 120, 60)[0] == pytest.approx(100 / 60)


def test_queue_time_true_value_and_gaps():
    at = range(0, 121, 15)
    queue, success = counter(300_000, at, 9e6), counter(100, at, 3000)
    assert prometheus.queue_time_ms(queue, success, 125, 60)[0] == pytest.approx(3)
    assert prometheus.queue_time_ms(queue[-3::2], success[-3::2], 125, 60)[0] == pytest.approx(3)
    idle = [(float(t), 0.0) for t in at]
    assert prometheus.queue_time_ms(idle, idle, 125, 60)[0] == 0


def test_article_rule_vanishes_with_missed_scrapes_and_is_wrong_after_a_reset():
    at = range(0, 121, 15)
    queue, success = counter(300_000, at, 9e8), counter(100, at, 3000)
    assert prometheus.article_queue_time_ms(queue, success, 125)[0] == pytest.approx(3, rel=0.01)
    assert math.isnan(prometheus.article_queue_time_ms(queue[:-2], success[:-2], 125)[0])
    queue[-1], success[-1] = (120.0, 300_000.0), (120.0, 100.0)
    assert prometheus.article_queue_time_ms(queue, success, 125)[0] > 50


def test_pods_beside_each_other():
    samples = [(float(t), np.array([5.0 * t, np.nan if t < 90 else 2.0 * t, np.nan])) for t in range(60, 121, 15)]
    found = prometheus.rate(samples, 120, 60)
    assert found[0] == pytest.approx(5)
    # A pod that came half-way: its 30 seconds and half a scrape, spread over the whole window.
    assert found[1] == pytest.approx(2 * 37.5 / 60)
    assert math.isnan(found[2])


@pytest.mark.parametrize(
    ("samples", "expected"), [([(0, 3.0)], 0), ([(60, 3.0), (120, 9.0)], 0.1), ([(70, 4.0), (90, 4.0), (110, 4.0)], 0)]
)
def test_deriv(samples, expected):
    assert prometheus.deriv(samples, 120, 100) == pytest.approx(expected)


def test_series_forgets():
    series = prometheus.Series(60)
    for at in range(0, 200, 15):
        series.append(at, 1.0)
    assert [at for at, _ in series.samples] == [150, 165, 180, 195]

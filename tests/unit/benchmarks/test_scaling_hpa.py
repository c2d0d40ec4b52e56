# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The replay's HPA against the documented algorithm, rule by rule."""

import pytest

from tests.benchmarks.scaling.hpa import (
    DEFAULT_SCALE_DOWN,
    DEFAULT_SCALE_UP,
    Autoscaler,
    Policy,
    ScalingRules,
    combine,
    replicas_for_external_metric,
    replicas_for_pods_metric,
    scale_down_limit,
    scale_up_limit,
    stabilize,
    within_tolerance,
)

FOUR_OR_DOUBLE = DEFAULT_SCALE_UP
ONE_PER_300 = ScalingRules((Policy("Pods", 1, 300),))


@pytest.mark.parametrize(
    ("ratio", "within"), [(1.0, True), (1.1, True), (1.11, False), (0.9, True), (0.89, False), (2.0, False)]
)
def test_tolerance_is_ten_percent(ratio, within):
    assert within_tolerance(ratio) is within


@pytest.mark.parametrize(
    ("case", "current", "values", "pods", "pending", "expected"),
    [
        ("twice the target doubles", 3, {"a": 20, "b": 20, "c": 20}, "abc", "", 6),
        ("rounded up", 3, {"a": 12, "b": 12, "c": 12}, "abc", "", 4),
        ("half the target halves", 4, dict.fromkeys("abcd", 5), "abcd", "", 2),
        ("within the tolerance nothing happens", 3, {"a": 10, "b": 11, "c": 11}, "abc", "", 3),
        ("nothing at all scales to nothing", 2, {"a": 0, "b": 0}, "ab", "", 0),
        ("a missing pod counts 0 when scaling up", 3, {"a": 20, "b": 20}, "abc", "", 4),
        ("and may cancel the step", 2, {"a": 15}, "ab", "", 2),
        ("a missing pod counts 100 % when scaling down", 3, {"a": 5, "b": 5}, "abc", "", 2),
        ("a pod whose containers wait counts 0 when scaling up", 3, {"a": 40, "b": 20}, "abc", "c", 6),
        ("and is left out when scaling down", 3, {"a": 2, "b": 2}, "abc", "c", 1),
        ("a step that changes direction is none", 4, {"a": 12, "b": 12}, "abcd", "", 4),
        ("values of deleted pods do not count", 1, {"a": 5, "gone": 500}, "a", "", 1),
        ("no value at all", 2, {}, "ab", "", None),
        ("one hot pod pulls the mean", 2, {"a": 60, "b": 0}, "ab", "", 6),
    ],
)
def test_pods_metric(case, current, values, pods, pending, expected):
    assert replicas_for_pods_metric(current, 10, values, list(pods), set(pending)) == expected, case


def test_unready_pods_count_for_all_but_cpu():
    # There is no parameter for readiness: a running pod with a value counts.
    assert replicas_for_pods_metric(2, 10, {"ready": 10, "full": 30}, ["ready", "full"]) == 4


@pytest.mark.parametrize(
    ("case", "current", "total", "expected"),
    [
        ("shared among the replicas", 2, 90, 3),
        ("rounded up", 2, 91, 4),
        ("within the tolerance", 3, 98, 3),
        ("just above it", 3, 99.5, 4),
        ("down", 5, 31, 2),
        ("to nothing", 2, 0, 0),
        ("from nothing", 0, 10, 1),
    ],
)
def test_external_metric_with_average_value(case, current, total, expected):
    assert replicas_for_external_metric(current, 30, total) == expected, case


@pytest.mark.parametrize(
    ("case", "proposals", "expected"),
    [
        ("the larger of two", [3, 5], 5),
        ("a failed one does not stop growth", [None, 6], 6),
        ("but stops shrinking", [None, 2], None),
        ("all failed", [None, None], None),
    ],
)
def test_several_metrics(case, proposals, expected):
    assert combine(4, proposals) == expected, case


@pytest.mark.parametrize(
    ("case", "current", "rules", "ups", "downs", "limit"),
    [
        ("default: four pods or double, the larger", 3, FOUR_OR_DOUBLE, [], [], 7),
        ("default: double", 10, FOUR_OR_DOUBLE, [], [], 20),
        ("what was added in the period counts", 7, FOUR_OR_DOUBLE, [(95, 4)], [], 7),
        ("what was added before does not", 7, FOUR_OR_DOUBLE, [(80, 4)], [], 14),
        ("what was removed in the period counts", 5, ScalingRules((Policy("Pods", 1, 60),)), [], [(90, 2)], 8),
        ("Min picks the smaller", 10, ScalingRules(FOUR_OR_DOUBLE.policies, 0, "Min"), [], [], 14),
        ("Disabled", 3, ScalingRules(FOUR_OR_DOUBLE.policies, 0, "Disabled"), [], [], 3),
        ("per cent are rounded up", 1, ScalingRules((Policy("Percent", 10, 60),)), [], [], 2),
        ("never below what is there", 9, ScalingRules((Policy("Pods", 1, 60),)), [(90, 4)], [], 9),
    ],
)
def test_scale_up_policies(case, current, rules, ups, downs, limit):
    assert scale_up_limit(100, current, rules, ups, downs) == limit, case


@pytest.mark.parametrize(
    ("case", "current", "rules", "ups", "downs", "limit"),
    [
        ("default: all of them", 7, DEFAULT_SCALE_DOWN, [], [], 0),
        ("one at a time", 7, ONE_PER_300, [], [], 6),
        ("not two in a period", 6, ONE_PER_300, [], [(400, 1)], 6),
        ("again after the period", 6, ONE_PER_300, [], [(200, 1)], 5),
        ("per cent are rounded down", 5, ScalingRules((Policy("Percent", 10, 60),)), [], [], 4),
        ("Min picks the smaller change", 9, ScalingRules((Policy("Pods", 1, 60), Policy("Percent", 50, 60)), 0, "Min"),
         [], [], 8),
        ("Max the larger", 9, ScalingRules((Policy("Pods", 1, 60), Policy("Percent", 50, 60))), [], [], 4),
        ("Disabled", 9, ScalingRules((Policy("Pods", 1, 60),), 0, "Disabled"), [], [], 9),
    ],
)  # fmt: skip
def test_scale_down_policies(case, current, rules, ups, downs, limit):
    assert scale_down_limit(500, current, rules, ups, downs) == limit, case


@pytest.mark.parametrize(
    ("case", "desired", "recent", "up", "down", "expected"),
    [
        ("no windows", 7, [(99, 2)], 0, 0, 7),
        ("down: the highest of the window", 2, [(60, 4), (90, 3)], 0, 60, 4),
        ("older ones are forgotten", 2, [(40, 5), (90, 3)], 0, 60, 3),
        ("down never lifts above what is there", 2, [(90, 9)], 0, 60, 5),
        ("up: the lowest of the window", 9, [(70, 6), (90, 8)], 60, 0, 6),
        ("up never drops below what is there", 9, [(90, 3)], 60, 0, 5),
    ],
)
def test_stabilisation(case, desired, recent, up, down, expected):
    assert stabilize(100, 5, desired, recent, up, down) == expected, case


def test_bounds_and_memory():
    hpa = Autoscaler(1, 6, ScalingRules((Policy("Pods", 2, 60),)), ScalingRules((Policy("Pods", 1, 30),), 60))
    replicas, seen = 1, []
    for step, wanted in enumerate([9, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]):
        replicas = hpa.sync(15.0 * step, replicas, [wanted])
        seen.append(replicas)
    # Two pods a minute up to the maximum; down after a minute of calm, a pod each half minute.
    assert seen == [3, 3, 3, 3, 5, 5, 5, 5, 6, 6, 6, 6, 5, 5, 4, 4, 3, 3]


def test_a_failed_metric_changes_nothing():
    hpa = Autoscaler(1, 6)
    assert hpa.sync(0, 3, [None]) == 3
    assert hpa.sync(15, 3, [None, 1]) == 3
    assert hpa.sync(30, 3, [None, 4]) == 4

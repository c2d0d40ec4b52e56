# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The HorizontalPodAutoscaler's algorithm (autoscaling/v2) as pure functions.

Written after https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ and the controller of
Kubernetes 1.36 (pkg/controller/podautoscaler). The names of the rules are the documentation's. Times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

TOLERANCE = 0.1
SYNC_SECONDS = 15
# Metrics travel as whole thousandths; so does their mean.
MILLI = 1000


@dataclass(frozen=True)
class Policy:
    """One entry of `behavior.scaleUp.policies` or `behavior.scaleDown.policies`."""

    type: str
    value: int
    period_seconds: int


@dataclass(frozen=True)
class ScalingRules:
    """`behavior.scaleUp` or `behavior.scaleDown`."""

    policies: tuple[Policy, ...]
    stabilization_seconds: int = 0
    select_policy: str = "Max"


# What the API fills in where the manifest says nothing.
DEFAULT_SCALE_UP = ScalingRules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)))
DEFAULT_SCALE_DOWN = ScalingRules((Policy("Percent", 100, 15),), stabilization_seconds=300)


def within_tolerance(ratio: float, tolerance: float = TOLERANCE) -> bool:
    return 1 - tolerance <= ratio <= 1 + tolerance


def usage_ratio(values: Iterable[float], target: float) -> float:
    """The pods' mean over the target, cut to whole thousandths as the controller does."""
    milli = [int(value * MILLI) for value in values]
    return (sum(milli) // len(milli)) / (target * MILLI)


def replicas_for_pods_metric(
    current: int,
    target: float,
    values: Mapping[object, float],
    pods: Iterable[object],
    pending: Iterable[object] = (),
    tolerance: float = TOLERANCE,
) -> int | None:
    """A metric of type Pods: the mean over the pods is held at the target. None: no pod has a value.

    `pods` are all pods that are not being deleted; `pending` those of them whose containers do not run yet.
    A running pod counts with its value whether it is ready or not: only CPU leaves unready pods out. A running
    pod without a value is missing: it counts with nothing when scaling up, and with the target when scaling down.
    """
    pending = set(pending)
    pods = list(pods)
    known = {pod: values[pod] for pod in pods if pod in values and pod not in pending}
    missing = [pod for pod in pods if pod not in values and pod not in pending]
    waiting = [pod for pod in pods if pod in pending]
    if not known:
        return None
    ratio = usage_ratio(known.values(), target)
    scale_up_with_unready = bool(waiting) and ratio > 1
    if not scale_up_with_unready and not missing:
        return current if within_tolerance(ratio, tolerance) else math.ceil(ratio * len(known))
    if ratio < 1:
        known |= dict.fromkeys(missing, target)
    elif ratio > 1:
        known |= dict.fromkeys(missing, 0.0)
    if scale_up_with_unready:
        known |= dict.fromkeys(waiting, 0.0)
    again = usage_ratio(known.values(), target)
    if within_tolerance(again, tolerance) or (ratio < 1 < again) or (again < 1 < ratio):
        return current
    proposed = math.ceil(again * len(known))
    if (again < 1 and proposed > current) or (again > 1 and proposed < current):
        return current
    return proposed


def replicas_for_external_metric(current: int, target: float, total: float, tolerance: float = TOLERANCE) -> int:
    """A metric of type External with an AverageValue: the total is shared among the replicas."""
    total = math.ceil(total * MILLI) / MILLI
    if current and within_tolerance(total / (target * current), tolerance):
        return current
    return math.ceil(total / target)


def combine(current: int, proposals: Sequence[int | None]) -> int | None:
    """Several metrics: the largest proposal. With a failed one (None) the HPA may grow but not shrink."""
    valid = [proposal for proposal in proposals if proposal is not None]
    if not valid or (len(valid) < len(proposals) and max(valid) < current):
        return None
    return max(valid)


def changed_in_period(now: float, period: float, events: Iterable[tuple[float, int]]) -> int:
    return sum(change for at, change in events if at > now - period)


def replicas_at_start(now: float, period: float, current: int, ups: Iterable, downs: Iterable) -> int:
    """Replicas when the period before now began."""
    return current - changed_in_period(now, period, ups) + changed_in_period(now, period, downs)


def scale_up_limit(now: float, current: int, rules: ScalingRules, ups: Sequence, downs: Sequence) -> int:
    """The most replicas that the policies of scaleUp allow now."""
    if rules.select_policy == "Disabled":
        return current
    proposals = []
    for policy in rules.policies:
        start = replicas_at_start(now, policy.period_seconds, current, ups, downs)
        if policy.type == "Pods":
            proposals.append(start + policy.value)
        else:
            # Exact in whole numbers: 10 pods and 10 percent are 11, not 12.
            proposals.append(-(-start * (100 + policy.value) // 100))
    return max(current, min(proposals) if rules.select_policy == "Min" else max(proposals))


def scale_down_limit(now: float, current: int, rules: ScalingRules, ups: Sequence, downs: Sequence) -> int:
    """The fewest replicas that the policies of scaleDown allow now."""
    if rules.select_policy == "Disabled":
        return current
    proposals = []
    for policy in rules.policies:
        start = replicas_at_start(now, policy.period_seconds, current, ups, downs)
        if policy.type == "Pods":
            proposals.append(start - policy.value)
        else:
            proposals.append(start * (100 - policy.value) // 100)
    return min(current, max(proposals) if rules.select_policy == "Min" else min(proposals))


def stabilize(
    now: float,
    current: int,
    desired: int,
    recommendations: Iterable[tuple[float, int]],
    up_seconds: float,
    down_seconds: float,
) -> int:
    """Up only as far as the lowest recent recommendation, down only as far as the highest."""
    up = down = desired
    for at, recommended in recommendations:
        if at > now - up_seconds:
            up = min(up, recommended)
        if at > now - down_seconds:
            down = max(down, recommended)
    return min(max(current, up), down)


@dataclass
class Autoscaler:
    """One HPA with the controller's memory of it."""

    minimum: int
    maximum: int
    scale_up: ScalingRules = DEFAULT_SCALE_UP
    scale_down: ScalingRules = DEFAULT_SCALE_DOWN
    recommendations: list[tuple[float, int]] = field(default_factory=list)
    ups: list[tuple[float, int]] = field(default_factory=list)
    downs: list[tuple[float, int]] = field(default_factory=list)

    def sync(self, now: float, current: int, proposals: Sequence[int | None]) -> int:
        """One look of the controller: the number of replicas that it sets."""
        desired = self._bounded(now, current, proposals)
        if desired > current:
            self.ups.append((now, desired - current))
        elif desired < current:
            self.downs.append((now, current - desired))
        return desired

    def _bounded(self, now: float, current: int, proposals: Sequence[int | None]) -> int:
        if current > self.maximum:
            return self.maximum
        if current < self.minimum:
            return self.minimum
        if not self.recommendations:
            self.recommendations.append((now, current))
        wanted = combine(current, proposals)
        if wanted is None:
            return current
        up, down = self.scale_up, self.scale_down
        stable = stabilize(
            now, current, wanted, self.recommendations, up.stabilization_seconds, down.stabilization_seconds
        )
        keep = now - max(up.stabilization_seconds, down.stabilization_seconds)
        self.recommendations = [entry for entry in self.recommendations if entry[0] > keep] + [(now, wanted)]
        longest = now - max(policy.period_seconds for policy in (*up.policies, *down.policies))
        self.ups = [entry for entry in self.ups if entry[0] > longest]
        self.downs = [entry for entry in self.downs if entry[0] > longest]
        if stable > current:
            return min(stable, self.maximum, scale_up_limit(now, current, up, self.ups, self.downs))
        if stable < current:
            return max(stable, self.minimum, scale_down_limit(now, current, down, self.ups, self.downs))
        return stable

# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules that are compared: which metrics, targets, behaviour and limit the HPA and the pods get."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ansible_collections.speechops.riva.plugins.module_utils import scaling_plan
from ansible_collections.speechops.riva.plugins.module_utils.scaling_rules import SPARE_PER_STREAM, window_seconds

from .hpa import Policy, ScalingRules
from .service import ServiceModel, calibrated_streams, planned_streams


def scaling_rules(direction: dict) -> ScalingRules:
    """`scaleUp` or `scaleDown` of an HPA's behaviour, as the product writes it."""
    policies = (Policy(entry["type"], entry["value"], entry["periodSeconds"]) for entry in direction["policies"])
    return ScalingRules(tuple(policies), direction["stabilizationWindowSeconds"], direction["selectPolicy"])


# What an HPA without a behaviour gets; NVIDIA's article has none.
API_DEFAULT = {name: scaling_rules(entry) for name, entry in scaling_plan.API_DEFAULT_BEHAVIOR.items()}


@dataclass(frozen=True)
class QueueTime:
    """Pods metric: the mean time in the queue, correct or as the article's rule has it.

    The article's takes the mean over all models of a pod, those that nobody asks among them: `idle_models`.
    """

    target_ms: float
    article: bool = False
    window: int = window_seconds()
    idle_models: int = 0


@dataclass(frozen=True)
class StreamsPerPod:
    """Pods metric: the streams of each pod."""

    target: float


@dataclass(frozen=True)
class Demand:
    """External metric: streams in flight and lately refused, ahead by a horizon, plus a spare; a share for each pod.

    `horizon` 0 looks at now only. `spare_streams`, but no more than `spare_per_stream` times the sum, and `spare_share`
    of the sum are added to it. The product writes the same in PromQL: `scaling_rules.demand`.
    """

    streams_per_pod: float
    horizon: float = 0
    trend_window: int = 60
    spare_streams: float = 0
    spare_per_stream: float = SPARE_PER_STREAM
    spare_share: float = 0
    # Rises below so many square roots of the streams are taken for chance.
    rise_ignored: float = 0


@dataclass(frozen=True)
class Rule:
    family: str
    dial: float
    metrics: tuple
    scale_up: ScalingRules = API_DEFAULT["scaleUp"]
    scale_down: ScalingRules = API_DEFAULT["scaleDown"]
    limit: int | None = None
    # Whether a full pod turns unready, as the product has it on few pods.
    limit_in_readiness: bool = True
    # Whether a full pod hands a new stream over, once, to another one that is ready, before it is refused.
    hands_over: bool = False
    # "p2c" as Traefik does it: it forgets its counts when a pod comes, goes, or changes its readiness. "p2c, counts
    # kept" does not. "first" fills the oldest pod first (HAProxy's name for it), and needs a limit.
    balance: str = "p2c"

    @property
    def name(self) -> str:
        return f"{self.family} {self.dial:g}"


ARTICLE_TARGETS_MS = (0.5, 1, 2, 5, 10, 20, 30, 50, 100)
PEER_STREAMS = (8, 9, 10, 12, 14, 16, 18, 20, 24)
SPARES = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3, 4)
DAY_SPARES = (0, 0.5, 1, 1.75, 2.5, 3, 4, 6)


def article(target_ms: float) -> Rule:
    """NVIDIA's article as printed: its metric, its HPA without a behaviour, no limit."""
    return Rule("article", target_ms, (QueueTime(target_ms, article=True, window=30),))


def peer(streams: float, limit: int | None = None) -> Rule:
    """What other self-hosted speech charts do: streams a pod, up at once, down after 300 s."""
    family = "peers, with a limit" if limit else "peers"
    return Rule(family, streams, (StreamsPerPod(streams),), limit=limit)


def demand(service: ServiceModel, load_seconds: float, spare_pods: float) -> Rule:
    """Ours: forecast demand plus a spare in fractions of a pod; queue time as the guard; a limit a pod.

    The HPA plans with a little less than a pod can carry; the limit is all that it can carry.
    """
    planned = planned_streams(service)
    return Rule(
        "demand",
        spare_pods,
        (
            Demand(
                planned,
                scaling_plan.horizon_seconds(load_seconds),
                spare_streams=round(spare_pods * planned),
                spare_share=scaling_plan.spare_share(spare_pods),
                rise_ignored=1,
            ),
            QueueTime(scaling_plan.GUARD_SHARE_OF_OBJECTIVE * service.objective_ms),
        ),
        scale_down=scaling_rules(scaling_plan.behavior(load_seconds)["scaleDown"]),
        limit=calibrated_streams(service),
        hands_over=True,
    )


def without_handing_over(rule: Rule) -> Rule:
    """The same rule where a full pod refuses at once."""
    return replace(rule, family=f"{rule.family}, not handed over", hands_over=False)


def without_forecast(rule: Rule) -> Rule:
    """The same rule that looks at now only, to see what the forecast is worth."""
    metrics = tuple(replace(metric, horizon=0) if isinstance(metric, Demand) else metric for metric in rule.metrics)
    return replace(rule, family="demand, no forecast", metrics=metrics)


def without_limit(rule: Rule) -> Rule:
    return replace(rule, family="demand, no limit", limit=None)


def oldest_first(rule: Rule) -> Rule:
    """The same rule behind a balancer that fills the oldest pod first, so that young pods are nearly empty."""
    return replace(rule, family=f"{rule.family}, oldest first", balance="first")


def limit_beside_readiness(rule: Rule) -> Rule:
    """The same rule where a full pod stays ready and refuses, as the product has it on many pods."""
    return replace(rule, limit_in_readiness=False)


def counts_kept(rule: Rule) -> Rule:
    """The same rule behind a p2c balancer that does not forget."""
    return replace(rule, family=f"{rule.family}, counts kept", balance="p2c, counts kept")

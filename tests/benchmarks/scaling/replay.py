# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One rule, one trace, one seed: pods, streams, scrapes and the HPA over time.

Time goes in steps of half a second. A stream stays on its pod until it ends. What is modelled, and how, is told in
docs/scaling.md; what is not, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from ansible_collections.speechops.riva.plugins.module_utils.scaling_plan import POD_START_SECONDS
from ansible_collections.speechops.riva.plugins.module_utils.scaling_rules import SCRAPE_INTERVAL

from .hpa import SYNC_SECONDS, Autoscaler, replicas_for_external_metric, replicas_for_pods_metric
from .prometheus import Series, article_queue_time_ms, deriv, queue_time_ms, rate
from .rules import Demand, QueueTime, Rule, StreamsPerPod
from .service import ServiceModel, fluid_step

GONE, STARTING, LOADING, SERVING, DRAINING = range(5)
KEEP_SECONDS = 90


@dataclass(frozen=True)
class Cluster:
    """What is the same for all rules."""

    minimum: int = 1
    maximum: int = 6
    load_seconds: float = 30
    pod_start_seconds: float = POD_START_SECONDS
    grace_seconds: float = 900
    scrape_seconds: float = SCRAPE_INTERVAL
    sync_seconds: float = SYNC_SECONDS
    # From a pod's start until Prometheus knows of it, and from ready until the balancer sends streams.
    discovery_seconds: float = 5
    route_seconds: float = 1
    # How often readiness follows the limit.
    probe_seconds: float = 2
    step: float = 0.5


@dataclass
class Outcome:
    """What is counted after the warm-up."""

    chunks: float = 0
    late: float = 0
    refused: float = 0
    cut: float = 0
    streams: int = 0
    streams_refused: int = 0
    streams_cut: int = 0
    pod_seconds: float = 0
    turns: int = 0
    first_up: float | None = None
    history: list[dict] = field(default_factory=list)

    @property
    def bad(self) -> float:
        """Share of all offered chunks that came late, were refused with their stream, or cut with it."""
        return (self.late + self.refused + self.cut) / max(1e-9, self.chunks + self.refused + self.cut)


def before_on_same(chosen: np.ndarray) -> np.ndarray:
    """For each entry, how many earlier entries are equal to it: [7, 3, 7, 7] gives [0, 0, 1, 2]."""
    order = np.argsort(chosen, kind="stable")
    ordered = chosen[order]
    before = np.empty(len(chosen), dtype=int)
    before[order] = np.arange(len(chosen)) - np.searchsorted(ordered, ordered, side="left")
    return before


class Replay:
    """`streams` are arrivals a step, and the lengths of all of them in order; `warm_up` seconds are not counted."""

    def __init__(
        self,
        cluster: Cluster,
        service: ServiceModel,
        rule: Rule,
        arrivals: np.ndarray,
        lengths: np.ndarray,
        warm_up: float,
        seed: int,
        phases: tuple[float, float] | None = None,
    ) -> None:
        self.cluster, self.service, self.rule = cluster, service, rule
        self.arrivals, self.lengths, self.warm_up = arrivals, lengths, warm_up
        self.random = np.random.default_rng(seed + 1_000_003)
        scrape, sync = phases or (self.random.random() * cluster.scrape_seconds, self.random.random() * SYNC_SECONDS)
        self.next_scrape, self.next_sync, self.next_probe = scrape, sync, 0.0
        self.hpa = Autoscaler(cluster.minimum, cluster.maximum, rule.scale_up, rule.scale_down)
        slots = 2 * cluster.maximum + 8
        self.state = np.full(slots, GONE)
        self.since = np.full(slots, -1e9)
        self.ready_at = np.full(slots, np.inf)
        self.active = np.zeros(slots, dtype=int)
        # Streams as the balancer knows them: it forgets its counts when its configuration changes.
        self.known = np.zeros(slots)
        self.open = np.zeros(slots, dtype=bool)
        self.ends = np.zeros((int(cluster.grace_seconds / cluster.step) + 2, slots), dtype=int)
        self.backlog = np.zeros(slots)
        self.queue_us, self.success = np.zeros(slots), np.zeros(slots)
        self.refused_total, self.recent_refused = 0, 0.0
        self.series = {
            name: Series(KEEP_SECONDS) for name in ("queue", "success", "streams", "refused", "running", "wanted")
        }
        self.drawn = 0
        self.outcome = Outcome()
        self.direction = 0
        # Of each metric of the rule, what the HPA saw last: for a share of the pods, as kubectl shows it.
        self.seen: dict[int, float | None] = {}
        for _ in range(cluster.minimum):
            self._create(-1e6)
        self.state[self.state == STARTING] = SERVING
        self.ready_at[self.state == SERVING] = -1e6
        # Whether any pod is starting, loading or draining.
        self.moving = False
        self._reroute()

    def run(self, record: bool = False) -> Outcome:
        step = self.cluster.step
        for number, arriving in enumerate(self.arrivals):
            now = number * step
            counted = now >= self.warm_up
            self._end_streams(number)
            if self.moving:
                self._move_pods(now)
            self._probe(now)
            if arriving:
                self._admit(number, int(arriving), counted)
            self._serve(step, counted)
            if now >= self.next_scrape:
                self.next_scrape += self.cluster.scrape_seconds
                self._scrape(now)
            if now >= self.next_sync:
                self.next_sync += self.cluster.sync_seconds
                self._sync(now, counted)
            if record:
                self._record(now)
        return self.outcome

    # Streams

    def _end_streams(self, number: int) -> None:
        row = self.ends[number % len(self.ends)]
        if row.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                self.known -= np.where(row > 0, self.known * row / self.active, 0)
            self.active -= row
            row[:] = 0

    def _admit(self, number: int, count: int, counted: bool) -> None:
        lengths = self.lengths[self.drawn : self.drawn + count]
        self.drawn += count
        steps = np.maximum(1, np.round(lengths / self.cluster.step)).astype(int)
        steps = np.minimum(steps, len(self.ends) - 1)
        targets = np.flatnonzero(self.open)
        # On many pods, some streams at a time; few enough that they hardly meet on one pod.
        portion = max(1, len(targets) // 32)
        for start in range(0, count, portion):
            part = steps[start : start + portion]
            if len(targets):
                self._place(number, part, lengths[start : start + portion], targets, counted)
            else:
                self._refuse(lengths[start : start + portion], counted)
        if counted:
            self.outcome.streams += count

    def _place(self, number: int, steps: np.ndarray, lengths: np.ndarray, targets: np.ndarray, counted: bool) -> None:
        """Power of two choices by what the balancer knows; a pod at its limit hands over or refuses."""
        if self.rule.balance == "first":
            self._place_first(number, steps, lengths, targets, counted)
            return
        two = targets[self.random.integers(0, len(targets), (2, len(steps)))]
        chosen = np.where(self.known[two[0]] <= self.known[two[1]], two[0], two[1])
        if self.rule.limit is not None:
            full = self.active[chosen] + before_on_same(chosen) >= self.rule.limit
            if full.any():
                turned_away, of_lengths = steps[full], lengths[full]
                self._serve_on(number, chosen[~full], steps[~full])
                if self.rule.hands_over:
                    self._hand_over(number, turned_away, of_lengths, targets, counted)
                else:
                    self._refuse(of_lengths, counted)
                return
        self._serve_on(number, chosen, steps)

    def _serve_on(self, number: int, pods: np.ndarray, steps: np.ndarray) -> None:
        np.add.at(self.active, pods, 1)
        np.add.at(self.known, pods, 1)
        np.add.at(self.ends, ((number + steps) % len(self.ends), pods), 1)

    def _hand_over(
        self, number: int, steps: np.ndarray, lengths: np.ndarray, targets: np.ndarray, counted: bool
    ) -> None:
        """Streams that met a full pod: each to one other pod that is ready, by chance, as a Service finds it."""
        for place, pod in enumerate(targets[self.random.integers(len(targets), size=len(steps))]):
            if self.active[pod] < self.rule.limit:
                self._serve_on(number, np.array([pod]), steps[place : place + 1])
            else:
                self._refuse(lengths[place : place + 1], counted)

    def _place_first(
        self, number: int, steps: np.ndarray, lengths: np.ndarray, targets: np.ndarray, counted: bool
    ) -> None:
        """Each stream to the oldest pod that has room."""
        order = targets[np.argsort(self.since[targets], kind="stable")]
        places = np.repeat(order, np.maximum(0, self.rule.limit - self.active[order]))[: len(steps)]
        self._refuse(lengths[len(places) :], counted)
        self._serve_on(number, places, steps[: len(places)])

    def _refuse(self, lengths: np.ndarray, counted: bool) -> None:
        self.refused_total += len(lengths)
        if counted:
            self.outcome.streams_refused += len(lengths)
            self.outcome.refused += float(lengths.sum()) * self.service.chunks_per_stream_second

    def _serve(self, step: float, counted: bool) -> None:
        self.backlog, completed, wait_ms, late = fluid_step(self.service, self.active, self.backlog, step)
        self.success += completed
        self.queue_us += completed * wait_ms * 1000
        if counted:
            self.outcome.chunks += float(self.active.sum()) * self.service.chunks_per_stream_second * step
            self.outcome.late += float(late.sum())
            self.outcome.pod_seconds += float((self.state != GONE).sum()) * step

    # Pods

    def _create(self, now: float) -> None:
        free = np.flatnonzero(self.state == GONE)
        slot = free[np.argmin(self.since[free])]
        self.state[slot], self.since[slot], self.ready_at[slot] = STARTING, now, np.inf
        self.backlog[slot] = self.queue_us[slot] = self.success[slot] = 0

    def _move_pods(self, now: float) -> None:
        cluster = self.cluster
        age = now - self.since
        self.state[(self.state == STARTING) & (age >= cluster.pod_start_seconds)] = LOADING
        loaded = (self.state == LOADING) & (age >= cluster.pod_start_seconds + cluster.load_seconds)
        if loaded.any():
            self.state[loaded] = SERVING
            self.ready_at[loaded] = now
        leaving = self.state == DRAINING
        if leaving.any():
            over = leaving & (now - self.since >= cluster.grace_seconds)
            if over.any() and self.active[over].any():
                self._cut(now, over)
            done = leaving & (self.active == 0)
            if done.any():
                self.state[done] = GONE
                self.since[done] = now
                self.known[done] = 0
                self.backlog[done] = 0

        self.moving = bool(((self.state != GONE) & (self.state != SERVING)).any())

    def _cut(self, now: float, over: np.ndarray) -> None:
        """The grace is over: streams that still run are lost, with the chunks that they had left."""
        rows = len(self.ends)
        number = round(now / self.cluster.step)
        left = (np.arange(rows) - number) % rows * self.cluster.step
        streams = self.ends[:, over].sum(axis=1)
        if now >= self.warm_up:
            self.outcome.streams_cut += int(streams.sum())
            self.outcome.cut += float(streams @ left) * self.service.chunks_per_stream_second
        self.ends[:, over] = 0
        self.active[over] = 0

    def _probe(self, now: float) -> None:
        """Which pods the balancer sends new streams to: ready for a moment, and below the limit when last asked."""
        serving = (self.state == SERVING) & (now >= self.ready_at + self.cluster.route_seconds)
        if self.rule.limit is None or not self.rule.limit_in_readiness:
            wanted = serving
        elif now >= self.next_probe:
            self.next_probe = now + self.cluster.probe_seconds
            wanted = serving & (self.active < self.rule.limit)
        else:
            return
        if (wanted != self.open).any():
            self.open = wanted
            self._reroute()

    def _reroute(self) -> None:
        if self.rule.balance == "p2c":
            self.known[:] = 0

    def _scale(self, now: float, wanted: int) -> None:
        self.moving = True
        alive = np.flatnonzero((self.state != GONE) & (self.state != DRAINING))
        for _ in range(wanted - len(alive)):
            self._create(now)
        if wanted < len(alive):
            # The ReplicaSet's order: not running, not ready, then the youngest by powers of two of their age.
            ready = (self.state[alive] == SERVING) & self._ready(alive)
            young = np.floor(np.log2(np.maximum(1.0, now - np.where(ready, self.ready_at[alive], now))))
            order = np.lexsort((self.random.random(len(alive)), young, ready, self.state[alive]))
            chosen = alive[order[: len(alive) - wanted]]
            self.state[chosen] = DRAINING
            self.since[chosen] = now
            self.open[chosen] = False
            self._reroute()

    def _ready(self, slots: np.ndarray) -> np.ndarray:
        if self.rule.limit is None or not self.rule.limit_in_readiness:
            return np.ones(len(slots), dtype=bool)
        return self.active[slots] < self.rule.limit

    # Metrics

    def _scrape(self, now: float) -> None:
        """One scrape of all pods; a pod answers once its model is loaded."""
        there = (self.state == SERVING) & (now - self.since >= self.cluster.discovery_seconds)
        there |= self.state == DRAINING
        self.series["queue"].append(now, np.where(there, np.floor(self.queue_us), np.nan))
        self.series["success"].append(now, np.where(there, np.floor(self.success), np.nan))
        self.series["streams"].append(now, np.where(there, self.active, np.nan))
        self.series["refused"].append(now, float(self.refused_total))
        lately = rate(self.series["refused"].samples, now, 60)[0] * 60 if len(self.series["refused"].samples) > 1 else 0
        running = float(self.active[there].sum())
        self.series["running"].append(now, running)
        self.series["wanted"].append(now, running + float(lately))

    def _sync(self, now: float, counted: bool) -> None:
        alive = np.flatnonzero((self.state != GONE) & (self.state != DRAINING))
        proposals = [self._propose(metric, now, alive, place) for place, metric in enumerate(self.rule.metrics)]
        wanted = self.hpa.sync(now, len(alive), proposals)
        if wanted != len(alive):
            self._scale(now, wanted)
            if counted:
                direction = 1 if wanted > len(alive) else -1
                self.outcome.turns += self.direction not in (0, direction)
                self.direction = direction

    def _propose(
        self, metric: QueueTime | StreamsPerPod | Demand, now: float, alive: np.ndarray, place: int
    ) -> int | None:
        if not self.series["queue"].samples:
            return None
        if isinstance(metric, Demand):
            wanted = self.demand(metric, now)
            self.seen[place] = wanted / max(1, len(alive))
            return replicas_for_external_metric(len(alive), metric.streams_per_pod, wanted)
        if isinstance(metric, StreamsPerPod):
            values, target = self.series["streams"].samples[-1][1], metric.target
        else:
            queue, success = self.series["queue"].samples, self.series["success"].samples
            rule = article_queue_time_ms if metric.article else queue_time_ms
            values = rule(queue, success, now, metric.window)
            values, target = values / (1 + metric.idle_models if metric.article else 1), metric.target_ms
        known = {slot: float(values[slot]) for slot in alive.tolist() if not math.isnan(values[slot])}
        self.seen[place] = sum(known.values()) / len(known) if known else None
        pending = [slot for slot in alive.tolist() if self.state[slot] == STARTING]
        return replicas_for_pods_metric(len(alive), target, known, alive.tolist(), pending)

    def demand(self, metric: Demand, now: float) -> float:
        """Streams in flight and refused in the last minute, with the trend over the horizon, plus the spare."""
        total = self.series["wanted"].samples[-1][1]
        rise = deriv(self.series["running"].samples, now, metric.trend_window) * metric.horizon
        rise = max(0.0, rise - metric.rise_ignored * math.sqrt(total))
        return total + rise + min(metric.spare_per_stream * total, metric.spare_streams) + metric.spare_share * total

    def _record(self, now: float) -> None:
        alive = (self.state != GONE) & (self.state != DRAINING)
        self.outcome.history.append(
            {
                "t": now - self.warm_up,
                "replicas": int(alive.sum()),
                "serving": int((self.state == SERVING).sum()),
                "pods": int((self.state != GONE).sum()),
                "streams": int(self.active.sum()),
                "backlog_seconds": float(self.backlog.max()),
                "most_streams": int(self.active.max()),
                "metrics": dict(self.seen),
                "opened": self.outcome.streams,
                "refused": self.outcome.streams_refused,
                "cut": self.outcome.streams_cut,
                "chunks": self.outcome.chunks,
                "late": self.outcome.late,
            }
        )

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How one pod's capacity is found, and what follows from it. Pure: measurements in, decisions and figures out.

The capacity of a pod is the most streams with which at most so many percent of the chunks come later than the
objective, with a latency that does not rise on and on. It is found level by level: doubled until a level fails, then
bisected, then the highest level that passed is held once more, for longer.

Two things make a level fail. The share of late chunks is the plain one. The other: a pod that gets a little more than
it can do falls behind a little more each second. In the seconds of a measurement it may still be within the objective;
a caller who speaks for minutes is not. So a latency that rises, and would pass the objective within the longest
stream, fails a level too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import NormalDist, fmean, median, stdev

from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import distribution, seconds_since

PASSED, FAILED, OPEN = "passed", "failed", "open"
# Seconds that are taken together: neighbouring chunks share batches and queues, blocks of seconds hardly do.
BLOCK_SECONDS = 2.0
LEAST_BLOCKS = 4
CONFIDENCE = 0.95
# What counts as rising: a slope so many standard errors from none, that makes such a share of the objective in a level.
RISING_ERRORS = 3.0
RISING_SHARE = 0.05
# The search is over when the lowest failed level is this close to the highest that passed.
RESOLUTION = 0.02
# What to plan with: never more of the saturation than this. At it a pod still answers in time, but any more sinks it.
MOST_UTILISATION = 0.95
PLANNED_OF_CAPACITY = 0.97
LEAST_QUEUE_TARGET_MS = 1.0
SERVER_CONTAINER = "riva"
# Fills the model store; a shorter run of it found the models there.
FETCH_CONTAINER, FETCHED_SECONDS = "riva-model-init", 5

QUEUE_SERIES, SUCCESS_SERIES = "nv_inference_queue_duration_us", "nv_inference_request_success"
SERIES_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>[^}]*)\}\s+(?P<value>\S+)")
MODEL_LABEL = re.compile(r'model="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Objective:
    """What a pod has to keep: *latency_ms*, later than which at most *late_percent* of the chunks may come.

    longest_stream: seconds of the longest call, within which a rising latency must not pass the objective.
    """

    latency_ms: float
    late_percent: float = 1.0
    longest_stream: float = 600.0


@dataclass
class Block:
    """What was measured in a few seconds of a level."""

    t: float
    chunks: int = 0
    late: int = 0
    latency_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Judgement:
    """How a level is. *state* is open while more seconds are needed to say; *sure* says that chance is ruled out.

    low_percent, high_percent: the bounds of the share of late chunks, at 95 % confidence. rising_ms: how much the
    latency rises in a second, None where it can't be told.
    """

    state: str
    reason: str
    sure: bool
    late_percent: float
    low_percent: float
    high_percent: float
    rising_ms: float | None


def blocks_of(windows: Iterable[Mapping], settle: float) -> list[Block]:
    """Put the records of single seconds together into blocks, those of the first *settle* seconds left out."""
    found: dict[int, Block] = {}
    for window in windows:
        if window["t"] <= settle:
            continue
        index = int((window["t"] - settle - 1e-9) // BLOCK_SECONDS)
        block = found.setdefault(index, Block(settle + (index + 0.5) * BLOCK_SECONDS))
        block.chunks += window["chunks_answered"]
        block.late += window["chunks_late"]
        block.latency_ms += window["latency_ms"]
    return [found[index] for index in sorted(found)]


def share_bounds(blocks: Sequence[Block]) -> tuple[float, float, float]:
    """Return the percentage of late chunks with its bounds, from how much it differs from block to block."""
    chunks = sum(block.chunks for block in blocks)
    if not chunks:
        return 100.0, 0.0, 100.0
    percent = 100 * sum(block.late for block in blocks) / chunks
    shares = [100 * block.late / block.chunks for block in blocks if block.chunks]
    if len(shares) < 2:
        return percent, 0.0, 100.0
    error = stdev(shares) / math.sqrt(len(shares)) * student(len(shares) - 1)
    # None in n seen: at 95 % confidence at most 3 in n (the rule of three). The same for all in n.
    least = 100 * min(1.0, 3 / chunks)
    low = percent - max(error, least if percent == 100 else 0)
    high = percent + max(error, least if percent == 0 else 0)
    return percent, max(0.0, low), min(100.0, high)


def student(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t, to one percent, by Cornish and Fisher's expansion."""
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    if freedom == 1:
        return 12.71
    if freedom == 2:
        return 4.30
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / freedom + g2 / freedom**2 + g3 / freedom**3


def trend(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return slope and standard error of the straight line through points; 0 and infinity where there is none."""
    if len(points) < 3:
        return 0.0, math.inf
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return 0.0, math.inf
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, math.sqrt(rest / (len(points) - 2) / spread)


def judge(blocks: Sequence[Block], objective: Objective, enough: bool, unanswered: int = 0) -> Judgement:
    """Judge a level by what was measured so far. *enough*: no more will come, so it must be decided now.

    unanswered: chunks that were sent longer than the objective ago and have no answer yet; they are late, too.
    """
    percent, low, high = share_bounds(blocks)
    medians = [(block.t, median(block.latency_ms)) for block in blocks if block.latency_ms]
    slope, error = trend(medians)
    rising = slope if len(medians) >= LEAST_BLOCKS else None
    few = len(blocks) < LEAST_BLOCKS and not enough

    def said(state: str, reason: str, sure: bool) -> Judgement:
        return Judgement(
            state, reason, sure, round(percent, 3), round(low, 3), round(high, 3), rising and round(rising, 3)
        )

    chunks = sum(block.chunks for block in blocks)
    overdue = 100 * unanswered / (chunks + unanswered) if unanswered else 0.0
    if overdue > max(10.0, 5 * objective.late_percent):
        return said(FAILED, f"{overdue:.0f} % of the chunks have no answer", True)
    if few:
        return said(OPEN, "too few seconds", False)
    if rising is not None:
        length = medians[-1][0] - medians[0][0] + BLOCK_SECONDS
        rises = rising > RISING_ERRORS * error and rising * length > RISING_SHARE * objective.latency_ms
        ahead = objective.longest_stream - length
        if rises and medians[-1][1] + rising * max(0.0, ahead) > objective.latency_ms:
            return said(FAILED, f"the latency rises by {rising:.1f} ms each second: the pod falls behind", True)
    if low > objective.late_percent:
        return said(FAILED, f"{percent:.2f} % of the chunks are late", True)
    if high <= objective.late_percent:
        return said(PASSED, f"{percent:.2f} % of the chunks are late", True)
    if not enough:
        return said(OPEN, "the share of late chunks is too near to what may be", False)
    state = PASSED if percent <= objective.late_percent else FAILED
    return said(state, f"{percent:.2f} % of the chunks are late, which may be chance", False)


@dataclass(frozen=True)
class Level:
    """A level that was held: streams, how it was judged, and what was measured meanwhile.

    throughput: chunks answered a second, as streams in real time. queue_ms: the mean time in the server's queue.
    """

    streams: int
    seconds: float
    judgement: Judgement
    latency_ms: dict
    throughput: float
    queue_ms: float | None = None
    confirmed: bool = False

    @property
    def passed(self) -> bool:
        return self.judgement.state == PASSED

    def to_dict(self) -> dict:
        return asdict(self)


def measured_level(
    streams: int,
    seconds: float,
    judgement: Judgement,
    blocks: Sequence[Block],
    chunk_seconds: float,
    queue_ms: float | None,
    confirmed: bool,
) -> Level:
    """Put what was measured on a level into figures. *seconds* were measured, those before left out."""
    chunks = sum(block.chunks for block in blocks)
    latencies = distribution([value for block in blocks for value in block.latency_ms])
    throughput = chunks / seconds * chunk_seconds if seconds > 0 else 0.0
    return Level(streams, round(seconds, 1), judgement, latencies, round(throughput, 2), queue_ms, confirmed)


def outcomes(levels: Sequence[Level]) -> dict[int, bool]:
    """Whether each level passed; where it was held more than once, the last time counts."""
    return {level.streams: level.passed for level in levels}


def next_level(levels: Sequence[Level], first: int, most: int) -> tuple[int, bool] | None:
    """Return the next level to hold and whether it confirms one that passed; None when the capacity is known."""
    known = outcomes(levels)
    failed = min((streams for streams, passed in known.items() if not passed), default=None)
    under = [streams for streams, passed in known.items() if passed and (failed is None or streams < failed)]
    passed = max(under, default=0)
    if failed is None and passed < most:
        return (min(most, 2 * passed) if passed else min(first, most)), False
    if failed is not None and failed - passed > max(1, math.floor(RESOLUTION * passed)):
        return (passed + failed) // 2, False
    if not passed or any(level.streams == passed and level.confirmed for level in levels if level.passed):
        return None
    return passed, True


@dataclass(frozen=True)
class Capacity:
    """What one pod carries, in streams. low, high: where it lies at 95 % confidence.

    saturation: the streams that the pod can just keep up with, by its throughput on levels that it could not keep up
    with; None where there was none. bounded: the search ended at the most streams that it may open.
    """

    streams: int
    low: int
    high: int
    saturation: float | None
    bounded: bool


def capacity_of(levels: Sequence[Level], most: int) -> Capacity:
    """Read the capacity off the levels that were held."""
    known = outcomes(levels)
    failed = min((streams for streams, passed in known.items() if not passed), default=None)
    streams = max((s for s, passed in known.items() if passed and (failed is None or s < failed)), default=0)
    sure_pass = [
        level.streams for level in levels if level.passed and level.judgement.sure and level.streams <= streams
    ]
    sure_fail = [
        level.streams for level in levels if not level.passed and level.judgement.sure and level.streams > streams
    ]
    over = [level.throughput for level in levels if not level.passed and 0 < level.throughput < 0.97 * level.streams]
    return Capacity(
        streams,
        max(sure_pass, default=0),
        min(sure_fail) - 1 if sure_fail else max(streams, most if failed is None else failed),
        round(max(over), 2) if over else None,
        failed is None,
    )


def planned_streams(capacity: Capacity) -> int:
    """Return how many streams to plan with for each pod: a little less than it carries."""
    if capacity.saturation:
        planned = math.floor(MOST_UTILISATION * capacity.saturation)
    else:
        planned = math.floor(PLANNED_OF_CAPACITY * capacity.streams)
    return max(1, min(capacity.streams, planned))


def queue_target(levels: Sequence[Level], capacity: Capacity, objective: Objective) -> float:
    """Return the target of the queue time in milliseconds: twice what it is at capacity, at most half the objective.

    The queue time stands guard for the day when a pod is slower than it was calibrated. A target at what full pods have
    anyway would let chance add pods, which take no stream off the old ones, and so would go on to add them.
    """
    half = objective.latency_ms / 2
    at = [level.queue_ms for level in levels if level.streams == capacity.streams and level.queue_ms is not None]
    found = 2 * max(at) if at else half
    return round(min(half, max(LEAST_QUEUE_TARGET_MS, found)), 1)


def replicas_for(peak: int, base: int, planned: int, spare: float) -> tuple[int, int]:
    """Return (min_replicas, max_replicas): what the quietest hour needs, and what the peak needs with its spare."""
    least = max(1, math.ceil(base / planned))
    return least, max(least, math.ceil(peak / planned + spare))


def entry_of(
    levels: Sequence[Level],
    capacity: Capacity,
    objective: Objective,
    model_load_seconds: float | None,
    cold_start_seconds: float | None = None,
) -> dict:
    """Return the entry of `riva_calibration` that follows from the measurement."""
    entry: dict = {
        "stream_limit": capacity.streams,
        "planned_streams": planned_streams(capacity),
        "queue_time_target_ms": queue_target(levels, capacity, objective),
        "latency_objective_ms": round(objective.latency_ms),
        "longest_stream_seconds": round(objective.longest_stream),
    }
    if model_load_seconds is not None:
        entry["model_load_seconds"] = model_load_seconds
    if cold_start_seconds is not None:
        entry["cold_start_seconds"] = cold_start_seconds
    return entry


def with_replicas(entry: Mapping, peak: int | None, base: int, spare: float) -> dict:
    """Return the entry with min_replicas and max_replicas for a peak; without a peak, with none."""
    bare = {key: value for key, value in entry.items() if key not in ("min_replicas", "max_replicas")}
    if peak is None:
        return bare
    least, most = replicas_for(peak, base, entry["planned_streams"], spare)
    return {**bare, "min_replicas": least, "max_replicas": most}


def settled_entry(old: Mapping | None, new: Mapping, capacity: Capacity) -> dict:
    """Return what to write: the old entry where the new measurement says the same within its confidence.

    Two measurements of one pod differ by a stream or two; that is no reason to change a cluster.
    """
    measured = ("stream_limit", "planned_streams", "queue_time_target_ms", "model_load_seconds", "cold_start_seconds")
    if not old or not isinstance(old.get("stream_limit"), int):
        return dict(new)
    same_question = all(old.get(key) == new.get(key) for key in ("latency_objective_ms", "longest_stream_seconds"))
    near = max(1, math.ceil(RESOLUTION * new["stream_limit"]))
    low = min(capacity.low or capacity.streams, new["stream_limit"] - near)
    high = max(min(capacity.high, math.ceil(1.1 * new["stream_limit"])), new["stream_limit"] + near)
    if not same_question or not low <= old["stream_limit"] <= high:
        # A store that is filled by now says nothing of one that is not.
        return {**{key: old[key] for key in ("cold_start_seconds",) if key in old}, **new}
    kept = {key: old[key] for key in measured if key in old}
    entry = {**new, **kept}
    # A much slower or faster start of the models is news, though the pod carries as much as before.
    fresh, before = new.get("model_load_seconds"), old.get("model_load_seconds")
    if fresh is not None and before and not 0.7 <= fresh / before <= 1.3:
        entry["model_load_seconds"] = fresh
    return entry


def counters(page: str, name: str) -> dict[str, float]:
    """Return the sum of a counter for each model, from a metrics page in Prometheus' text format."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        match = SERIES_LINE.match(line)
        if match and match["name"] == name:
            model = MODEL_LABEL.search(match["labels"])
            try:
                value = float(match["value"])
            except ValueError:
                continue
            key = model.group(1) if model else ""
            found[key] = found.get(key, 0.0) + value
    return found


def queue_time(before: str, after: str) -> float | None:
    """Return the mean time in the queue between two metrics pages, in milliseconds; None where nothing was served.

    Over all models, as the metric of the HPA has it: its target comes from here.
    """
    served = sum(difference(counters(before, SUCCESS_SERIES), counters(after, SUCCESS_SERIES)).values())
    queued = sum(difference(counters(before, QUEUE_SERIES), counters(after, QUEUE_SERIES)).values())
    return round(queued / 1000 / served, 3) if served > 0 else None


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """How much each counter grew; one that is smaller than before began anew."""
    return {
        model: value - before.get(model, 0.0) if value >= before.get(model, 0.0) else value
        for model, value in after.items()
    }


def model_load(pod: Mapping) -> dict | None:
    """Return how many seconds a pod took: *start_s* until its server ran, *load_s* from there until it was ready.

    *fetch_s* is what of *start_s* went into fetching models, where an init container did that and it took its time.
    None where it can't be told: the pod is not ready, or its server began anew.
    """
    status = pod.get("status") or {}
    ready: Mapping = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), {})
    containers = status.get("containerStatuses") or []
    servers = [c for c in containers if c.get("name") == SERVER_CONTAINER] or containers
    server: Mapping = servers[0] if servers else {}
    started = ((server.get("state") or {}).get("running") or {}).get("startedAt")
    created = (pod.get("metadata") or {}).get("creationTimestamp")
    if ready.get("status") != "True" or not started or not created or server.get("restartCount"):
        return None
    load = seconds_since(started, ready.get("lastTransitionTime"))
    if load is None:
        return None
    found = {"start_s": seconds_since(created, started), "load_s": max(1.0, load)}
    fetch = fetch_seconds(status.get("initContainerStatuses") or [])
    return {**found, "fetch_s": fetch} if fetch else found


def cold_start_seconds(load: Mapping | None) -> float | None:
    """From a pod's start to Ready where the models were fetched first; None where they were there."""
    return load["fetch_s"] + load["load_s"] if load and load.get("fetch_s") else None


def fetch_seconds(containers: Sequence[Mapping]) -> float | None:
    """How long the init container took that fills the store; None where it found it filled, or there is none."""
    for container in containers:
        ended = (container.get("state") or {}).get("terminated") or {}
        if container.get("name") != FETCH_CONTAINER or not ended.get("startedAt") or not ended.get("finishedAt"):
            continue
        seconds = seconds_since(ended["startedAt"], ended["finishedAt"])
        return seconds if seconds is not None and seconds >= FETCHED_SECONDS else None
    return None


def problems(params: Mapping) -> list[str]:
    """Return one sentence for each option that can't be used."""
    ranges = {
        "objective_ms": (10, 60000, "milliseconds"),
        "late_percent": (0.01, 50, "percent"),
        "longest_stream_seconds": (1, 14400, "seconds"),
        "settle_seconds": (1, 300, "seconds"),
        "hold_seconds": (8, 600, "seconds"),
        "confirm_seconds": (8, 3600, "seconds"),
        "stream_seconds": (1, 3600, "seconds"),
        "chunk_duration_ms": (10, 5000, "milliseconds"),
        "first_streams": (1, 10000, "streams"),
        "max_streams": (1, 10000, "streams"),
        "peak_streams": (1, 10_000_000, "streams"),
        "base_streams": (0, 10_000_000, "streams"),
        "spare_pods": (0, 100, "pods"),
    }
    found = [
        f"{name} is {params[name]:g}; it must be from {least:g} to {most:g} {unit}"
        for name, (least, most, unit) in ranges.items()
        if params.get(name) is not None and not least <= params[name] <= most
    ]
    if params["first_streams"] > params["max_streams"]:
        found.append(f"first_streams is {params['first_streams']}, more than max_streams {params['max_streams']}")
    if params.get("peak_streams") is not None and params["base_streams"] > params["peak_streams"]:
        found.append(f"base_streams is {params['base_streams']}, more than peak_streams {params['peak_streams']}")
    return found

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of a calibration: what one pod carries, what follows from it, and the levels that say so."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.speechops.riva.plugins.module_utils.calibration_rules import FAILED, PASSED
from ansible_collections.speechops.riva.plugins.module_utils.load_words import shown
from ansible_collections.speechops.riva.plugins.module_utils.report_page import PAGE, page_of, write_file
from ansible_collections.speechops.riva.plugins.module_utils.report_pictures import (
    AMBER,
    BLUE,
    FAINT,
    GREEN,
    RED,
    VIOLET,
    Layout,
    finish,
    sketch,
)

RESULT = "calibration.json"
SCHEMA = 1
WIDE = Layout("wide", 1080 / 72, 165 / 72, 12)
NARROW = Layout("narrow", 352 / 72, 150 / 72, 10)


def headline(result: dict) -> str:
    """Say in one sentence what one pod carries."""
    capacity, objective = result["capacity"], result["objective"]
    streams = capacity["streams"]
    sure = (
        f"at 95 % confidence {capacity['low']} to {capacity['high']}"
        if capacity["low"] != capacity["high"]
        else "at 95 % confidence neither more nor less"
    )
    bound = " or more" if capacity["bounded"] else ""
    return (
        f"One pod of {result['service']} carries {streams} stream{'' if streams == 1 else 's'}{bound} "
        f"within {shown(objective['latency_ms'])} ms ({sure})."
    )


def notes(result: dict) -> list[str]:
    """Say what a reader must know before trusting the figures."""
    found = []
    capacity, entry = result["capacity"], result["entry"]
    if capacity["bounded"]:
        found.append(
            f"The search ended at the most streams that it may open, {capacity['streams']} (max_streams): the pod may "
            "carry more."
        )
    if result["model_load"] is None:
        found.append("How long the models load was not measured: the pod was not seen, or its server began anew.")
    if result["queue_seen"] is False:
        found.append(
            "The time in the queue was not measured, since the pod's metrics page could not be read; its target is "
            "half of the objective."
        )
    lag = result["pacing_lag_p99_ms"]
    if lag is not None and lag > result["settings"]["chunk_duration_ms"] / 4:
        found.append(
            f"The sender itself ran late: 1 % of the chunks left more than {lag:g} ms after they were due. The pod may "
            "carry more; calibrate from a machine where more CPU is free."
        )
    gpus = result.get("gpus") or {}
    most, fit = entry.get("max_replicas"), gpus.get("pods_that_fit")
    if most is not None and fit is not None and most > fit:
        found.append(f"max_replicas is {most}, but the GPUs of this cluster have room for {fit} pods of this service.")
    if result["kept"]:
        found.append("This measurement agrees with the one before, which stays as it is.")
    return found


def figures(result: dict) -> list[tuple[str, str, str]]:
    """Return the figures of the table: what it is, where it lies in the result, the value as text."""
    rows = [
        ("Streams that a pod carries", "capacity.streams"),
        ("… at least", "capacity.low"),
        ("… at most", "capacity.high"),
        ("Saturation, by throughput (streams)", "capacity.saturation"),
        ("Limit of a pod (streams)", "entry.stream_limit"),
        ("Planned for a pod (streams)", "entry.planned_streams"),
        ("Target of the time in the queue (ms)", "entry.queue_time_target_ms"),
        ("Latency objective (ms)", "objective.latency_ms"),
        ("Chunks that may be late (%)", "objective.late_percent"),
        ("Longest stream (s)", "objective.longest_stream"),
        ("Models load (s)", "model_load.load_s"),
        ("From the pod to its server (s)", "model_load.start_s"),
        ("Models fetched (s)", "model_load.fetch_s"),
        ("Fewest replicas", "entry.min_replicas"),
        ("Most replicas", "entry.max_replicas"),
    ]
    found = []
    for label, place in rows:
        value: Any = result
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        # Only where models were fetched first; a measured load has no such part else.
        if value is not None or place != "model_load.fetch_s":
            found.append((label, place, shown(value)))
    return found


def draw(result: dict) -> dict[str, str]:
    """Draw latency, late chunks, throughput and time in the queue over the streams of a pod."""
    label = "Latency, late chunks, throughput and time in the queue over the number of streams on one pod"
    return {layout.name: sketch(layout, 4, lambda panels: paint(panels, result), label) for layout in (WIDE, NARROW)}


def paint(panels, result: dict) -> None:
    levels = sorted(result["levels"], key=lambda level: (level["streams"], level["seconds"]))
    objective, capacity = result["objective"], result["capacity"]
    latency(panels[0], levels, objective["latency_ms"])
    late(panels[1], levels, objective["late_percent"])
    throughput(panels[2], levels, capacity["saturation"])
    queue(panels[3], levels, result["entry"]["queue_time_target_ms"])
    for panel in panels:
        panel.axvline(capacity["streams"], color=GREEN, linewidth=1.6, zorder=0.6)
        panel.axvline(
            result["entry"]["planned_streams"], color=AMBER, linewidth=1.4, linestyle=(0, (4, 1.5)), zorder=0.6
        )
        finish(panel)
    panels[0].set_xlim(0, max(level["streams"] for level in levels) * 1.05)
    panels[-1].set_xlabel("streams on one pod (solid: its capacity, dashed: planned)")


def xs(levels: list[dict]) -> list[int]:
    return [level["streams"] for level in levels]


def latency(panel, levels: list[dict], objective: float) -> None:
    panel.set_title("Latency (ms)")
    seen = [level for level in levels if level["latency_ms"]["p50"] is not None]
    for name, colour in (("p50", GREEN), ("p95", BLUE), ("p99", VIOLET)):
        values = [level["latency_ms"][name] for level in seen]
        panel.plot(xs(seen), values, "o-", gid=f"line-latency-{name}", color=colour, label=name, markersize=4)
    panel.axhline(objective, gid="line-objective", color=RED, linestyle=(0, (4, 1.5)), linewidth=1.4, label="objective")
    highest = max((level["latency_ms"]["p99"] for level in seen), default=objective)
    panel.set_ylim(top=min(max(highest, objective), 5 * objective) * 1.15)


def late(panel, levels: list[dict], most: float) -> None:
    panel.set_title("Late chunks (%)")
    # What matters lies around what may be late; a pod that drowns is at 100 %, and is drawn at the upper edge.
    top = max(10 * most, 5.0)
    for state, colour, marker in ((PASSED, GREEN, "o"), (FAILED, RED, "x")):
        verdicts = [level["judgement"] for level in levels if level["judgement"]["state"] == state]
        at = [level["streams"] for level in levels if level["judgement"]["state"] == state]
        if not at:
            continue
        values, low, high = (
            [min(top, verdict[key]) for verdict in verdicts] for key in ("late_percent", "low_percent", "high_percent")
        )
        panel.vlines(at, low, high, gid=f"line-late-{state}", color=colour, linewidth=1.6)
        panel.plot(
            at, values, marker, gid=f"points-late-{state}", color=colour, label=state, markersize=6, clip_on=False
        )
    panel.axhline(most, gid="line-late-most", color=RED, linestyle=(0, (4, 1.5)), linewidth=1.4, label="may be")
    panel.set_ylim(top=top)


def throughput(panel, levels: list[dict], saturation: float | None) -> None:
    panel.set_title("Throughput (streams in real time)")
    panel.plot(
        xs(levels), [level["throughput"] for level in levels], "o-", gid="line-throughput", color=BLUE, label="served",
        markersize=4,
    )  # fmt: skip
    top = max(xs(levels))
    panel.plot([0, top], [0, top], gid="line-offered", color=FAINT, linewidth=1.2, linestyle=(0, (1, 2)), label="sent")
    if saturation:
        panel.axhline(
            saturation, gid="line-saturation", color=RED, linestyle=(0, (4, 1.5)), linewidth=1.4,
            label=f"saturation {saturation:g}",
        )  # fmt: skip
    panel.set_ylim(top=top * 1.1)


def queue(panel, levels: list[dict], target: float) -> None:
    panel.set_title("Time in the queue (ms)")
    seen = [level for level in levels if level["queue_ms"] is not None]
    if seen:
        panel.plot(
            xs(seen), [level["queue_ms"] for level in seen], "o-", gid="line-queue", color=BLUE, label="mean",
            markersize=4,
        )  # fmt: skip
    panel.axhline(target, gid="line-queue-target", color=AMBER, linestyle=(0, (4, 1.5)), linewidth=1.4, label="target")
    panel.set_ylim(top=target * 3)


OWN_STYLE = """\
.levels th, .levels td { padding: .3rem .4rem; }
pre { overflow-x: auto; border: 1px solid var(--grid); padding: .7rem .9rem; font-size: .9rem; }
"""

TEMPLATE = """\
<header>
<h1 id="headline">{{ headline }}</h1>
<p class="faint">{{ r.endpoint }}, {{ r.started[:19] | replace("T", " ") }} UTC, {{ r.levels | length }} levels in
{{ shown(r.seconds) }} s.</p>
</header>
{% for note in notes %}
<p class="note">{{ note }}</p>
{% endfor %}
{% include "picture" %}

<h2>What follows from it</h2>
<pre>{{ yaml }}</pre>
<p>A full pod refuses streams beyond its <strong>stream_limit</strong>, so those that run stay within the objective.
The HPA plans with <strong>planned_streams</strong> for each pod, a little less, so that chance does not fill one. The
<strong>queue_time_target_ms</strong> stands guard for the day when a pod is slower than it was here: twice what the
time in the queue was at capacity, at most half of the objective.
{% if r.peak %}
For {{ r.peak.peak_streams }} streams at the peak and {{ r.peak.base_streams }} in the quietest hour, with a spare of
{{ shown(r.peak.spare_pods) }} pods, it takes {{ r.entry.min_replicas }} to {{ r.entry.max_replicas }} pods.
{% endif %}
</p>

{% include "figures" %}

<h2>Levels, in the order in which they were held</h2>
<div class="scroll"><table class="levels">
<thead><tr><th>Streams</th><th class="text">Result</th><th>Late (%)</th><th>… bounds</th><th>p50</th><th>p95</th>
<th>p99 (ms)</th><th>Served</th><th>Queue (ms)</th><th>Seconds</th><th class="text">Reason</th></tr></thead>
<tbody>
{% for level in r.levels %}
{% set at = "levels.%d." % loop.index0 %}
<tr><td data-figure="{{ at }}streams">{{ level.streams }}</td>
<td class="text">{{ "✓" if level.judgement.state == "passed" else "✗" }}
{{ "confirmed" if level.confirmed and level.judgement.state == "passed" else level.judgement.state }}</td>
<td data-figure="{{ at }}judgement.late_percent">{{ shown(level.judgement.late_percent) }}</td>
<td><span data-figure="{{ at }}judgement.low_percent">{{ shown(level.judgement.low_percent) }}</span> to
<span data-figure="{{ at }}judgement.high_percent">{{ shown(level.judgement.high_percent) }}</span></td>
{% for name in ("p50", "p95", "p99") %}
<td data-figure="{{ at }}latency_ms.{{ name }}">{{ shown(level.latency_ms[name]) }}</td>
{% endfor %}
<td data-figure="{{ at }}throughput">{{ shown(level.throughput) }}</td>
<td data-figure="{{ at }}queue_ms">{{ shown(level.queue_ms) }}</td>
<td data-figure="{{ at }}seconds">{{ shown(level.seconds) }}</td>
<td class="text long">{{ level.judgement.reason }}</td></tr>
{% endfor %}
</tbody></table></div>

<h2>How it was measured</h2>
<p class="faint">Each level is so many callers on one pod, each with a connection of its own, who send
{{ r.settings.chunk_duration_ms }} ms of speech every {{ r.settings.chunk_duration_ms }} ms. The first
{{ shown(r.settings.settle_seconds) }} s of a level do not count. The number of callers was doubled until a level
failed, then halved between the two; the highest that passed was held once more, for longer. A level fails when more
than {{ shown(r.objective.late_percent) }} % of the chunks come later than {{ shown(r.objective.latency_ms) }} ms, or
when the latency rises so that it would pass that within the longest stream of
{{ shown(r.objective.longest_stream) }} s. The bounds of a share come from how much it differs between stretches of two
seconds, at 95 % confidence. Saturation is the throughput of a pod that gets more than it can do.</p>
"""


def entry_text(service: str, entry: dict) -> str:
    """Return the entry as YAML; its values are numbers, so that no library is needed."""
    lines = [f"    {key}: {json.dumps(value)}" for key, value in entry.items()]
    return "\n".join(["riva_calibration:", f"  {service}:", *lines])


def render(result: dict) -> str:
    """Return the page; the same result always gives the same page."""
    name = result["service"].rpartition("/")[2]
    return page_of(
        f"Calibration of {result['service']}",
        TEMPLATE,
        OWN_STYLE,
        r=result,
        headline=headline(result),
        notes=notes(result),
        rows=figures(result),
        pictures=draw(result),
        yaml=entry_text(name, result["entry"]),
        shown=shown,
    )


def write_result(folder: str, result: dict) -> str:
    """Write calibration.json and index.html into a folder; return the path of the page."""
    os.makedirs(folder, exist_ok=True)
    write_file(os.path.join(folder, RESULT), json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    path = os.path.join(os.path.abspath(folder), PAGE)
    write_file(path, render(result))
    return path


def console_table(result: dict) -> list[str]:
    """Return the table for the end of the playbook."""
    lines = [headline(result), ""]
    lines.append("streams  result   late %   p95 ms   served  seconds")
    for level in result["levels"]:
        verdict = level["judgement"]
        p95 = level["latency_ms"]["p95"]
        lines.append(
            f"{level['streams']:>7}  {verdict['state']:<7}  {verdict['late_percent']:>6.2f}  "
            f"{'-' if p95 is None else f'{p95:.0f}':>7}  {level['throughput']:>7.1f}  {level['seconds']:>7.1f}"
        )
    name = result["service"].rpartition("/")[2]
    return [*lines, "", *entry_text(name, result["entry"]).splitlines(), *(f"Note: {note}" for note in notes(result))]

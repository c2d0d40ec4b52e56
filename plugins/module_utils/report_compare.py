# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Load tests side by side: one page from several summary.json files, over one time axis.

``python -m ansible_collections.speechops.riva.plugins.module_utils.report_compare build/report
article=build/article balanced=build/balanced`` writes build/report/index.html from the reports in the two folders.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise

from ansible_collections.speechops.riva.plugins.module_utils.load_summary import SCHEMA
from ansible_collections.speechops.riva.plugins.module_utils.load_words import look_up, shown
from ansible_collections.speechops.riva.plugins.module_utils.report_page import (
    PAGE,
    SUMMARY,
    clock,
    minutes,
    page_of,
    write_file,
)
from ansible_collections.speechops.riva.plugins.module_utils.report_pictures import (
    AMBER,
    BLUE,
    FAINT,
    GREEN,
    INK,
    RED,
    VIOLET,
    Layout,
    finish,
    over_time,
    sketch,
)

COMPARISON = "comparison.html"
MOST_TESTS = 6
# A test's curves differ in colour and in form: the form is left in print, and for those who see no colours.
# Colour, its variable on the page, and matplotlib's line style.
LOOKS: tuple[tuple[str, str, str | tuple[int, tuple[float, ...]]], ...] = (
    (BLUE, "--blue", "-"),
    (AMBER, "--amber", (0, (6, 1.5))),
    (GREEN, "--green", (0, (2, 1))),
    (VIOLET, "--violet", (0, (6, 1.5, 1, 1.5))),
    (RED, "--red", (0, (1, 1))),
    (INK, "--ink", (0, (9, 2))),
)
WIDE = Layout("wide", 1080 / 72, 128 / 72, 12)
NARROW = Layout("narrow", 352 / 72, 128 / 72, 10)

# Figure, place in the summary, whether less is better (None: neither is).
FIGURES = (
    ("Bad service (% of chunks)", "bad_service.percent", True),
    ("GPU-seconds", "gpu_seconds", True),
    ("Pod-seconds", "pod_seconds", True),
    ("Replicas desired", "replicas.turning_points", None),
    ("Most replicas ready", "replicas.most_ready", None),
    ("Changes of direction", "turns", True),
    ("Streams opened", "streams.opened", None),
    ("Streams failed", "streams.failed", True),
    ("Streams refused", "streams.refused", True),
    ("Most streams in flight", "streams.most_in_flight", None),
    ("Most streams of a pod", "streams_per_pod.most", None),
    ("Chunks late (%)", "chunks.late_percent", True),
    *((f"Latency {name} (ms)", f"latency_ms.{name}", True) for name in ("p50", "p90", "p95", "p99", "max")),
    *((f"First result {name} (ms)", f"first_response_ms.{name}", True) for name in ("p50", "p95", "p99")),
    *((f"Final result {name} (ms)", f"final_ms.{name}", True) for name in ("p50", "p95", "p99")),
    ("Real-time factor p95", "real_time_factor.p95", True),
    ("First scale-up (s)", "times.first_scale_up_s", None),
    ("First new pod ready (s)", "times.first_new_pod_ready_s", None),
    ("Back at the minimum (s)", "times.back_at_min_s", None),
    ("Duration (s)", "duration_s", None),
)
# Settings that must be alike, or the tests do not compare.
CONDITIONS = (
    ("objective_ms", "settings.objective_ms"),
    ("chunk_duration_ms", "settings.chunk_duration_ms"),
    ("stream_seconds", "settings.stream_seconds"),
    ("stream_distribution", "settings.stream_distribution"),
    ("phases", "profile"),
)


class SummaryError(ValueError):
    """A summary can't be compared; the text says why and what to do."""


def read_summary(path: str) -> dict:
    """Read a summary.json, or that of a folder. Its name is its label, or else that of its folder."""
    file = os.path.join(path, SUMMARY) if os.path.isdir(path) else path
    try:
        with open(file, encoding="utf-8") as opened:
            summary = json.load(opened)
    except OSError as error:
        raise SummaryError(f"{file} can't be read: {error.strerror}; name the folder of a report") from None
    except ValueError:
        raise SummaryError(f"{file} is no JSON; name the folder of a report, or its {SUMMARY}") from None
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        raise SummaryError(
            f"{file} is not of this version (schema {SCHEMA}); make the report again from its records: "
            "python -m ansible_collections.speechops.riva.plugins.module_utils.report_page FOLDER"
        )
    return named(summary, os.path.dirname(os.path.abspath(file)))


def named(summary: dict, folder: str) -> dict:
    """The summary with a name that a reader knows it by, and the folder that its own page lies in."""
    return {**summary, "label": summary["label"] or os.path.basename(os.path.abspath(folder)), "folder": folder}


def prepared(summaries: list[dict]) -> list[dict]:
    """Give each test its own name and look, and the figures that come of the others."""
    if not 2 <= len(summaries) <= MOST_TESTS:
        raise SummaryError(f"{len(summaries)} tests were given; from 2 to {MOST_TESTS} can be compared")
    tests, names = [], []
    for summary, (colour, variable, dash) in zip(summaries, LOOKS, strict=False):
        name, number = summary["label"], 2
        while name in names:
            name, number = f"{summary['label']} ({number})", number + 1
        names.append(name)
        tests.append(
            {
                **summary,
                "label": name,
                "colour": colour,
                "variable": variable,
                "dash": dash,
                "pattern": "none" if isinstance(dash, str) else " ".join(f"{3 * part:g}" for part in dash[1]),
                "turns": max(0, len(summary["replicas"]["turning_points"]) - 2),
                "profile": [[p["name"], p["from_s"]] for p in summary["phases"] if p["name"] != "tail"],
            }
        )
    return tests


def cost_key(tests: list[dict]) -> tuple[str, str]:
    """What a test cost: GPU-seconds, or pod-seconds where a pod of one of them holds no GPU."""
    return ("gpu_seconds", "GPU-seconds") if all(t["gpu_seconds"] for t in tests) else ("pod_seconds", "pod-seconds")


def verdict(tests: list[dict]) -> str:
    """Say in one sentence which test is better, by bad service and by cost."""
    key, unit = cost_key(tests)
    best = min(tests, key=lambda test: (test["bad_service"]["percent"], test[key]))
    cheapest = min(tests, key=lambda test: (test[key], test["bad_service"]["percent"]))

    def said(test: dict) -> str:
        return f"{shown(test['bad_service']['percent'])} % bad service for {test[key]:,.0f} {unit}"

    others = [test for test in tests if test is not best]
    if best is cheapest:
        against = "; ".join(f"{test['label']}: {said(test)}" for test in others)
        same = all((t["bad_service"]["percent"], t[key]) == (best["bad_service"]["percent"], best[key]) for t in others)
        if same:
            return f"No difference: {said(best)}."
        return f"{best['label']} is better in both: {said(best)} ({against})."
    more = 100 * (best[key] / cheapest[key] - 1) if cheapest[key] else 0
    return (
        f"{best['label']} serves best: {said(best)}. {cheapest['label']} costs least: {said(cheapest)}. "
        f"The better service costs {more:.0f} % more."
    )


def doubts(tests: list[dict]) -> list[str]:
    """Say what makes the tests hard to compare."""
    found = []
    for word, place in CONDITIONS:
        values = [look_up(test, place) for test in tests]
        if any(a != b for a, b in pairwise(values)):
            which = ", ".join(f"{test['label']} {shown(value)}" for test, value in zip(tests, values, strict=True))
            which = "" if place == "profile" else f": {which}"
            found.append(f"The tests had other {word}{which}. Their figures do not compare.")
    for test in tests:
        if test["end_reason"] not in ("back at the minimum", "profile done"):
            found.append(f"{test['label']} ended early or late: {test['end_reason']}.")
        lag = [note for note in test["notes"] if note.startswith("The sender itself ran late")]
        found += [f"{test['label']}: {note}" for note in lag]
    return found


def table(tests: list[dict]) -> list[dict]:
    """Return the rows: label, place, and of each test its text and whether it is the best."""
    rows = []
    for label, place, less in FIGURES:
        values = [look_up(test, place) for test in tests]
        known = [value for value in values if value is not None]
        best = min(known) if less and len(known) == len(values) and min(known) != max(known) else None
        cells = [{"text": shown(value), "best": best is not None and value == best} for value in values]
        if known:
            rows.append({"label": label, "place": place, "cells": cells})
    return rows


def metric_names(tests: list[dict]) -> list[str]:
    return list(dict.fromkeys(metric["name"] for test in tests for metric in test["series"]["metrics"]))


def metric_rows(tests: list[dict]) -> list[dict]:
    """Return target, mean and most of each metric in each test that has it."""
    return [
        {"name": metric["name"], "label": test["label"], "test": place, "metric": index, **metric}
        for name in metric_names(tests)
        for place, test in enumerate(tests)
        for index, metric in enumerate(test["hpa"]["metrics"])
        if metric["name"] == name
    ]


def bars(tests: list[dict]) -> list[dict]:
    """Return the two figures that decide as bars, each with its share of the longest."""
    key, unit = cost_key(tests)
    found = []
    for title, place in (("Bad service, % of chunks", "bad_service.percent"), (unit, key)):
        values = [look_up(test, place) for test in tests]
        longest = max(values) or 1
        found.append(
            {
                "title": title,
                "place": place,
                "bars": [
                    {
                        "label": test["label"],
                        "variable": test["variable"],
                        "text": shown(value),
                        "share": round(100 * value / longest, 1),
                        "best": value == min(values) != max(values),
                    }
                    for test, value in zip(tests, values, strict=True)
                ],
            }
        )
    return found


def known(values: list) -> list[float]:
    """Values that matplotlib draws; it leaves a gap where a value is not known."""
    return [float("nan") if value is None else value for value in values]


def draw(tests: list[dict]) -> dict[str, str]:
    """Draw all curves over one time axis; return SVG text by the layout's name."""
    names = metric_names(tests)
    label = "Replicas, metrics, streams, latency, lost streams and cost of the tests over one time axis"
    return {
        layout.name: sketch(
            layout,
            5 + has_latency(tests) + len(names),
            lambda panels, at=layout: paint(panels, tests, names, at),
            label,
        )
        for layout in (WIDE, NARROW)
    }


def paint(panels, tests: list[dict], names: list[str], layout: Layout) -> None:
    free = iter(panels)
    replicas(next(free), tests)
    for number, name in enumerate(names):
        metric(next(free), tests, name, number)
    streams(next(free), tests)
    curves(next(free), tests, "Most streams of a pod", "per-pod", lambda s: s["streams_per_pod"]["most"])
    if has_latency(tests):
        latency(next(free), tests)
    curves(
        next(free),
        tests,
        "Streams lost or refused, so far",
        "lost",
        lambda s: [None if f is None else f + (r or 0) for f, r in zip(s["failed"], s["refused"], strict=True)],
        whole=True,
    )
    curves(next(free), tests, "GPU-seconds, so far", "cost", lambda s: s["gpu_seconds"])
    over_time(panels, max(test["duration_s"] for test in tests), layout)


def line(panel, test: dict, values: list, gid: str, **style) -> None:
    look = {"color": test["colour"], "linestyle": test["dash"], "linewidth": 1.8, **style}
    panel.plot(test["series"]["t"], known(values), gid=gid, **look)


def curves(panel, tests: list[dict], title: str, gid: str, values, whole: bool = False) -> None:
    panel.set_title(title)
    top = 0.0
    for number, test in enumerate(tests):
        found = values(test["series"])
        line(panel, test, found, f"line-{gid}-{number}")
        top = max([top, *(value for value in found if value is not None)])
    panel.set_ylim(top=top * 1.15 or 1.0)
    finish(panel, whole, legend=False)


def replicas(panel, tests: list[dict]) -> None:
    panel.set_title("Replicas ready (thin: desired)")
    top = 1
    for number, test in enumerate(tests):
        ready, desired = test["series"]["ready"], test["series"]["desired"]
        line(panel, test, ready, f"line-ready-{number}", drawstyle="steps-post")
        line(panel, test, desired, f"line-desired-{number}", drawstyle="steps-post", linewidth=0.9, linestyle="-")
        top = max([top, *(value for value in [*ready, *desired] if value is not None)])
    panel.set_ylim(top=top + 0.6)
    finish(panel, whole=True, legend=False)


def metric(panel, tests: list[dict], name: str, number: int) -> None:
    """One metric, as a share of its target: targets may differ from test to test."""
    panel.set_title(f"{name} / target")
    top = 1.0
    for place, test in enumerate(tests):
        found = next((m for m in test["series"]["metrics"] if m["name"] == name), None)
        if found is None or not found["target"]:
            continue
        values = [None if value is None else value / found["target"] for value in found["values"]]
        line(panel, test, values, f"line-metric-{number}-{place}")
        top = max([top, *(value for value in values if value is not None)])
    panel.axhline(1.0, gid=f"line-metric-{number}-target", color=FAINT, linewidth=1.2, linestyle=(0, (1, 2)))
    # A metric at many times its target would flatten the rest.
    panel.set_ylim(top=min(top, 6.0) * 1.15)
    finish(panel, legend=False)


def streams(panel, tests: list[dict]) -> None:
    panel.set_title("Streams in flight (thin: wanted)")
    series = tests[0]["series"]
    panel.step(series["t"], known(series["level"]), where="pre", gid="line-wanted", color=FAINT, linewidth=1.2)
    top = max([1, *(value for value in series["level"] if value is not None)])
    for number, test in enumerate(tests):
        line(panel, test, test["series"]["in_flight"], f"line-streams-{number}")
        top = max([top, *(value for value in test["series"]["in_flight"] if value is not None)])
    panel.set_ylim(top=top * 1.15)
    finish(panel, whole=True, legend=False)


def has_latency(tests: list[dict]) -> bool:
    """Whether any test knows latencies; replays do not."""
    return any(value is not None for test in tests for value in test["series"]["latency_ms"]["p95"])


def latency(panel, tests: list[dict]) -> None:
    objective = tests[0]["settings"]["objective_ms"]
    panel.set_title(f"Latency p95 (ms; objective {objective:g})")
    highest = sorted(v for test in tests for v in test["series"]["latency_ms"]["p95"] if v is not None) or [objective]
    for number, test in enumerate(tests):
        line(panel, test, test["series"]["latency_ms"]["p95"], f"line-latency-{number}")
    panel.axhline(objective, gid="line-objective", color=FAINT, linewidth=1.2, linestyle=(0, (1, 2)))
    # Where one test is seconds late, the objective would not be seen: the axis ends at ten times of it.
    panel.set_ylim(top=min(max(highest[-1], objective), 10 * objective) * 1.15)
    finish(panel, legend=False)


OWN_STYLE = """\
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 2.5rem; }
.bar { margin: .45rem 0; font-size: .9rem; break-inside: avoid; }
.bar .words { display: flex; justify-content: space-between; gap: 1rem; }
.bar .words span:first-child { overflow-wrap: anywhere; }
.bar .track { height: .8rem; border: 1px solid var(--grid); }
.bar .fill { height: 100%; min-width: 2px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.best { font-weight: 700; }
.best::after { content: " ★"; }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .4em; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: 1.6rem 0 0; font-size: .9rem; }
.legend span { overflow-wrap: anywhere; }
svg.dash { display: inline-block; width: 2.25rem; height: .5rem; margin-right: .5rem; vertical-align: middle; }
.legend + .picture { margin-top: .3rem; }
.compare th { white-space: normal; overflow-wrap: anywhere; }
.compare tbody th { min-width: 8rem; }
@media (max-width: 640px) { .compare th, .compare td { padding: .3rem .25rem; } }
"""

TEMPLATE = """\
<header>
<h1 id="headline">{{ headline }}</h1>
<p class="faint">{{ tests | length }} load tests of {{ services | join(", ") }}, over one time axis. A refused stream
counts as bad service with all its chunks. ★ marks the best where tests differ.</p>
</header>
{% for doubt in doubts %}
<p class="note">{{ doubt }}</p>
{% endfor %}
<div class="sides">
{% for side in bars %}
<section>
<h2>{{ side.title }} <span class="faint">(shorter is better)</span></h2>
{% for bar in side.bars %}
<div class="bar"><div class="words"><span>{{ bar.label }}</span>
<span{% if bar.best %} class="best"{% endif %}>{{ bar.text }}</span></div>
<div class="track"><div class="fill" style="width: {{ bar.share }}%; background: var({{ bar.variable }})"></div></div>
</div>
{% endfor %}
</section>
{% endfor %}
</div>
<p class="legend">
{% for test in tests %}
<span><svg class="dash" viewBox="0 0 36 8" aria-hidden="true"><line x1="0" x2="36" y1="4" y2="4" stroke-width="3"
stroke="var({{ test.variable }})" stroke-dasharray="{{ test.pattern }}"/></svg>{{ test.label }}</span>
{% endfor %}
</p>
{% include "picture" %}

<h2>Figures</h2>
<div class="scroll"><table class="compare">
<thead><tr><th></th>
{% for test in tests %}
<th><span class="key" style="background: var({{ test.variable }})"></span>{{ test.label }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr><th>{{ row.label }}</th>
{% for cell in row.cells %}
<td data-figure="{{ loop.index0 }}.{{ row.place }}"{% if cell.best %} class="best"{% endif %}>{{ cell.text }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>

{% if metrics %}
<h2>Metrics and their targets</h2>
<div class="scroll"><table>
<thead><tr><th>Metric</th><th class="text">Test</th>
<th>Target</th><th>Mean</th><th>Max</th><th>Unknown</th></tr></thead>
<tbody>
{% for row in metrics %}
{% set at = "%d.hpa.metrics.%d." % (row.test, row.metric) %}
<tr><th>{{ row.name }}</th><td class="text">{{ row.label }}</td>
<td data-figure="{{ at }}target">{{ shown(row.target) }}</td><td data-figure="{{ at }}mean">{{ shown(row.mean) }}</td>
<td data-figure="{{ at }}max">{{ shown(row.max) }}</td>
<td data-figure="{{ at }}unknown_samples">{{ row.unknown_samples }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

<h2>The tests</h2>
{% for test in tests %}
<p><strong>{{ test.label }}</strong>: {{ test.headline }}
<span class="faint">{{ test.started[:19] | replace("T", " ") }} UTC, {{ minutes(test.duration_s) }},
{{ test.endpoint }}.</span></p>
{% endfor %}
"""


def render(summaries: list[dict]) -> str:
    """Return the page; the same summaries always give the same page."""
    tests = prepared(summaries)
    return page_of(
        "Load tests compared",
        TEMPLATE,
        OWN_STYLE,
        headline=verdict(tests),
        services=list(dict.fromkeys(test["service"] for test in tests)),
        doubts=doubts(tests),
        tests=tests,
        bars=bars(tests),
        rows=table(tests),
        metrics=metric_rows(tests),
        pictures=draw(tests),
        shown=shown,
        clock=clock,
        minutes=minutes,
    )


def write_comparison(folder: str, summaries: list[dict], page: str = PAGE) -> str:
    """Write the page into a folder, which is made if it is not there; return its path."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(os.path.abspath(folder), page)
    write_file(path, render(summaries))
    return path


def main(words: list[str]) -> None:
    if len(words) < 3:
        sys.exit("usage: report_compare FOLDER [NAME=]REPORT [NAME=]REPORT …; FOLDER gets the page index.html")
    summaries = []
    try:
        for word in words[1:]:
            name, given, path = word.partition("=")
            summary = read_summary(path if given else word)
            summaries.append({**summary, "label": name} if given else summary)
        print(write_comparison(words[0], summaries))
    except SummaryError as error:
        sys.exit(f"report_compare: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])

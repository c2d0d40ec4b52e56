# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a load test: summary.json and index.html, made from the records alone.

The page can be made again from the records of an earlier test:
``python -m ansible_collections.speechops.riva.plugins.module_utils.report_page build/report``
"""

from __future__ import annotations

import json
import os
import sys
import traceback

from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import of_kind
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import CALLS, FIXED, LOGNORMAL
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import summarise
from ansible_collections.speechops.riva.plugins.module_utils.load_words import figure_rows, shown
from ansible_collections.speechops.riva.plugins.module_utils.report_pictures import draw

try:
    import jinja2

    JINJA2_IMPORT_ERROR = None
except ImportError:
    JINJA2_IMPORT_ERROR = traceback.format_exc()

RECORDS, SUMMARY, PAGE = "samples.jsonl", "summary.json", "index.html"

# What all pages look like: on a desk, on a phone, in light and dark, on paper.
STYLE = """\
:root { --page: #fcfcfb; --ink: #1c2024; --faint: #5d6670; --grid: #d9dde1;
  --blue: #1668c7; --green: #1a8a4c; --amber: #b86200; --red: #c62f2f; --violet: #7a3fc0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e8eaed; --faint: #a2abb5; --grid: #363c43;
    --blue: #63a9ff; --green: #4cc987; --amber: #f0a03c; --red: #ff7a70; --violet: #bb92f5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.45rem; line-height: 1.3; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; }
h1, p, .figures { overflow-wrap: anywhere; }
.faint { color: var(--faint); }
.note { border-left: 4px solid var(--amber); padding: .1rem .8rem; margin: .8rem 0; }
.bad { border-left-color: var(--red); }
.picture { margin: 1.2rem 0 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, "DejaVu Sans", sans-serif !important; }
svg.narrow { display: none; }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
td.long { white-space: normal; min-width: 14rem; }
thead th { color: var(--faint); font-weight: 600; }
tbody th { font-weight: 400; }
.figures { columns: 2; column-gap: 2.5rem; }
.figures div { display: flex; justify-content: space-between; gap: 1rem; padding: .25rem .1rem;
  border-bottom: 1px solid var(--grid); break-inside: avoid; font-size: .9rem; }
.figures dt, .figures dd { margin: 0; }
.figures dd { font-variant-numeric: tabular-nums; font-weight: 600; text-align: right; }
@media (max-width: 640px) {
  svg.wide { display: none; }
  svg.narrow { display: block; }
  .figures { columns: 1; }
  body { padding: 1rem 1rem 2rem; }
  h1 { font-size: 1.25rem; }
}
@media print {
  :root { --page: #fff; --ink: #000; --faint: #444; --grid: #bbb;
    --blue: #1668c7; --green: #1a8a4c; --amber: #b86200; --red: #c62f2f; --violet: #7a3fc0; }
  body { padding: 0; max-width: none; font-size: 11pt; }
  svg.wide { display: block; }
  svg.narrow { display: none; }
  .picture, table { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: .15rem .3rem; white-space: normal; overflow-wrap: anywhere; }
}
"""

# What all pages are in: nothing from elsewhere, readable on a desk and on a phone, light and dark.
FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
{{ style | safe }}
</style>
</head>
<body>
{{ body | safe }}
</body>
</html>
"""

# A module travels as Python files only, so the template is text in one.
# What several pages have: the picture for wide and narrow windows, and figures as rows of (label, place in the summary,
# text).
PARTS = {
    "picture": """\
<figure class="picture">
{{ pictures.wide | safe }}
{{ pictures.narrow | safe }}
</figure>
""",
    "figures": """\
<h2>Figures</h2>
<dl class="figures">
{% for label, place, text in rows %}
<div><dt>{{ label }}</dt><dd data-figure="{{ place }}">{{ text }}</dd></div>
{% endfor %}
</dl>
""",
}

TEMPLATE = """\
<header>
<h1 id="headline">{{ s.headline }}</h1>
<p class="faint">Service {{ s.service }} at {{ s.endpoint }}, {{ s.started[:19] | replace("T", " ") }} UTC,
{{ minutes(s.duration_s) }}. It ended because: {{ s.end_reason }}.</p>
</header>
{% for failure in s.streams.failures %}
<p class="note bad">{{ failure.count }} stream{{ "" if failure.count == 1 else "s" }} failed:
{{ failure.code }} {{ failure.details }}</p>
{% endfor %}
{% for refusal in s.streams.refusals %}
<p class="note">{{ refusal.count }} stream{{ " was" if refusal.count == 1 else "s were" }} refused:
{{ refusal.details }}</p>
{% endfor %}
{% for note in s.notes %}
<p class="note">{{ note }}</p>
{% endfor %}
{% include "picture" %}

{% include "figures" %}

<h2>Phases</h2>
<div class="scroll"><table>
<thead><tr><th>Phase</th><th>From</th><th>To</th><th>Desired</th><th>Ready</th><th>Failed</th><th>Refused</th><th>Late</th>
<th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>Max (ms)</th></tr></thead>
<tbody>
{% for phase in s.phases %}
{% set at = "phases.%d." % loop.index0 %}
<tr><th>{{ phase.name }}</th><td>{{ clock(phase.from_s) }}</td><td>{{ clock(phase.to_s) }}</td>
<td data-figure="{{ at }}most_desired">{{ shown(phase.most_desired) }}</td>
<td data-figure="{{ at }}most_ready">{{ shown(phase.most_ready) }}</td>
<td data-figure="{{ at }}failed">{{ shown(phase.failed) }}</td>
<td data-figure="{{ at }}refused">{{ shown(phase.refused) }}</td>
<td data-figure="{{ at }}chunks.late">{{ shown(phase.chunks.late) }}</td>
{% for name in ("p50", "p90", "p95", "p99", "max") %}
<td data-figure="{{ at }}latency_ms.{{ name }}">{{ shown(phase.latency_ms[name]) }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>

<h2>The HPA's decisions</h2>
{% if s.hpa.decisions %}
<div class="scroll"><table>
<thead><tr><th>Time</th><th>Replicas</th><th class="text">Reason</th></tr></thead>
<tbody>
{% for decision in s.hpa.decisions %}
<tr><td>{{ clock(decision.t_s) }}</td><td>{{ decision.to }}</td>
<td class="text long">{{ decision.message }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>None was seen.</p>
{% endif %}
{% if s.hpa.metrics %}
<div class="scroll"><table>
<thead><tr><th>Metric</th><th>Target</th><th>Mean</th><th>Max</th><th>Unknown</th></tr></thead>
<tbody>
{% for metric in s.hpa.metrics %}
<tr><th>{{ metric.name }}</th><td>{{ shown(metric.target) }}</td><td>{{ shown(metric.mean) }}</td>
<td>{{ shown(metric.max) }}</td><td>{{ metric.unknown_samples }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% if s.pods %}
<h2>Pods</h2>
<div class="scroll"><table>
<thead><tr><th>Pod</th><th class="text">Node</th>
<th>Made</th><th>Ready</th><th>Last seen</th><th>Restarts</th></tr></thead>
<tbody>
{% for pod in s.pods %}
<tr><th>{{ pod.name }}</th><td class="text">{{ pod.node }}</td><td>{{ clock(pod.created_s) }}</td>
<td>{{ clock(pod.ready_s) }}</td><td>{{ clock(pod.last_seen_s) }}</td><td>{{ pod.restarts }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% if s.streams_per_pod.pods %}
<h2>Streams per pod</h2>
<p class="faint">{{ {"named by the server": "Counted by this client: the server named its pod in each answer.",
"counted": "Counted by the pods' stream limit, as Prometheus has it.",
"estimated": "Estimated from the throughput of each pod, as Prometheus has it."}[s.streams_per_pod.source] }}
{% if s.capacity.streams_per_pod %}
A pod carries {{ shown(s.capacity.streams_per_pod) }} ({{ s.capacity.source }}).
{% endif %}
</p>
<div class="scroll"><table>
<thead><tr><th>Pod</th><th>Most at once</th><th>Mean</th><th>Served in all</th></tr></thead>
<tbody>
{% for pod in s.streams_per_pod.pods %}
{% set at = "streams_per_pod.pods.%d." % loop.index0 %}
<tr><th>{{ pod.name }}</th><td data-figure="{{ at }}most">{{ shown(pod.most) }}</td>
<td data-figure="{{ at }}mean">{{ shown(pod.mean) }}</td>
<td data-figure="{{ at }}served">{{ shown(pod.served) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

<h2>How it was measured</h2>
<p class="faint">Each stream is one caller with a connection of its own. It sends
{{ s.settings.chunk_duration_ms }} ms of speech every {{ s.settings.chunk_duration_ms }} ms, {{ lengths }}.
The latency of a result is the time from sending the newest chunk that it covers to receiving it.
A chunk is late when its result came more than {{ shown(s.settings.objective_ms) }} ms after it.
The cluster was asked every {{ shown(s.settings.sample_seconds) }} s. What happened before the start is
marked "before". Pod-seconds count the pods that exist, ready or not.</p>
"""


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0:
        return "before"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s long"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s long"


def lengths_text(plan: dict) -> str:
    """Say how long the streams of a test are."""
    if (plan.get("trace") or {}).get("kind") == CALLS:
        return "for as long as the call in the trace"
    longest = shown(plan["stream_seconds"])
    lengths = {
        FIXED: f"for {longest} s",
        LOGNORMAL: f"for half of them less than {shown(plan.get('stream_median_seconds'))} s, at most {longest} s",
    }
    spread = f"for {shown(plan['stream_seconds'] / 2)} to {longest} s"
    return lengths.get(plan.get("stream_distribution", ""), spread) + "; then a new one takes its place"


def page_of(title: str, template: str, own_style: str = "", **values) -> str:
    """Return a page: the template of its body in the common frame, with what it needs beyond the common style."""
    engine = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=jinja2.DictLoader(PARTS))
    body = engine.from_string(template).render(**values)
    return engine.from_string(FRAME).render(title=title, style=STYLE + own_style, body=body)


def render_page(summary: dict, records: list[dict]) -> str:
    """Return the page; the same summary and records always give the same page."""
    return page_of(
        f"Load test of {summary['service']}",
        TEMPLATE,
        s=summary,
        rows=figure_rows(summary),
        pictures=draw(summary, records),
        lengths=lengths_text(of_kind(records, "start")[0]["plan"]),
        shown=shown,
        clock=clock,
        minutes=minutes,
    )


def read_records(path: str) -> list[dict]:
    """Read the records of a test; a last line that an interrupt cut in two is left out."""
    records = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
    return records


def write_report(folder: str, records: list[dict]) -> dict:
    """Write summary.json and index.html; return the summary."""
    if not of_kind(records, "start"):
        raise ValueError(f"{folder} holds no record of the start of a load test")
    summary = summarise(records)
    write_file(os.path.join(folder, SUMMARY), json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    write_file(os.path.join(folder, PAGE), render_page(summary, records))
    return summary


def write_file(path: str, text: str) -> None:
    """Write a file in one step: a reader sees the old one or the new one, never a part."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


if __name__ == "__main__":
    report_folder = sys.argv[1] if len(sys.argv) > 1 else "build/report"
    print(write_report(report_folder, read_records(os.path.join(report_folder, RECORDS)))["headline"])

# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pictures of the load report: four panels over one time axis, as SVG for light and dark pages.

Colours are drawn as stand-in values and then replaced by CSS variables, so that a picture follows the
page's theme.
"""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import of_kind, percentile
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import schedule_of
from ansible_collections.speechops.riva.plugins.module_utils.service_streams import serving

try:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

    MATPLOTLIB_IMPORT_ERROR = None
except ImportError:
    MATPLOTLIB_IMPORT_ERROR = traceback.format_exc()

# Stand-in colour in the drawing -> CSS variable on the page.
INK, FAINT, GRID = "#010101", "#020202", "#030303"
BLUE, GREEN, AMBER, RED, VIOLET = "#040404", "#050505", "#060606", "#070707", "#080808"
CSS_VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    BLUE: "--blue",
    GREEN: "--green",
    AMBER: "--amber",
    RED: "--red",
    VIOLET: "--violet",
}


ROUND_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


@dataclass(frozen=True)
class Layout:
    name: str
    width: float  # inches of 72 points, which the page shows as pixels
    panel_height: float
    font: float
    prefix: str = ""  # of the ids, where a page has several pictures


WIDE = Layout("wide", 1080 / 72, 165 / 72, 12)
NARROW = Layout("narrow", 352 / 72, 150 / 72, 10)


def latency_bins(records: list[dict], seconds: float) -> list[dict]:
    """Return the percentiles of the latencies in each stretch of time that has any."""
    bins: dict[int, list[float]] = {}
    for window in of_kind(records, "streams"):
        bins.setdefault(int(window["t"] // seconds), []).extend(window["latency_ms"])
    found = []
    for index in sorted(bins):
        values = sorted(bins[index])
        if values:
            found.append({"t": (index + 0.5) * seconds, **{f"p{p}": percentile(values, p) for p in (50, 95, 99)}})
    return found


def bin_seconds(duration: float) -> float:
    return max(2.0, float(round(duration / 120)))


def tick_seconds(duration: float, most: int) -> float:
    """Return the smallest round distance of ticks that needs no more than *most* of them."""
    return next((step for step in ROUND_SECONDS if duration / step <= most), duration)


def marks(summary: dict, records: list[dict]) -> list[dict]:
    """Return the events to mark: phases, the HPA's decisions, the end of the load."""
    plan = of_kind(records, "start")[0]["plan"]
    found = []
    for phase in schedule_of(plan).phases:
        if phase.start < summary["duration_s"]:
            word = "stream" if phase.streams == 1 else "streams"
            found.append({"t": phase.start, "text": f"{phase.streams} {word}", "kind": "phase"})
    if summary["times"]["load_end_s"] is not None:
        found.append({"t": summary["times"]["load_end_s"], "text": "last stream ends", "kind": "phase"})
    decisions = summary["hpa"]["decisions"] or summary["replicas"]["changes"]
    for decision in decisions:
        found.append({"t": decision["t_s"], "text": f"HPA: {decision['to']}", "kind": "scale"})
    return sorted((mark for mark in found if mark["t"] is not None), key=lambda mark: mark["t"])


def capacity_over_time(summary: dict, records: list[dict]) -> list[dict]:
    """Return what the pods that serve can carry over time; nothing where no calibrated capacity of a pod is known."""
    limit = summary["capacity"]["streams_per_pod"]
    if not limit:
        return []
    found = []
    for sample in of_kind(records, "cluster"):
        names = [pod["name"] for pod in sample["pods"] if pod["ready"] and not pod["leaving"]]
        pods = serving(names, sample.get("streams", {}), sample.get("limits", {}))
        found.append({"t": sample["t"], "streams": limit * pods})
    return found


def draw(summary: dict, records: list[dict]) -> dict[str, str]:
    """Draw the picture in each layout; return SVG text by the layout's name."""
    return {layout.name: _draw(summary, records, layout) for layout in (WIDE, NARROW)}


def _draw(summary: dict, records: list[dict], layout: Layout) -> str:
    def paint(panels) -> None:
        for panel, painter in zip(panels, (_replicas, _metric, _streams, _latency), strict=True):
            painter(panel, summary, records)
            finish(panel, whole=painter in (_replicas, _streams))
        over_time(panels, summary["duration_s"], layout)
        _mark(panels, marks(summary, records), layout, summary["duration_s"])

    return sketch(layout, 4, paint, "Replicas, HPA metric, streams and latency over time")


def finish(panel, whole: bool = False, legend: bool = True) -> None:
    """Give a painted panel its axis from 0 on, and its legend. *whole*: only whole numbers are marked."""
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=whole))
    panel.set_axisbelow(True)
    if not legend:
        return
    # The legend stands on the title's line, where no curve can run through it.
    panel.legend(
        *panel.get_legend_handles_labels(),
        loc="lower right",
        bbox_to_anchor=(1.0, 0.98),
        ncols=5,
        borderaxespad=0.1,
        handlelength=1.4,
        columnspacing=1.0,
        handletextpad=0.5,
    )


def over_time(panels, duration: float, layout: Layout) -> None:
    """Give all panels the same time axis, from 0 to *duration* seconds."""
    panels[0].set_xlim(0, max(1.0, duration))
    panels[-1].xaxis.set_major_formatter(FuncFormatter(_clock))
    panels[-1].xaxis.set_major_locator(MultipleLocator(tick_seconds(duration, 11 if layout.name == "wide" else 5)))
    panels[-1].set_xlabel("time since the start (min:s)")


def sketch(layout: Layout, count: int, paint: Callable, label: str) -> str:
    """Return an SVG of *count* panels below each other that share their x axis; *paint* gets the panels.

    *label* is what the picture shows, for those who do not see it.
    """
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": layout.name,
        "font.family": "sans-serif",
        "font.size": layout.font,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.titlelocation": "left",
        "axes.titlesize": layout.font + 1,
        "axes.titleweight": "bold",
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": FAINT,
        "ytick.labelcolor": FAINT,
        "legend.frameon": False,
        "legend.fontsize": layout.font - 1,
        "lines.linewidth": 2,
        "lines.solid_capstyle": "round",
    }
    with matplotlib.rc_context(style):
        spaces = ConstrainedLayoutEngine(h_pad=0.06, hspace=0.02, w_pad=0.02)
        figure = Figure(figsize=(layout.width, count * layout.panel_height + 0.7), layout=spaces)
        canvas = FigureCanvasSVG(figure)
        paint(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
        out = io.StringIO()
        canvas.print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _themed(out.getvalue(), layout, label)


def _clock(seconds: float, _position=None) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _steps(panel, rows: list[dict], key: str, end: float, gid: str, **style) -> None:
    times = [row["t"] for row in rows]
    values = [row[key] for row in rows]
    if rows:  # the last value holds to the end
        times, values = [*times, end], [*values, values[-1]]
    panel.step(times, values, where="post", gid=gid, **style)


def _replicas(panel, summary: dict, records: list[dict]) -> None:
    samples, end = of_kind(records, "cluster"), summary["duration_s"]
    panel.set_title("Replicas")
    _steps(
        panel, samples, "desired", end, "line-replicas-desired", color=AMBER, label="desired", linestyle=(0, (4, 1.5))
    )
    _steps(panel, samples, "ready", end, "line-replicas-ready", color=GREEN, label="ready")
    panel.set_ylim(top=max([max(s["replicas"], s["desired"]) for s in samples], default=1) + 0.6)


def _metric(panel, summary: dict, records: list[dict]) -> None:
    samples, metrics = of_kind(records, "cluster"), summary["hpa"]["metrics"]
    single = len(metrics) == 1
    panel.set_title(metrics[0]["name"] if single else "HPA metrics, as a share of their targets")
    top = 0.0
    for number, (metric, colour) in enumerate(zip(metrics, (BLUE, VIOLET, GREEN, RED), strict=False)):
        scale = 1.0 if single or not metric["target"] else metric["target"]
        points = [
            (sample["t"], seen["value"] / scale if seen["value"] is not None else float("nan"))
            for sample in samples
            for seen in sample["metrics"]
            if seen["name"] == metric["name"]
        ]
        panel.plot(
            [t for t, _ in points],
            [value for _, value in points],
            gid=f"line-metric-{number}",
            color=colour,
            label="value" if single else metric["name"],
        )
        top = max([top, *(value for _, value in points if value == value)])
    target = metrics[0]["target"] if single else 1.0 if metrics else None
    if target is not None:
        panel.axhline(
            target,
            gid="line-metric-target",
            color=AMBER,
            linestyle=(0, (4, 1.5)),
            linewidth=1.6,
            label=f"target {target:g}" if single else "target",
        )
        top = max(top, target)
    panel.set_ylim(top=top * 1.15 or 1.0)


def _streams(panel, summary: dict, records: list[dict]) -> None:
    windows = of_kind(records, "streams")
    panel.set_title("Streams")
    _steps(
        panel,
        windows,
        "level",
        summary["duration_s"],
        "line-streams-wanted",
        color=FAINT,
        label="wanted",
        linewidth=1.4,
        linestyle=(0, (4, 1.5)),
    )
    _steps(panel, windows, "in_flight", summary["duration_s"], "line-streams-in-flight", color=BLUE, label="in flight")
    top = max([max(w["in_flight"], w["level"]) for w in windows], default=1)
    capacity = capacity_over_time(summary, records)
    if capacity:
        style = {"color": GREEN, "label": "capacity", "linewidth": 1.4}
        _steps(panel, capacity, "streams", summary["duration_s"], "line-streams-capacity", **style)
        top = max([top, *(row["streams"] for row in capacity)])
    for state, marker, colour in (("failed", "x", RED), ("refused", "|", VIOLET)):
        times = [stream["t"] for stream in of_kind(records, "stream") if stream["state"] == state]
        if times:
            style = {"color": colour, "label": state, "clip_on": False}
            panel.plot(times, [0] * len(times), marker, gid=f"points-streams-{state}", **style)
    panel.set_ylim(top=top * 1.15 + 1)


def _latency(panel, summary: dict, records: list[dict]) -> None:
    bins = latency_bins(records, bin_seconds(summary["duration_s"]))
    objective = summary["settings"]["objective_ms"]
    panel.set_title("Latency (ms)")
    times = [b["t"] for b in bins]
    for name, colour in (("p50", GREEN), ("p95", BLUE), ("p99", VIOLET)):
        panel.plot(times, [b[name] for b in bins], gid=f"line-latency-{name}", color=colour, label=name)
    panel.axhline(
        objective,
        gid="line-latency-objective",
        color=RED,
        linestyle=(0, (4, 1.5)),
        linewidth=1.4,
        label=f"objective {objective:g}",
    )
    panel.set_ylim(top=max([b["p99"] for b in bins] + [objective], default=1) * 1.15)


def _mark(panels, found: list[dict], layout: Layout, duration: float) -> None:
    """Draw each event through all panels and name it above the first, out of the way of its neighbours."""
    room = duration * (layout.font * 0.62 * 12) / (layout.width * 72)
    rows_end: list[float] = []
    for number, mark in enumerate(found):
        colour = AMBER if mark["kind"] == "scale" else FAINT
        for panel in panels:
            panel.axvline(mark["t"], color=colour, linewidth=1, linestyle=(0, (1, 2)), zorder=0.5)
        row = next((i for i, end in enumerate(rows_end) if mark["t"] >= end), len(rows_end))
        if row == len(rows_end):
            rows_end.append(0.0)
        width = room * (len(mark["text"]) + 1) / 12
        left = mark["t"] + width <= duration
        rows_end[row] = mark["t"] + (width if left else 0)
        panels[0].annotate(
            mark["text"],
            (mark["t"], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2 if left else -2, layout.font * 2.2 + row * (layout.font + 3)),
            textcoords="offset points",
            ha="left" if left else "right",
            color=colour,
            fontsize=layout.font - 1,
            gid=f"mark-{number}",
        )


def _themed(svg: str, layout: Layout, label: str) -> str:
    """Keep only the svg element, make its ids its own, and put CSS variables in the place of the colours."""
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in CSS_VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    own = f"{layout.name}-{layout.prefix}"
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    for reference in ("url(#", 'xlink:href="#'):
        svg = svg.replace(reference, f"{reference}{own}")
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    return re.sub(
        r"<svg [^>]*>",
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'class="{layout.name}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{label}">',
        svg,
        count=1,
    )

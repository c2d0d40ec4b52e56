# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What came out: means over the seeds, the comparison at equal cost, a table, a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .replay import Outcome

COLOURS = {"article": "#b3261e", "peers": "#8a6d00", "peers, with a limit": "#c9a227", "demand": "#0b6e4f"}
STYLES = {
    "demand, no forecast": ("#5aa98a", "--"),
    "demand, no limit": ("#777777", ":"),
    "demand, oldest first": ("#1f4fa3", "-"),
    "peers, with a limit, oldest first": ("#c9a227", ":"),
}


@dataclass(frozen=True)
class Point:
    """One rule on one trace: the mean over all seeds."""

    family: str
    dial: float
    bad: float
    bad_error: float
    late: float
    refused: float
    pod_seconds: float
    turns: float
    most_turns: int
    streams_cut: int
    seeds: int


def point(family: str, dial: float, outcomes: Sequence[Outcome]) -> Point:
    bad = np.array([outcome.bad for outcome in outcomes])
    offered = np.array([outcome.chunks + outcome.refused + outcome.cut for outcome in outcomes])
    return Point(
        family,
        dial,
        float(bad.mean()),
        float(bad.std(ddof=1) / math.sqrt(len(bad))) if len(bad) > 1 else 0.0,
        float(np.mean([outcome.late for outcome in outcomes] / offered)),
        float(np.mean([outcome.refused for outcome in outcomes] / offered)),
        float(np.mean([outcome.pod_seconds for outcome in outcomes])),
        float(np.mean([outcome.turns for outcome in outcomes])),
        max(outcome.turns for outcome in outcomes),
        sum(outcome.streams_cut for outcome in outcomes),
        len(outcomes),
    )


def frontier(points: Sequence[Point]) -> list[tuple[float, float]]:
    """(cost, bad service) of the settings that no other setting of the same family beats in both."""
    best: list[tuple[float, float]] = []
    for each in sorted(points, key=lambda entry: (entry.pod_seconds, entry.bad)):
        if not best or each.bad < best[-1][1]:
            best.append((each.pod_seconds, each.bad))
    return best


def bad_at(points: Sequence[Point], cost: float) -> float:
    """The bad service of this family for at most this cost, straight between its settings; inf: none is so cheap."""
    curve = frontier(points)
    if cost < curve[0][0]:
        return math.inf
    return float(np.interp(cost, [each[0] for each in curve], [each[1] for each in curve]))


def compare(points: Sequence[Point]) -> list[dict]:
    """Ours against each setting of the others, at that setting's cost."""
    ours = [each for each in points if each.family == "demand"]
    rows = []
    for each in points:
        if each.family in ("article", "peers", "peers, with a limit"):
            at_cost = bad_at(ours, each.pod_seconds)
            rows.append(
                {
                    "family": each.family,
                    "dial": each.dial,
                    "pod_seconds": each.pod_seconds,
                    "bad": each.bad,
                    "ours_at_that_cost": at_cost if math.isfinite(at_cost) else None,
                    "ratio": at_cost / each.bad if each.bad and math.isfinite(at_cost) else None,
                }
            )
    return rows


def per_cent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def table(points: Sequence[Point]) -> str:
    lines = [
        "| rule | setting | bad service | late | refused | pod-seconds | turns |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in points:
        error = f" ± {100 * each.bad_error:.2f}" if each.seeds > 1 else ""
        lines.append(
            f"| {each.family} | {each.dial:g} | {100 * each.bad:.2f}{error} % | {per_cent(each.late)}"
            f" | {per_cent(each.refused)} | {each.pod_seconds:,.0f} | {each.turns:.1f} (at most {each.most_turns}) |"
        )
    return "\n".join(lines)


def comparison_table(rows: Sequence[dict]) -> str:
    lines = [
        "| against | setting | pod-seconds | its bad service | ours at that cost | ours ÷ its |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"| {row['family']} | {row['dial']:g} | {row['pod_seconds']:,.0f} | {per_cent(row['bad'])}"
            f" | {per_cent(row['ours_at_that_cost'])} | {ratio} |"
        )
    return "\n".join(lines)


def as_json(points: Sequence[Point]) -> list[dict]:
    return [asdict(each) for each in points]


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def picture(path: Path, panels: dict[str, Sequence[Point]], floor: float = 1e-4) -> None:
    """Bad service over pod-seconds, one panel a trace; a point at the floor stands for that little or less."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.4), sharey=True, squeeze=False)
    for axis, (title, points) in zip(axes[0], panels.items(), strict=True):
        for family in dict.fromkeys(each.family for each in points):
            chosen = [each for each in points if each.family == family]
            colour, line = STYLES.get(family, (COLOURS.get(family, "#444444"), "-"))
            axis.plot(
                [each.pod_seconds for each in chosen],
                [100 * max(floor, each.bad) for each in chosen],
                line,
                marker="o",
                markersize=3.5,
                color=colour,
                label=family,
            )
            for each in (chosen[0], chosen[-1]):
                where = (each.pod_seconds, 100 * max(floor, each.bad))
                axis.annotate(f"{each.dial:g}", where, (3, 3), textcoords="offset points", fontsize=7, color=colour)
        axis.set_yscale("log")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("pod-seconds")
        axis.grid(True, which="both", linewidth=0.3)
    axes[0][0].set_ylabel("bad service, % of the chunks")
    axes[0][0].legend(fontsize=7, loc="lower left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without its date the file is the same for the same figures.
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)

"""The page: pictures with all their curves, tables that agree with the summary, one file that needs nothing else."""

import json
import re
from html.parser import HTMLParser

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import report_page
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import summarise
from ansible_collections.speechops.riva.plugins.module_utils.load_words import look_up, shown
from ansible_collections.speechops.riva.plugins.module_utils.report_pictures import (
    CSS_VARIABLES,
    latency_bins,
    tick_seconds,
)

VOID = {"meta", "link", "br", "img", "hr", "input"}
LINES = {
    "line-replicas-desired",
    "line-replicas-ready",
    "line-metric-0",
    "line-metric-target",
    "line-streams-wanted",
    "line-streams-in-flight",
    "points-streams-failed",
    "line-latency-p50",
    "line-latency-p95",
    "line-latency-p99",
    "line-latency-objective",
}


class Page(HTMLParser):
    """Collects what the tests ask for, and complains about tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.figures, self.svgs, self.paths, self.texts = [], [], {}, [], {}, {}
        self.links = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append((tag, attrs))

    def handle_startendtag(self, tag, attrs):
        self._note(tag, dict(attrs))

    def _note(self, tag, attrs):
        self.links += [value for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "svg":
            self.svgs.append(attrs["class"])
        if tag == "path":
            for _, outer in self.open:
                if "id" in outer:
                    self.paths.setdefault(outer["id"], []).append(attrs.get("d", ""))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if not self.open or not data.strip():
            return
        tag, attrs = self.open[-1]
        if "data-figure" in attrs:
            self.figures[attrs["data-figure"]] = data.strip()
        self.texts.setdefault(tag, []).append(data.strip())


@pytest.fixture(scope="module")
def report(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report_page.write_report(str(folder), records)
    return folder


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def summary(report):
    return json.loads((report / "summary.json").read_text(encoding="utf-8"))


def test_the_headline_is_on_top(page, summary):
    assert page.texts["h1"] == [summary["headline"]]


def test_numbers_in_the_tables_are_those_of_the_summary(page, summary):
    assert len(page.figures) > 60
    for place, text in page.figures.items():
        keys = place.split(".")
        value = summary
        for key in keys:
            value = value[int(key)] if key.isdigit() else value[key]
        assert text == shown(value), place


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_all_pictures_are_drawn(page, layout):
    assert layout in page.svgs
    for line in LINES:
        assert f"{layout}-{line}" in page.ids
    for line in LINES - {"line-metric-target", "line-latency-objective", "points-streams-failed"}:
        drawn = page.paths[f"{layout}-{line}"][0]
        assert len(re.findall("[ML]", drawn)) > 5, line


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_replicas_and_decisions_are_marked(page, records, layout):
    assert page.texts["text"].count("HPA: 3") == 2
    drawn = page.paths[f"{layout}-line-replicas-desired"][0]
    heights = {round(float(y), 1) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", drawn)}
    assert len(heights) == 3  # one, two and three replicas


def test_both_themes_colour_the_pictures(page, report):
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    for stand_in, variable in CSS_VARIABLES.items():
        assert stand_in not in text
        assert text.count(f"{variable}:") == 3, variable
        assert f"var({variable})" in text
    assert not re.search(r"(fill|stroke): ?#", text)


def test_the_page_needs_nothing_else_and_ids_are_unique(page):
    assert all(link.startswith("#") for link in page.links)
    assert len(page.ids) == len(set(page.ids))


def test_text_from_the_cluster_cannot_break_the_page(records):
    records = records[:400]
    evil = [{**r, "details": "<script>alert(1)</script>"} if r["kind"] == "stream" else r for r in records]
    assert "<script" not in report_page.render_page(summarise(evil), evil)


@pytest.mark.parametrize("length", [1, 40])
def test_a_cut_off_test_still_has_a_page(records, length):
    Page(report_page.render_page(summarise(records[:length]), records[:length]))


def test_several_metrics_share_a_panel_as_ratios(records):
    second = {"name": "riva_streams", "kind": "averageValue", "target": 20.0, "value": 30.0}
    both = [{**r, "metrics": [*r["metrics"], second]} if r["kind"] == "cluster" else r for r in records]
    page = Page(report_page.render_page(summarise(both), both))
    assert {"wide-line-metric-0", "wide-line-metric-1"} <= set(page.ids)
    assert "HPA metrics, as a share of their targets" in page.texts["text"]


def test_a_report_is_made_again_from_its_records(records, report, tmp_path):
    """… byte for byte: the page follows from its records and from nothing else."""
    lines = [json.dumps(record) for record in records]
    path = tmp_path / report_page.RECORDS
    path.write_text("\n".join([*lines, '{"kind": "stre']), encoding="utf-8")
    assert report_page.read_records(str(path)) == records
    report_page.write_report(str(tmp_path), report_page.read_records(str(path)))
    for name in ("summary.json", "index.html"):
        assert (tmp_path / name).read_text() == (report / name).read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "index.html",
        "samples.jsonl",
        "summary.json",
    ]


def test_records_without_a_start_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no record of the start"):
        report_page.write_report(str(tmp_path), [])


def test_latency_bins():
    records = [
        {"kind": "streams", "t": 0.5, "latency_ms": [10.0, 20.0]},
        {"kind": "streams", "t": 1.5, "latency_ms": [30.0]},
        {"kind": "streams", "t": 2.5, "latency_ms": []},
        {"kind": "streams", "t": 4.1, "latency_ms": [7.0]},
    ]
    assert latency_bins(records, 2.0) == [
        {"t": 1.0, "p50": 20.0, "p95": 30.0, "p99": 30.0},
        {"t": 5.0, "p50": 7.0, "p95": 7.0, "p99": 7.0},
    ]


@pytest.mark.parametrize(("duration", "most", "expected"), [(385, 11, 60), (385, 5, 120), (9, 11, 1), (60, 5, 15)])
def test_ticks_are_round(duration, most, expected):
    assert tick_seconds(duration, most) == expected


def test_look_up():
    assert look_up({"a": {"b": 3}}, "a.b") == 3

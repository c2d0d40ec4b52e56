"""The page that compares load tests: the verdict, the tables, the curves, and what makes tests incomparable."""

import json
import re

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import report_compare
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import summarise
from ansible_collections.speechops.riva.plugins.module_utils.load_words import look_up, shown
from ansible_collections.speechops.riva.plugins.module_utils.report_compare import (
    SummaryError,
    bars,
    doubts,
    prepared,
    read_summary,
    render,
    table,
    verdict,
)

from tests.unit.load.test_report import Page


def other(records):
    """The same load with one more pod all the time, no failed stream, and half the latency."""
    changed = []
    for record in records:
        record = dict(record)
        if record["kind"] == "cluster":
            pods = [*record["pods"], {**record["pods"][0], "name": "riva-asr-6c9d-ddddd"}]
            record |= {"desired": record["desired"] + 1, "ready": record["ready"] + 1, "pods": pods, "min": 2}
        if record["kind"] == "streams":
            record |= {"latency_ms": [value / 2 for value in record["latency_ms"]], "chunks_late": 0, "failed": 0}
        if record["kind"] == "stream":
            record |= {"state": "finished", "code": "", "details": "", "late": 0, "answered": record["chunks"]}
        changed.append(record)
    return changed


@pytest.fixture(scope="session")
def two(records):
    return [
        {**summarise(records), "label": "article", "folder": "a"},
        {**summarise(other(records)), "label": "balanced", "folder": "b"},
    ]


def test_the_better_service_and_the_cheaper_one_are_named(two):
    said = verdict(prepared(two))
    assert said.startswith("balanced serves best: 0 % bad service for ")
    assert ". article costs least: " in said
    assert re.search(r"The better service costs \d+ % more\.$", said)


def test_one_that_is_better_in_both_is_said_so(two):
    cheap = {**two[1], "gpu_seconds": two[0]["gpu_seconds"] - 100}
    said = verdict(prepared([two[0], cheap]))
    assert said.startswith("balanced is better in both: 0 % bad service")
    assert "article: " in said


def test_no_difference_is_said_so(two):
    assert verdict(prepared([two[0], {**two[0], "label": "again"}])).startswith("No difference: ")


def test_without_gpus_pods_are_counted(two):
    tests = prepared([{**two[0], "gpu_seconds": 0}, two[1]])
    assert "pod-seconds" in verdict(tests)
    assert [side["place"] for side in bars(tests)] == ["bad_service.percent", "pod_seconds"]


def test_the_best_is_marked_where_less_is_better_and_tests_differ(two):
    rows = {row["place"]: row for row in table(prepared(two))}
    assert [cell["best"] for cell in rows["latency_ms.p95"]["cells"]] == [False, True]
    assert [cell["best"] for cell in rows["gpu_seconds"]["cells"]] == [True, False]
    assert [cell["best"] for cell in rows["streams.opened"]["cells"]] == [False, False]
    assert [cell["best"] for cell in rows["streams.refused"]["cells"]] == [False, False]  # 0 and 0


def test_the_longest_bar_is_whole_and_the_best_is_marked(two):
    bad, cost = bars(prepared(two))
    assert max(bar["share"] for bar in bad["bars"]) == max(bar["share"] for bar in cost["bars"]) == 100
    assert [bar["best"] for bar in cost["bars"]] == [True, False]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"objective_ms": 200}}, "other objective_ms: article 300, balanced 200. "),
        ({"phases": [{"name": "1: 9 streams", "from_s": 0}]}, "other phases"),
        ({"end_reason": "interrupted by SIGINT"}, "balanced ended early or late: interrupted by SIGINT"),
        ({"notes": ["The sender itself ran late: much"]}, "balanced: The sender itself ran late"),
    ],
)
def test_what_makes_tests_incomparable_is_said(two, change, said):
    changed = {**two[1], **{k: {**two[1][k], **v} if isinstance(v, dict) else v for k, v in change.items()}}
    assert doubts(prepared(two)) == []
    assert any(said in doubt for doubt in doubts(prepared([two[0], changed])))


def test_two_tests_of_one_name_are_told_apart(two):
    assert [t["label"] for t in prepared([two[0], two[0], two[0]])] == ["article", "article (2)", "article (3)"]


@pytest.mark.parametrize("count", [1, 7])
def test_from_two_to_six_tests(two, count):
    with pytest.raises(SummaryError, match="from 2 to 6"):
        prepared(two[:1] * count)


@pytest.fixture(scope="module")
def text(two):
    return render(two)


def test_numbers_in_the_tables_are_those_of_the_summaries(text, two):
    page = Page(text)
    tests = prepared(two)
    assert len(page.figures) > 50
    for place, shown_text in page.figures.items():
        number, _, key = place.partition(".")
        value = tests[int(number)]
        for part in key.split("."):
            value = value[int(part)] if part.isdigit() else value[part]
        assert shown_text == shown(value), place


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_every_test_has_every_curve(text, layout):
    page = Page(text)
    for line in ("ready", "desired", "metric-0", "streams", "per-pod", "latency", "lost", "cost"):
        for number in (0, 1):
            drawn = page.paths[f"{layout}-line-{line}-{number}"][0]
            # A flat line keeps its two ends only.
            least = 2 if (line, number) == ("lost", 1) else 4
            assert len(re.findall("[ML]", drawn)) >= least, (line, number)
    assert len(page.ids) == len(set(page.ids))


def test_a_metric_that_only_one_test_has_gets_a_panel_too(two):
    demand = {"name": "speech_streams_demand", "target": 20.0, "max": 22.0, "mean": 11.0, "unknown_samples": 0}
    series = two[1]["series"]
    more = {**series, "metrics": [*series["metrics"], {**demand, "values": [20.0] * len(series["t"])}]}
    hpa = {**two[1]["hpa"], "metrics": [*two[1]["hpa"]["metrics"], demand]}
    page = Page(render([two[0], {**two[1], "series": more, "hpa": hpa}]))
    assert "wide-line-metric-1-1" in page.ids
    assert "wide-line-metric-1-0" not in page.ids
    assert page.figures["1.hpa.metrics.1.target"] == "20"


def test_the_page_needs_nothing_else_and_cannot_be_broken(two, text):
    broken = render([{**two[0], "label": "<script>alert(1)</script>"}, two[1]])
    assert "<script" not in broken
    assert all(link.startswith("#") for link in Page(broken).links)
    assert render(two) == text


def test_summaries_are_read_from_folders_and_files(two, tmp_path):
    folder = tmp_path / "article-10"
    folder.mkdir()
    file = folder / "summary.json"
    bare = {key: value for key, value in two[0].items() if key != "folder"}
    file.write_text(json.dumps({**bare, "label": ""}))
    assert read_summary(str(folder))["label"] == read_summary(str(file))["label"] == "article-10"
    file.write_text(json.dumps({**bare, "label": "of its own"}))
    assert read_summary(str(folder))["label"] == "of its own"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read: No such file"), ("{", "is no JSON"), ('{"schema": 1}', "make the report again")],
)
def test_what_is_no_summary_is_explained(tmp_path, content, said):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(SummaryError, match=said):
        read_summary(str(tmp_path))


def test_the_command_names_the_tests(two, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report_compare, "draw", lambda tests: {"wide": "", "narrow": ""})
    for name, summary in zip("ab", two, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    report_compare.main([str(tmp_path / "out"), f"NVIDIA's={tmp_path}/a", f"ours={tmp_path}/b/summary.json"])
    page = tmp_path / "out" / "index.html"
    assert capsys.readouterr().out.strip() == str(page)
    assert "ours serves best" in Page(page.read_text()).texts["h1"][0]
    with pytest.raises(SystemExit, match="can't be read"):
        report_compare.main([str(tmp_path / "out"), str(tmp_path / "a"), str(tmp_path / "none")])


def test_look_up_of_all_figures(two):
    for test in prepared(two):
        for _, place, _ in report_compare.FIGURES:
            look_up(test, place)

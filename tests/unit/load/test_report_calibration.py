"""The page of a calibration: curves, tables that agree with the result, and what a reader must know."""

import functools
import json
import re

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import report_calibration
from ansible_collections.speechops.riva.plugins.module_utils.load_words import shown
from ansible_collections.speechops.riva.plugins.module_utils.report_calibration import (
    console_table,
    entry_text,
    headline,
    notes,
    render,
    write_result,
)

from tests.unit.load.conftest import example_calibration
from tests.unit.load.test_report import Page


@pytest.fixture
def result():
    return example_calibration()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "One pod of riva/riva-asr carries 21 streams within 300 ms (at 95 % confidence neither more nor less)."),
        ({"low": 20, "high": 23}, "carries 21 streams within 300 ms (at 95 % confidence 20 to 23)."),
        ({"bounded": True}, "carries 21 streams or more within"),
        ({"streams": 1, "low": 1, "high": 1}, "carries 1 stream within"),
    ],
)
def test_the_headline(result, change, said):
    result["capacity"] |= change
    assert said in headline(result)


@functools.cache
def _page(text):
    return Page(render(json.loads(text)))


def page_of(result):
    """The page of a result; drawn once for all tests that look at the same one."""
    return _page(json.dumps(result))


def test_numbers_in_the_tables_are_those_of_the_result(result):
    page = page_of(result)
    assert len(page.figures) > 80
    for place, text in page.figures.items():
        value = result
        for key in place.split("."):
            value = value[int(key)] if key.isdigit() else value[key]
        assert text == shown(value), place


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_all_pictures_are_drawn(result, layout):
    page = page_of(result)
    for line in ("latency-p50", "latency-p95", "latency-p99", "throughput", "queue"):
        drawn = page.paths[f"{layout}-line-{line}"][0]
        assert len(re.findall("[ML]", drawn)) >= 5, line
    for gid in ("points-late-passed", "points-late-failed", "line-objective", "line-saturation", "line-queue-target"):
        assert f"{layout}-{gid}" in page.ids
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links)


def test_the_entry_on_the_page_is_yaml_as_it_is_written(result):
    (text,) = page_of(result).texts["pre"]
    assert yaml.safe_load(text) == {"riva_calibration": {"riva-asr": result["entry"]}}
    assert yaml.safe_load(entry_text("a", {"x": 1.5})) == {"riva_calibration": {"a": {"x": 1.5}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"capacity": {"bounded": True}}, "may carry more"),
        ({"model_load": None}, "was not measured: the pod was not seen"),
        ({"queue_seen": False}, "its target is half of the objective"),
        ({"pacing_lag_p99_ms": 90.0}, "The sender itself ran late"),
        ({"kept": True}, "which stays as it is"),
        ({"gpus": {"pods_that_fit": 4}}, "max_replicas is 7, but the GPUs of this cluster have room for 4 pods"),
    ],
)
def test_what_a_reader_must_know(result, change, said):
    assert notes(result) == []
    for key, value in change.items():
        result[key] = {**result[key], **value} if isinstance(value, dict) and key in result else value
    (note,) = notes(result)
    assert said in note


def test_a_result_without_queue_replicas_or_saturation_has_a_page(result):
    result["levels"] = [{**level, "queue_ms": None} for level in result["levels"][:3]]
    result["capacity"]["saturation"] = None
    result["entry"] = {k: v for k, v in result["entry"].items() if "replicas" not in k}
    Page(render({**result, "peak": None, "model_load": None}))
    assert console_table(result)


@pytest.fixture
def _undrawn(monkeypatch):
    """For tests that look at texts alone: drawing takes most of a page's time."""
    monkeypatch.setattr(report_calibration, "draw", lambda result: {"wide": "", "narrow": ""})


@pytest.mark.usefixtures("_undrawn")
def test_the_result_and_its_page_are_written(result, tmp_path):
    path = write_result(str(tmp_path / "new"), result)
    assert path == str(tmp_path / "new" / "index.html")
    assert json.loads((tmp_path / "new" / "calibration.json").read_text()) == result


def test_the_table_of_the_console(result):
    lines = console_table(result)
    assert lines[0].startswith("One pod of riva/riva-asr carries 21 streams")
    assert "     32  failed    60.00     6760     21.4     14.0" in lines
    assert "    stream_limit: 21" in lines


@pytest.mark.usefixtures("_undrawn")
def test_fetched_models_have_a_row_where_they_were_fetched(result):
    assert "model_load.fetch_s" not in Page(render(result)).figures
    fetched = {**result, "model_load": {**result["model_load"], "fetch_s": 25.0}}
    assert Page(render(fetched)).figures["model_load.fetch_s"] == "25"

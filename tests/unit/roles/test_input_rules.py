# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds of all inputs, whatever they are: an answer, never an error; no secret in it; defaults are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.action.preflight import specs
from ansible_collections.speechops.riva.plugins.module_utils import (
    input_chart_values,
    input_contradictions,
    input_rules,
    input_shapes,
    inputs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(__file__).resolve().parents[3] / "build" / "hypothesis")
OPTIONS, ROLES = specs()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
REPEATABLE = settings(max_examples=400, derandomize=True, database=None, deadline=None)


def paths(options, place=""):
    for name, option in options.items():
        yield place + name, option
        yield from paths(option.get("options") or {}, f"{place}{name}.")


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.get("default") not in (None, "")])
def test_every_default_passes(name):
    assert inputs.check_value(name, OPTIONS[name], OPTIONS[name]["default"]) == []


def test_defaults_contradict_nothing():
    assert input_contradictions.check_together(OPTIONS, {}) == []


def test_every_rule_is_for_something():
    known = {name for name, _option in paths(OPTIONS)}
    used = {next((p for p, _rule in input_rules.RULES if input_rules.fnmatch.fnmatchcase(n, p)), None) for n in known}
    assert [pattern for pattern, _rule in input_rules.RULES if pattern not in used] == []


def test_every_number_and_name_has_a_rule():
    """A new option of a kind that can be wrong in itself comes with a rule."""
    kinds = ("int", "float")
    shapes = re.compile(r"_(namespace|release_name|chart_version|repo_url|port|seconds|timeout|days|address)$")
    lacking = [
        name
        for name, option in paths(OPTIONS)
        if (option["type"] in kinds or shapes.search(name)) and input_rules.rule_of(name) is None
    ]
    assert lacking == []


def test_every_secret_has_a_rule_that_hides_it():
    secret = {name for name, option in paths(OPTIONS) if option.get("no_log")}
    assert secret >= {"riva_ngc_api_key", "riva_model_deploy_key", "gpu_operator_licence_token"}
    assert {input_rules.rule_of(name) for name in secret} <= {input_shapes.secret, input_shapes.license_text}


@REPEATABLE
@given(name=st.sampled_from(sorted(OPTIONS)), value=ANYTHING)
def test_any_value_is_answered(name, value):
    for item in inputs.check_value(name, OPTIONS[name], value):
        assert item["status"] in ("failed", "warning")
        assert item["subject"].startswith(name)
        assert item["message"]
        assert item["remedy"]


@REPEATABLE
@given(value=ANYTHING)
def test_any_services_are_answered(value):
    inputs.check_value("riva_services", OPTIONS["riva_services"], value)
    inputs.check_services(value)
    input_chart_values.secrets_in_values("riva_values", value)


@REPEATABLE
@given(text=st.text(min_size=6, max_size=60), name=st.sampled_from(["riva_ngc_api_key", "gpu_operator_licence_token"]))
def test_a_secret_is_never_in_the_answer(text, name):
    marked = f"mArKeR{text}"
    for value in (marked, [marked], {"key": marked}):
        assert "mArKeR" not in inputs.as_text(inputs.check_value(name, OPTIONS[name], value))


@REPEATABLE
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-.A_ü ", max_size=70))
def test_a_name_passes_exactly_where_kubernetes_takes_it(text):
    right = bool(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text))
    assert (input_shapes.label(text) is None) is right


@REPEATABLE
@given(st.integers(), st.integers(-5, 5), st.integers(6, 20))
def test_a_range_is_what_it_says(number, low, high):
    assert (input_shapes.between(low, high)(number) is None) is (low <= number <= high)


@REPEATABLE
@given(st.lists(st.sampled_from(["http", "https", "file", "ftp", "://", "/", "a", "b.c", ":", "80", "@", " ", "ü"])))
def test_any_address_is_answered(parts):
    wrong = input_shapes.url("https", "file")("".join(parts))
    if wrong is None:
        assert "".join(parts).startswith(("https://", "file://"))


@REPEATABLE
@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.just(None), max_size=5))
def test_nothing_set_contradicts_nothing(variables):
    assert input_contradictions.check_together(OPTIONS, variables) == []

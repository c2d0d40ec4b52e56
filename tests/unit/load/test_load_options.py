"""Options: each mistake is one sentence that names the option."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_options import RANGES, option_problems

GOOD = {
    "profile": [{"streams": 4, "duration": 60.0, "ramp": 0.0}],
    "endpoint": None,
    "tail_seconds": 300.0,
    "stream_seconds": 20.0,
    "stream_grace_seconds": 30.0,
    "chunk_duration_ms": 160,
    "objective_ms": 300.0,
    "sample_seconds": 3.0,
    "max_streams": 5000,
    "max_streams_at_once": 1000,
    "max_failed_streams": 0,
    "max_refused_streams": 0,
    "stream_distribution": "spread",
    "stream_median_seconds": 10.0,
    "stream_sigma": 1.0,
    "abort_failed_percent": 50,
    "abort_latency_ms": None,
    "watch_cluster": True,
    "trace": None,
}
TRACE = {"kind": "levels", "rows": [[0, 4], [10, 20], [20, 0]]}


@pytest.mark.parametrize("endpoint", [None, "", "10.0.0.5:50051", "riva.example.com:443", "[fd00::1]:50051"])
def test_good_options_pass(endpoint):
    assert option_problems({**GOOD, "endpoint": endpoint}) == []


@pytest.mark.parametrize(
    "endpoint", ["10.0.0.5", "http://10.0.0.5:50051", "a:0", "a:70000", ":50051", "fd00::1:50051", "a b:1"]
)
def test_an_endpoint_is_host_and_port(endpoint):
    assert "it must be host:port" in option_problems({**GOOD, "endpoint": endpoint})[0]


@pytest.mark.parametrize("name", sorted(RANGES))
def test_each_number_has_its_range(name):
    least, most, _ = RANGES[name]
    for bad in (least - 1, most + 1):
        assert name in [p.split(" ")[0] for p in option_problems({**GOOD, name: bad})]
    for good in (max(least, 4) if name == "max_streams_at_once" else least, most):
        assert option_problems({**GOOD, name: good}) == []


def test_all_mistakes_are_said_at_once():
    problems = option_problems({**GOOD, "profile": [], "endpoint": "x", "sample_seconds": 0})
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("expected", "good"),
    [(None, True), ([1], True), ([1, 3, 1], True), ([], False), ([1, 1], False), ([-1, 2], False)],
)
def test_an_expected_path_changes_at_each_step(expected, good):
    assert (option_problems({**GOOD, "expect_replicas": expected}) == []) is good


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"profile": None}, "profile and trace_file: one of the two must be given"),
        ({"trace": TRACE}, "profile and trace_file: one of the two must be given, and not both"),
        ({"profile": None, "trace": TRACE, "max_streams_at_once": 19}, "asks for 20 streams at once; 19 is the most"),
        ({"max_streams_at_once": 3}, "step 0: streams is 4; it must be a whole number from 0 to 3"),
        ({"watch_cluster": False}, "set endpoint to host:port"),
        ({"watch_cluster": False, "endpoint": "a:1", "expect_replicas": [1, 2]}, "expect_replicas needs to see"),
        ({"stream_distribution": "lognormal", "stream_median_seconds": 21}, "more than the longest stream"),
    ],
)
def test_options_that_do_not_go_together(changed, said):
    (problem,) = option_problems({**GOOD, **changed})
    assert said in problem


@pytest.mark.parametrize(
    "changed",
    [
        {"profile": None, "trace": TRACE, "max_streams_at_once": 20},
        {"watch_cluster": False, "endpoint": "a:1"},
        {"stream_distribution": "lognormal", "stream_median_seconds": 20},
        {"abort_failed_percent": None},
    ],
)
def test_options_that_go_together(changed):
    assert option_problems({**GOOD, **changed}) == []


@pytest.mark.parametrize(
    ("speech", "texts", "words"),
    [
        ("asr", None, ""),
        ("asr", ["one"], "recognition needs audio"),
        ("tts", None, ""),
        ("tts", ["one"], ""),
        ("nmt", [], "has an empty entry, or none"),
        ("nmt", ["one", " "], "has an empty entry, or none"),
    ],
)
def test_texts_are_for_synthesis_and_translation(speech, texts, words):
    problems = option_problems({**GOOD, "speech": speech, "texts": texts})
    assert len(problems) == (1 if words else 0)
    assert words in "".join(problems)

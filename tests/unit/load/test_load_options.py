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
    "max_failed_streams": 0,
}


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
        assert [p.split(" ")[0] for p in option_problems({**GOOD, name: bad})] == [name]
    for good in (least, most):
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

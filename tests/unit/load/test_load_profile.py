"""The profile: what may be asked for, how many streams are wanted when, how long a stream lasts."""

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import (
    Step,
    chunk_deadline,
    level_at,
    phase_at,
    phases_of,
    profile_problems,
    stream_length,
)

STEPS = [Step(4, 10), Step(20, 40, 8), Step(2, 10, 4)]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], "no step"),
        ([{"streams": 0, "duration": 10}], "no step asks for a stream"),
        ([{"streams": -1, "duration": 10}], "step 0: streams is -1"),
        ([{"streams": 1001, "duration": 10}], "from 0 to 1000"),
        ([{"streams": True, "duration": 10}], "streams is True"),
        ([{"streams": "4", "duration": 10}], "streams is '4'"),
        ([{"streams": 4, "duration": 0}], "duration is 0"),
        ([{"streams": 4, "duration": 10}, {"streams": 4, "duration": None}], "step 1: duration is None"),
        ([{"streams": 4, "duration": 10, "ramp": 11}], "ramp is 11"),
        ([{"streams": 4, "duration": 10, "ramp": -1}], "ramp is -1"),
        ([{"streams": 4, "duration": 14401}], "14400 s is the most"),
    ],
)
def test_a_bad_profile_is_named(steps, said):
    assert any(said in problem for problem in profile_problems(steps))


@pytest.mark.parametrize(
    "steps",
    [
        [{"streams": 1, "duration": 0.5}],
        [{"streams": 4, "duration": 60, "ramp": None}, {"streams": 0, "duration": 10, "ramp": 10}],
    ],
)
def test_a_good_profile_passes(steps):
    assert profile_problems(steps) == []


@pytest.mark.parametrize(
    ("seconds", "phase", "level"),
    [
        (0, 0, 4),
        (9.99, 0, 4),
        (10, 1, 4),
        (14, 1, 12),
        (18, 1, 20),
        (49.9, 1, 20),
        (52, 2, 11),
        (54, 2, 2),
        (60, 3, 0),
        (1000, 3, 0),
    ],
)
def test_the_level_follows_the_steps_and_their_ramps(seconds, phase, level):
    phases = phases_of(STEPS)
    assert phase_at(phases, seconds) == phase
    assert level_at(phases, seconds) == level


def test_phases_are_named_by_their_streams():
    assert [phase.name for phase in phases_of([Step(1, 5), Step(3, 5)])] == ["1: 1 stream", "2: 3 streams"]


def test_stream_lengths_are_spread_over_the_upper_half():
    lengths = [stream_length(number, 20) for number in range(400)]
    assert min(lengths) >= 10
    assert max(lengths) <= 20
    for low in range(10, 20):
        assert 35 <= sum(low <= length < low + 1 for length in lengths) <= 45


def test_deadlines_do_not_drift():
    assert chunk_deadline(100.0, 0, 0.16) == 100.0
    assert chunk_deadline(100.0, 10_000, 0.16) == pytest.approx(1700.0, abs=1e-9)

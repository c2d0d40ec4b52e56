"""The profile: what may be asked for, how many streams are wanted when, how long a stream lasts."""

import math

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import (
    Lengths,
    Schedule,
    Step,
    TraceError,
    chunk_deadline,
    level_at,
    phase_at,
    phases_of,
    profile_problems,
    read_trace,
    schedule_of,
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
    lengths = [stream_length(number, Lengths("spread", 20)) for number in range(400)]
    assert min(lengths) >= 10
    assert max(lengths) <= 20
    for low in range(10, 20):
        assert 35 <= sum(low <= length < low + 1 for length in lengths) <= 45


def test_deadlines_do_not_drift():
    assert chunk_deadline(100.0, 0, 0.16) == 100.0
    assert chunk_deadline(100.0, 10_000, 0.16) == pytest.approx(1700.0, abs=1e-9)


def test_fixed_streams_are_all_as_long():
    assert {stream_length(number, Lengths("fixed", 33)) for number in range(50)} == {33}


def test_log_normal_streams_have_the_median_the_mean_and_the_tail_that_were_asked_for():
    lengths = sorted(stream_length(n, Lengths("lognormal", 10_000, 60, 1.0)) for n in range(4000))
    assert lengths[2000] == pytest.approx(60, rel=0.02)
    assert sum(lengths) / 4000 == pytest.approx(60 * math.exp(0.5), rel=0.03)
    # One in a hundred is more than ten times the median: 60 * exp(2.326) = 614.
    assert lengths[3960] == pytest.approx(614, rel=0.05)


def test_no_stream_is_longer_than_the_longest_or_shorter_than_a_second():
    lengths = [stream_length(n, Lengths("lognormal", 120, 5, 2.5)) for n in range(2000)]
    assert max(lengths) == 120
    assert min(lengths) == 1


def test_any_hundred_streams_have_the_shape_of_all():
    """The load of a short test is that of a long one."""
    for first in (0, 137, 1000):
        some = sorted(stream_length(n, Lengths("lognormal", 10_000, 60, 1.0)) for n in range(first, first + 100))
        assert some[50] == pytest.approx(60, rel=0.06)


LEVELS_FILE = """\
# streams of a morning
seconds,streams

0,4
10,20
30,2
40,0
"""
CALLS_FILE = "start,length\n5,10\n0,4\n5,2.5\n"


def test_a_trace_of_levels():
    trace = read_trace(LEVELS_FILE.splitlines())
    schedule = Schedule([], trace)
    assert trace == {"kind": "levels", "rows": [[0, 4], [10, 20], [30, 2], [40, 0]]}
    assert [schedule.level_at(at) for at in (0, 9.9, 10, 29, 30, 39, 40, 100)] == [4, 4, 20, 20, 2, 2, 0, 0]
    assert (schedule.end, schedule.peak, schedule.calls) == (40, 20, None)
    assert [phase.name for phase in schedule.phases] == ["trace: up to 20 streams"]


def test_a_trace_of_calls_is_in_order_and_knows_how_many_last():
    schedule = Schedule([], read_trace(CALLS_FILE.splitlines()))
    assert schedule.calls == [(0, 4), (5, 2.5), (5, 10)]
    assert [schedule.level_at(at) for at in (0, 4, 5, 7.5, 14, 15)] == [1, 0, 2, 1, 1, 0]
    assert schedule.peak == 2
    assert schedule.end > 5  # or the last call would not be opened


def test_a_call_that_ends_where_another_begins_is_no_overlap():
    assert Schedule([], read_trace(["start,length", "0,5", "5,5", "10,5"])).peak == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it must name the columns seconds,streams or start,length"),
        ("time,streams\n0,1", "the first line is 'time,streams'"),
        ("seconds,streams", "no row"),
        ("seconds,streams\n0,4", "two rows at least"),
        ("seconds,streams\n0,0\n5,0", "one of them with streams above 0"),
        ("seconds,streams\n0,4\n5,x", "line 3 is '5,x'; it must hold two numbers"),
        ("seconds,streams\n0,4\n5,1,1", "line 3"),
        ("seconds,streams\n5,4\n0,1", "must rise"),
        ("seconds,streams\n0,4\n0,1", "must rise"),
        ("seconds,streams\n-1,4\n0,1", "line 2: seconds is -1"),
        ("seconds,streams\n0,nan\n1,1", "line 2: streams is nan"),
        ("seconds,streams\n0,1\n20000,0", "14400 is the most"),
        ("start,length\n0,0.5", "line 2: length is 0.5; it must be 1 or more"),
    ],
)
def test_a_bad_trace_is_named_with_its_line(text, said):
    with pytest.raises(TraceError) as error:
        read_trace(text.splitlines())
    assert said in str(error.value)


def test_the_schedule_of_a_record():
    assert schedule_of({"steps": [{"streams": 4, "duration": 10, "ramp": 0}]}).end == 10
    assert schedule_of({"steps": [], "trace": read_trace(LEVELS_FILE.splitlines())}).end == 40

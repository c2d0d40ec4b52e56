"""Latency: which chunk a result covers, and how late it is."""

import struct

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_measures import (
    StreamMeasure,
    Window,
    covered_chunks,
)


def as_float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


@pytest.mark.parametrize(
    ("audio_processed", "covered"),
    [
        (0.1, 0),
        (0.15, 0),
        (as_float32(0.16), 1),
        (as_float32(0.32), 2),
        (0.47, 2),
        (as_float32(9.6), 60),
        (9.69, 60),
        (as_float32(9.7), 61),
        (11.0, 61),
    ],
)
def test_a_result_covers_whole_chunks(audio_processed, covered):
    assert covered_chunks(audio_processed, 0.16, chunks=61, total_seconds=9.7) == covered


def measure(objective=300):
    return StreamMeasure(4, 0.16, 0.64, objective, Window())


def test_latency_runs_from_the_newest_covered_chunk():
    stream = measure()
    for number in range(4):
        stream.sent(number * 0.16, number * 0.16 + 0.001)
    stream.received(0.7, 0.32)
    stream.received(0.75, 0.64)
    assert stream.window.latency_ms == [539.0, 269.0]
    assert (stream.late, stream.answered, stream.results) == (2, 4, 2)
    assert (stream.first_response_ms, stream.final_ms) == (699.0, 269.0)
    assert stream.window.pacing_lag_ms == [1.0] * 4


def test_a_result_that_covers_nothing_new_gives_no_latency():
    stream = measure()
    stream.sent(0, 0)
    stream.received(0.1, 0.16)
    stream.received(0.2, 0.16)
    assert stream.window.latency_ms == [100.0]


def test_a_result_never_covers_what_was_not_sent():
    stream = measure()
    stream.sent(0, 0)
    stream.received(0.1, 0.64)
    assert stream.answered == 1


def test_without_audio_processed_the_newest_chunk_counts():
    stream = measure()
    stream.sent(0, 0)
    stream.sent(0.16, 0.16)
    stream.received(0.2, 0)
    assert stream.window.latency_ms == [40.0]


def test_a_result_before_any_chunk_is_no_latency():
    stream = measure()
    stream.received(0.1, 0)
    assert stream.window.latency_ms == []
    assert stream.final_ms is None


def test_the_real_time_factor_counts_from_the_first_chunk_to_the_last_result():
    measure = StreamMeasure(2, 0.5, 1.0, 300, Window())
    measure.sent(0.0, 10.0)
    measure.received(10.1, 0.5)
    assert measure.real_time_factor is None
    measure.sent(10.5, 10.5)
    measure.received(11.05, 1.0)
    assert measure.real_time_factor == 1.05

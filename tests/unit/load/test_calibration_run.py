"""Levels of real streams against a small speech service in this process; a second lasts a tenth of one here."""

import time

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import calibration_rules, calibration_run, load_run
from ansible_collections.speechops.riva.plugins.module_utils.calibration_rules import Objective
from ansible_collections.speechops.riva.plugins.module_utils.calibration_run import (
    Calibration,
    CalibrationError,
    Notes,
    Pace,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_audio import read_audio

from tests.unit.load.test_load_run import EchoService, plan, serving

PAGE = 'nv_inference_request_success{{model="a"}} {0}\nnv_inference_queue_duration_us{{model="a"}} {1}\n'


@pytest.fixture(autouse=True)
def _short_seconds(monkeypatch):
    monkeypatch.setattr(load_run, "WINDOW_SECONDS", 0.1)
    monkeypatch.setattr(calibration_rules, "BLOCK_SECONDS", 0.2)
    monkeypatch.setattr(calibration_run, "BLOCK_SECONDS", 0.2)


class Narrow(EchoService):
    """One chunk at a time: so many a second it can do."""

    def __init__(self, seconds, **settings):
        super().__init__(delay=0, **settings)
        self.seconds, self.free_at = seconds, 0.0

    def StreamingRecognize(self, requests, context):
        for response in super().StreamingRecognize(requests, context):
            with self.lock:
                now = time.monotonic()
                self.free_at = max(self.free_at, now) + self.seconds
                wait = self.free_at - now
            time.sleep(wait)
            yield response


def calibration(endpoint, tone, told=None, keep_going=lambda: True, metrics=lambda: "", objective=300):
    the_plan = plan(endpoint, [], stream_seconds=10.0, objective_ms=float(objective))
    pace = Pace(settle=0.3, hold=1.2, confirm=2.0)
    return Calibration(
        the_plan,
        read_audio([tone]),
        # The longest stream too lasts a tenth: a hiccup of this machine is no latency that rises for a minute.
        Objective(objective, 1.0, 6),
        pace,
        metrics,
        told or (lambda level: None),
        keep_going,
    )


def test_levels_are_held_until_the_capacity_lies_between_two(tone):
    """40 ms for a chunk, one each 50 ms: one stream is carried, two are not."""
    told = []
    pages = iter(PAGE.format(n * 10, n * 100_000) for n in range(100))
    with serving(Narrow(0.04)) as endpoint:
        run = calibration(endpoint, tone, told.append, metrics=lambda: next(pages))
        levels = run.run(4, 8)
    assert levels == told
    assert [(level.streams, level.passed) for level in levels] == [(4, False), (2, False), (1, True), (1, True)]
    assert levels[-1].confirmed
    assert levels[-1].seconds > levels[-2].seconds
    assert {level.queue_ms for level in levels} == {10.0}
    assert calibration_rules.capacity_of(levels, 8).streams == 1
    assert run.lags
    # Two and four streams would send 40 and 80 chunks of 50 ms a second, of which the pod does 25.
    assert all(level.throughput == pytest.approx(1.25, rel=0.4) for level in levels if not level.passed)


def test_a_pod_that_is_never_fast_enough_is_told(tone):
    with serving(Narrow(0.08)) as endpoint, pytest.raises(CalibrationError, match="one stream alone does not keep"):
        calibration(endpoint, tone).run(1, 8)


def test_a_pod_with_a_limit_of_its_own_is_told(tone):
    service = EchoService(fail=lambda number: "full" if number >= 2 else "")
    # gRPC's own words take the place of the pod's now and then, where much else runs.
    with serving(service) as endpoint, pytest.raises(CalibrationError, match=r"refused streams at 4: .*streams\.limit"):
        calibration(endpoint, tone).run(4, 8)


def test_a_level_on_which_streams_fail_has_failed(tone):
    service = EchoService(fail=lambda number: "abort" if number == 3 else "")
    told = []
    # One level is enough.
    with serving(service) as endpoint, pytest.raises(CalibrationError, match="interrupted"):
        calibration(endpoint, tone, told.append, keep_going=lambda: not told, objective=5000).run(4, 4)
    (level,) = told
    assert "UNAVAILABLE the GPU has fallen off the bus" in level.judgement.reason
    assert not level.passed


def test_it_ends_when_nobody_waits_for_it(tone):
    with serving(EchoService()) as endpoint, pytest.raises(CalibrationError, match="interrupted: the process"):
        calibration(endpoint, tone, keep_going=lambda: False).run(1, 8)


def test_what_was_sent_long_ago_and_has_no_answer_is_overdue():
    notes = Notes()
    for t, sent, answered in ((1.0, 10, 2), (2.0, 10, 2), (3.0, 10, 2)):
        notes.write("streams", t, chunks_sent=sent, chunks_answered=answered)
    assert notes.overdue(1.0) == 20 - 6
    assert notes.overdue(5.0) == 0

"""Rolling update and scale-down under load: no stream is lost. With a drained node, and longer: tests/long."""

from __future__ import annotations

import pytest

from tests.integration.passing_pods import PassingPods
from tests.integration.running_lab import eventually


@pytest.fixture
def service(installed):
    service = PassingPods(installed)
    service.size(1, 1)
    yield service
    service.size(service.settings["minReplicas"], service.settings["maxReplicas"])


def test_no_stream_is_lost_by_a_rolling_update_and_a_scale_down(service):
    service.settled(1)
    before = service.names
    with service.callers() as callers:
        service.size(2, 2)
        service.lab.kubectl("rollout", "restart", "deployment/riva-asr", "-n", "riva")
        service.settled(2, without=before)
        service.size(1, 1)
        eventually(lambda: len(service.pods()) == 1)
        # The streams of the pod that goes, and those that came while the balancer learned of it.
        callers.until(more=60)
    assert not callers.lost
    assert len(callers.ended) >= 300
    # Old and new pods had streams: else nothing was tried.
    assert {stream.pod for stream in callers.ended} >= before
    assert len({stream.pod for stream in callers.ended}) >= 3


def test_a_budget_keeps_a_drain_from_taking_all_pods_at_once(service):
    (budget,) = service.lab.get("poddisruptionbudgets", "-n", "riva")["items"]
    assert budget["spec"]["maxUnavailable"] == 1
    # The controller has found the pods that it is for.
    assert budget["status"]["expectedPods"] >= 1

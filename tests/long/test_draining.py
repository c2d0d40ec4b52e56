"""Pods come and go under load, through the load balancer: of more than a thousand streams none is lost."""

from __future__ import annotations

import pytest

from tests.integration.passing_pods import PassingPods

STREAMS_OF_EACH = 350


@pytest.fixture
def service(installed):
    """The service with one pod; afterwards its HPA is as it was."""
    service = PassingPods(installed)
    service.size(1, 1)
    service.settled(1)
    yield service
    service.size(service.settings["minReplicas"], service.settings["maxReplicas"])


def test_no_stream_is_lost_when_pods_go(service):
    """Rolling update, drain of the node that has all pods, and scale-down, under thirteen callers."""
    with service.callers() as callers:
        for change in (service.update, service.drain_a_node, service.scale_down):
            before = len(callers.ended)
            change()
            # Those that were running when the last pod went are over, too.
            callers.until(more=max(60, STREAMS_OF_EACH - (len(callers.ended) - before)), timeout=240)
            assert not callers.lost, change.__name__
    assert not callers.lost
    assert len(callers.ended) >= 1000
    # The pods that went had streams: else nothing was tried.
    assert len({stream.pod for stream in callers.ended}) >= 5

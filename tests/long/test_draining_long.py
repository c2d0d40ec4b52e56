"""Pods come and go for minutes under load, until a thousand streams have ended: none is lost."""

from __future__ import annotations

from tests.integration.callers import Callers
from tests.integration.test_draining import service

__all__ = ["service"]

STREAMS = 1000
# Below one pod's limit, so that a refusal would be a fault.
CALLERS = 18


def test_no_stream_of_a_thousand_is_lost(service):
    with Callers(service.endpoint, CALLERS) as callers:
        while len(callers.ended) < STREAMS:
            for change in (service.update, service.drain_a_node, service.scale_down):
                change()
                assert not callers.lost, f"{change.__name__}: {callers.lost}"
    assert not callers.lost
    assert len(callers.ended) >= STREAMS
    pods = {stream.pod for stream in callers.ended}
    print(f"{len(callers.ended)} streams, {len(callers.lost)} lost, {len(pods)} pods")

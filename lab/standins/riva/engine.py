"""Runs the batcher on the event loop's clock and tells each stream which of its requests are done."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from .batcher import Batch, Batcher, Request


class Owner(Protocol):
    """Who submits requests and hears of their end."""

    def chunks_done(self, requests: list[Request]) -> None: ...


class Engine:
    """All calls must come from the event loop's thread."""

    def __init__(self, batcher: Batcher, clock=time.monotonic_ns) -> None:
        self.batcher = batcher
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: int | None = None

    def submit(self, owner: Owner, samples: int) -> None:
        """One inference request. Raises QueueFullError."""
        now = self._clock()
        self._deliver(self.batcher.advance(now))
        try:
            self.batcher.enqueue(now, Request(owner=owner, payload=samples))
        finally:
            self._arm()

    def cancel(self, owner: Owner) -> None:
        self._deliver(self.batcher.cancel(self._clock(), owner))
        self._arm()

    def refresh(self) -> int:
        """Bring the counters up to now, for a scrape. Returns now."""
        now = self._clock()
        self._deliver(self.batcher.advance(now))
        self._arm()
        return now

    def freeze(self) -> None:
        self._deliver(self.batcher.freeze(self._clock()))
        self._arm()

    def _wake(self) -> None:
        self._timer = None
        self._timer_at = None
        self.refresh()

    def _arm(self) -> None:
        event = self.batcher.next_event()
        if event == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_at = event
        if event is not None:
            # The loop's clock is time.monotonic, the same as monotonic_ns.
            self._timer = asyncio.get_running_loop().call_at(event / 1e9, self._wake)

    @staticmethod
    def _deliver(batches: list[Batch]) -> None:
        for batch in batches:
            by_owner: dict[int, list[Request]] = {}
            for request in batch.requests:
                by_owner.setdefault(id(request.owner), []).append(request)
            for requests in by_owner.values():
                requests[0].owner.chunks_done(requests)

"""In which phase the server is, and how many calls are running."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator


class Phase(enum.Enum):
    LOADING = "loading"
    SERVING = "serving"
    STOPPING = "stopping"


class State:
    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.calls = 0
        self.hanging = False
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self, seen: Phase) -> None:
        """Returns when the phase is another one than seen."""
        while self.phase is seen:
            await self._changed.wait()

    async def not_hanging(self) -> None:
        """A hanging server takes the call and never answers."""
        if self.hanging:
            await asyncio.Event().wait()

    async def idle(self) -> None:
        """Returns when no recognition call is running."""
        await self._idle.wait()

    def forget_calls(self) -> None:
        """Nobody waits any longer for the calls that are still running."""
        self._idle.set()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        self.calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.calls -= 1
            if not self.calls:
                self._idle.set()

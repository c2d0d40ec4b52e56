"""Progress on the terminal: one line a step, with the seconds it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_begin = time.monotonic()


def say(message: str) -> None:
    """Print one line with the seconds since the command began."""
    print(f"[{time.monotonic() - _begin:6.1f} s] {message}", file=sys.stderr, flush=True)


@contextmanager
def step(message: str) -> Iterator[None]:
    """Announce a step, and say how long it took once it is done."""
    say(f"{message} …")
    start = time.monotonic()
    yield
    say(f"{message}: done in {time.monotonic() - start:.1f} s")


def wait_for(what: str, probe, timeout: float, interval: float = 0.5):
    """Call ``probe`` until it returns ``(True, detail)``.

    Args:
        what: what is waited for, as the progress line and the error name it.
        probe: returns ``(done, detail)``; ``detail`` says what was last seen.
        timeout: seconds until TimeoutError.
        interval: seconds between two looks.

    Raises:
        TimeoutError: names what was last seen.
    """
    start = spoken = time.monotonic()
    while True:
        done, detail = probe()
        if done:
            return detail
        now = time.monotonic()
        if now - start > timeout:
            raise TimeoutError(f"{what}: not done after {timeout:.0f} s; last seen: {detail}")
        if now - spoken >= 10:
            spoken = now
            say(f"{what}: {detail} ({now - start:.0f} of at most {timeout:.0f} s)")
        time.sleep(interval)

"""What every program of the stand-in does: log one line at a time, answer health probes, end on SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

stopping = threading.Event()


def log(message: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}", flush=True)


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def serve_health(port: int, ready: Callable[[], bool] = lambda: True) -> None:
    """Answer /healthz always, and /readyz with 503 until ``ready``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in ("/healthz", "/readyz", "/metrics")
            code = 404 if not known else 503 if self.path == "/readyz" and not ready() else 200
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True).start()


def run_until_told_to_end(work: Callable[[], None]) -> int:
    """Do the work in a thread of its own, so that a signal ends the program even while the work waits for the API."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    threading.Thread(target=work, daemon=True).start()
    stopping.wait()
    return 0


def repeat(name: str, step: Callable[[], float]) -> None:
    """Run ``step`` for ever; it says how long to wait. Errors are logged and tried again."""
    while not stopping.is_set():
        try:
            pause = step()
        except Exception as error:  # the API may be away for a while, whatever the reason
            log(f"{name}: {type(error).__name__}: {error}; trying again in 5 s")
            pause = 5
        stopping.wait(pause)


def keep_trying(name: str, step: Callable[[], float]) -> int:
    return run_until_told_to_end(lambda: repeat(name, step))


def say_what_it_is(name: str) -> None:
    log(f"{name}: a stand-in of NVIDIA's program, for the lab; no GPU is used ({sys.executable})")

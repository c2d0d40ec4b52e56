"""The simulated and the real GPU before the same real-time streams, through the stand-in's own queue.

    python -m tests.real_gpu.compare_engines /path/to/pytorch/bin/python h100-1.1b result.json

Streams send a chunk every 160 ms with the same phases for both engines; no network and no gRPC is between. Run it on
the machine that the curve was measured on.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path

from lab.standins.riva.batcher import NS_PER_MS, Batcher, BatcherConfig, Request
from lab.standins.riva.curves import CURVES
from lab.standins.riva.engine import Engine
from lab.standins.riva.gpu_engine import WORKER, GpuEngine

CHUNK = 0.16
LARGEST = 8
STREAMS = (50, 100, 130, 145)
SECONDS = 5.0


class Listener:
    """Hears of every chunk that is through."""

    def __init__(self) -> None:
        self.latencies: list[float] = []

    def chunks_done(self, requests: list[Request]) -> None:
        now = time.monotonic_ns()
        self.latencies += [(now - request.arrived_ns) / NS_PER_MS for request in requests]


async def load(engine: Engine, streams: int, seconds: float = SECONDS) -> dict:
    """Real-time streams for a while; what their chunks waited, and what the server's counters say of it."""
    generator, listener, loop = random.Random(streams), Listener(), asyncio.get_running_loop()
    before = (engine.batcher.stats.queue_us, engine.batcher.stats.success, engine.batcher.stats.executions)
    started = loop.time() + 0.1
    ends = started + seconds

    def send(due: float) -> None:
        engine.submit(listener, 2560)
        if due + CHUNK < ends:
            loop.call_at(due + CHUNK, send, due + CHUNK)

    for _ in range(streams):
        due = started + generator.random() * CHUNK
        loop.call_at(due, send, due)
    await asyncio.sleep(seconds + 1.5)
    queue_us, success, executions = (
        after - earlier
        for after, earlier in zip(
            (engine.batcher.stats.queue_us, engine.batcher.stats.success, engine.batcher.stats.executions),
            before,
            strict=True,
        )
    )
    ordered = sorted(listener.latencies)
    return {
        "streams": streams,
        "chunks": success,
        "mean_batch": round(success / executions, 3),
        "queue_ms": round(queue_us / success / 1000, 3),
        "p50_ms": round(statistics.median(ordered), 3),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)], 3),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)], 3),
    }


async def compare(python: str, curve: str) -> dict:
    points = tuple((size, round(ms * NS_PER_MS)) for size, ms in CURVES[curve])
    config = BatcherConfig(max_batch_size=LARGEST, service_curve=points)
    size = curve.partition("-")[2]
    command = [python, "-u", str(WORKER), "--serve", f"--size={size}", f"--largest={LARGEST}"]
    real = GpuEngine(config, command, dict(os.environ))
    await real.start()
    answer: dict = {"curve": curve, "about": real.about, "simulated": [], "real": []}
    for streams in STREAMS:
        answer["real"].append(await load(real, streams))
        answer["simulated"].append(await load(Engine(Batcher(config)), streams))
        print(json.dumps({"real": answer["real"][-1], "simulated": answer["simulated"][-1]}), flush=True)
    await real.stop()
    return answer


def main() -> None:
    python, curve, target = sys.argv[1:4]
    Path(target).write_text(json.dumps(asyncio.run(compare(python, curve)), indent=1) + "\n")


if __name__ == "__main__":
    main()

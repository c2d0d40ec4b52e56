"""The same queue before a real GPU: batches go to worker processes that run a network on it (``gpu_worker.py``)."""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from .batcher import Batch, Batcher, BatcherConfig, Request
from .engine import Engine
from .metrics import Gpu

WORKER = Path(__file__).with_name("gpu_worker.py")
ABOUT = "pytorch.json"
LONGEST_LINE = 2**16


class GpuEngineError(RuntimeError):
    """The GPU cannot be used; the text says why."""


def machine_command(folder: Path) -> tuple[list[str], dict[str, str]]:
    """How to run Python with PyTorch from a machine's own folders, below ``folder``, whatever this image has.

    Its own loader and C library come with it, so nothing of the image is mixed in. Returns command and environment.

    Raises:
        GpuEngineError: the folder is not one that a node of the lab laid.
    """
    try:
        version = json.loads((folder / ABOUT).read_text())["python"]
    except (OSError, ValueError, KeyError) as error:
        raise GpuEngineError(
            f"{folder} holds no PyTorch of the machine ({error}): lab up --gpus real lays it"
        ) from error
    loaders = sorted((folder / "usr").glob("lib/*-linux-gnu/ld-linux-*.so.*")) + sorted(
        (folder / "usr/lib64").glob("ld-linux-*.so.*")
    )
    if not loaders:
        raise GpuEngineError(f"{folder}/usr has no dynamic loader: it is not a machine's /usr")
    libraries = [loaders[0].parent, folder / "usr/lib64", folder / "driver", folder / "home/lib"]
    command = [
        *(str(loaders[0]), "--library-path", ":".join(str(path) for path in libraries)),
        *(str(folder / "home" / "bin" / f"python{version}"), "-s", "-u"),
    ]
    kept = {name: os.environ[name] for name in ("NVIDIA_VISIBLE_DEVICES", "PATH") if name in os.environ}
    return command, {
        **kept,
        "PYTHONHOME": str(folder / "home"),
        "PYTHONPATH": str(folder / "packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
    }


class DeviceBatcher(Batcher):
    """The batcher's rules, but an execution ends when the device says so."""

    def __init__(self, config: BatcherConfig, launch: Callable[[Batch], None]) -> None:
        super().__init__(config)
        self._launch = launch
        self._ended: list[Batch] = []

    def next_event(self) -> int | None:
        return None if self._frozen else self._delay_ends

    def advance(self, now: int) -> list[Batch]:
        self._now = max(self._now, now)
        if self._delay_ends is not None and self._delay_ends <= self._now:
            self._dispatch()
        ended, self._ended = self._ended, []
        return ended

    def _start(self, requests: list[Request]) -> None:
        for request in requests:
            request.started_ns = self._now
        self.stats.pending -= len(requests)
        if not self._running:
            self._busy_since = self._now
        batch = Batch(requests, self._now, 0)
        self._sequence += 1
        heapq.heappush(self._running, (self._sequence, self._sequence, batch))
        self._launch(batch)

    def end(self, batch: Batch, now: int, parts: tuple[int, int, int]) -> None:
        """The device is done with a batch."""
        if self._frozen:
            return
        self._now = max(self._now, now)
        batch.ends_ns, batch.parts = self._now, parts
        self._running = [entry for entry in self._running if entry[2] is not batch]
        if not self._running:
            self._busy_ns += self._now - self._busy_since
        for request in batch.requests:
            request.finished_ns = self._now
        self.stats.count_batch(batch)
        self._ended.append(batch)
        self._dispatch()


class Worker:
    """One process with one instance of the network."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.batch: Batch | None = None

    def launch(self, batch: Batch) -> None:
        assert self.process.stdin is not None, "started with a pipe"
        self.batch = batch
        self.process.stdin.write(b"%d\n" % len(batch.requests))


class GpuEngine(Engine):
    """All calls must come from the event loop's thread."""

    def __init__(
        self,
        config: BatcherConfig,
        command: list[str],
        environment: dict[str, str],
        tell: Callable[[str], None] = print,
        clock=time.monotonic_ns,
    ) -> None:
        self.device_batcher = DeviceBatcher(config, self._launch)
        super().__init__(self.device_batcher, clock)
        self._command, self._environment, self._tell = command, environment, tell
        self._workers: list[Worker] = []
        self._readers: list[asyncio.Task] = []
        self.sample: dict = {}
        self.about: dict = {}
        # Set when a worker has ended that nobody ended: the server cannot go on.
        self.broken = asyncio.Event()

    async def start(self) -> None:
        """Start the workers and wait until each has loaded its network.

        Raises:
            GpuEngineError: a worker ended before it was ready.
        """
        for _ in range(self.batcher.config.instances):
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._environment,
                limit=LONGEST_LINE,
            )
            worker = Worker(process)
            self._workers.append(worker)
        for worker in self._workers:
            assert worker.process.stdout is not None, "started with a pipe"
            while not (line := await worker.process.stdout.readline()).startswith(b"ready "):
                if not line:
                    raise GpuEngineError(
                        f"the GPU's worker ended with {await worker.process.wait()}; see its lines above"
                    )
            self.about = json.loads(line.partition(b" ")[2])
            self._readers.append(asyncio.create_task(self._read(worker)))

    async def stop(self) -> None:
        for reader in self._readers:
            reader.cancel()
        for worker in self._workers:
            if worker.process.returncode is None:
                worker.process.kill()
            await worker.process.wait()

    def _launch(self, batch: Batch) -> None:
        next(worker for worker in self._workers if worker.batch is None).launch(batch)

    async def _read(self, worker: Worker) -> None:
        assert worker.process.stdout is not None, "started with a pipe"
        while line := await worker.process.stdout.readline():
            kind, _, rest = line.partition(b" ")
            if kind == b"gpu":
                self.sample = json.loads(rest)
            elif kind == b"done" and worker.batch is not None:
                batch, worker.batch = worker.batch, None
                parts = tuple(int(part) for part in rest.split())
                self.device_batcher.end(batch, self._clock(), (parts[0], parts[1], parts[2]))
                self.refresh()
        self._tell(f"the GPU's worker has ended with {await worker.process.wait()}")
        self.broken.set()


class RealGpu(Gpu):
    """The card as NVML described it last, in the names that Triton uses."""

    def update(self, sample: dict) -> None:
        if sample:
            self.uuid = sample["uuid"]
            self.memory_bytes = sample["memory_total_bytes"]
            self.utilization = sample["utilization"]
            self._used, self._watts = sample["memory_used_bytes"], sample["power_watts"]

    _used: int = 0
    _watts: float = 0.0

    def sample(self, now: int, busy_ns: int) -> None:
        """NVML's own figure stands; nothing is computed from the queue."""

    def families(self):
        yield "nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)", round(self.utilization, 4)
        yield "nv_gpu_memory_total_bytes", "GPU total memory, in bytes", self.memory_bytes
        yield "nv_gpu_memory_used_bytes", "GPU used memory, in bytes", self._used
        yield "nv_gpu_power_usage", "GPU power usage in watts", round(self._watts, 3)

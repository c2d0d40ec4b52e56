"""Puts the parts together: loads, serves, fails on request, and stops without cutting a stream."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import grpc

from . import text
from .batcher import NS_PER_MS, Batcher, BatcherConfig
from .curves import CURVES
from .engine import Engine
from .gpu_engine import WORKER, GpuEngine, GpuEngineError, RealGpu, machine_command
from .metrics import CONTENT_TYPE, Gpu, model_statistics, render
from .nim_face import Nim
from .settings import Settings
from .speech import ASR_SERVICE, Health, SpeechRecognition, register
from .state import Phase, State
from .web import Response, WebServer

IDLE_MODEL = "riva-punctuation-en-US"
LARGEST_MESSAGE = 256 * 1024 * 1024
EXIT_CRASHED = 134
LAST_WORDS_SECONDS = 2.0


class StartError(RuntimeError):
    """The server cannot start. The text says why and what to change."""


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def batcher_config(settings: Settings) -> BatcherConfig:
    return BatcherConfig(
        instances=settings.instances,
        max_batch_size=settings.max_batch_size,
        preferred_batch_sizes=settings.preferred_batch_sizes,
        max_queue_delay_ns=round(settings.max_queue_delay_ms * NS_PER_MS),
        service_base_ns=round(settings.service_base_ms * NS_PER_MS),
        service_per_item_ns=round(settings.service_per_item_ms * NS_PER_MS),
        max_queue_size=settings.max_queue_size,
        service_curve=tuple((size, round(ms * NS_PER_MS)) for size, ms in CURVES.get(settings.service_curve, ())),
    )


def make_engine(settings: Settings) -> Engine:
    if settings.engine == "simulated":
        return Engine(Batcher(batcher_config(settings)))
    try:
        command, environment = machine_command(Path(settings.machine))
    except GpuEngineError as error:
        raise StartError(str(error)) from None
    arguments = ["--serve", f"--size={settings.network}", f"--largest={settings.max_batch_size}"]
    arguments += [f"--chunk-ms={settings.chunk_ms}"]
    return GpuEngine(batcher_config(settings), [*command, str(WORKER), *arguments], environment, log)


class StandIn:
    """One Riva server. Create it inside the event loop that runs it."""

    def __init__(
        self, settings: Settings, asr: bool = True, tts: bool = False, nmt: bool = False, nim: Nim | None = None
    ) -> None:
        self.settings = settings
        self.nim = nim
        self.state = State()
        self.engine = make_engine(settings)
        kind = RealGpu if isinstance(self.engine, GpuEngine) else Gpu
        self._gpu = kind(settings.gpu_uuid, settings.gpu_memory_mib * 1024 * 1024)
        self._acoustic = f"{settings.model_name}-am"
        self._ensemble = settings.model_name if settings.ensemble else None
        self._grpc = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", LARGEST_MESSAGE),
                ("grpc.max_send_message_length", LARGEST_MESSAGE),
            ]
        )
        named = ((ASR_SERVICE, asr), (text.TTS_SERVICE, tts), (text.NMT_SERVICE, nmt))
        health = Health(self.state, tuple(name for name, enabled in named if enabled or name == ASR_SERVICE))
        register(self._grpc, SpeechRecognition(self.engine, self.state, settings, asr), health)
        text.register(
            self._grpc,
            text.SpeechSynthesis(self.engine, self.state, settings, tts, "tts_service"),
            text.Translation(self.engine, self.state, settings, nmt, "nmt_service"),
        )
        self._web = WebServer(self._nim if nim else self._triton)
        self._metrics = WebServer(self._page)
        self._stop = asyncio.Event()
        self._faults: list[asyncio.TimerHandle] = []

    def request_stop(self) -> None:
        """A second request ends the grace."""
        if self._stop.is_set():
            self.state.forget_calls()
        self._stop.set()

    async def run(self) -> int:
        """Until a stop is asked for. The exit code."""
        await self._listen()
        try:
            if await self._load():
                await self._serve()
                await self._stop.wait()
                await self._drain()
            return 0
        finally:
            for fault in self._faults:
                fault.cancel()
            await self._grpc.stop(LAST_WORDS_SECONDS if not self.state.calls else 0)
            await self._web.stop()
            await self._metrics.stop()
            if isinstance(self.engine, GpuEngine):
                await self.engine.stop()

    async def _listen(self) -> None:
        address = f"{self.settings.host}:{self.settings.grpc_port}"
        try:
            self.grpc_port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {address}: {error}; RIVA_STANDIN_GRPC_PORT sets it") from None
        await self._grpc.start()
        if self.nim:
            # A NIM tells over HTTP how it is from its first second on.
            await self._open(self._web, "HTTP", self.settings.http_port)

    async def _open(self, server: WebServer, name: str, port: int) -> None:
        try:
            await server.start(self.settings.host, port)
        except OSError as error:
            raise StartError(
                f"cannot listen on {self.settings.host}:{port}: {error}; RIVA_STANDIN_{name}_PORT sets it"
            ) from None

    async def _load(self) -> bool:
        """As start-riva does, tell once a second that Triton loads; False when a stop came first."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        ready_at = started + self.settings.model_load_seconds + (self.nim.fetch_seconds if self.nim else 0)
        if isinstance(self.engine, GpuEngine):
            return await self._load_on_gpu(self.engine)
        limit = self.settings.triton_timeout_seconds
        while (left := ready_at - loop.time()) > 0:
            if limit is not None and loop.time() - started >= limit:
                raise StartError("Waiting for Triton server timed out. Try increasing TRITON_TIMEOUT_SEC")
            log("Riva waiting for Triton server to load all models...retrying in 1 second")
            if await self._stopped_within(min(1.0, left)):
                return False
        if self.nim:
            self.nim.keep()
        return not self._stop.is_set()

    async def _load_on_gpu(self, engine: GpuEngine) -> bool:
        """The time is the network's own; False when a stop came first."""
        started = asyncio.get_running_loop().time()
        loading = asyncio.create_task(engine.start())
        try:
            while not loading.done():
                waited = asyncio.get_running_loop().time() - started
                limit = self.settings.triton_timeout_seconds
                if limit is not None and waited >= limit:
                    raise StartError("Waiting for Triton server timed out. Try increasing TRITON_TIMEOUT_SEC")
                log("Riva waiting for Triton server to load all models...retrying in 1 second")
                if await self._stopped_within(1.0):
                    return False
            await loading
        except GpuEngineError as error:
            raise StartError(str(error)) from None
        finally:
            loading.cancel()
        seconds = asyncio.get_running_loop().time() - started
        about = engine.about
        log(f"a network with random weights is on {about['device']} after {seconds:.1f} s: {json.dumps(about)}")
        self._watch = asyncio.create_task(self._end_with(engine))
        return not self._stop.is_set()

    async def _end_with(self, engine: GpuEngine) -> None:
        await engine.broken.wait()
        if not self._stop.is_set():
            self._crash()

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _serve(self) -> None:
        """Triton opens its ports once its models are loaded, so before that a scrape finds nothing."""
        if not self.nim:
            await self._open(self._web, "HTTP", self.settings.http_port)
        await self._open(self._metrics, "METRICS", self.settings.metrics_port)
        self.state.enter(Phase.SERVING)
        loop = asyncio.get_running_loop()
        for seconds, fault in (
            (self.settings.crash_after_seconds, self._crash),
            (self.settings.hang_after_seconds, self._hang),
        ):
            if seconds:
                self._faults.append(loop.call_later(seconds, fault))
        log(
            f"Riva stand-in listening: gRPC {self.grpc_port}, Triton HTTP {self._web.port}, "
            f"metrics {self._metrics.port}"
        )

    async def _drain(self) -> None:
        self.state.enter(Phase.STOPPING)
        log(f"stopping: {self.state.calls} calls may run for {self.settings.grace_seconds:g} s more")
        try:
            await asyncio.wait_for(self.state.idle(), self.settings.grace_seconds)
        except TimeoutError:
            log(f"the grace is over: {self.state.calls} calls are cut (RIVA_STANDIN_GRACE_SECONDS)")

    def _crash(self) -> None:
        after = self.settings.crash_after_seconds
        why = " (RIVA_STANDIN_CRASH_AFTER_SECONDS)" if after else ""
        log(f"One of the processes has exited unexpectedly{why}")
        sys.stdout.flush()
        os._exit(EXIT_CRASHED)

    def _hang(self) -> None:
        log("hanging: no inference ends, no health question is answered (RIVA_STANDIN_HANG_AFTER_SECONDS)")
        self.engine.freeze()
        self.state.hanging = True

    async def _page(self, path: str) -> Response:
        if path != "/metrics":
            return Response(404, "metrics are at /metrics\n")
        now = self.engine.refresh()
        batcher = self.engine.batcher
        if isinstance(self._gpu, RealGpu) and isinstance(self.engine, GpuEngine):
            self._gpu.update(self.engine.sample)
        self._gpu.sample(now, batcher.busy_ns(now))
        models = model_statistics(batcher, self._acoustic, IDLE_MODEL, self._ensemble)
        return Response(200, render(models, self._gpu), CONTENT_TYPE)

    async def _nim(self, path: str) -> Response:
        """A NIM's own paths, as NVIDIA documents them."""
        await self.state.not_hanging()
        assert self.nim is not None, "only a NIM has these paths"
        return self.nim.answer(path, self.state.phase is Phase.SERVING, self._gpu)

    async def _triton(self, path: str) -> Response:
        await self.state.not_hanging()
        parts = [part for part in path.split("/") if part]
        if parts[:1] != ["v2"]:
            return Response(404, "not found\n")
        if parts == ["v2"]:
            about = {"name": "triton", "version": "2.0.0-standin", "extensions": ["statistics"]}
            return Response(200, json.dumps(about), "application/json")
        if parts == ["v2", "health", "live"]:
            return Response(200)
        ready = self.state.phase is Phase.SERVING
        if parts == ["v2", "health", "ready"]:
            return Response(200 if ready else 400)
        if len(parts) in (4, 6) and parts[1] == "models" and parts[-1] == "ready":
            models = {self._acoustic, IDLE_MODEL, self._ensemble} - {None}
            version = parts[3:5] if len(parts) == 6 else ["versions", "1"]
            return Response(200 if ready and parts[2] in models and version == ["versions", "1"] else 400)
        return Response(404, "not found\n")

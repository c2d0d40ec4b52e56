"""The gRPC services: speech recognition and health, on NVIDIA's own stubs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator

import grpc
from riva.client.proto import health_pb2, health_pb2_grpc, riva_asr_pb2, riva_asr_pb2_grpc, riva_audio_pb2

from .audio import AudioError, ChunkCutter
from .batcher import QueueFullError, Request
from .engine import Engine
from .state import Phase, State

ASR_SERVICE = "nvidia.riva.asr.RivaSpeechRecognition"
LOWEST_RATE, HIGHEST_RATE = 8000, 48000
OFFLINE_WINDOW = 1


def transcript(seconds: float) -> str:
    return f"stand-in transcript: {seconds:.2f} s of audio"


class Recognition:
    """The inference requests of one call: how many are under way, and how much audio is through."""

    def __init__(self, engine: Engine, window: int) -> None:
        self._engine = engine
        self._window = window
        self._changed = asyncio.Event()
        self.in_flight = 0
        self.samples_done = 0
        self.ended = False

    async def submit(self, samples: int) -> None:
        """One inference request. Waits while too many of this call are under way already."""
        while self.in_flight >= self._window:
            await self._changed.wait()
        self._engine.submit(self, samples)
        self.in_flight += 1

    def chunks_done(self, requests: list[Request]) -> None:
        self.in_flight -= len(requests)
        self.samples_done += sum(request.payload for request in requests)
        self._tell()

    async def drained(self) -> None:
        while self.in_flight:
            await self._changed.wait()

    async def progress(self, told: int) -> bool:
        """Waits for more audio to be through; False when there will be no more to tell."""
        while not self.ended and self.samples_done == told:
            await self._changed.wait()
        return not self.ended

    def end(self) -> None:
        """No result is wanted any more: what still waits in the queue is taken out."""
        self.ended = True
        if self.in_flight:
            self._engine.cancel(self)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Failure:
    """What went wrong in a call, kept until its writer has ended: an abort must be the last thing sent."""

    def __init__(self) -> None:
        self._status: tuple[grpc.StatusCode, str] | None = None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        try:
            yield
        except AudioError as error:
            self._status = (grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except QueueFullError as error:
            self._status = (grpc.StatusCode.UNAVAILABLE, str(error))

    async def abort(self, context) -> None:
        if self._status is not None:
            await context.abort(*self._status)


@contextlib.asynccontextmanager
async def _until_end(recognition: Recognition, writing: Coroutine | None = None) -> AsyncIterator[Failure]:
    """Runs the writing beside the body, and takes the call's requests out of the queue whatever happens."""
    task = asyncio.create_task(writing) if writing is not None else None
    try:
        yield Failure()
        recognition.end()
        if task is not None:
            await task
    finally:
        recognition.end()
        if task is not None:
            task.cancel()


async def _write_nothing(*_) -> None:
    """For a client that wants the final result only."""


class SpeechRecognition(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):
    def __init__(self, engine: Engine, state: State, settings, enabled: bool = True) -> None:
        self._engine = engine
        self._state = state
        self._settings = settings
        self._enabled = enabled
        self._models = {"online": settings.model_name, "offline": offline_name(settings.model_name)}

    async def StreamingRecognize(self, request_iterator, context):
        await self._admit(context)
        with self._state.call():
            first = await context.read()
            if first is grpc.aio.EOF or first.WhichOneof("streaming_request") != "streaming_config":
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "the first message of a stream must be streaming_config, then comes audio_content",
                )
            config = first.streaming_config
            await self._check(config.config, "online", context)
            cutter = ChunkCutter(config.config.sample_rate_hertz, self._settings.chunk_ms)
            recognition = Recognition(self._engine, self._settings.stream_window)
            interim = self._write_interim if config.interim_results else _write_nothing
            async with _until_end(recognition, interim(recognition, cutter, first.id, context)) as failure:
                with failure.caught():
                    await self._listen(context, recognition, cutter)
                    await recognition.drained()
            await failure.abort(context)
            await context.write(_streaming_response(cutter.seconds, True, first.id))

    async def Recognize(self, request, context):
        await self._admit(context)
        with self._state.call():
            await self._check(request.config, "offline", context)
            cutter = ChunkCutter(request.config.sample_rate_hertz, self._settings.chunk_ms)
            recognition = Recognition(self._engine, OFFLINE_WINDOW)
            async with _until_end(recognition) as failure:
                with failure.caught():
                    for samples in cutter.feed(request.audio) + cutter.finish():
                        await recognition.submit(samples)
                    await recognition.drained()
            await failure.abort(context)
            result = riva_asr_pb2.SpeechRecognitionResult(channel_tag=1, audio_processed=cutter.seconds)
            result.alternatives.add(transcript=transcript(cutter.seconds), confidence=1.0)
            response = riva_asr_pb2.RecognizeResponse(results=[result])
            if request.id.value:
                response.id.CopyFrom(request.id)
            return response

    async def GetRivaSpeechRecognitionConfig(self, request, context):
        await self._admit(context)
        response = riva_asr_pb2.RivaSpeechRecognitionConfigResponse()
        for kind, name in self._models.items():
            if request.model_name in ("", name):
                entry = response.model_config.add(model_name=name)
                entry.parameters["type"] = kind
                entry.parameters["language_code"] = self._settings.language_code
                entry.parameters["sample_rate"] = "16000"
                entry.parameters["streaming"] = str(kind == "online")
                entry.parameters["stand_in"] = "True"
        if not response.model_config:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"no model {request.model_name!r} here; there are: {', '.join(self._models.values())}",
            )
        return response

    async def _admit(self, context) -> None:
        if not self._enabled:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "started with --asr_service=false")
        if self._state.phase is not Phase.SERVING:
            loading = self._state.phase is Phase.LOADING
            reason = "models are still loading" if loading else "the server is stopping"
            await context.abort(grpc.StatusCode.UNAVAILABLE, reason)

    async def _check(self, config, kind: str, context) -> None:
        settings = self._settings
        language = config.language_code
        wrong_model = config.model and config.model != self._models[kind]
        if wrong_model or (language and language.lower() != settings.language_code.lower()):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Error: Unavailable model requested given these parameters: language_code={language}; "
                f"model={config.model}; type={kind}. "
                f"This server has {self._models[kind]} for {settings.language_code}",
            )
        if config.encoding not in (riva_audio_pb2.ENCODING_UNSPECIFIED, riva_audio_pb2.LINEAR_PCM):
            names = {number: name for name, number in riva_audio_pb2.AudioEncoding.items()}
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"encoding {names.get(config.encoding, config.encoding)} is not known here: send LINEAR_PCM",
            )
        if config.audio_channel_count > 1:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"audio_channel_count is {config.audio_channel_count}: send mono audio",
            )
        rate = config.sample_rate_hertz
        if rate and not LOWEST_RATE <= rate <= HIGHEST_RATE:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"sample_rate_hertz is {rate}: it must be from {LOWEST_RATE} to {HIGHEST_RATE}",
            )

    @staticmethod
    async def _listen(context, recognition: Recognition, cutter: ChunkCutter) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.WhichOneof("streaming_request") == "streaming_config":
                raise AudioError("streaming_config may come only once, as the first message of the stream")
            for samples in cutter.feed(message.audio_content):
                await recognition.submit(samples)
        for samples in cutter.finish():
            await recognition.submit(samples)

    @staticmethod
    async def _write_interim(recognition: Recognition, cutter: ChunkCutter, identity, context) -> None:
        """One interim result each time that chunks are done; chunks of one batch share it."""
        told = 0
        while await recognition.progress(told):
            told = recognition.samples_done
            await context.write(_streaming_response(told / cutter.sample_rate, False, identity))


def offline_name(online: str) -> str:
    return online.replace("streaming", "offline") if "streaming" in online else f"{online}-offline"


def _streaming_response(seconds: float, final: bool, identity) -> riva_asr_pb2.StreamingRecognizeResponse:
    response = riva_asr_pb2.StreamingRecognizeResponse()
    result = response.results.add(
        is_final=final, stability=1.0 if final else 0.5, channel_tag=1, audio_processed=seconds
    )
    result.alternatives.add(transcript=transcript(seconds), confidence=1.0 if final else 0.5)
    if identity.value:
        response.id.CopyFrom(identity)
    return response


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1: the whole server (empty name) and each of its services."""

    def __init__(self, state: State, services: tuple[str, ...] = (ASR_SERVICE,)) -> None:
        self._state = state
        self._known = ("", *services)

    async def Check(self, request, context):
        await self._state.not_hanging()
        if request.service not in self._known:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service!r}")
        return self._response(request.service)

    async def Watch(self, request, context):
        await self._state.not_hanging()
        while True:
            seen = self._state.phase
            yield self._response(request.service)
            await self._state.change(seen)

    def _response(self, service: str):
        statuses = health_pb2.HealthCheckResponse
        if service not in self._known:
            return statuses(status=statuses.UNKNOWN)
        serving = self._state.phase is Phase.SERVING
        return statuses(status=statuses.SERVING if serving else statuses.NOT_SERVING)


def register(server: grpc.aio.Server, recognition: SpeechRecognition, health: Health) -> None:
    riva_asr_pb2_grpc.add_RivaSpeechRecognitionServicer_to_server(recognition, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)

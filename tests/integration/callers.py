"""Callers who keep opening speech streams in real time, and remember what became of each."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
from riva.client.proto import riva_asr_pb2 as asr
from riva.client.proto import riva_asr_pb2_grpc as stubs
from riva.client.proto import riva_audio_pb2 as audio

RATE = 16000
CHUNK_SECONDS = 0.16
CHUNK = bytes(int(RATE * CHUNK_SECONDS) * 2)
# Nothing starts or ends in step.
LENGTHS = (3.2, 6.4, 4.0, 8.0, 4.8)


@dataclass
class Stream:
    """One stream: when it was opened, what became of it, and the pod that served it."""

    opened: float
    ended: float = 0.0
    outcome: str = "running"
    pod: str = ""


@dataclass
class Callers:
    """A number of callers at a time, each with a channel of its own for each stream; a context manager.

    `lengths` are those of the streams of each caller, in seconds, in turn; `host` is the name that they ask for.
    """

    endpoint: str
    count: int
    lengths: Sequence[float] = LENGTHS
    host: str = ""
    streams: list[Stream] = field(default_factory=list)

    def __enter__(self) -> Callers:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        """No new streams; those that run end by themselves."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "streams that never end"

    @property
    def ended(self) -> list[Stream]:
        return [stream for stream in self.streams if stream.ended]

    @property
    def lost(self) -> Counter:
        """What became of the streams that did not end well."""
        return Counter(stream.outcome for stream in self.ended if stream.outcome != "OK")

    def until(self, more: int, timeout: float = 120) -> None:
        """Wait until so many more streams have ended."""
        wanted, deadline = len(self.ended) + more, time.monotonic() + timeout
        while len(self.ended) < wanted:
            assert time.monotonic() < deadline, f"{len(self.ended)} of {wanted} streams within {timeout} s"
            time.sleep(0.2)

    async def _run(self) -> None:
        await asyncio.gather(*(self._caller(number) for number in range(self.count)))

    async def _caller(self, number: int) -> None:
        await asyncio.sleep(number * 0.3)
        for length in itertools.islice(itertools.cycle(self.lengths), number, None):
            if self._stop.is_set():
                return
            await self._stream(length)

    async def _stream(self, length: float) -> None:
        stream = Stream(time.monotonic())
        self.streams.append(stream)
        own = [("grpc.use_local_subchannel_pool", 1), *([("grpc.default_authority", self.host)] if self.host else [])]
        async with grpc.aio.insecure_channel(self.endpoint, options=own) as channel:
            call = stubs.RivaSpeechRecognitionStub(channel).StreamingRecognize(requests(length))
            try:
                heard = 0.0
                async for answer in call:
                    heard = max([heard, *(result.audio_processed for result in answer.results)])
                stream.outcome = "OK" if heard > length - CHUNK_SECONDS else f"only {heard:.1f} of {length} s answered"
                stream.pod = dict(await call.initial_metadata()).get("x-pod", "")
            except grpc.aio.AioRpcError as error:
                stream.outcome = f"{error.code().name} {error.details()}"
        stream.ended = time.monotonic()


async def requests(length: float):
    """The stream's configuration, and its audio (silence) as fast as it would be spoken."""
    config = asr.RecognitionConfig(
        encoding=audio.LINEAR_PCM, sample_rate_hertz=RATE, language_code="en-US", audio_channel_count=1
    )
    yield asr.StreamingRecognizeRequest(
        streaming_config=asr.StreamingRecognitionConfig(config=config, interim_results=True)
    )
    start = time.monotonic()
    for number in range(round(length / CHUNK_SECONDS)):
        await asyncio.sleep(max(0.0, start + number * CHUNK_SECONDS - time.monotonic()))
        yield asr.StreamingRecognizeRequest(audio_content=CHUNK)

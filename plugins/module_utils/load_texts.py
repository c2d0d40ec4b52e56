# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One caller of speech synthesis or of translation, through NVIDIA's Python client: a text every few seconds.

Each text is a call of its own, made when it is due, whether or not the one before has been answered, as a new chunk of
audio is. Its latency is the time to its first audio (`SynthesizeOnline`), or to its translation (`TranslateText`).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from ansible_collections.speechops.riva.plugins.module_utils.load_measures import StreamMeasure
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import chunk_deadline
from ansible_collections.speechops.riva.plugins.module_utils.load_streams import (
    FAILED,
    FINISHED,
    POD_HEADER,
    STOPPED,
    Outcome,
    Tls,
    connection,
    failed,
    question,
)

# load_streams says so where it is missing.
with contextlib.suppress(ImportError):
    import riva.client
    from riva.client.proto import riva_nmt_pb2, riva_tts_pb2

ASR, TTS, NMT = "asr", "tts", "nmt"
SPEECH = (ASR, TTS, NMT)
SAMPLE_RATE = 22050
# About three seconds of speech each.
TEXTS = (
    "The next train to the harbour leaves from platform four.",
    "Please hold the line, somebody will be with you soon.",
    "Your parcel has been delivered to the neighbour next door.",
    "Tomorrow will be cloudy in the north and dry in the south.",
    "Say yes to confirm the appointment, or no to choose another.",
)


@dataclass(frozen=True)
class Texts:
    """What is read aloud or translated, and how: *language* of the texts, *target* of a translation, *voice* or any."""

    lines: tuple[str, ...] = TEXTS
    speech: str = TTS
    language: str = "en-US"
    target: str = "de-DE"
    voice: str = ""

    def of_stream(self, number: int, count: int) -> list[str]:
        """The texts of one caller, from another one on than its neighbour."""
        return [self.lines[(number + place) % len(self.lines)] for place in range(count)]


def texts_of_length(seconds: float, text_seconds: float) -> int:
    """How many texts a caller gives who stays for so many seconds: at least one."""
    return max(1, round(seconds / text_seconds))


async def ask_text_server(endpoint: str, timeout: float, speech: str, host: str = "", tls: Tls | None = None) -> None:
    """Ask a server of synthesis or translation for what it has. Raises EndpointSilent."""
    async with question(endpoint, host, tls) as auth:
        stub = stub_of(speech, auth)
        if speech == TTS:
            await stub.GetRivaSynthesisConfig(riva_tts_pb2.RivaSynthesisConfigRequest(), timeout=timeout)
        else:
            await stub.ListSupportedLanguagePairs(riva_nmt_pb2.AvailableLanguageRequest(), timeout=timeout)


def stub_of(speech: str, auth):
    """The calls of synthesis or of translation on a connection."""
    client = riva.client.SpeechSynthesisService if speech == TTS else riva.client.NeuralMachineTranslationClient
    return client(auth).stub


async def run_texts(
    endpoint: str,
    texts: Texts,
    lines: list[str],
    start: float,
    timeout: float,
    measure: StreamMeasure,
    host: str = "",
    tls: Tls | None = None,
) -> Outcome:
    """Make each call when it is due, and measure the answers; the first call that fails ends the caller."""
    caller = Caller(texts, measure, timeout)
    auth = connection(endpoint, host, tls)
    stub = stub_of(texts.speech, auth)
    calls = [asyncio.create_task(caller.call(stub, number, line, start)) for number, line in enumerate(lines)]
    try:
        await asyncio.gather(*calls)
    except Exception as error:  # whatever went wrong, the caller failed, and that is written down
        return failed(error, measure, caller.pod)
    except asyncio.CancelledError:
        return Outcome(STOPPED, pod=caller.pod)
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await auth.channel.close()
    if measure.answered < measure.chunks:
        words = f"the server gave nothing for {measure.chunks - measure.answered} of {measure.chunks} texts"
        return Outcome(FAILED, "OK", words, caller.pod)
    return Outcome(FINISHED, pod=caller.pod)


class Caller:
    """The calls of one caller."""

    def __init__(self, texts: Texts, measure: StreamMeasure, timeout: float) -> None:
        self.texts, self.measure, self.timeout, self.pod = texts, measure, timeout, ""

    async def call(self, stub, number: int, line: str, start: float) -> None:
        clock = asyncio.get_running_loop().time
        due = chunk_deadline(start, number, self.measure.chunk_seconds)
        await asyncio.sleep(max(0.0, due - clock()))
        sent = clock()
        self.measure.sent(due, sent)
        if self.texts.speech == TTS:
            answered = await self.synthesise(stub, line, clock)
        else:
            answered = await self.translate(stub, line, clock)
        if answered:
            self.measure.text_answered(sent, answered, clock())

    async def synthesise(self, stub, line: str, clock) -> float:
        """When the first audio came; the call goes on to its last. 0 without any."""
        request = riva_tts_pb2.SynthesizeSpeechRequest(
            text=line,
            language_code=self.texts.language,
            sample_rate_hz=SAMPLE_RATE,
            encoding=riva.client.AudioEncoding.LINEAR_PCM,
            voice_name=self.texts.voice,
        )
        call, first = stub.SynthesizeOnline(iter([request]), timeout=self.timeout), 0.0
        async for response in call:
            if response.audio and not first:
                first = clock()
        await self.see_pod(call)
        return first

    async def translate(self, stub, line: str, clock) -> float:
        request = riva_nmt_pb2.TranslateTextRequest(
            texts=[line], source_language=self.texts.language, target_language=self.texts.target
        )
        call = stub.TranslateText(request, timeout=self.timeout)
        answer = await call
        now = clock()
        await self.see_pod(call)
        return now if any(entry.text for entry in answer.translations) else 0.0

    async def see_pod(self, call) -> None:
        self.pod = self.pod or dict(await call.initial_metadata()).get(POD_HEADER, "")

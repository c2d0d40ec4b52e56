"""Speech synthesis and translation: text in, inference requests through the same queue, nothing of sense out."""

from __future__ import annotations

import grpc
from riva.client.proto import (
    riva_audio_pb2,
    riva_nmt_pb2,
    riva_nmt_pb2_grpc,
    riva_tts_pb2,
    riva_tts_pb2_grpc,
)

from .batcher import QueueFullError
from .engine import Engine
from .speech import Recognition
from .state import Phase, State

TTS_SERVICE = "nvidia.riva.tts.RivaSpeechSynthesis"
NMT_SERVICE = "nvidia.riva.nmt.RivaTranslation"
# A reader's pace.
LETTERS_PER_SECOND = 15.0
DEFAULT_RATE = 22050
BYTES_PER_SAMPLE = 2
LONGEST_TEXT = 4000
LANGUAGE_PAIRS = {"en": ["de", "es", "fr"], "de": ["en"], "es": ["en"], "fr": ["en"]}


def seconds_of(text: str) -> float:
    """How long the speech for a text is."""
    return max(0.2, len(text) / LETTERS_PER_SECOND)


class _Service:
    def __init__(self, engine: Engine, state: State, settings, enabled: bool, flag: str) -> None:
        self._engine, self._state, self._settings = engine, state, settings
        self._enabled, self._flag = enabled, flag

    async def _admit(self, context) -> None:
        if not self._enabled:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"started with --{self._flag}=false")
        if self._state.phase is not Phase.SERVING:
            loading = self._state.phase is Phase.LOADING
            reason = "models are still loading" if loading else "the server is stopping"
            await context.abort(grpc.StatusCode.UNAVAILABLE, reason)

    async def _infer(self, context, recognition: Recognition, size: int) -> None:
        """One inference request, to its end."""
        try:
            await recognition.submit(size)
            await recognition.drained()
        except QueueFullError as error:
            recognition.end()
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


class SpeechSynthesis(_Service, riva_tts_pb2_grpc.RivaSpeechSynthesisServicer):
    """Silence of the right length, one inference request for each chunk of it."""

    async def Synthesize(self, request, context):
        await self._admit(context)
        with self._state.call():
            pieces = [piece async for piece in self._speak(request, context)]
            response = riva_tts_pb2.SynthesizeSpeechResponse(audio=b"".join(pieces))
            response.meta.text = request.text
            return response

    async def SynthesizeOnline(self, request_iterator, context):
        await self._admit(context)
        with self._state.call():
            while (request := await context.read()) is not grpc.aio.EOF:
                async for piece in self._speak(request, context):
                    await context.write(riva_tts_pb2.SynthesizeSpeechResponse(audio=piece))

    async def GetRivaSynthesisConfig(self, request, context):
        await self._admit(context)
        response = riva_tts_pb2.RivaSynthesisConfigResponse()
        entry = response.model_config.add(model_name=self._settings.model_name)
        entry.parameters["language_code"] = self._settings.language_code
        entry.parameters["voice_name"] = "Stand-in"
        entry.parameters["sample_rate"] = str(DEFAULT_RATE)
        return response

    async def _speak(self, request, context):
        language = request.language_code
        if not request.text.strip() or len(request.text) > LONGEST_TEXT:
            words = f"text has {len(request.text)} letters: it must have 1 to {LONGEST_TEXT}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
        if language and language.lower() != self._settings.language_code.lower():
            words = f"language_code={language} is not served here: {self._settings.language_code} is"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
        if request.encoding not in (riva_audio_pb2.ENCODING_UNSPECIFIED, riva_audio_pb2.LINEAR_PCM):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "only LINEAR_PCM is made here")
        rate = request.sample_rate_hz or DEFAULT_RATE
        left, chunk = int(seconds_of(request.text) * rate), max(1, rate * self._settings.chunk_ms // 1000)
        recognition = Recognition(self._engine, 1)
        try:
            while left > 0:
                samples = min(left, chunk)
                await self._infer(context, recognition, samples)
                left -= samples
                yield bytes(samples * BYTES_PER_SAMPLE)
        finally:
            recognition.end()


class Translation(_Service, riva_nmt_pb2_grpc.RivaTranslationServicer):
    """The text itself with the target language before it, one inference request for each text."""

    async def TranslateText(self, request, context):
        await self._admit(context)
        with self._state.call():
            source, target = request.source_language[:2].lower(), request.target_language[:2].lower()
            if target not in LANGUAGE_PAIRS.get(source, []):
                pairs = ", ".join(f"{a}-{b}" for a, targets in LANGUAGE_PAIRS.items() for b in targets)
                words = f"no translation from {source!r} to {target!r} here; there are {pairs}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
            response = riva_nmt_pb2.TranslateTextResponse()
            for text in request.texts:
                recognition = Recognition(self._engine, 1)
                try:
                    await self._infer(context, recognition, max(1, len(text)))
                finally:
                    recognition.end()
                response.translations.add(text=f"[{target}] {text}", language=request.target_language)
            return response

    async def ListSupportedLanguagePairs(self, request, context):
        await self._admit(context)
        response = riva_nmt_pb2.AvailableLanguageResponse()
        for source, targets in LANGUAGE_PAIRS.items():
            pairs = response.languages[self._settings.model_name]
            pairs.src_lang.append(source)
            pairs.tgt_lang.extend(target for target in targets if target not in pairs.tgt_lang)
        return response


def register(server: grpc.aio.Server, synthesis: SpeechSynthesis, translation: Translation) -> None:
    riva_tts_pb2_grpc.add_RivaSpeechSynthesisServicer_to_server(synthesis, server)
    riva_nmt_pb2_grpc.add_RivaTranslationServicer_to_server(translation, server)

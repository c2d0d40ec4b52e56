"""Callers of synthesis and translation against small services in this process, made from NVIDIA's own server stubs."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_measures import StreamMeasure, Window
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import Step
from ansible_collections.speechops.riva.plugins.module_utils.load_run import LoadTest, Plan, Recorder
from ansible_collections.speechops.riva.plugins.module_utils.load_streams import EndpointSilent
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import summarise
from ansible_collections.speechops.riva.plugins.module_utils.load_texts import (
    Texts,
    ask_text_server,
    run_texts,
    texts_of_length,
)
from riva.client.proto import riva_nmt_pb2, riva_nmt_pb2_grpc, riva_tts_pb2, riva_tts_pb2_grpc


class Reader(riva_tts_pb2_grpc.RivaSpeechSynthesisServicer):
    """Reads aloud: the first audio after *first* seconds, the last one *rest* seconds later."""

    def __init__(self, first=0.02, rest=0.0, wrong=lambda number: ""):
        self.first, self.rest, self.wrong = first, rest, wrong
        self.asked = []
        self.lock = threading.Lock()

    def GetRivaSynthesisConfig(self, request, context):
        return riva_tts_pb2.RivaSynthesisConfigResponse()

    def SynthesizeOnline(self, requests, context):
        request = next(requests)
        with self.lock:
            number = len(self.asked)
            self.asked.append(request)
        context.send_initial_metadata([("x-pod", f"pod-{number}")])
        wrong = self.wrong(number)
        if wrong == "full":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "this pod is full")
        if wrong == "abort":
            context.abort(grpc.StatusCode.UNAVAILABLE, "the GPU has fallen off the bus")
        time.sleep(self.first)
        if wrong != "silent":
            yield riva_tts_pb2.SynthesizeSpeechResponse(audio=b"\0\0" * 100)
        time.sleep(self.rest)
        yield riva_tts_pb2.SynthesizeSpeechResponse(audio=b"" if wrong == "silent" else b"\0\0")


class Translator(riva_nmt_pb2_grpc.RivaTranslationServicer):
    def __init__(self):
        self.asked = []

    def ListSupportedLanguagePairs(self, request, context):
        return riva_nmt_pb2.AvailableLanguageResponse()

    def TranslateText(self, request, context):
        self.asked.append(request)
        answer = riva_nmt_pb2.TranslateTextResponse()
        answer.translations.add(text=f"[de] {request.texts[0]}", language=request.target_language)
        return answer


@contextlib.contextmanager
def serving(reader=None, translator=None):
    server = grpc.server(ThreadPoolExecutor(16))
    if reader:
        riva_tts_pb2_grpc.add_RivaSpeechSynthesisServicer_to_server(reader, server)
    if translator:
        riva_nmt_pb2_grpc.add_RivaTranslationServicer_to_server(translator, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def call(endpoint, texts, count=3, pace=0.1, timeout=5.0):
    measure = StreamMeasure(count, pace, count * pace, 300.0, Window())

    async def one():
        start = asyncio.get_running_loop().time()
        return await run_texts(endpoint, texts, texts.of_stream(0, count), start, timeout, measure)

    return asyncio.run(one()), measure


def test_a_caller_is_read_to_at_a_steady_pace():
    reader = Reader(first=0.05, rest=0.3)
    with serving(reader) as endpoint:
        outcome, measure = call(endpoint, Texts(("one", "two"), voice="Ada"))
    assert (outcome.state, outcome.pod) == ("finished", "pod-0")
    # Due every 0.1 s though each takes 0.35 s: nobody waits for the one before.
    assert measure.sent_at[2] - measure.sent_at[0] == pytest.approx(0.2, abs=0.1)
    assert sorted(request.text for request in reader.asked) == ["one", "one", "two"]
    assert {(request.voice_name, request.language_code) for request in reader.asked} == {("Ada", "en-US")}
    # The time to the first audio, not to the last.
    assert all(40 < latency < 250 for latency in measure.window.latency_ms)
    assert (measure.answered, measure.late) == (3, 0)


def test_a_caller_has_texts_translated():
    translator = Translator()
    with serving(translator=translator) as endpoint:
        outcome, measure = call(endpoint, Texts(("good day",), speech="nmt", target="fr-FR"))
    assert outcome.state == "finished"
    assert measure.window.chunks_answered == 3
    assert {(one.source_language, one.target_language) for one in translator.asked} == {("en-US", "fr-FR")}


@pytest.mark.parametrize(
    ("wrong", "state", "code"),
    [
        (lambda number: "full", "refused", "RESOURCE_EXHAUSTED"),
        (lambda number: "full" if number == 2 else "", "failed", "RESOURCE_EXHAUSTED"),
        (lambda number: "abort" if number == 1 else "", "failed", "UNAVAILABLE"),
        (lambda number: "silent" if number == 1 else "", "failed", "OK"),
    ],
)
def test_a_caller_whose_text_is_not_read_is_told(wrong, state, code):
    with serving(Reader(wrong=wrong)) as endpoint:
        outcome, _measure = call(endpoint, Texts())
    assert (outcome.state, outcome.code) == (state, code)


def test_a_reader_that_hangs_ends_the_caller():
    with serving(Reader(first=3)) as endpoint:
        outcome, _measure = call(endpoint, Texts(), count=1, timeout=0.5)
    assert (outcome.state, outcome.code) == ("failed", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("speech", ["tts", "nmt"])
def test_the_server_is_asked_first(speech):
    with serving(Reader(), Translator()) as endpoint:
        asyncio.run(ask_text_server(endpoint, 5, speech))
    other = {"translator": Translator()} if speech == "tts" else {"reader": Reader()}
    with serving(**other) as endpoint, pytest.raises(EndpointSilent, match="UNIMPLEMENTED"):
        asyncio.run(ask_text_server(endpoint, 2, speech))


@pytest.mark.parametrize(("seconds", "every", "count"), [(20, 3, 7), (1, 3, 1), (6, 3, 2), (10, 0.5, 20)])
def test_a_longer_caller_gives_more_texts(seconds, every, count):
    assert texts_of_length(seconds, every) == count


def test_the_whole_load_and_its_report(tmp_path):
    recorder, reader = Recorder(str(tmp_path / "samples.jsonl")), Reader()
    with serving(reader) as endpoint:
        plan = Plan(
            endpoint=endpoint,
            namespace="riva",
            name="riva-tts",
            steps=[Step(3, 1.2, 0.0)],
            tail_seconds=0.0,
            chunk_duration_ms=160,
            stream_seconds=0.6,
            stream_grace_seconds=2.0,
            objective_ms=300.0,
            sample_seconds=1.0,
            max_streams=100,
            language_code="en-US",
            speech="tts",
            text_seconds=0.1,
        )
        reason = asyncio.run(LoadTest(plan, Texts(), recorder, None).run())
    recorder.close()
    summary = summarise(recorder.records)
    assert reason == "profile done"
    assert summary["streams"]["failed"] == 0
    assert summary["chunks"]["sent"] == len(reader.asked) > 10
    assert summary["latency_ms"]["count"] == len(reader.asked)
    assert "a chunk is a text" in summary["notes"][0]

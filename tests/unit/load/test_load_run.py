"""The whole load against a small speech service in this process, made from NVIDIA's own server stubs."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from ansible_collections.speechops.riva.plugins.module_utils import certificates
from ansible_collections.speechops.riva.plugins.module_utils.load_audio import read_audio
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import Step
from ansible_collections.speechops.riva.plugins.module_utils.load_run import LoadTest, Plan, Recorder, is_at_rest
from ansible_collections.speechops.riva.plugins.module_utils.load_streams import (
    EndpointSilent,
    Tls,
    ask_server,
    ended_as,
)
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import summarise
from ansible_collections.speechops.riva.plugins.module_utils.report_page import read_records, write_report
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc

STATE = {"min": 1, "max": 3, "desired": 1, "replicas": 1, "ready": 1, "metrics": [], "pods": []}


class EchoService(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):
    """Answers each chunk after *delay* seconds. *fail* decides by the stream's number how a stream goes wrong."""

    def __init__(self, delay=0.02, fail=lambda number: ""):
        self.delay, self.fail = delay, fail
        self.streams, self.peers, self.audio, self.hosts = 0, set(), [], set()
        self.pod = ""
        self.lock = threading.Lock()

    def GetRivaSpeechRecognitionConfig(self, request, context):
        answer = riva_asr_pb2.RivaSpeechRecognitionConfigResponse()
        answer.model_config.add(model_name="echo")
        return answer

    def StreamingRecognize(self, requests, context):
        with self.lock:
            number = self.streams
            self.streams += 1
            self.peers.add(context.peer())
        wrong = self.fail(number)
        if self.pod:
            context.send_initial_metadata([("x-pod", self.pod)])
        config = next(requests).streaming_config
        assert config.interim_results
        assert config.config.sample_rate_hertz == 16000
        size = 0
        for count, request in enumerate(requests, start=1):
            size += len(request.audio_content)
            if wrong == "abort" and count == 3:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the GPU has fallen off the bus")
            if wrong == "full" and count == 1:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "this pod is full")
            if wrong == "cut" and count == 4:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")
            if wrong == "end" and count == 3:
                return
            if wrong == "silent":
                continue
            time.sleep(self.delay)
            yield self.answer(size, False)
        self.audio.append(size)
        if wrong != "silent":
            yield self.answer(size, True)

    @staticmethod
    def answer(size, final):
        response = riva_asr_pb2.StreamingRecognizeResponse()
        response.results.add(is_final=final, audio_processed=size / 32000).alternatives.add(transcript="echo")
        return response


@contextlib.contextmanager
def serving(service, credentials=None):
    server = grpc.server(ThreadPoolExecutor(16))
    riva_asr_pb2_grpc.add_RivaSpeechRecognitionServicer_to_server(service, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


THREE_STREAMS = (Step(3, 1.5, 0.3),)


def plan(endpoint, steps=THREE_STREAMS, **changed):
    values = {
        "namespace": "riva",
        "name": "riva-asr",
        "tail_seconds": 0.0,
        "chunk_duration_ms": 50,
        "stream_seconds": 0.6,
        "stream_grace_seconds": 2.0,
        "objective_ms": 300.0,
        "sample_seconds": 0.2,
        "max_streams": 100,
        "language_code": "en-US",
    }
    return Plan(endpoint=endpoint, steps=list(steps), **{**values, **changed})


def load(tmp_path, tone, the_plan, sample=None, keep_going=lambda: True, guard=lambda window: ""):
    recorder = Recorder(str(tmp_path / "samples.jsonl"))
    reason = asyncio.run(LoadTest(the_plan, read_audio([tone]), recorder, sample, guard).run(keep_going))
    recorder.close()
    return reason, recorder.records


def test_streams_are_kept_at_the_level_and_measured(tmp_path, tone):
    service = EchoService()
    with serving(service) as endpoint:
        reason, records = load(tmp_path, tone, plan(endpoint))
    summary = summarise(records)
    streams = summary["streams"]
    assert reason == "profile done"
    assert streams["most_in_flight"] == 3
    assert 6 <= streams["opened"] <= 14
    assert streams["finished"] == streams["opened"] == service.streams
    assert len(service.peers) == service.streams  # a connection for each stream
    assert summary["chunks"]["unanswered"] == 0
    assert summary["latency_ms"]["count"] == summary["chunks"]["sent"]
    assert 20 <= summary["latency_ms"]["p50"] < 150
    assert sum(service.audio) / 32000 == pytest.approx(streams["audio_s"], abs=0.1)
    # Real time: a stream of n chunks takes n-1 chunk lengths and one answer.
    for stream in (record for record in records if record["kind"] == "stream"):
        assert stream["t"] - stream["opened"] >= (stream["chunks"] - 1) * 0.05
    assert read_records(str(tmp_path / "samples.jsonl")) == json.loads(json.dumps(records))
    assert write_report(str(tmp_path), records) == summary


@pytest.mark.parametrize(
    ("wrong", "code", "details"),
    [
        ("abort", "UNAVAILABLE", "the GPU has fallen off the bus"),
        ("cut", "RESOURCE_EXHAUSTED", "no more"),
        ("end", "OK", "the server ended the stream after"),
        ("silent", "OK", "the server gave no result"),
    ],
)
def test_each_stream_that_fails_is_recorded(tmp_path, tone, wrong, code, details):
    service = EchoService(fail=lambda number: wrong if number % 3 == 1 else "")
    with serving(service) as endpoint:
        _, records = load(tmp_path, tone, plan(endpoint, [Step(3, 0.8)]))
    summary = summarise(records)
    failed = [record for record in records if record["kind"] == "stream" and record["state"] == "failed"]
    assert len(failed) == summary["streams"]["failed"] == (service.streams + 1) // 3
    assert {stream["code"] for stream in failed} == {code}
    assert all(details in stream["details"] for stream in failed)
    assert summary["streams"]["finished"] == service.streams - len(failed)


def test_a_refused_stream_is_no_failed_one(tmp_path, tone):
    service = EchoService(fail=lambda number: "full" if number % 3 == 1 else "")
    with serving(service) as endpoint:
        _, records = load(tmp_path, tone, plan(endpoint, [Step(3, 0.8)]))
    summary = summarise(records)
    assert summary["streams"]["failed"] == 0
    assert summary["streams"]["refused"] == (service.streams + 1) // 3
    assert summary["streams"]["refusals"] == [{"details": "this pod is full", "count": summary["streams"]["refused"]}]
    assert summary["streams"]["errors"] == {"RESOURCE_EXHAUSTED": summary["streams"]["refused"]}
    refused = sum(r["chunks"] for r in records if r["kind"] == "stream" and r["state"] == "refused")
    assert summary["bad_service"]["refused"] == refused > 0


@pytest.mark.parametrize(
    ("code", "details", "results", "state"),
    [
        ("RESOURCE_EXHAUSTED", "this pod is full", 0, "refused"),
        ("RESOURCE_EXHAUSTED", "this pod is full", 1, "failed"),
        # gRPC's client lost the status: a chunk was under way when the refusal came.
        ("INTERNAL", "Internal error from Core", 0, "refused"),
        ("INTERNAL", "Internal error from Core", 3, "failed"),
        ("INTERNAL", "the GPU is gone", 0, "failed"),
        ("UNAVAILABLE", "connection reset", 0, "failed"),
    ],
)
def test_what_counts_as_refused(code, details, results, state):
    assert ended_as(code, details, results) == state


def test_each_call_of_a_trace_is_made_once_when_it_is_due(tmp_path, tone):
    service = EchoService(fail=lambda number: "abort" if number == 0 else "")
    trace = {"kind": "calls", "rows": [[0.0, 1.0], [0.25, 1.2], [0.6, 1.0]]}
    with serving(service) as endpoint:
        reason, records = load(tmp_path, tone, plan(endpoint, [], trace=trace))
    streams = [record for record in records if record["kind"] == "stream"]
    assert reason == "profile done"
    assert service.streams == 3  # the one that failed was not made again
    assert sorted(stream["opened"] for stream in streams) == pytest.approx([0.0, 0.25, 0.6], abs=0.05)
    assert {stream["number"]: stream["seconds"] for stream in streams} == {0: 1.0, 1: 1.2, 2: 1.0}


def test_a_server_that_names_its_pod_is_counted_by_it(tmp_path, tone):
    service = EchoService()
    service.pod = "riva-asr-abcde"
    seen = {"name": service.pod, "node": "", "created": None, "ready": "2026-11-20T10:00:00Z", "leaving": False,
            "restarts": 0}  # fmt: skip

    def sample():
        return [{"kind": "cluster", **STATE, "pods": [seen]}]

    with serving(service) as endpoint:
        _, records = load(tmp_path, tone, plan(endpoint), sample)
    found = summarise(records)["streams_per_pod"]
    assert found["source"] == "named by the server"
    assert found["most"] == 3
    assert [(pod["name"], pod["served"]) for pod in found["pods"]] == [(service.pod, service.streams)]


def test_the_guard_ends_the_load(tmp_path, tone):
    with serving(EchoService()) as endpoint:
        reason, records = load(
            tmp_path,
            tone,
            plan(endpoint, [Step(2, 30)], stream_seconds=20),
            guard=lambda window: "aborted: enough" if window["chunks_answered"] else "",
        )
    assert reason == "aborted: enough"
    assert records[-1]["t"] < 4
    assert summarise(records)["streams"]["stopped"] == 2


def test_a_server_that_is_gone_fails_streams_without_a_storm(tmp_path, tone):
    _, records = load(tmp_path, tone, plan("127.0.0.1:1", [Step(2, 1.2)]))
    summary = summarise(records)
    assert summary["streams"]["failures"][0]["code"] == "UNAVAILABLE"
    assert summary["streams"]["failed"] == summary["streams"]["opened"] <= 4


def test_a_stream_that_hangs_ends_at_its_deadline(tmp_path, tone):
    with serving(EchoService(delay=3)) as endpoint:
        _, records = load(tmp_path, tone, plan(endpoint, [Step(1, 0.2)], stream_grace_seconds=0.3))
    assert summarise(records)["streams"]["failures"][0]["code"] == "DEADLINE_EXCEEDED"


def test_no_more_streams_than_allowed(tmp_path, tone):
    with serving(EchoService()) as endpoint:
        _, records = load(tmp_path, tone, plan(endpoint, [Step(3, 0.8)], max_streams=4))
    summary = summarise(records)
    assert summary["streams"]["opened"] == 4
    assert any("max_streams" in note for note in summary["notes"])


def test_the_tail_lasts_until_the_service_is_small_again(tmp_path, tone):
    begin = time.monotonic()

    def sample():
        size = 1 if time.monotonic() - begin > 1.5 else 3
        return [{"kind": "cluster", **STATE, "desired": size, "replicas": size, "ready": size}]

    with serving(EchoService()) as endpoint:
        reason, records = load(tmp_path, tone, plan(endpoint, [Step(1, 0.3)], tail_seconds=9.0), sample)
    assert reason == "back at the minimum"
    assert summarise(records)["replicas"]["path"] == [3, 1]
    assert 1.5 <= records[-1]["t"] < 4


def test_the_tail_has_a_deadline_and_looks_that_fail_are_kept(tmp_path, tone):
    def sample():
        raise OSError("the apiserver is away")

    the_plan = plan("127.0.0.1:1", [Step(1, 0.2)], tail_seconds=0.5, stream_grace_seconds=0.1)
    reason, records = load(tmp_path, tone, the_plan, sample)
    assert "deadline" in reason
    assert records[-1]["t"] < 2
    assert any("the apiserver is away" in note for note in summarise(records)["notes"])


def test_an_interrupt_stops_the_streams_and_keeps_what_was_seen(tmp_path, tone):
    with serving(EchoService()) as endpoint:
        threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGTERM)).start()
        reason, records = load(tmp_path, tone, plan(endpoint, [Step(2, 30)], stream_seconds=20))
    streams = summarise(records)["streams"]
    assert reason == "interrupted by SIGTERM"
    assert (streams["stopped"], streams["failed"]) == (2, 0)
    assert records[-1]["t"] < 3


def test_the_test_ends_when_nobody_waits_for_it(tmp_path, tone):
    with serving(EchoService()) as endpoint:
        reason, _ = load(tmp_path, tone, plan(endpoint, [Step(1, 30)]), keep_going=lambda: False)
    assert reason.startswith("interrupted: the process")


def test_the_server_is_asked_first():
    with serving(EchoService()) as endpoint:
        assert asyncio.run(ask_server(endpoint, 5)) == ["echo"]
    with pytest.raises(EndpointSilent, match="UNAVAILABLE"):
        asyncio.run(ask_server("127.0.0.1:1", 5))


@pytest.mark.parametrize(
    ("names", "host", "server_name"),
    [
        (["asr.example.com"], "asr.example.com", None),
        # A route that the certificate knows nothing of.
        (["asr.example.com"], "riva-asr-calibration.invalid", "asr.example.com"),
        (["127.0.0.1"], "riva-asr-calibration.invalid", ""),
        (["127.0.0.1"], "", None),
    ],
)
def test_streams_over_mutual_tls(tmp_path, tone, names, host, server_name):
    ca = certificates.issue(certificates.CA, "ca")
    server = certificates.issue(certificates.SERVER, "server", ca, names)
    client = certificates.issue(certificates.CLIENT, "client", ca)
    files = {"ca.crt": ca.certificate, "client.crt": client.certificate, "client.key": client.key}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ca_file, certificate_file, key_file = (str(tmp_path / name) for name in files)
    tls = Tls(ca_file, certificate_file, key_file, server_name)
    pair = [(server.key.encode(), server.certificate.encode())]
    credentials = grpc.ssl_server_credentials(pair, ca.certificate.encode(), require_client_auth=True)
    with serving(EchoService(), credentials) as endpoint:
        assert asyncio.run(ask_server(endpoint, 5, host, tls)) == ["echo"]
        _, records = load(tmp_path, tone, plan(endpoint, host=host, tls=tls))
        streams = summarise(records)["streams"]
        assert (streams["failed"], streams["finished"] > 0) == (0, True)
        with pytest.raises(EndpointSilent):
            asyncio.run(ask_server(endpoint, 2, host, dataclasses.replace(tls, certificate_file="", key_file="")))
        with pytest.raises(EndpointSilent):
            asyncio.run(ask_server(endpoint, 2, host, dataclasses.replace(tls, server_name="other.example.com")))


@pytest.mark.parametrize(
    ("changed", "rest"), [({}, True), ({"desired": 2}, False), ({"replicas": 2}, False), ({"ready": 0}, False)]
)
def test_at_rest(changed, rest):
    assert is_at_rest({**STATE, **changed}) is rest

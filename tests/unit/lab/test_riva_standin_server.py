"""The Riva stand-in as a process of its own, spoken to with NVIDIA's client over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import riva.client
from riva.client.proto import health_pb2, health_pb2_grpc, riva_asr_pb2

LAB = Path(__file__).parents[3] / "lab"
RATE = 16000
ACOUSTIC, IDLE = "parakeet-streaming-asr-am", "riva-punctuation-en-US"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def pcm(seconds: float) -> bytes:
    return bytes(int(seconds * RATE) * 2)


class Server:
    """One stand-in on free ports of the loopback address."""

    def __init__(self, *flags: str, wait: bool = True, **settings) -> None:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("RIVA_STANDIN_")}
        chosen = {
            "HOST": "127.0.0.1",
            "GRPC_PORT": 0,
            "HTTP_PORT": 0,
            "METRICS_PORT": 0,
            "MODEL_LOAD_SECONDS": 0,
            "GPU_UUID": "GPU-test",
            **settings,
        }
        environment.update({f"RIVA_STANDIN_{name}": str(value) for name, value in chosen.items()})
        environment["PYTHONPATH"] = str(LAB)
        environment["TRTIS_MODEL_STORE"] = "/data/models"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "standins.riva.start", *flags],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        if wait:
            self.wait_for("Riva stand-in listening")
            ports = re.search(r"gRPC (\d+), Triton HTTP (\d+), metrics (\d+)", self.lines[-1]).groups()
            self.grpc, self.http, self.metrics_port = map(int, ports)
            self.auth = riva.client.Auth(uri=f"127.0.0.1:{self.grpc}")
            self.asr = riva.client.ASRService(self.auth)
            self.health_stub = health_pb2_grpc.HealthStub(self.auth.channel)

    def wait_for(self, text: str) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        raise AssertionError(f"the stand-in ended without {text!r}: {self.lines}")

    def end(self, seconds: float = 10) -> tuple[int, str]:
        rest, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, "".join(self.lines) + rest

    def health(self, service: str = "", timeout: float = 5) -> int:
        return self.health_stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout).status

    def get(self, path: str, port: int | None = None, method: str = "GET", timeout: float = 5) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.http}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        _, page = self.get("/metrics", self.metrics_port)
        return {
            series: float(value)
            for series, value in (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        }

    def counter(self, name: str, model: str = ACOUSTIC) -> float:
        return self.metrics()[f'{name}{{model="{model}",version="1"}}']

    def failures(self, reason: str) -> float:
        return self.metrics()[f'nv_inference_request_failure{{model="{ACOUSTIC}",reason="{reason}",version="1"}}']

    def stream(self, pieces, interim: bool = True, **config):
        """All responses of one stream."""
        settings = {"encoding": riva.client.AudioEncoding.LINEAR_PCM, "sample_rate_hertz": RATE, **config}
        recognition = riva.client.RecognitionConfig(**settings)
        streaming = riva.client.StreamingRecognitionConfig(config=recognition, interim_results=interim)
        return list(self.asr.streaming_response_generator(pieces, streaming))


@contextlib.contextmanager
def running(*flags: str, **settings):
    server = Server(*flags, **settings)
    try:
        yield server
    finally:
        with contextlib.suppress(AttributeError):
            server.auth.channel.close()
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="module")
def server():
    with running(SERVICE_BASE_MS=2, SERVICE_PER_ITEM_MS=1) as started:
        yield started


def refused(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def eventually(check, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_streaming_gives_interim_results_and_one_final(server):
    before = server.counter("nv_inference_request_success")
    # Pieces of 100 ms, chunks of 160 ms: 1.0 s is six whole chunks and a rest.
    responses = server.stream([pcm(0.1)] * 10)
    results = [result for response in responses for result in response.results]
    assert [result.is_final for result in results] == [False] * (len(results) - 1) + [True]
    heard = [result.audio_processed for result in results]
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1.0)
    assert results[-1].alternatives[0].transcript == "stand-in transcript: 1.00 s of audio"
    assert server.counter("nv_inference_request_success") - before == 7


def test_streaming_without_interim_results_gives_the_final_only(server):
    responses = server.stream([pcm(0.321)], interim=False)
    assert [result.is_final for response in responses for result in response.results] == [True]
    assert responses[0].results[0].audio_processed == pytest.approx(0.321)


def test_a_stream_without_audio_has_an_empty_final(server):
    (response,) = server.stream([])
    assert response.results[0].alternatives[0].transcript == "stand-in transcript: 0.00 s of audio"


def test_offline_recognition_is_cut_into_chunks_too(server):
    before = server.counter("nv_inference_request_success")
    config = riva.client.RecognitionConfig(
        encoding=riva.client.AudioEncoding.LINEAR_PCM, sample_rate_hertz=RATE, language_code="en-US"
    )
    response = server.asr.offline_recognize(pcm(3.21), config)
    assert response.results[0].alternatives[0].transcript == "stand-in transcript: 3.21 s of audio"
    assert response.results[0].audio_processed == pytest.approx(3.21)
    assert server.counter("nv_inference_request_success") - before == 21


def test_nvidias_file_reader_sends_a_wav_header_and_is_understood(server, tmp_path):
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000 * 2))
    with riva.client.AudioChunkFileIterator(path, 800) as pieces:
        responses = server.stream(pieces, sample_rate_hertz=0, encoding=0)
    assert responses[-1].results[0].audio_processed == pytest.approx(1.0)


def test_models_are_listed_as_nvidias_client_lists_them(server):
    answer = server.asr.stub.GetRivaSpeechRecognitionConfig(riva_asr_pb2.RivaSpeechRecognitionConfigRequest())
    online = {
        entry.parameters["language_code"]: entry.model_name
        for entry in answer.model_config
        if entry.parameters["type"] == "online"
    }
    assert online == {"en-US": "parakeet-streaming-asr"}
    assert {entry.parameters["type"] for entry in answer.model_config} == {"online", "offline"}
    one = riva_asr_pb2.RivaSpeechRecognitionConfigRequest(model_name="parakeet-offline-asr")
    assert len(server.asr.stub.GetRivaSpeechRecognitionConfig(one).model_config) == 1
    none = riva_asr_pb2.RivaSpeechRecognitionConfigRequest(model_name="other")
    code, text = refused(lambda: server.asr.stub.GetRivaSpeechRecognitionConfig(none))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "parakeet-streaming-asr" in text


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"language_code": "fr-FR"}, "Unavailable model requested"),
        ({"model": "parakeet-offline-asr"}, "Unavailable model requested"),
        ({"encoding": riva.client.AudioEncoding.FLAC}, "encoding FLAC"),
        ({"audio_channel_count": 2}, "mono"),
        ({"sample_rate_hertz": 4000}, "from 8000 to 48000"),
        ({"sample_rate_hertz": 0}, "sample_rate_hertz is 0"),
    ],
)
def test_bad_configuration_is_refused(server, config, text):
    code, details = refused(lambda: server.stream([pcm(0.5)], **config))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text in details


def test_messages_in_the_wrong_order_are_refused(server):
    audio = riva_asr_pb2.StreamingRecognizeRequest(audio_content=pcm(0.1))
    config = riva_asr_pb2.StreamingRecognizeRequest()
    config.streaming_config.config.sample_rate_hertz = RATE
    for messages, text in (
        ([audio], "first message"),
        ([], "first message"),
        ([config, audio, config], "only once"),
    ):
        code, details = refused(lambda sent=messages: list(server.asr.stub.StreamingRecognize(iter(sent))))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text in details


def test_health(server):
    assert server.health() == SERVING
    assert server.health("nvidia.riva.asr.RivaSpeechRecognition") == SERVING
    assert refused(lambda: server.health("other"))[0] is grpc.StatusCode.NOT_FOUND
    watch = server.health_stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == SERVING
    watch.cancel()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2", 200),
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/v2/health/ready?x=1", 200),
        (f"/v2/models/{ACOUSTIC}/ready", 200),
        (f"/v2/models/{IDLE}/versions/1/ready", 200),
        (f"/v2/models/{IDLE}/versions/2/ready", 400),
        ("/v2/models/other/ready", 400),
        ("/v1/health/live", 404),
        ("/", 404),
    ],
)
def test_triton_http(server, path, status):
    assert server.get(path)[0] == status


def test_http_refuses_other_methods_and_nonsense(server):
    assert server.get("/v2/health/live", method="POST")[0] == 405
    assert server.get("/v2/health/live", method="HEAD") == (200, "")
    assert server.get("/other", server.metrics_port)[0] == 404
    assert json.loads(server.get("/v2")[1])["name"] == "triton"


def test_http_keeps_a_connection_open_and_survives_nonsense(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.metrics_port, timeout=5)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.getheader("Content-Type").startswith("text/plain")
        assert b"nv_inference_count" in answer.read()
        assert connection.sock is first
    connection.close()
    for sent, status in ((b"hello\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nx: " + b"y" * 40000, b"431")):
        with socket.create_connection(("127.0.0.1", server.http), timeout=5) as raw:
            raw.sendall(sent)
            assert raw.recv(100).split()[1] == status
    assert server.get("/v2/health/live")[0] == 200


def test_metrics_page_has_tritons_names_types_and_labels(server):
    _, page = server.get("/metrics", server.metrics_port)
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    helps = set(re.findall(r"^# HELP (\S+) .+$", page, re.MULTILINE))
    counters = {f"nv_inference_{name}" for name in ("request_success", "request_failure", "count", "exec_count")}
    counters |= {
        f"nv_inference_{name}_duration_us"
        for name in ("request", "queue", "compute_input", "compute_infer", "compute_output")
    }
    gauges = {"nv_inference_pending_request_count", "nv_gpu_utilization", "nv_gpu_power_usage"}
    gauges |= {"nv_gpu_memory_total_bytes", "nv_gpu_memory_used_bytes"}
    assert {name for name, kind in types.items() if kind == "counter"} == counters
    assert {name for name, kind in types.items() if kind == "gauge"} == gauges
    assert helps == counters | gauges

    labels: dict[str, set[str]] = {}
    for name, text in re.findall(r"^(nv_\w+)\{(.*)\} \S+$", page, re.MULTILINE):
        labels.setdefault(name, set()).add(re.sub(r'"[^"]*"', "", text))
    assert labels.pop("nv_inference_request_failure") == {"model=,reason=,version="}
    assert {name for name, form in labels.items() if form == {"gpu_uuid="}} == gauges - {
        "nv_inference_pending_request_count"
    }
    assert all(form in ({"model=,version="}, {"gpu_uuid="}) for form in labels.values())
    series = server.metrics()
    assert series['nv_gpu_memory_total_bytes{gpu_uuid="GPU-test"}'] == 15360 * 2**20
    idle = {name: value for name, value in series.items() if IDLE in name}
    assert len(idle) == 13
    assert set(idle.values()) == {0}


def test_a_call_that_the_client_ends_leaves_nothing_behind(server):
    release = threading.Event()

    def pieces():
        yield pcm(0.5)
        release.wait(5)

    before = server.counter("nv_inference_request_success")
    config = riva.client.StreamingRecognitionConfig(
        config=riva.client.RecognitionConfig(sample_rate_hertz=RATE), interim_results=True
    )
    call = server.asr.stub.StreamingRecognize(riva.client.asr.streaming_request_generator(pieces(), config))
    next(call)
    call.cancel()
    release.set()
    eventually(lambda: server.counter("nv_inference_request_success") - before >= 3)
    assert server.counter("nv_inference_pending_request_count") == 0
    assert server.stream([pcm(0.2)])[-1].results[0].is_final


def test_counters_and_waits_of_a_saturated_server():
    """Ten streams send 20 chunks each at once: the queue works them off in full batches at its capacity."""
    with running(SERVICE_BASE_MS=20, SERVICE_PER_ITEM_MS=5, MAX_BATCH_SIZE=8, ENSEMBLE="true") as server:
        started = time.monotonic()
        with ThreadPoolExecutor(10) as pool:
            together = threading.Barrier(10)

            def pieces():
                together.wait(10)
                yield pcm(3.2)

            futures = [pool.submit(server.stream, pieces()) for _ in range(10)]
            eventually(lambda: server.counter("nv_inference_pending_request_count") > 100)
            finals = [future.result()[-1].results[0] for future in futures]
        seconds = time.monotonic() - started
        assert all(final.is_final and final.audio_processed == pytest.approx(3.2) for final in finals)
        requests, executions = (
            server.counter("nv_inference_request_success"),
            server.counter("nv_inference_exec_count"),
        )
        assert requests == server.counter("nv_inference_count") == 200
        # 25 full batches, and some smaller ones while the streams come in.
        assert 25 <= executions <= 40
        compute = sum(
            server.counter(f"nv_inference_compute_{part}_duration_us") for part in ("input", "infer", "output")
        )
        queue = server.counter("nv_inference_queue_duration_us")
        whole = server.counter("nv_inference_request_duration_us")
        assert whole == pytest.approx(queue + compute, rel=0.001)
        # Each waits for about half of the 1.5 s that the whole takes.
        assert 0.4e6 < queue / requests < 1.1e6
        assert seconds >= 25 * 0.060 - 0.02
        assert server.counter("nv_inference_pending_request_count") == 0
        assert server.counter("nv_inference_request_success", "parakeet-streaming-asr") == 200
        assert server.counter("nv_inference_queue_duration_us", "parakeet-streaming-asr") == 0
        assert server.metrics()['nv_gpu_utilization{gpu_uuid="GPU-test"}'] > 0


def test_a_full_queue_refuses_with_unavailable():
    with running(SERVICE_BASE_MS=200, MAX_BATCH_SIZE=1, MAX_QUEUE_SIZE=3) as server:
        code, text = refused(lambda: server.stream([pcm(0.16)] * 10))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert text == "Exceeds maximum queue size"
        assert server.failures("REJECTED") == 1
        # What the refused stream had in the queue is taken out.
        assert server.failures("CANCELED") == 3
        assert server.counter("nv_inference_pending_request_count") == 0
        assert server.stream([pcm(0.16)])[-1].results[0].is_final


def test_a_stream_window_holds_a_fast_client_back():
    with (
        running(SERVICE_BASE_MS=30, MAX_BATCH_SIZE=1, STREAM_WINDOW=4) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        future = pool.submit(server.stream, [pcm(3.2)])
        highest = 0.0
        while not future.done():
            highest = max(highest, server.counter("nv_inference_pending_request_count"))
            time.sleep(0.02)
        assert 1 <= highest <= 4
        assert future.result()[-1].results[0].audio_processed == pytest.approx(3.2)


def test_loading_then_serving():
    with running(wait=False, MODEL_LOAD_SECONDS=1.5, GRPC_PORT=(port := free_port())) as server:
        server.wait_for("retrying in 1 second")
        server.auth = riva.client.Auth(uri=f"127.0.0.1:{port}")
        server.asr = riva.client.ASRService(server.auth)
        server.health_stub = health_pb2_grpc.HealthStub(server.auth.channel)
        watch = server.health_stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        assert next(watch).status == NOT_SERVING
        assert server.health() == NOT_SERVING
        code, text = refused(lambda: server.stream([pcm(0.1)]))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "loading" in text
        assert next(watch).status == SERVING
        assert server.stream([pcm(0.1)])[-1].results[0].is_final


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_sigterm_lets_a_running_stream_finish_and_refuses_new_ones():
    with running(SERVICE_BASE_MS=2) as server, ThreadPoolExecutor(1) as pool:
        release, begun = threading.Event(), threading.Event()

        def pieces():
            yield pcm(0.5)
            begun.set()
            release.wait(10)
            yield pcm(0.5)

        future = pool.submit(server.stream, pieces())
        begun.wait(5)
        eventually(lambda: server.counter("nv_inference_request_success") >= 3)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.health() == NOT_SERVING)
        assert server.get("/v2/health/live")[0] == 200
        assert server.get("/v2/health/ready")[0] == 400
        code, text = refused(lambda: server.stream([pcm(0.1)]))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in text
        assert server.process.poll() is None
        release.set()
        assert future.result()[-1].results[0].audio_processed == pytest.approx(1.0)
        assert server.end()[0] == 0


def test_a_grace_that_is_over_cuts_the_stream():
    with running(GRACE_SECONDS=0.3) as server, ThreadPoolExecutor(1) as pool:
        release, begun = threading.Event(), threading.Event()

        def pieces():
            yield pcm(0.2)
            begun.set()
            release.wait(10)

        future = pool.submit(server.stream, pieces())
        begun.wait(5)
        eventually(lambda: server.counter("nv_inference_request_success") >= 1)
        server.process.send_signal(signal.SIGTERM)
        code, text = server.end()
        release.set()
        assert code == 0
        assert "RIVA_STANDIN_GRACE_SECONDS" in text
        assert future.exception().code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_a_second_sigterm_ends_the_grace():
    with running() as server, ThreadPoolExecutor(1) as pool:
        release, begun = threading.Event(), threading.Event()

        def pieces():
            yield pcm(0.2)
            begun.set()
            release.wait(10)

        pool.submit(server.stream, pieces())
        begun.wait(5)
        eventually(lambda: server.counter("nv_inference_request_success") >= 1)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.health() == NOT_SERVING)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.end(5)[0] == 0
        release.set()


def test_sigterm_while_loading_ends_at_once():
    with running(wait=False, MODEL_LOAD_SECONDS=600) as server:
        server.wait_for("retrying in 1 second")
        server.process.send_signal(signal.SIGTERM)
        assert server.end(5)[0] == 0


def test_hang_is_seen_by_health_checks_and_in_the_pending_gauge():
    with running(HANG_AFTER_SECONDS=0.2) as server, ThreadPoolExecutor(1) as pool:
        server.wait_for("hanging")
        pool.submit(server.stream, [pcm(0.8)])
        eventually(lambda: server.counter("nv_inference_pending_request_count") == 5)
        assert server.counter("nv_inference_request_success") == 0
        assert refused(lambda: server.health(timeout=0.3))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(TimeoutError):
            server.get("/v2/health/live", timeout=0.3)
        server.process.kill()


def test_crash_ends_the_process_with_an_error():
    with running(CRASH_AFTER_SECONDS=0.2) as server:
        code, text = server.end()
        assert code == 134
        assert "One of the processes has exited unexpectedly" in text


@pytest.mark.parametrize(
    ("flags", "settings", "code", "text"),
    [
        (["--nlp_service="], {}, 1, "illegal value '' specified for bool flag 'nlp_service'"),
        ([], {"INSTANCES": "none"}, 2, "RIVA_STANDIN_INSTANCES='none' is wrong: it must be a whole number"),
        ([], {"HOST": "192.0.2.1"}, 1, "RIVA_STANDIN_GRPC_PORT"),
    ],
)
def test_a_start_that_cannot_be(flags, settings, code, text):
    with running(*flags, wait=False, **settings) as server:
        ended, output = server.end()
        assert ended == code
        assert text in output
        assert "Traceback" not in output
        assert "listening" not in output


def test_without_speech_recognition_its_calls_are_unimplemented():
    with running("--asr_service=false", "--tts_service=true") as server:
        assert server.health() == SERVING
        assert refused(lambda: server.stream([pcm(0.1)]))[0] is grpc.StatusCode.UNIMPLEMENTED

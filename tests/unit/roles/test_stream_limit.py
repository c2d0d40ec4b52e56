# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a real HAProxy makes of the chart's configuration: two pods, each with a sidecar and a gRPC server, on loopback.

Only addresses differ from what the chart writes: where a pod listens, and the Service, which leads to the second pod.
"""

import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.unit.roles.test_riva_chart import every

HAPROXY = shutil.which("haproxy")
pytestmark = pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed here")
METHOD = "/speech.Speech/Listen"
LIMIT = 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def raw(data):
    return data


class Pod:
    """A gRPC server that answers each message with its own name, behind the sidecar of the chart."""

    def __init__(self, name, folder, values):
        self.name, self.folder, self.values = name, folder, values
        self.port, self.metrics = free_port(), free_port()
        self.server = grpc.server(ThreadPoolExecutor(16))
        handler = grpc.stream_stream_rpc_method_handler(
            lambda messages, _context: (self.name.encode() for _ in messages), raw, raw
        )
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("speech.Speech", {"Listen": handler})]
        )
        self.grpc_port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def start(self, service_port, service_metrics):
        maps = every("ConfigMap", **self.values)
        (text,) = [item["data"]["haproxy.cfg"] for item in maps if "haproxy.cfg" in item["data"]]
        for old, new in (
            ("bind :50052 ", f"bind 127.0.0.1:{self.port} "),
            ("bind :9101", f"bind 127.0.0.1:{self.metrics}"),
            ("127.0.0.1:50051", f"127.0.0.1:{self.grpc_port}"),
            ("riva-asr.speech.svc.cluster.local:50051", f"127.0.0.1:{service_port}"),
            ("riva-asr.speech.svc.cluster.local:9101", f"127.0.0.1:{service_metrics}"),
        ):
            text = text.replace(old, new)
        # The Service's address is known here, and no DNS is asked.
        text = re.sub(r" init-addr none| resolvers cluster| resolve-prefer ipv4| resolve-opts allow-dup-ip", "", text)
        file = self.folder / f"{self.name}.cfg"
        file.write_text(text)
        self.proxy = subprocess.Popen(
            [HAPROXY, "-db", "-f", str(file)], env={"POD_NAME": self.name}, stdout=subprocess.DEVNULL
        )
        ends = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                assert time.monotonic() < ends
                time.sleep(0.05)

    def stop(self):
        self.proxy.kill()
        self.proxy.wait()
        self.server.stop(0)


class Stream:
    """A stream that lasts until it is let go."""

    def __init__(self, channel):
        self.over = threading.Event()
        self.call = channel.stream_stream(METHOD, raw, raw)(self.messages(), timeout=20)

    def messages(self):
        yield b"hello"
        self.over.wait(20)
        yield b"bye"

    def answer(self):
        return next(self.call).decode()

    def pod(self):
        return dict(self.call.initial_metadata()).get("x-pod")

    def end(self):
        self.over.set()
        return [data.decode() for data in self.call]

    def refusal(self):
        with pytest.raises(grpc.RpcError) as error:
            next(self.call)
        return error.value.code().name


def one_after_the_other(channel, count):
    """So many streams with the pod that answered each."""
    served = []
    for _ in range(count):
        stream = Stream(channel)
        served.append((stream, stream.answer()))
    return served


@pytest.fixture
def pods(tmp_path, request):
    values = {"streams": {"limit": LIMIT, **getattr(request, "param", {})}}
    first, second = (Pod(name, tmp_path, values) for name in ("first", "second"))
    for pod in (first, second):
        pod.start(second.port, second.metrics)
    yield first, second
    for pod in (first, second):
        pod.stop()


@pytest.fixture
def channel(pods):
    with grpc.insecure_channel(f"127.0.0.1:{pods[0].port}") as made:
        yield made


READINESS = pytest.mark.parametrize(
    "pods", [{"readinessAtLimit": True}, {"readinessAtLimit": False}], ids=["unready", "ready"], indirect=True
)


@READINESS
def test_a_full_pod_hands_over_and_the_last_full_one_refuses(pods, channel):
    served = one_after_the_other(channel, 2 * LIMIT)
    assert [name for _, name in served] == ["first"] * LIMIT + ["second"] * LIMIT
    assert [stream.pod() for stream, _ in served] == ["first"] * LIMIT + ["second"] * LIMIT
    assert Stream(channel).refusal() in ("RESOURCE_EXHAUSTED", "CANCELLED")
    for stream, name in served:
        assert stream.end() == [name]
    last = Stream(channel)
    assert last.answer() == "first"
    last.end()


def test_where_there_is_one_pod_at_most_nothing_is_handed_over(tmp_path):
    text = [
        item["data"]["haproxy.cfg"]
        for item in every("ConfigMap", streams={"limit": LIMIT}, autoscaling={"maxReplicas": 1})
        if "haproxy.cfg" in item["data"]
    ]
    assert "another" not in text[0]


def test_with_nobody_ready_it_is_a_refusal(pods, channel):
    served = [Stream(channel) for _ in range(LIMIT)]
    assert {stream.answer() for stream in served} == {"first"}
    pods[1].proxy.kill()
    pods[1].proxy.wait()
    assert Stream(channel).refusal() in ("RESOURCE_EXHAUSTED", "CANCELLED")
    for stream in served:
        stream.end()


def test_a_stream_that_was_handed_over_outlives_the_pod_that_did_it(pods, channel):
    """The kubelet stops it with the image's signal once the server has ended; idle connections hold nothing up."""
    *own, (handed_over, name) = one_after_the_other(channel, LIMIT + 1)
    assert name == "second"
    for stream, _ in own:
        assert stream.end() == ["first"]
    pods[0].server.stop(0)
    pods[0].proxy.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    assert pods[0].proxy.poll() is None
    assert handed_over.end() == ["second"]
    assert pods[0].proxy.wait(timeout=5) == 0

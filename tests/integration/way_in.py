"""Clients of the way in, as the integration and the long tests need them: many streams at once, and bad clients."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import RATE, Way, channel, tone
from riva.client.proto import riva_asr_pb2, riva_audio_pb2

from tests.integration.running_lab import HELM, REPOSITORY, RunningLab, run
from tests.integration.validators import until

STREAM = "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize"
CHART = REPOSITORY / "roles/riva/files/chart"


@dataclass
class Outcome:
    """How one stream went. Times are seconds; `pod` is what the header x-pod said, where there is one."""

    seconds: float
    opened_after: float = 0.0
    code: str = "OK"
    details: str = ""
    taken: float = 0.0
    pod: str = ""
    open: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def whole(self) -> bool:
        return self.code == "OK" and self.taken > self.seconds - 1.5


def _config():
    config = riva_asr_pb2.RecognitionConfig(
        encoding=riva_audio_pb2.AudioEncoding.LINEAR_PCM,
        sample_rate_hertz=RATE,
        language_code="en-US",
        audio_channel_count=1,
    )
    return riva_asr_pb2.StreamingRecognitionConfig(config=config, interim_results=True)


# One second of audio at a time: what is looked at are streams, not sound. Every other five seconds are silent.
CHUNKS = [riva_asr_pb2.StreamingRecognizeRequest(audio_content=tone(1, silent=silent)) for silent in (False, True)]


def aio_channel(address: str, name: str = ""):
    """A connection of its own to the way in, for a host name."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    if name:
        options.append(("grpc.default_authority", name))
    return grpc.aio.insecure_channel(address, options=options)


async def stream(opened, outcome: Outcome, patience: float = 60, metadata: tuple = ()) -> Outcome:
    """One client stream in real time, on a channel that is open."""

    async def requests():
        # An iterator, no write(): there a refusal may be overwritten by gRPC's own error.
        yield riva_asr_pb2.StreamingRecognizeRequest(streaming_config=_config())
        start = time.monotonic()
        for number in range(int(outcome.seconds)):
            await asyncio.sleep(max(start + number - time.monotonic(), 0))
            yield CHUNKS[number // 5 % 2]

    call = opened.stream_stream(
        STREAM,
        request_serializer=riva_asr_pb2.StreamingRecognizeRequest.SerializeToString,
        response_deserializer=riva_asr_pb2.StreamingRecognizeResponse.FromString,
    )(requests(), timeout=outcome.seconds + patience, metadata=metadata)
    try:
        outcome.pod = dict(await call.initial_metadata()).get("x-pod", "")
        outcome.open = True
        async for answer in call:
            for result in answer.results:
                outcome.opened_after = outcome.opened_after or time.monotonic() - outcome.began
                outcome.taken = max(outcome.taken, result.audio_processed)
        code = await call.code()
        outcome.code, outcome.details = code.name, await call.details() or ""
    except grpc.aio.AioRpcError as error:
        outcome.code, outcome.details = error.code().name, error.details() or ""
    finally:
        outcome.open = False
    return outcome


@asynccontextmanager
async def channels(address: str, name: str, number: int):
    opened = [aio_channel(address, name) for _ in range(number)]
    try:
        yield opened
    finally:
        await asyncio.gather(*(each.close() for each in opened))


async def at_once(
    address: str, name: str, streams: int, seconds: float, connections: int, within: float = 2, metadata: tuple = ()
) -> list[Outcome]:
    """Streams that all begin within two seconds, or so many, on so many connections."""
    async with channels(address, name, connections) as opened:

        async def one(number: int) -> Outcome:
            await asyncio.sleep(within * number / streams)
            return await stream(opened[number % connections], Outcome(seconds), metadata=metadata)

        return list(await asyncio.gather(*(one(number) for number in range(streams))))


class Traffic:
    """Streams that come and go, as callers do, until it is told to end."""

    def __init__(self, address: str, name: str, streams: int, seconds: float, connections: int = 20) -> None:
        self.address, self.name = address, name
        self.streams, self.seconds, self.connections = streams, seconds, connections
        self.outcomes: list[Outcome] = []
        self.ending = False

    async def caller(self, opened, number: int) -> None:
        await asyncio.sleep(self.seconds * number / self.streams)
        while not self.ending:
            outcome = Outcome(self.seconds * random.uniform(0.7, 1.0))
            self.outcomes.append(outcome)
            await stream(opened, outcome)

    async def during(self, work) -> list[Outcome]:
        """Everything that ran while `work` did; streams that are open at its end run to theirs."""
        async with channels(self.address, self.name, self.connections) as opened:
            callers = [
                asyncio.create_task(self.caller(opened[number % self.connections], number))
                for number in range(self.streams)
            ]
            try:
                await work(self)
            finally:
                self.ending = True
                await asyncio.gather(*callers)
        return self.outcomes

    def active(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for outcome in self.outcomes:
            if outcome.open and outcome.pod:
                found[outcome.pod] = found.get(outcome.pod, 0) + 1
        return found


def lost(outcomes: list[Outcome]) -> list[str]:
    return [f"{one.code} {one.details} after {one.taken:.0f} s" for one in outcomes if not one.whole]


class Service:
    """A speech service of the riva chart beside the installed one: no GPU, quick, cheap; its route has a host name."""

    def __init__(self, lab: RunningLab, name: str = "way") -> None:
        self.lab, self.name = lab, name
        self.host = f"{name}.example.com"

    def helm(self, *arguments: str) -> str:
        return run(HELM, *arguments, "--namespace", "riva", KUBECONFIG=self.lab.kubeconfig).stdout

    def install(self, folder: Path, pods: int = 3, **more) -> None:
        values = {
            "replicas": pods,
            "gpus": 0,
            "autoscaling": {"enabled": False},
            "serviceMonitor": {"enabled": False},
            "modelStore": {"type": "emptyDir"},
            "sharedMemory": "64Mi",
            "modelLoadSeconds": 60,
            "preStopSeconds": 5,
            "longestStreamSeconds": 40,
            # Hundreds of streams share this machine's few processors with all that is under test.
            "probes": {"periodSeconds": 2, "readinessTimeoutSeconds": 5, "readinessFailureThreshold": 2},
            "route": {"host": self.host},
            "env": {
                "RIVA_STANDIN_MODEL_LOAD_SECONDS": "0",
                "RIVA_STANDIN_CHUNK_MS": "1000",
                "RIVA_STANDIN_MAX_BATCH_SIZE": "64",
                "RIVA_STANDIN_SERVICE_BASE_MS": "1",
                "RIVA_STANDIN_SERVICE_PER_ITEM_MS": "0.1",
                **more.pop("env", {}),
            },
            **more,
        }
        file = folder / f"{self.name}.json"
        file.write_text(json.dumps(values))
        self.helm("upgrade", "--install", self.name, str(CHART), "-f", str(file), "--wait", "--timeout", "180s")

    def remove(self) -> None:
        self.helm("uninstall", self.name, "--wait")

    def pods(self) -> list[dict]:
        items = self.lab.get("pods", "-n", "riva", "-l", f"app.kubernetes.io/instance={self.name}")["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def kubectl(self, *arguments: str, timeout: float = 200) -> str:
        return self.lab.kubectl("-n", "riva", *arguments, timeout=timeout)


def process_of(pod: dict, words: str) -> int:
    """The process of a pod's container on this machine, by words of its command line."""
    uid = pod["metadata"]["uid"]
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if uid in (folder / "cgroup").read_text() and words in (folder / "cmdline").read_text().replace("\0", " "):
                return int(folder.name)
        except OSError:
            continue
    raise LookupError(f"no process with {words} in pod {pod['metadata']['name']}")


def kill(pod: dict, words: str, number: int = signal.SIGKILL) -> None:
    os.kill(process_of(pod, words), number)


def traefik_pods(lab: RunningLab) -> list[dict]:
    items = lab.get("pods", "-n", "traefik", "-l", "app.kubernetes.io/name=traefik")["items"]
    return [item for item in items if "deletionTimestamp" not in item["metadata"]]


def memory_mib(pod: dict, words: str = "entryPoints") -> float:
    """Resident memory of a pod's process."""
    status = Path(f"/proc/{process_of(pod, words)}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def address_of(lab: RunningLab) -> str:
    """Where clients connect to: the load balancer's address."""

    def found() -> list[dict]:
        status = lab.get("service", "traefik", "-n", "traefik")["status"]
        return (status.get("loadBalancer") or {}).get("ingress") or [{}]

    given = until(found, lambda seen: bool(seen[0].get("ip")), 30)
    return f"{given[0]['ip']}:50051"


def way_of(lab: RunningLab, name: str = "", **more) -> Way:
    host, port = address_of(lab).rsplit(":", 1)
    return Way(host=host, port=int(port), server_name=name, **more)


def http1(way: Way, seconds: float = 5) -> str:
    """What an HTTP/1.1 client without TLS gets, in its first line."""
    done = subprocess.run(
        [
            "curl",
            "--silent",
            "--show-error",
            "--http1.1",
            "--include",
            "--max-time",
            str(seconds),
            f"http://{way.target}/",
        ],
        capture_output=True,
        text=True,
    )
    return (done.stdout.splitlines() or [done.stderr.strip()])[0]


def call_code(way: Way, metadata=(), seconds: float = 5) -> str:
    """gRPC's code of a health call."""
    with channel(way) as opened:
        check = opened.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            check(b"", timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


def load_balancer(lab) -> int:
    """The process that gives addresses in this lab."""
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_text() if folder.name.isdigit() else ""
        except OSError:
            continue
        if "lab.load_balancer" in words and lab.kubeconfig.rsplit("/", 1)[0] in words:
            return int(folder.name)
    raise LookupError("the lab has no load balancer")

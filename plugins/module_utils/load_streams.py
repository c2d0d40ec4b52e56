# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One recognition stream, through NVIDIA's Python client, at the pace of real speech."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace

from ansible_collections.speechops.riva.plugins.module_utils.load_measures import StreamMeasure
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import chunk_deadline

try:
    import grpc
    import riva.client
    from riva.client.proto import riva_asr_pb2

    RIVA_CLIENT_IMPORT_ERROR = None
except ImportError:
    RIVA_CLIENT_IMPORT_ERROR = traceback.format_exc()

# gRPC lets channels to one address share a connection. Each stream here stands for a caller of its own,
# and one connection carries 250 streams at most while more queue silently.
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]

FINISHED, FAILED, STOPPED, REFUSED = "finished", "failed", "stopped", "refused"
# How a full service says no. A stream that ends so after its first result was not refused but cut.
REFUSAL = "RESOURCE_EXHAUSTED"
# What gRPC's client for Python says where a message met a stream that the server had just ended: the status is lost. A
# connection that breaks is UNAVAILABLE, so before the first result this was a refusal.
STATUS_LOST = ("INTERNAL", "Internal error from Core")
# A header of the answer in which the server names its pod, where it does.
POD_HEADER = "x-pod"


@dataclass(frozen=True)
class Outcome:
    """How a stream ended. *code* and *details* are gRPC's for a stream that failed; *pod* served it, if it says so."""

    state: str
    code: str = ""
    details: str = ""
    pod: str = ""


def recognition_config(rate: int, language_code: str):
    """Return the first message's content: interim results on, so that each chunk gets an answer."""
    return riva_asr_pb2.StreamingRecognitionConfig(
        config=riva_asr_pb2.RecognitionConfig(
            encoding=riva.client.AudioEncoding.LINEAR_PCM,
            sample_rate_hertz=rate,
            language_code=language_code,
            audio_channel_count=1,
            max_alternatives=1,
        ),
        interim_results=True,
    )


class EndpointSilent(Exception):
    """No speech service answers at the endpoint; the text is gRPC's."""


@dataclass(frozen=True)
class Tls:
    """Files of a TLS connection, in PEM: the CA of the server (the system's where empty), and who the client is.

    server_name: what the server's certificate has to be for; the called name where None, the address where empty.
    """

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    server_name: str | None = None


def tls_of(params: Mapping) -> Tls | None:
    """What a module's options `tls` and `tls_*_file` say; None where the endpoint speaks no TLS."""
    if not params["tls"]:
        return None
    return Tls(
        params["tls_ca_file"] or "",
        params["tls_certificate_file"] or "",
        params["tls_key_file"] or "",
        params["tls_server_name"],
    )


def connection(endpoint: str, host: str = "", tls: Tls | None = None):
    """Return a connection of its own to host:port; *host* is the name that the load balancer's route answers to."""
    options: list[tuple[str, object]] = list(CHANNEL_OPTIONS)
    if host:
        options.append(("grpc.default_authority", host))
    if tls is None:
        return riva.client.Auth(uri=endpoint, use_aio=True, options=options)
    name = host if tls.server_name is None else tls.server_name or endpoint.rsplit(":", 1)[0].strip("[]")
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    return riva.client.Auth(
        uri=endpoint,
        use_aio=True,
        options=options,
        use_ssl=True,
        ssl_root_cert=tls.ca_file or None,
        ssl_client_cert=tls.certificate_file or None,
        ssl_client_key=tls.key_file or None,
    )


@contextlib.asynccontextmanager
async def question(endpoint: str, host: str = "", tls: Tls | None = None) -> AsyncIterator:
    """A connection for one question to the server, the same way as the streams will go; EndpointSilent if it fails."""
    try:
        auth = connection(endpoint, host, tls)
    except OSError as error:
        raise EndpointSilent(f"the file {error.filename} can't be read ({error.strerror})") from error
    try:
        yield auth
    except grpc.aio.AioRpcError as error:
        raise EndpointSilent(f"{error.code().name} {error.details()}") from error
    finally:
        await auth.channel.close()


async def ask_server(endpoint: str, timeout: float, host: str = "", tls: Tls | None = None) -> list[str]:
    """Ask the server for its models; return their names. Raises EndpointSilent."""
    async with question(endpoint, host, tls) as auth:
        answer = await riva.client.ASRService(auth).stub.GetRivaSpeechRecognitionConfig(
            riva_asr_pb2.RivaSpeechRecognitionConfigRequest(), timeout=timeout
        )
    return [model.model_name for model in answer.model_config]


async def run_stream(
    endpoint: str,
    config,
    chunks: list[bytes],
    start: float,
    timeout: float,
    measure: StreamMeasure,
    host: str = "",
    tls: Tls | None = None,
) -> Outcome:
    """Send the chunks, one each time it is due, and measure the results until the server ends the stream."""
    clock = asyncio.get_running_loop().time
    auth = connection(endpoint, host, tls)
    call, pod = None, ""
    requests = Requests(config, chunks, start, measure, clock)
    try:
        call = riva.client.ASRService(auth).stub.StreamingRecognize(requests.all(), timeout=timeout)
        async for response in call:
            now = clock()
            pod = pod or dict(await call.initial_metadata()).get(POD_HEADER, "")
            if response.results:
                measure.received(now, max(result.audio_processed for result in response.results))
    except Exception as error:  # whatever went wrong, the stream failed, and that is written down
        return failed(error, measure, pod)
    except asyncio.CancelledError:
        if call is not None:
            call.cancel()
        return Outcome(STOPPED, pod=pod)
    finally:
        requests.over = True
        await auth.channel.close()
    return replace(judge(measure), pod=pod)


@dataclass
class Requests:
    """The messages of one stream: its configuration, then each chunk when it is due, until the stream is over."""

    config: object
    chunks: list[bytes]
    start: float
    measure: StreamMeasure
    clock: Callable[[], float]
    over: bool = False

    async def all(self):
        yield riva_asr_pb2.StreamingRecognizeRequest(streaming_config=self.config)
        for number, chunk in enumerate(self.chunks):
            due = chunk_deadline(self.start, number, self.measure.chunk_seconds)
            wait = due - self.clock()
            if wait > 0:
                await asyncio.sleep(wait)
            if self.over:
                return
            self.measure.sent(due, self.clock())
            yield riva_asr_pb2.StreamingRecognizeRequest(audio_content=chunk)


def failed(error: Exception, measure: StreamMeasure, pod: str) -> Outcome:
    """How a stream ended that an error ended: gRPC's, or one of the client itself."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return Outcome(FAILED, "CLIENT", f"{type(error).__name__}: {error}", pod)
    code, details = error.code().name, error.details() or ""
    return Outcome(ended_as(code, details, measure.results), code, details, pod)


def ended_as(code: str, details: str, results: int) -> str:
    """Say whether a stream that ended with an error was refused or failed. *results* came before."""
    refused = code == REFUSAL or (code, details) == STATUS_LOST
    return REFUSED if refused and not results else FAILED


def judge(measure: StreamMeasure) -> Outcome:
    """Judge a stream that ended with status OK: the server must have taken all audio and given a result."""
    if not measure.all_sent:
        return Outcome(
            FAILED,
            "OK",
            f"the server ended the stream after {len(measure.sent_at)} of {measure.chunks} chunks were sent",
        )
    if not measure.results:
        return Outcome(FAILED, "OK", "the server gave no result for the whole stream")
    return Outcome(FINISHED)

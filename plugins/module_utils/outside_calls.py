# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls as a client outside the cluster makes them: health, recognition, a long stream, and the TLS handshake."""

from __future__ import annotations

import math
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime

try:
    import grpc
except ImportError:
    grpc = None

try:
    from riva.client.proto import riva_asr_pb2, riva_audio_pb2
except ImportError:
    riva_asr_pb2 = None

HEALTH = "/grpc.health.v1.Health/Check"
ASR = "/nvidia.riva.asr.RivaSpeechRecognition"
RATE = 16000
CHUNK_SECONDS = 0.1
# The first bytes of each HTTP/2 connection, and an empty SETTINGS frame.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


@dataclass(frozen=True)
class Way:
    """Where a client connects to, and with what.

    server_name: the name that the certificate is checked against and that calls are for; the address where empty.
    """

    host: str
    port: int
    server_name: str = ""
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    metadata: tuple = ()

    @property
    def target(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class CallFailed(Exception):
    """A call that did not end well: gRPC's code and details."""

    def __init__(self, code, details=""):
        super().__init__(f"{code} {details}".strip())
        self.code = code
        self.details = details


def _read(path):
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def channel(way):
    """A channel of its own connection, and no retries of gRPC's own: what is looked at is the first answer."""
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if way.server_name:
        options.append(("grpc.default_authority", way.server_name))
    if not way.tls:
        return grpc.insecure_channel(way.target, options=options)
    if way.server_name:
        options.append(("grpc.ssl_target_name_override", way.server_name))
    credentials = grpc.ssl_channel_credentials(_read(way.ca_file), _read(way.key_file), _read(way.certificate_file))
    return grpc.secure_channel(way.target, credentials, options=options)


def health(way, seconds):
    """The raw answer of a gRPC health call.

    Raises:
        CallFailed: it did not come through.
    """
    with channel(way) as opened:
        check = opened.unary_unary(HEALTH, request_serializer=bytes, response_deserializer=bytes)
        try:
            return check(b"", timeout=seconds, metadata=way.metadata)
        except grpc.RpcError as error:
            raise CallFailed(error.code().name, error.details() or "") from error


def tone(seconds, silent=False):
    """Audio that no file is needed for: 16-bit mono at 16 kHz, a tone of 440 Hz, or silence."""
    count = int(seconds * RATE)
    if silent:
        return b"\0\0" * count
    return struct.pack(f"<{count}h", *(int(8000 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(count)))


def _config(language, interim=False):
    config = riva_asr_pb2.RecognitionConfig(
        encoding=riva_audio_pb2.AudioEncoding.LINEAR_PCM,
        sample_rate_hertz=RATE,
        language_code=language,
        audio_channel_count=1,
        max_alternatives=1,
    )
    return riva_asr_pb2.StreamingRecognitionConfig(config=config, interim_results=interim)


def stream(way, seconds, language="en-US", real_time=True, patience=30):
    """Seconds of audio that the server took, of a client stream that lasts `seconds`; every other half is silence.

    Raises:
        CallFailed: the stream was cut, refused or left without a result.
    """
    sound, silence = tone(CHUNK_SECONDS), tone(CHUNK_SECONDS, silent=True)
    chunks = round(seconds / CHUNK_SECONDS)

    def requests():
        yield riva_asr_pb2.StreamingRecognizeRequest(streaming_config=_config(language))
        start = time.monotonic()
        for number in range(chunks):
            if real_time:
                time.sleep(max(start + number * CHUNK_SECONDS - time.monotonic(), 0))
            loud = int(number * CHUNK_SECONDS / 5) % 2 == 0
            yield riva_asr_pb2.StreamingRecognizeRequest(audio_content=sound if loud else silence)

    taken, results = 0.0, 0
    with channel(way) as opened:
        call = opened.stream_stream(
            f"{ASR}/StreamingRecognize",
            request_serializer=riva_asr_pb2.StreamingRecognizeRequest.SerializeToString,
            response_deserializer=riva_asr_pb2.StreamingRecognizeResponse.FromString,
        )
        began = time.monotonic()
        try:
            for answer in call(requests(), timeout=seconds + patience, metadata=way.metadata):
                for result in answer.results:
                    results += 1
                    taken = max(taken, result.audio_processed)
        except grpc.RpcError as error:
            after = f" after {time.monotonic() - began:.1f} s"
            raise CallFailed(error.code().name, (error.details() or "") + after) from error
    if not results:
        raise CallFailed("OK", "the stream ended well, but without any result")
    return taken


def recognition(way, seconds=2, language="en-US", timeout=20):
    """Seconds of audio that the server took of a short stream, sent as fast as it goes. Raises CallFailed."""
    return stream(way, seconds, language, real_time=False, patience=timeout - seconds)


def _context(way, with_certificate, verified=True):
    context = ssl.create_default_context(cafile=way.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if with_certificate and way.certificate_file:
        context.load_cert_chain(way.certificate_file, way.key_file or None)
    return context


def certificate(way, seconds=5):
    """{end, version} of the server's certificate, checked against the CA and the name or address.

    Raises:
        ssl.SSLError: TLS does not come about, or the certificate is not to be trusted; OSError: no connection.
    """
    name = way.server_name or way.host
    with (
        socket.create_connection((way.host, way.port), timeout=seconds) as raw,
        _context(way, with_certificate=True).wrap_socket(raw, server_hostname=name) as secured,
    ):
        end = ssl.cert_time_to_seconds(secured.getpeercert()["notAfter"])
        return {"end": datetime.fromtimestamp(end, UTC), "version": secured.version()}


def refusal(way, server_name, seconds=5):
    """How a client without a certificate is refused, in OpenSSL's words; empty where it is let in.

    server_name: the name it asks for; empty for a client that knows an address only (and sends no name).
    """
    context = _context(way, with_certificate=False, verified=False)
    try:
        with (
            socket.create_connection((way.host, way.port), timeout=seconds) as raw,
            context.wrap_socket(raw, server_hostname=server_name or None) as secured,
        ):
            # In TLS 1.3 a client is refused after its own handshake is done: with the first bytes that it reads.
            secured.sendall(PREFACE)
            return "" if secured.recv(9) else "the connection was closed"
    except ssl.SSLError as error:
        return error.reason or str(error)
    except (ConnectionResetError, BrokenPipeError) as error:
        return type(error).__name__

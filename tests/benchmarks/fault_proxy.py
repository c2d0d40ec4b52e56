"""A proxy in front of an API server that spoils a share of the answers, each in one of the ways a network has."""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = (
    "429",  # with Retry-After
    "500",
    "502",  # a page of HTML, as proxies write it
    "503",
    "reset",  # the connection, before the answer
    "reset in the body",
    "stall",  # no answer at all
    "stall in the body",
    "cut",  # the body ends before its Content-Length
    "cut chunks",  # the body ends without its last chunk
    "short",  # half the body under a Content-Length that fits (not of plain text, where nobody could tell)
    "410",  # the continue token is too old
)
PASSED_ON = ("Accept", "Authorization")
STALL_SECONDS = 60


class FaultProxy:
    """Use as a context; `url` is its address."""

    def __init__(
        self,
        upstream: str,
        share: float = 0.1,
        seed: int = 0,
        client: ssl.SSLContext | None = None,
        server: ssl.SSLContext | None = None,
    ) -> None:
        self.upstream = urlsplit(upstream)
        self.share = share
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.client = client
        self.injected: Counter = Counter()
        self.requests = 0
        self.over = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16

            def do_GET(self) -> None:
                proxy.answer(self)

            def log_message(self, *_args) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args) -> None:
                """Clients go away in the middle here; that is the point."""

            def finish_request(self, request, address) -> None:
                # The handshake belongs into the connection's own thread.
                if server:
                    request = server.wrap_socket(request, server_side=True)
                super().finish_request(request, address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"{'https' if server else 'http'}://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_error) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def chosen(self, path: str) -> str | None:
        """The fault of this request, if it gets one."""
        with self.lock:
            self.requests += 1
            if self.random.random() >= self.share:
                return None
            fault = self.random.choice(FAULTS if "continue=" in path else FAULTS[:-1])
            self.injected[fault] += 1
            return fault

    def fetch(self, handler: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        """(status, content type, body) of the real answer; 502 where there is none."""
        host, port = self.upstream.hostname, self.upstream.port
        connection: http.client.HTTPConnection
        if self.upstream.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=30, context=self.client)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=30)
        try:
            headers = {name: handler.headers[name] for name in PASSED_ON if handler.headers[name]}
            connection.request("GET", handler.path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers.get("Content-Type", ""), response.read()
        except (OSError, http.client.HTTPException) as error:
            return 502, "text/html", f"<html>{type(error).__name__}</html>".encode()
        finally:
            connection.close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        fault = self.chosen(handler.path)
        if fault in REFUSALS:
            status, content_type, body, headers = REFUSALS[fault]
            send(handler, status, content_type, body, headers)
            return
        if fault == "reset":
            reset(handler)
            return
        if fault == "stall":
            self.stall(handler)
            return
        status, content_type, body = self.fetch(handler)
        half = body[: len(body) // 2]
        if fault == "short" and "text/" not in content_type:
            send(handler, status, content_type, half, {})
        elif fault == "cut chunks":
            send(handler, status, content_type, b"%x\r\n%s\r\n" % (len(half), half), {"Transfer-Encoding": "chunked"})
            handler.close_connection = True
        elif fault in ("reset in the body", "stall in the body", "cut"):
            send(handler, status, content_type, half, {"Content-Length": str(len(body))})
            handler.wfile.flush()
            handler.close_connection = True
            if fault == "reset in the body":
                reset(handler)
            elif fault == "stall in the body":
                self.stall(handler)
        else:
            send(handler, status, content_type, body, {})

    def stall(self, handler: BaseHTTPRequestHandler) -> None:
        """Says nothing more, until the client has gone or the proxy ends."""
        handler.close_connection = True
        handler.connection.settimeout(0.2)
        for _ in range(STALL_SECONDS * 5):
            if self.over.is_set():
                return
            try:
                if not handler.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


def refusal(status: int, reason: str, message: str, **headers: str) -> tuple[int, str, bytes, dict]:
    body = {"kind": "Status", "apiVersion": "v1", "code": status, "reason": reason, "message": message}
    return status, "application/json", json.dumps(body).encode(), headers


REFUSALS = {
    "429": refusal(429, "TooManyRequests", "too many requests, please try again later", **{"Retry-After": "1"}),
    "500": refusal(500, "InternalError", "etcdserver: request timed out"),
    "502": (502, "text/html", b"<html><h1>502 Bad Gateway</h1></html>", {}),
    "503": refusal(503, "ServiceUnavailable", "apiserver is shutting down"),
    "410": refusal(410, "Expired", "the provided continue parameter is too old to display a consistent list result"),
}


def send(handler: BaseHTTPRequestHandler, status: int, content_type: str, body: bytes, headers: dict) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    if "Transfer-Encoding" not in headers:
        headers = {"Content-Length": str(len(body)), **headers}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Ends the connection with RST instead of FIN."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()

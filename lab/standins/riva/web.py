"""A small HTTP/1.1 server for GET requests: Triton's health paths and its metrics page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

LONGEST_HEAD = 16384
IDLE_SECONDS = 75.0


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"

    def encode(self, with_body: bool, keep_alive: bool) -> bytes:
        body = self.body.encode()
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
        )
        return head.encode() + (body if with_body else b"")


Handler = Callable[[str], Awaitable[Response]]


class WebServer:
    """Answers GET and HEAD by calling the handler with the path."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=LONGEST_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "called outside a task"
        self._connections.add(task)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except asyncio.LimitOverrunError:
            writer.write(Response(431, "header too long\n").encode(True, False))
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays open."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_SECONDS)
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            writer.write(Response(400, "not an HTTP/1 request\n").encode(True, False))
            return False
        method, target, version = words
        pairs = (line.partition(":") for line in lines[1:])
        fields = {name.strip().lower(): text.strip().lower() for name, _, text in pairs}
        has_body = fields.get("content-length", "0") != "0" or "transfer-encoding" in fields
        default = "keep-alive" if version == "HTTP/1.1" else "close"
        keep_alive = fields.get("connection", default) != "close" and not has_body
        if method not in ("GET", "HEAD"):
            response = Response(405, "only GET and HEAD\n")
        else:
            response = await self._handler(target.partition("?")[0])
        writer.write(response.encode(method != "HEAD", keep_alive))
        await writer.drain()
        return keep_alive

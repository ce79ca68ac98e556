"""The double's side of a connection: reads requests, writes answers, and breaks off as told."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from support.fake_llm import anthropic, azure, ollama, openai
from support.fake_llm.dialect import Dialect
from support.fake_llm.faults import ERRORS, RETRY_AFTER, Fault, spoiled
from support.fake_llm.requests import Asked, Protocol, protocol_of

if TYPE_CHECKING:
    from support.fake_llm.server import Wire

DIALECTS: dict[Protocol, Dialect] = {
    Protocol.OPENAI: openai.DIALECT,
    Protocol.AZURE: azure.DIALECT,
    Protocol.ANTHROPIC: anthropic.DIALECT,
    Protocol.OLLAMA: ollama.DIALECT,
}
HALF_SENT = (Fault.CUT, Fault.ENDED_EARLY, Fault.BROKEN_STREAM)
NAMED = {"x-request-id": "req_1", "request-id": "req_1"}
"""The provider's name for a request: OpenAI's header and Anthropic's."""
PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Listener(ThreadingHTTPServer):
    """A port, its connections and their threads."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, wire: Wire, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wire = wire
        self._context = context
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._context:
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self.wire.change:
            self.open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.wire.change:
            self.open.discard(request)
            self.wire.change.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may hang up; anything else is trouble of the double or of a script."""
        error = sys.exception()
        if error and not isinstance(error, ConnectionError | ssl.SSLError):
            self.wire.troubles.append(error)

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection, which may carry several requests."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        wire, url = self.server.wire, urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        protocol = protocol_of(url.path)
        if protocol is None:
            return self._send(404, json.dumps({"error": f"no such path: {url.path}"}).encode())
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(url.query))
        said = json.loads(body)
        asked = Asked(protocol, url.path, query, headers, said, time.monotonic())
        with wire.counted(asked):
            self._reply(asked, wire.fault_for(asked))

    def _reply(self, asked: Asked, fault: Fault | None) -> None:
        wire, dialect = self.server.wire, DIALECTS[asked.protocol]
        wire.stopped.wait(wire.delay)
        if fault is Fault.BROKEN_STREAM and not asked.streamed:
            fault = Fault.SERVER_ERROR
        problem = dialect.objection(asked)
        if problem is None and fault in ERRORS:
            problem = dialect.problem(asked, fault)
        if problem:
            status, told = problem
            return self._send(status, json.dumps(told).encode(), headers=self._wait(fault))
        if fault is Fault.HANG:
            return self._hang()
        if fault is Fault.GARBAGE:
            return self._send(200, PAGE, kind="text/html")
        answer = spoiled(wire.answer_to(asked), fault)
        if not asked.streamed:
            return self._send(200, json.dumps(dialect.whole(asked, answer)).encode(), fault=fault)
        frames = list(dialect.frames(asked, answer))
        if fault in HALF_SENT:
            frames = frames[: len(frames) // 2]
        if fault is Fault.BROKEN_STREAM:
            frames.append(dialect.broken(asked))
        self._stream(frames, dialect.stream_type, fault)

    def _send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
        fault: Fault | None = None,
    ) -> None:
        sent = body[: len(body) // 2] if fault in HALF_SENT else body
        length = len(sent if fault is Fault.ENDED_EARLY else body)
        self._head(status, {"Content-Type": kind, "Content-Length": str(length), **(headers or {})})
        self._write(sent, fault)

    def _stream(self, frames: list[bytes], kind: str, fault: Fault | None) -> None:
        self._head(200, {"Content-Type": kind, "Transfer-Encoding": "chunked"})
        for frame in frames:
            self._write(b"%x\r\n%b\r\n" % (len(frame), frame), fault)
        if fault is not Fault.CUT:
            self._write(b"0\r\n\r\n", fault)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status, "OK" if status == 200 else "Trouble")
        for name, value in (headers | NAMED).items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, data: bytes, fault: Fault | None) -> None:
        if fault is Fault.CUT:
            self.close_connection = True
        if fault is not Fault.DRIP:
            self.wfile.write(data)
            return
        for i in range(len(data)):
            self.wfile.write(data[i : i + 1])
            if self.server.wire.stopped.wait(self.server.wire.pause):
                raise ConnectionAbortedError("the double was stopped")

    def _hang(self) -> None:
        """Wait for what never comes: the client hangs up, or the double closes the connection."""
        self.connection.recv(1)
        self.close_connection = True

    def _wait(self, fault: Fault | None) -> dict[str, str]:
        after = str(self.server.wire.retry_after)
        if fault in RETRY_AFTER:
            return {"Retry-After": after}
        return {"retry-after-ms": after} if fault is Fault.RATE_LIMITED_MS else {}

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

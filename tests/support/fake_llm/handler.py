"""Writes a provider's answers, and breaks them off where a fault says so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from finagent_model.testing import RequestHandler
from support.fake_llm import anthropic, azure, ollama, openai
from support.fake_llm.dialect import Dialect
from support.fake_llm.faults import ERRORS, RETRY_AFTER, Fault, spoil
from support.fake_llm.requests import Protocol, ProviderRequest
from support.fake_llm.strict_servers import THOUGHT

if TYPE_CHECKING:
    from support.fake_llm.server import FakeProvider

DIALECTS: dict[Protocol, Dialect] = {
    Protocol.OPENAI: openai.DIALECT,
    Protocol.AZURE: azure.DIALECT,
    Protocol.ANTHROPIC: anthropic.DIALECT,
    Protocol.OLLAMA: ollama.DIALECT,
}
HALF_SENT = (Fault.CUT, Fault.ENDED_EARLY, Fault.BROKEN_STREAM)
REQUEST_IDS = {"x-request-id": "req_1", "request-id": "req_1"}
"""The provider's name for a request: OpenAI's header and Anthropic's."""
ELSEWHERE = "/moved"
"""Where a redirect leads."""
PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class ProviderHandler(RequestHandler):
    """One connection, which may carry several requests."""

    keep_alive = True
    fault: Fault | None = None
    """Of the request that is being answered."""

    @property
    def provider(self) -> FakeProvider:
        return cast("FakeProvider", self.server.llm)

    def answer(self, request: ProviderRequest, fault: Fault | None) -> None:
        """Answer one request in its own protocol."""
        dialect = DIALECTS[request.protocol]
        if fault is Fault.BROKEN_STREAM and not request.stream:
            fault = Fault.SERVER_ERROR
        error = dialect.rejection(request) or self.provider.refusal(request)
        if error is None and fault in ERRORS:
            error = dialect.error(request, fault)
        # An error is sent whole, whatever was to happen to a reply.
        self.fault = None if error else fault
        if error:
            status, body = error
            return self.send_json(status, body, self._retry_after(fault))
        if fault is Fault.HANG:
            return self._hang()
        if fault is Fault.GARBAGE:
            return self.send_body(200, PAGE, "text/html")
        if fault is Fault.REDIRECT:
            return self.send_body(307, b"", "text/html", {"Location": ELSEWHERE})
        reply = spoil(self.provider.reply_to(request), fault)
        if not request.stream:
            body = dialect.body(request, reply)
            if reply.tool_calls and "deepseek" in self.provider.servers:
                body["choices"][0]["message"]["reasoning_content"] = THOUGHT
            return self.send_json(200, body)
        frames = list(dialect.frames(request, reply))
        if fault in HALF_SENT:
            frames = frames[: len(frames) // 2]
        if fault is Fault.BROKEN_STREAM:
            frames.append(dialect.stream_error(request))
        return self.send_stream(frames, dialect.stream_type)

    def send_json(
        self, status: int, body: object, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_body(status, json.dumps(body).encode(), "application/json", headers)

    def send_body(
        self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        sent = body[: len(body) // 2] if self.fault in HALF_SENT else body
        # A proxy that gave up says the length of what it sends; a connection that is cut does not.
        length = len(sent if self.fault is Fault.ENDED_EARLY else body)
        head = {"Content-Type": content_type, "Content-Length": str(length)}
        self.send_head(status, {**head, **(headers or {})})
        self._write(sent)

    def send_stream(self, frames: Iterable[bytes], content_type: str = "text/event-stream") -> None:
        self.send_head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"})
        for frame in frames:
            self._write(b"%x\r\n%b\r\n" % (len(frame), frame))
        if self.fault is not Fault.CUT:
            self._write(b"0\r\n\r\n")

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        super().send_head(status, {**headers, **REQUEST_IDS})

    def _write(self, data: bytes) -> None:
        if self.fault is Fault.CUT:
            self.close_connection = True
        if self.fault is not Fault.DRIP:
            self.wfile.write(data)
            return
        for i in range(len(data)):
            self.wfile.write(data[i : i + 1])
            if self.provider.stopped.wait(self.provider.byte_pause_s):
                raise ConnectionAbortedError("the fake provider was stopped")

    def _hang(self) -> None:
        """Wait for what never comes: the client hangs up, or the server closes the connection."""
        self.connection.recv(1)
        self.close_connection = True

    def _retry_after(self, fault: Fault | None) -> dict[str, str]:
        after = str(self.provider.retry_after)
        if fault in RETRY_AFTER:
            return {"Retry-After": after}
        return {"retry-after-ms": after} if fault is Fault.RATE_LIMITED_MS else {}

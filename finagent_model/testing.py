"""A fake LLM server for tests: OpenAI's chat completions on this machine, with scripted replies.

Test your own desk with it, with no key and no network: point the config's `base_url` at it. It
speaks the protocol of the client `openai`, whole and streamed, remembers every request, and
answers each agent of a desk by its name. Only the standard library is needed.

>>> from finagent_model.cassette.cassette import Cassette
>>> from finagent_model.config.desk_config import load_preset
>>> from finagent_model.data.market import Market
>>> from finagent_model.desk.desk import Desk
>>> from finagent_model.market.bars import parse_as_of
>>> from finagent_model.settings import Settings
>>> settings = Settings.load({"OPENAI_API_KEY": "any"})
>>> view = Market.from_settings(settings).view("GOOG", parse_as_of("2012-06-29"))
>>> with FakeLLM({"Executor": DECISION | {"action": "HOLD"}}) as llm:
...     chat = {"client": "openai", "model": "any", "base_url": llm.base_url}
...     desk = Desk(load_preset().model_copy(update=chat), None, settings, Cassette())
...     signal = desk.decide(view).signal
>>> signal.status, signal.action
(<Status.OK: 'ok'>, 'HOLD')
>>> [request.agent for request in llm.requests]
['TechnicalAnalyst', 'RiskManager', 'Executor']
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

__all__ = [
    "ANALYSIS",
    "DECISION",
    "TERMS",
    "ChatRequest",
    "FakeLLM",
    "FinishReason",
    "ScriptedReply",
    "ScriptedToolCall",
]

ANALYSIS: dict[str, Any] = {
    "trend": "bullish",
    "score": 0.5,
    "summary": "It rises, they say.",
    "key_factors": [],
}
"""What an analyst replies unless it is scripted."""
TERMS: dict[str, Any] = {
    "direction": "long",
    "stop_loss": 550.0,
    "take_profit": 650.0,
    "position_size_percent": 10.0,
    "summary": "A stop below, a target above.",
}
"""What the risk manager replies unless it is scripted; the prices suit GOOG in June 2012."""
DECISION: dict[str, Any] = {
    "action": "BUY",
    "confidence_score": 70,
    "reasoning": "Both reports point the same way.",
    "key_factors": ["trend"],
    "trend": "bullish",
    "support_level": 560.0,
    "resistance_level": None,
    "suggested_entry_price": 580.0,
    "suggested_stop_loss": 550.0,
    "suggested_take_profit": 650.0,
    "position_size_percent": 10.0,
}
"""What the executor replies unless it is scripted."""
DEFAULT_REPLIES = {"Analyst": ANALYSIS, "RiskManager": TERMS, "Executor": DECISION}
"""By a part of the agent's name."""
CHUNK_CHARS = 24
"""Characters of the text in one chunk of a stream."""
AGENT = re.compile(r"You are the (\w+) of a trading desk")
"""How the prompts that come with the package begin."""
ENDPOINTS = ("/v1/chat/completions", "/chat/completions")
POLL_S = 0.02
"""How often the server looks whether it was stopped."""


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"
    REFUSAL = "refusal"
    """The model declined; the reply's text says so."""
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True)
class ScriptedToolCall:
    """A call of a tool that the model asks for."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = "call_1"


@dataclass(frozen=True)
class ScriptedReply:
    """One reply of the model."""

    text: str = ""
    tool_calls: tuple[ScriptedToolCall, ...] = ()
    finish_reason: FinishReason = FinishReason.STOP
    prompt_tokens: int = 1000
    completion_tokens: int = 100


ReplyLike = ScriptedReply | str | Mapping[str, Any]
"""A reply: whole, its text, or the JSON object that is its text."""
Script = ReplyLike | list[ReplyLike] | Callable[["ChatRequest"], ReplyLike]
"""The replies of one agent: always the same, one after the other until none is left, or made from
each request."""


@dataclass(frozen=True)
class ChatRequest:
    """One request as it reached the server."""

    path: str
    """Without the query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By name in lower case."""
    body: dict[str, Any]
    received_at: float
    """Seconds of `time.monotonic()`."""

    @property
    def model(self) -> str:
        """Return the name of the model."""
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        """Return whether the client wants a stream."""
        return bool(self.body.get("stream"))

    @property
    def api_key(self) -> str:
        """Return the key that was sent; empty without one."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def system_prompt(self) -> str:
        """Return the texts of the system messages."""
        return "\n".join(self.texts("system", "developer"))

    @property
    def agent(self) -> str:
        """Return the desk agent that asks, by its system prompt; empty for anybody else."""
        match = AGENT.search(self.system_prompt)
        return match[1] if match else ""

    def texts(self, *roles: str) -> list[str]:
        """Return the texts of the messages of these roles, in order."""
        return [
            text for m in self.messages if m["role"] in roles for text in text_parts(m["content"])
        ]

    @property
    def tool_results(self) -> list[str]:
        """Return what tools returned to the model, in order."""
        return self.texts("tool")

    @property
    def images(self) -> list[bytes]:
        """Return the images that were sent, decoded."""
        return [base64.b64decode(data) for data in self.encoded_images()]

    def encoded_images(self) -> Iterator[str]:
        """Yield the images in base64."""
        for part in self.parts:
            if part["type"] == "image_url":
                yield part["image_url"]["url"].split(",", 1)[1]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the messages, each with a `content`."""
        return [{"content": "", **message} for message in self.body.get("messages", ())]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Return the parts of all messages whose content is a list."""
        contents = [m["content"] for m in self.messages if isinstance(m["content"], list)]
        return [part for content in contents for part in content]


def text_parts(content: str | list[dict[str, Any]] | None) -> list[str]:
    """Return the texts of a message's content."""
    if isinstance(content, str):
        return [content] if content else []
    return [part["text"] for part in content or () if part["type"] == "text"]


def as_reply(reply: ReplyLike) -> ScriptedReply:
    """Return `reply` as a Reply."""
    if isinstance(reply, ScriptedReply):
        return reply
    return ScriptedReply(text=reply if isinstance(reply, str) else json.dumps(reply))


def default_reply(agent: str) -> ScriptedReply:
    """Return what an agent of the default desk replies; a greeting for anybody else."""
    matches = (reply for part, reply in DEFAULT_REPLIES.items() if part in agent)
    return as_reply(next(matches, "Good day."))


def chunked(text: str) -> list[str]:
    """Return `text` in the pieces in which it is streamed."""
    return [text[i : i + CHUNK_CHARS] for i in range(0, len(text), CHUNK_CHARS)]


def server_sent_event(data: Any, name: str = "") -> bytes:
    """Return one event of a stream; `data` is its text, or what is dumped to JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def completion(request: ChatRequest, reply: ScriptedReply) -> dict[str, Any]:
    """Return the body of a chat completion that is not streamed."""
    refused = reply.finish_reason is FinishReason.REFUSAL
    silent = refused or (bool(reply.tool_calls) and not reply.text)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if silent else reply.text,
        "refusal": reply.text if refused else None,
    }
    if reply.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in reply.tool_calls]
    choice = {
        "index": 0,
        "finish_reason": _finish_reason(reply),
        "logprobs": None,
        "message": message,
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [choice],
        "usage": _usage(reply),
    }


def completion_events(request: ChatRequest, reply: ScriptedReply) -> Iterator[bytes]:
    """Yield the events of a streamed chat completion."""

    def delta(change: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": change, "finish_reason": finish_reason}
        return completion_chunk(request, [choice])

    yield delta({"role": "assistant", "content": ""})
    name = "refusal" if reply.finish_reason is FinishReason.REFUSAL else "content"
    for piece in chunked(reply.text):
        yield delta({name: piece})
    for i, tool_call in enumerate(reply.tool_calls):
        call = _tool_call(tool_call)
        arguments, call["function"]["arguments"] = call["function"]["arguments"], ""
        yield delta({"tool_calls": [{"index": i, **call}]})
        for piece in chunked(arguments):
            yield delta({"tool_calls": [{"index": i, "function": {"arguments": piece}}]})
    yield delta({}, _finish_reason(reply))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        yield completion_chunk(request, [], usage=_usage(reply))
    yield server_sent_event("[DONE]")


def completion_chunk(request: ChatRequest, choices: list[dict[str, Any]], **more: Any) -> bytes:
    """Return one chunk of a streamed chat completion."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0}
    return server_sent_event({**head, "model": request.model, "choices": choices, **more})


def error_body(
    message: str,
    code: str | None = None,
    kind: str | None = "invalid_request_error",
    param: str | None = None,
) -> dict[str, Any]:
    """Return the body of an error as OpenAI words it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _finish_reason(reply: ScriptedReply) -> str:
    if reply.tool_calls:
        return "tool_calls"
    # OpenAI tells a refusal by its own field, not by the finish reason.
    refused = reply.finish_reason is FinishReason.REFUSAL
    return str(FinishReason.STOP if refused else reply.finish_reason)


def _tool_call(call: ScriptedToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(dict(call.arguments))}
    return {"id": call.id, "type": "function", "function": function}


def _usage(reply: ScriptedReply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }


class RequestHandler(BaseHTTPRequestHandler):
    """Read the requests of one connection, and write their answers."""

    server: Listener
    protocol_version = "HTTP/1.1"
    # A test that forgets to close its client must not be told of sockets that were left open.
    keep_alive = False
    # Without this each small write of a stream waits for the acknowledgement of the one before.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Hand a request to the server that it came to."""
        llm, url = self.server.llm, urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = llm.parse_request(url.path, dict(parse_qsl(url.query)), headers, body)
        if request is None:
            self.send_json(404, {"error": f"no such path: {url.path}"})
            return
        with llm.counted(request):
            llm.stopped.wait(llm.delay_s)
            llm.answer(request, self)

    def send_json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.send_body(status, json.dumps(body).encode(), "application/json", headers)

    def send_body(
        self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer of any type."""
        length = {"Content-Type": content_type, "Content-Length": str(len(body))}
        self.send_head(status, {**length, **(headers or {})})
        self.wfile.write(body)

    def send_stream(self, frames: Iterable[bytes], content_type: str = "text/event-stream") -> None:
        """Send an answer as a stream; each frame is one chunk of it."""
        self.send_head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"})
        for frame in frames:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        self.wfile.write(b"0\r\n\r\n")

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and the headers."""
        self.send_response(status)
        connection = {} if self.keep_alive else {"Connection": "close"}
        for name, value in {**headers, **connection}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Write no log: the output of a test is its own."""


class Listener(ThreadingHTTPServer):
    """A port of 127.0.0.1, its connections and their threads."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(
        self, llm: FakeLLM, handler: type[RequestHandler], tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.llm = llm
        self.connections: set[socket.socket] = set()
        self._tls = tls
        self._thread = threading.Thread(target=self.serve_forever, args=(POLL_S,))
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and count it."""
        connection, address = super().get_request()
        if self._tls:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self.llm.changed:
            self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and count it no longer."""
        super().shutdown_request(request)
        with self.llm.changed:
            self.connections.discard(request)
            self.llm.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep an error of a script; a client that hangs up is none."""
        error = sys.exception()
        if error and not isinstance(error, ConnectionError | ssl.SSLError):
            self.llm.errors.append(error)

    def stop(self) -> None:
        """Close the port and every connection, and wait for their threads."""
        self.shutdown()
        self._thread.join()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


@dataclass
class _ScriptedFailure:
    status: int
    message: str
    headers: Mapping[str, str]
    agent: str | None
    remaining: float
    """Requests that still fail."""


class FakeLLM:
    """Serve scripted chat completions in this process, until the block ends.

    `replies` has a script for each agent, by its name; `""` is for whoever is no agent of a desk.
    An agent without a script replies as in `DEFAULT_REPLIES`. Attributes may be changed at any
    time. At the end of the block an error of a script is raised, unless another one is.
    """

    handler: type[RequestHandler] = RequestHandler

    def __init__(
        self, replies: Mapping[str, Script] | None = None, *, delay_s: float = 0.0
    ) -> None:
        self.replies: dict[str, Script] = dict(replies or {})
        self.delay_s = delay_s
        """Seconds before each answer."""
        self.requests: list[ChatRequest] = []
        """Every request to a chat endpoint, in the order of arrival."""
        self.in_flight = 0
        """Requests that are being answered."""
        self.max_in_flight = 0
        """The most requests that were ever answered at the same time."""
        self.errors: list[BaseException] = []
        """What went wrong in scripts."""
        self.changed = threading.Condition()
        """Held for every change of the above."""
        self.stopped = threading.Event()
        self._failures: list[_ScriptedFailure] = []
        self._listeners = [Listener(self, self.handler)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self.errors and error is None:
            raise self.errors[0]

    def stop(self) -> None:
        """Close every connection and join every thread, whoever still waits for an answer."""
        self.stopped.set()
        for listener in self._listeners:
            listener.stop()

    @property
    def base_url(self) -> str:
        """Return the address that the client `openai` takes as `base_url`."""
        return f"http://127.0.0.1:{self._listeners[0].server_port}/v1"

    @property
    def connections(self) -> int:
        """Return how many connections clients hold open, busy or not."""
        return sum(len(listener.connections) for listener in self._listeners)

    def requests_of(self, agent: str) -> list[ChatRequest]:
        """Return the requests of one agent, in the order of arrival."""
        return [request for request in self.requests if request.agent == agent]

    def fail_with(
        self,
        status: int,
        message: str = "The server had an error while processing your request.",
        *,
        agent: str | None = None,
        times: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with an HTTP error from now on: to all, to one agent, or the next `times` times.

        `headers` may ask for patience, such as `{"Retry-After": "1"}`.
        """
        remaining = float("inf") if times is None else times
        self._failures.append(_ScriptedFailure(status, message, headers or {}, agent, remaining))

    def recover(self) -> None:
        """Answer with no error any more."""
        self._failures.clear()

    def wait_for_requests(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until `count` requests have arrived. Raises AssertionError after `timeout_s`."""
        self._wait_until(lambda: len(self.requests) >= count, f"{count} requests", timeout_s)

    def wait_until_idle(self, timeout_s: float = 60.0) -> None:
        """Wait until no request is being answered. Raises AssertionError after `timeout_s`."""
        self._wait_until(lambda: self.in_flight == 0, "no request in flight", timeout_s)

    def wait_until_disconnected(self, timeout_s: float = 60.0) -> None:
        """Wait until no client holds a connection. Raises AssertionError after `timeout_s`."""
        self._wait_until(lambda: self.connections == 0, "no connection", timeout_s)

    def _wait_until(self, predicate: Callable[[], bool], goal: str, timeout_s: float) -> None:
        with self.changed:
            if not self.changed.wait_for(predicate, timeout_s):
                state = f"{len(self.requests)} requests, {self.connections} connections"
                raise AssertionError(f"waited {timeout_s:g} s for {goal}: {state}")

    def parse_request(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: dict[str, Any],
    ) -> ChatRequest | None:
        """Return the request; None where `path` is no chat endpoint."""
        if path not in ENDPOINTS:
            return None
        return ChatRequest(path, query, headers, body, time.monotonic())

    def answer(self, request: ChatRequest, handler: RequestHandler) -> None:
        """Answer one request: an error that was asked for, or the agent's reply."""
        if failure := self._failure_of(request):
            body = error_body(failure.message, kind="server_error")
            handler.send_json(failure.status, body, failure.headers)
            return
        reply = self.reply_to(request)
        if request.stream:
            handler.send_stream(completion_events(request, reply))
        else:
            handler.send_json(200, completion(request, reply))

    def reply_to(self, request: ChatRequest) -> ScriptedReply:
        """Return the next reply of the agent that asks."""
        script = self.replies.get(request.agent)
        if script is None:
            return default_reply(request.agent)
        if callable(script):
            return as_reply(script(request))
        if not isinstance(script, list):
            return as_reply(script)
        with self.changed:
            if not script:
                raise AssertionError(f"the script of {request.agent!r} has no reply left")
            return as_reply(script.pop(0))

    @contextlib.contextmanager
    def counted(self, request: ChatRequest) -> Iterator[None]:
        """Count a request while it is answered."""
        with self.changed:
            self.requests.append(request)
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self.in_flight -= 1
                self.changed.notify_all()

    def _failure_of(self, request: ChatRequest) -> _ScriptedFailure | None:
        with self.changed:
            for failure in self._failures:
                if failure.agent in (None, request.agent) and failure.remaining > 0:
                    failure.remaining -= 1
                    return failure
        return None

"""The double spoken to by nothing but HTTP: requests as a client would write them."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from support.fake_llm.requests import Protocol
from support.fake_llm.server import Wire

KEY = "sk-test-very-secret"
PATHS = {
    Protocol.OPENAI: "/v1/chat/completions",
    Protocol.AZURE: "/openai/deployments/desk/chat/completions?api-version=2024-10-21",
    Protocol.ANTHROPIC: "/v1/messages",
    Protocol.OLLAMA: "/api/chat",
}
HEADERS = {
    Protocol.OPENAI: {"Authorization": f"Bearer {KEY}"},
    Protocol.AZURE: {"api-key": KEY},
    Protocol.ANTHROPIC: {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    Protocol.OLLAMA: {},
}


def request(
    protocol: Protocol, agent: str = "Executor", *, stream: bool = False, **more: Any
) -> dict[str, Any]:
    system = f"You are the {agent} of a trading desk. Answer in JSON."
    said: list[dict[str, Any]] = [{"role": "user", "content": "What now?"}]
    body: dict[str, Any] = {"model": "stub-1", "stream": stream}
    if protocol is Protocol.ANTHROPIC:
        body |= {"system": system, "max_tokens": 100, "messages": said}
    else:
        body["messages"] = [{"role": "system", "content": system}, *said]
    return body | more


def connected(wire: Wire, protocol: Protocol) -> http.client.HTTPConnection:
    place = urlsplit(wire.address(protocol))
    return http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)


def sent(
    connection: http.client.HTTPConnection,
    protocol: Protocol,
    body: dict[str, Any],
    path: str = "",
    headers: dict[str, str] | None = None,
) -> http.client.HTTPResponse:
    head = HEADERS[protocol] if headers is None else headers
    connection.request("POST", path or PATHS[protocol], json.dumps(body), head)
    return connection.getresponse()


def asked(
    wire: Wire, protocol: Protocol, body: dict[str, Any] | None = None, **more: Any
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = connected(wire, protocol)
    try:
        answer = sent(connection, protocol, body or request(protocol), **more)
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def told(wire: Wire, protocol: Protocol, body: dict[str, Any] | None = None) -> Any:
    """The JSON of a whole answer."""
    return json.loads(asked(wire, protocol, body)[2])


def text_of(protocol: Protocol, body: Any) -> str:
    if protocol is Protocol.ANTHROPIC:
        return "".join(block["text"] for block in body["content"])
    choice = body if protocol is Protocol.OLLAMA else body["choices"][0]
    return str(choice["message"]["content"])


def events(data: bytes) -> list[dict[str, Any]]:
    """The JSON of each frame of a stream."""
    lines = [line.removeprefix(b"data: ") for line in data.splitlines() if line]
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def pieces_of(protocol: Protocol, data: bytes) -> list[str]:
    frames = events(data)
    if protocol is Protocol.OLLAMA:
        return [frame["message"]["content"] for frame in frames]
    if protocol is Protocol.ANTHROPIC:
        return [f["delta"]["text"] for f in frames if f["type"] == "content_block_delta"]
    deltas = [choice["delta"] for frame in frames for choice in frame["choices"]]
    return [delta["content"] for delta in deltas if "content" in delta]

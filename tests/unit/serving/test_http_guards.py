"""Middleware before the apps, spoken to in ASGI: uploads that break off or never end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from finagent_model.serving.http_guards import BodyLimit


async def echo_size(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def respond(status: int, message: str) -> Response:
    return PlainTextResponse(message, status)


def send_to_limit(parts: Iterable[Message], length: str = "") -> list[Message]:
    """Return what a limit of 10 bytes answers to a request that comes in `parts`."""
    answers: list[Message] = []
    waiting = iter(parts)
    headers = [(b"content-length", length.encode())] if length else []
    scope = {"type": "http", "method": "POST", "path": "/in\nvocations", "headers": headers}

    async def receive() -> Message:
        return next(waiting)

    async def send(message: Message) -> None:
        answers.append(message)

    app = BodyLimit(echo_size, 10, "send less", respond)
    asyncio.run(app(scope, receive, send))
    return answers


def test_body_limit_broken_off_upload_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert send_to_limit([part, {"type": "http.disconnect"}]) == []
    [record] = caplog.records
    assert record.getMessage() == (
        r"POST '/in\nvocations' was broken off by its client after 1 bytes"
    )
    assert record.exc_info is None


def test_body_limit_whole_upload_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    [start, body] = send_to_limit([{"type": "http.request", "body": b"0123456789"}])
    assert (start["status"], body["body"]) == (200, b"10")
    assert caplog.records == []


@pytest.mark.parametrize("length", ["11", "9" * 5000])
def test_body_limit_refuses_by_announced_length(length: str) -> None:
    [start, body] = send_to_limit([], length)
    assert (start["status"], body["body"]) == (413, b"the body may have 10 bytes; send less")

"""ASGI middleware that stands before an app: who may ask, and how much may be sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finagent_model._base import show_value
from finagent_model.serving.auth import AuthError

log = logging.getLogger(__name__)
Respond = Callable[[int, str], ASGIApp]
"""Makes the response of a status and a message, in the form of the app."""


class AccessGuard:
    """Middleware that answers a caller whom `check` refuses, by an AuthError."""

    def __init__(self, app: ASGIApp, check: Callable[[Request], object], respond: Respond) -> None:
        self._app, self._check, self._respond = app, check, respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            try:
                self._check(Request(scope))
            except AuthError as error:
                app = _with_headers(self._respond(error.status, str(error)), error.headers)
        await app(scope, receive, send)


def _with_headers(app: ASGIApp, headers: Mapping[str, str]) -> ASGIApp:
    """Return `app` with `headers` added to its response."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await app(scope, receive, send_more)

    return respond


class BodyLimit:
    """Middleware that refuses a body of more than `max_bytes` with 413, before all of it is read.

    The app must turn HTTPException into a response. A body that its client breaks off is a line in
    the log.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, way_out: str, respond: Respond) -> None:
        """`way_out` ends the message: what to do with a larger body."""
        self._app, self._max_bytes, self._respond = app, max_bytes, respond
        self._message = f"the body may have {max_bytes} bytes; {way_out}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        # Compared by its digits first: `int` refuses thousands of them.
        if length.isdigit() and (len(length) > 18 or int(length) > self._max_bytes):
            await self._respond(413, self._message)(scope, receive, send)
            return
        size, is_complete = 0, False

        # The header may be absent or wrong, so the bytes are counted as they come.
        async def receive_limited() -> Message:
            nonlocal size, is_complete
            part = await receive()
            size += len(part.get("body", b""))
            if size > self._max_bytes:
                raise HTTPException(413, self._message)
            if part["type"] == "http.disconnect" and not is_complete:
                log.warning(
                    "%s %s was broken off by its client after %d bytes",
                    scope["method"],
                    show_value(scope["path"]),
                    size,
                )
            is_complete = not part.get("more_body", False)
            return part

        # Nobody is left to answer. Without this the server would log a stack trace.
        with suppress(ClientDisconnect):
            await self._app(scope, receive_limited, send)

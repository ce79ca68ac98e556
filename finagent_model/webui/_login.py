"""Access to the pages: who may open them, what a browser may do with an answer, and the login.

Without FINAGENT_API_TOKEN only callers on this machine may open them, at an address of this
machine. With it, a browser logs in with the token at `/login` and gets a session, which ends at
logout, after `SESSION_S`, or with the process. A change must come from our own pages.
`/api` has rules of its own, which know no cookie, behind the same check of the machine.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from threading import Lock
from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import SecretStr
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finagent_model.serving.auth import (
    SAFE_METHODS,
    AuthError,
    check_token,
    require_same_origin,
    require_this_machine,
)
from finagent_model.webui._rendering import Renderer

COOKIE, DEVICE_COOKIE = "finagent_session", "finagent_device"
SESSION_S, DEVICE_S = 12 * 3600, 180 * 24 * 3600
MAX_SESSIONS = 1000
"""Sessions that are open at once; a new one ends the oldest."""
LOGIN_PATH = "/login"
PUBLIC_PATHS = (LOGIN_PATH, "/static/", "/ping")
"""Beginnings of the paths that need no session."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-finagent": "ui",
}
"""Headers of every answer. The last tells our answers from those of a proxy in front of us."""
WRONG_TOKEN = "That is not the token."


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form that a page sent; of a repeated field the last value."""
    # By hand, because FastAPI's own forms need python-multipart.
    text = (await request.body()).decode(errors="replace")
    return {name: values[-1].strip() for name, values in parse_qs(text).items()}


FormFields = Annotated[dict[str, str], Depends(read_form)]


class AuthMiddleware:
    """Passes a request on to `api` if it is below `/api/`, else to `pages`, or refuses it.

    It adds `HEADERS` to every answer; a header that the app has set stays.
    """

    def __init__(
        self, pages: ASGIApp, api: ASGIApp, token: SecretStr | None, sessions: Sessions
    ) -> None:
        self._pages, self._api, self._token, self._sessions = pages, api, token, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-cache" if is_static else "no-store")
            await send(message)

        request = Request(scope)
        is_api = request.url.path.startswith("/api/")
        is_static = request.url.path.startswith("/static/")
        refusal: ASGIApp | None = self._refuse(request, is_api)
        app = refusal or (self._api if is_api else self._pages)
        await app(scope, receive, send_with_headers)

    def _refuse(self, request: Request, is_api: bool) -> Response | None:
        """Return the answer to a request that may not pass; None if it may."""
        path = request.url.path
        try:
            if self._token is None:
                require_this_machine(
                    request,
                    "these pages are for this machine (http://127.0.0.1); "
                    "set FINAGENT_API_TOKEN to look at them from elsewhere",
                )
            if is_api:
                return None
            require_same_origin(request, browser_only=True)
        except AuthError as error:
            return _plain_error(path, error.status, str(error))
        is_public = self._token is None or path.startswith(PUBLIC_PATHS)
        if is_public or self._sessions.is_open(request.cookies.get(COOKIE, "")):
            return None
        is_script = "hx-request" in request.headers or path.endswith(".json")
        if request.method not in SAFE_METHODS or is_script:
            # A redirect would give a script the login page in the place of what it asked for.
            response = _plain_error(path, 401, "log in again: the session has ended")
            response.headers["hx-redirect"] = LOGIN_PATH
            return response
        target = path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN_PATH}?next={quote(target, safe='')}", 303)


class Sessions:
    """The open sessions, in memory: the process's end ends them all."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer, self._lock = timer, Lock()
        self._ends_at: dict[str, float] = {}
        """By the hash of a session's id, the oldest first."""

    def open(self) -> str:
        """Begin a session and return its id."""
        session_id, now = secrets.token_urlsafe(32), self._timer()
        with self._lock:
            self._ends_at = {k: end for k, end in self._ends_at.items() if end > now}
            while len(self._ends_at) >= MAX_SESSIONS:
                del self._ends_at[next(iter(self._ends_at))]
            self._ends_at[_hash(session_id)] = now + SESSION_S
        return session_id

    def is_open(self, session_id: str) -> bool:
        """Return whether there is such a session and it has not ended."""
        # Looked up by hash: how long that takes tells nothing about an id.
        return self._ends_at.get(_hash(session_id), 0.0) > self._timer()

    def close(self, session_id: str) -> None:
        """End a session, if there is one of that id."""
        with self._lock:
            self._ends_at.pop(_hash(session_id), None)


def sign_device(token: SecretStr, device_id: str) -> str:
    """Return the cookie that tells a browser which has logged in before from a stranger's."""
    key = token.get_secret_value().encode()
    signature = hmac.new(key, f"finagent device {device_id}".encode(), hashlib.sha256).hexdigest()
    return f"{device_id}.{signature}"


def _known_device(request: Request, token: SecretStr) -> str | None:
    """Return the browser's name if it has logged in before, with this token; else None."""
    cookie = request.cookies.get(DEVICE_COOKIE, "")
    device_id = cookie.partition(".")[0]
    is_ours = hmac.compare_digest(sign_device(token, device_id).encode(), cookie.encode())
    return f"browser {device_id}" if is_ours else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _plain_error(path: str, status: int, message: str) -> Response:
    if path.endswith(".json"):
        return JSONResponse({"message": message}, status)
    return PlainTextResponse(f"{message}\n", status)


def login_routes(token: SecretStr, sessions: Sessions, renderer: Renderer) -> APIRouter:
    """Return the routes of logging in and out."""
    routes = APIRouter()

    @routes.get(LOGIN_PATH)
    def show_form(request: Request, target: Annotated[str, Query(alias="next")] = "/") -> Response:
        return renderer.page(request, "login.html", next=_local_path(target), error="")

    @routes.post(LOGIN_PATH)
    def log_in(request: Request, fields: FormFields) -> Response:
        target = _local_path(fields.get("next", "/"))
        # Strangers may share an address with a browser that has logged in before, behind a proxy:
        # their wrong tokens do not count as its own.
        device = _known_device(request, token)
        try:
            is_right = check_token(request, fields.get("token", ""), token, caller=device)
        except AuthError as error:
            status, message = error.status, f"{str(error)[:1].upper()}{str(error)[1:]}."
            response = renderer.page(request, "login.html", status, next=target, error=message)
            response.headers.update(error.headers)
            return response
        if not is_right:
            return renderer.page(request, "login.html", 401, next=target, error=WRONG_TOKEN)
        response = RedirectResponse(target, 303)
        is_https = request.url.scheme == "https"
        device_cookie = sign_device(token, secrets.token_urlsafe(16))
        for name, value, age_s in (
            (COOKIE, sessions.open(), SESSION_S),
            (DEVICE_COOKIE, device_cookie, DEVICE_S),
        ):
            response.set_cookie(
                name, value, max_age=age_s, httponly=True, samesite="strict", secure=is_https
            )
        return response

    @routes.post("/logout")
    def log_out(request: Request) -> Response:
        # Here as well as in the browser: a copy of the cookie is worth nothing afterwards.
        sessions.close(request.cookies.get(COOKIE, ""))
        response = RedirectResponse(LOGIN_PATH, 303)
        response.delete_cookie(COOKIE)
        return response

    return routes


def _local_path(path: str) -> str:
    """Return `path` if it is a page of ours, else the first page."""
    # A link to the login page may name any address: no open redirect.
    is_local = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_local and path.isprintable() else "/"

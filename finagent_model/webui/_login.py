"""Access to the pages: who may open them, what a browser may do with an answer, and the login.

Without FINAGENT_API_TOKEN only callers on this machine may open them, at an address of this
machine. With it, a browser logs in with the token at `/login` and gets a session for `SESSION_S`;
the cookie is signed with the token and does not hold it. A change must come from our own pages.
`/api` has rules of its own, which know no cookie, behind the same check of the machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
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
    is_token,
    require_same_origin,
    require_this_machine,
)
from finagent_model.webui._rendering import Renderer

COOKIE = "finagent_session"
MAX_SESSION_CHARS = 100
SESSION_S = 12 * 3600
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
FAILED_LOGIN_DELAY_S = 0.5
"""Rate limit of guesses: the next token is checked so long after a wrong one."""
MAX_WAITING = 20
"""Logins that may wait for their check."""
WRONG_TOKEN = "That is not the token."
TOO_MANY_LOGINS = (
    "Too many tokens are tried at this moment, so yours was not looked at; try again soon."
)


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

    def __init__(self, pages: ASGIApp, api: ASGIApp, token: SecretStr | None) -> None:
        self._pages, self._api, self._token = pages, api, token

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
        if self._token is None or path.startswith(PUBLIC_PATHS) or self._has_session(request):
            return None
        is_script = "hx-request" in request.headers or path.endswith(".json")
        if request.method not in SAFE_METHODS or is_script:
            # A redirect would give a script the login page in the place of what it asked for.
            response = _plain_error(path, 401, "log in again: the session has ended")
            response.headers["hx-redirect"] = LOGIN_PATH
            return response
        target = path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN_PATH}?next={quote(target, safe='')}", 303)

    def _has_session(self, request: Request) -> bool:
        assert self._token is not None
        cookie = request.cookies.get(COOKIE, "")
        until, _, _ = cookie.partition(".")
        # `compare_digest` takes no other characters, and `int` would read digits of any script.
        if len(cookie) > MAX_SESSION_CHARS or not cookie.isascii() or not until.isdigit():
            return False
        expected = sign_session(self._token, int(until))
        return int(until) >= time.time() and hmac.compare_digest(expected, cookie)


def sign_session(token: SecretStr, until: int) -> str:
    """Return the cookie of a session that ends at `until`, in seconds since 1970."""
    key = token.get_secret_value().encode()
    signature = hmac.new(key, f"finagent ui {until}".encode(), hashlib.sha256).hexdigest()
    return f"{until}.{signature}"


def _plain_error(path: str, status: int, message: str) -> Response:
    if path.endswith(".json"):
        return JSONResponse({"message": message}, status)
    return PlainTextResponse(f"{message}\n", status)


class TokenCheckQueue:
    """Checks one token after the other, so that wrong ones are slow; a waiting one holds no thread.

    Right tokens queue as well: an answer that came at once would tell which one was right.
    """

    def __init__(self) -> None:
        self._lock, self._waiting = asyncio.Lock(), 0

    async def check(self, candidate: str, token: SecretStr) -> bool | None:
        """Return whether it is the token; None: too many wait, and it was not checked."""
        if self._waiting >= MAX_WAITING:
            return None
        self._waiting += 1
        try:
            async with self._lock:
                is_right = is_token(candidate, token)
                if not is_right:
                    await asyncio.sleep(FAILED_LOGIN_DELAY_S)
        finally:
            self._waiting -= 1
        return is_right


def login_routes(token: SecretStr, renderer: Renderer) -> APIRouter:
    """Return the routes of logging in and out."""
    routes, checks = APIRouter(), TokenCheckQueue()

    @routes.get(LOGIN_PATH)
    def show_form(request: Request, target: Annotated[str, Query(alias="next")] = "/") -> Response:
        return renderer.page(request, "login.html", next=_local_path(target), error="")

    @routes.post(LOGIN_PATH)
    async def log_in(request: Request, fields: FormFields) -> Response:
        target = _local_path(fields.get("next", "/"))
        is_right = await checks.check(fields.get("token", ""), token)
        if is_right is None:
            return renderer.page(request, "login.html", 429, next=target, error=TOO_MANY_LOGINS)
        if not is_right:
            return renderer.page(request, "login.html", 401, next=target, error=WRONG_TOKEN)
        response = RedirectResponse(target, 303)
        response.set_cookie(
            COOKIE,
            sign_session(token, int(time.time()) + SESSION_S),
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @routes.post("/logout")
    def log_out() -> Response:
        response = RedirectResponse(LOGIN_PATH, 303)
        response.delete_cookie(COOKIE)
        return response

    return routes


def _local_path(path: str) -> str:
    """Return `path` if it is a page of ours, else the first page."""
    # A link to the login page may name any address: no open redirect.
    is_local = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_local and path.isprintable() else "/"

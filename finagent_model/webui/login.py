"""The door of every page: who is let in, what a browser may do with an answer, and that a change is
asked for by our own pages.

Without FINAGENT_API_TOKEN only callers on this machine are let in, at an address of this machine.
With it, whoever has typed it in at `/login` is, for `SESSION_S`; the cookie is signed with the
token and does not hold it. `/api` is let through to its own rules, which know no cookie.

Where FINAGENT_API_TOKEN is typed in; the browser gets a session that ends by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import Annotated
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import SecretStr
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finagent_model.serving.auth import AuthError, is_token, require_this_machine
from finagent_model.webui.rendering import Renderer

COOKIE = "finagent_session"
LONGEST = 100
"""Characters of a session."""
SESSION_S = 12 * 3600
LOGIN = "/login"
OPEN = (LOGIN, "/static/", "/ping")
"""Paths that anybody may ask for."""
ASKING = ("GET", "HEAD", "OPTIONS")
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
"""The last tells our answers from those of a proxy that stands in for us."""


class AuthMiddleware:
    """`api` answers below `/api/`, `pages` the rest. A header that they set themselves stays."""

    def __init__(self, pages: ASGIApp, api: ASGIApp, token: SecretStr | None) -> None:
        self._pages, self._api, self._token = pages, api, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-cache" if is_static else "no-store")
            await send(message)

        request = Request(scope)
        is_api = request.url.path.startswith("/api/")
        is_static = request.url.path.startswith("/static/")
        answer: ASGIApp | None = self._refusal(request, is_api)
        await (answer or (self._api if is_api else self._pages))(scope, receive, guarded)

    def _refusal(self, request: Request, is_api: bool) -> Response | None:
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
            if request.method not in ASKING:
                require_our_page(request)
        except AuthError as error:
            return _said(path, error.status, str(error))
        if self._token is None or path.startswith(OPEN) or self._is_known(request):
            return None
        is_script = "hx-request" in request.headers or path.endswith(".json")
        if request.method not in ASKING or is_script:
            answer = _said(path, 401, "log in again: the session has ended")
            answer.headers["hx-redirect"] = LOGIN
            return answer
        asked = path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN}?next={quote(asked, safe='')}", 303)

    def _is_known(self, request: Request) -> bool:
        assert self._token is not None
        given = request.cookies.get(COOKIE, "")
        until, _, _ = given.partition(".")
        if len(given) > LONGEST or not given.isascii() or not until.isdigit():
            return False
        known = session(self._token, int(until))
        return int(until) >= time.time() and hmac.compare_digest(known, given)


def session(token: SecretStr, until: int) -> str:
    """What a browser is given for the token; `until` in seconds since 1970."""
    key = token.get_secret_value().encode()
    signed = hmac.new(key, f"finagent ui {until}".encode(), hashlib.sha256).hexdigest()
    return f"{until}.{signed}"


def require_our_page(request: Request) -> None:
    """Raises NotAdmittedError for a change that a page of somebody else asks for."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    ours = site == "same-origin" if origin is None else _is_of(origin, request.headers.get("host"))
    if not ours or site not in (None, "same-origin"):
        raise AuthError(403, "changes are made from these pages alone; open them and retry")


def _is_of(origin: str, host: str | None) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # no address at all
        return False


def _said(path: str, status: int, message: str) -> Response:
    if path.endswith(".json"):
        return JSONResponse({"message": message}, status)
    return PlainTextResponse(f"{message}\n", status)


async def form(request: Request) -> dict[str, str]:
    """The fields of a form that a page sent; python-multipart isn't needed for that."""
    text = (await request.body()).decode(errors="replace")
    return {name: values[-1].strip() for name, values in parse_qs(text).items()}


Form = Annotated[dict[str, str], Depends(form)]
WRONG_S = 0.5
"""Guessing is slow, from however many places: the next token is looked at so long after a wrong
one.
"""
MOST_WAITING = 20
WRONG = "That is not the token."
BUSY = "Too many tokens are tried at this moment, so yours was not looked at; try again soon."


class TokenCheckQueue:
    """Tokens are looked at one after the other, right ones too: an answer that comes at once would
    say which it is. Who waits holds no thread.
    """

    def __init__(self) -> None:
        self._lock, self._waiting = asyncio.Lock(), 0

    async def is_token(self, given: str, token: SecretStr) -> bool | None:
        """None: too many wait, and it was not looked at."""
        if self._waiting >= MOST_WAITING:
            return None
        self._waiting += 1
        try:
            async with self._lock:
                right = is_token(given, token)
                if not right:
                    await asyncio.sleep(WRONG_S)
        finally:
            self._waiting -= 1
        return right


def login_routes(token: SecretStr, renderer: Renderer) -> APIRouter:
    routes = APIRouter()

    @routes.get(LOGIN)
    def ask(request: Request, next: str = "/") -> Response:
        return renderer.page(request, "login.html", next=_local(next), wrong="")

    turns = TokenCheckQueue()

    @routes.post(LOGIN)
    async def login(request: Request, given: Form) -> Response:
        to = _local(given.get("next", "/"))
        right = await turns.is_token(given.get("token", ""), token)
        if right is None:
            return renderer.page(request, "login.html", 429, next=to, wrong=BUSY)
        if not right:
            return renderer.page(request, "login.html", 401, next=to, wrong=WRONG)
        answer = RedirectResponse(to, 303)
        answer.set_cookie(
            COOKIE,
            session(token, int(time.time()) + SESSION_S),
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @routes.post("/logout")
    def logout() -> Response:
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(COOKIE)
        return answer

    return routes


def _local(path: str) -> str:
    """A page of ours, whatever a link says."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_ours and path.isprintable() else "/"

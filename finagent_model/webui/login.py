"""Where FINAGENT_API_TOKEN is typed in; the browser gets a session that ends by itself."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import SecretStr

from finagent_model.serving.callers import is_token
from finagent_model.webui.guard import COOKIE, LOGIN, SESSION_S, session
from finagent_model.webui.render import Renderer


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


class Turns:
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

    turns = Turns()

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

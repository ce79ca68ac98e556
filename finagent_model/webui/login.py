"""Where FINAGENT_API_TOKEN is typed in; the browser gets a session that ends by itself."""

from __future__ import annotations

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


def login_routes(token: SecretStr, renderer: Renderer) -> APIRouter:
    routes = APIRouter()

    @routes.get(LOGIN)
    def ask(request: Request, next: str = "/") -> Response:
        return renderer.page(request, "login.html", next=_local(next), wrong=False)

    @routes.post(LOGIN)
    def login(request: Request, given: Form) -> Response:
        to = _local(given.get("next", "/"))
        if not is_token(given.get("token", ""), token):
            time.sleep(0.5)  # guessing is slow
            return renderer.page(request, "login.html", 401, next=to, wrong=True)
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

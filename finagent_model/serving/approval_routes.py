"""Approvals over HTTP: `GET /approvals`, `POST /approvals/{id}/approve` and `.../reject`.

All need the token of FINAGENT_APPROVAL_TOKEN or, where none is set, a request from this machine
(`auth.py`). Each response is JSON; an error's is `{"message": ...}` in one sentence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field, SecretStr
from starlette.concurrency import run_in_threadpool

from finagent_model._base import InputModel
from finagent_model._documents import read_json_object
from finagent_model.approvals import ApprovalStore
from finagent_model.config.rules import ApprovalVerdict
from finagent_model.errors import (
    ApprovalSettledError,
    BadInputError,
    LocalStateError,
    UnknownApprovalError,
)
from finagent_model.serving.auth import AuthError, require_this_machine, require_token

VERDICTS: dict[str, ApprovalVerdict] = {"approve": "approved", "reject": "rejected"}
"""Verbs of the paths, and the verdicts that they stand for."""
VARIABLE = "FINAGENT_APPROVAL_TOKEN"
APPROVALS_PATH = "/approvals"
MAX_REPLY_BYTES = 16 * 1024
STATUSES: dict[type[BadInputError], int] = {
    UnknownApprovalError: 404,
    ApprovalSettledError: 409,
    LocalStateError: 503,
    BadInputError: 400,
}
"""HTTP status by error."""


class ApprovalReply(InputModel):
    """The JSON body of a verdict."""

    by: str = Field(min_length=1)
    why: str | None = None


def add_approval_routes(app: FastAPI, approvals: ApprovalStore, token: SecretStr | None) -> None:
    """Add the routes that list and settle `approvals`; without a `token` only from this machine."""

    @app.exception_handler(AuthError)
    def refused(request: Request, error: AuthError) -> JSONResponse:
        return JSONResponse({"message": str(error)}, error.status, error.headers)

    @app.exception_handler(BadInputError)
    def failed(request: Request, error: BadInputError) -> JSONResponse:
        # The nearest class counts.
        status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
        return JSONResponse({"message": str(error)}, status)

    async def authorise(request: Request) -> None:
        _authorise(request, token)

    # OpenAPI's operation ids and texts come from a route's name and docstring: both stay as they
    # are for clients that were generated from them.
    @app.get(APPROVALS_PATH, name="listed", dependencies=[Depends(authorise)])
    def list_approvals() -> list[dict[str, Any]]:
        rows, now = approvals.list_approvals()
        return [approval.to_json(now) for approval in rows]

    for verb, verdict in VERDICTS.items():
        path = f"{APPROVALS_PATH}/{{key}}/{verb}"
        app.post(path, dependencies=[Depends(authorise)])(_settle_route(approvals, verdict))


def _settle_route(
    approvals: ApprovalStore, verdict: ApprovalVerdict
) -> Callable[[str, Request], Awaitable[JSONResponse]]:
    """Return the endpoint that settles an approval by `verdict`."""

    async def settle(key: str, request: Request) -> JSONResponse:
        reply = _parse_reply(request, await request.body())
        # Not in the event loop's own threads: waiting decisions may have taken them all.
        approval = await run_in_threadpool(approvals.settle, key, verdict, reply.by, reply.why)
        # Settled just now: its own moment stands for the clock.
        return JSONResponse(approval.to_json(approval.at or approval.deadline))

    return settle


def _authorise(request: Request, token: SecretStr | None) -> None:
    if token is not None:
        require_token(request, token, VARIABLE)
    else:
        require_this_machine(
            request,
            "approvals are settled from the server's own machine (http://127.0.0.1 or "
            f"`finagent approve`); set {VARIABLE} to settle them from elsewhere",
        )


def _parse_reply(request: Request, body: bytes) -> ApprovalReply:
    """Return the verdict's body. Raises AuthError (415) and BadInputError."""
    # A form on a web page can't send this content type, so no other site can settle an approval.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise AuthError(415, "send JSON, with Content-Type: application/json")
    if len(body) > MAX_REPLY_BYTES:
        raise BadInputError(f"the body has {len(body)} bytes; at most {MAX_REPLY_BYTES}")
    return ApprovalReply.parse(**read_json_object(body, '{"by": "your name", "why": "..."}'))

"""Approvals over HTTP: `GET /approvals`, `POST /approvals/{id}/approve` and `.../reject`.

Who may settle one is in `callers.py`; the token is that of `FINAGENT_APPROVAL_TOKEN`. A body must
say that it is JSON: no form of a page in a browser does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field, SecretStr
from starlette.concurrency import run_in_threadpool

from finagent_model import _base as loose
from finagent_model.approvals import ApprovalStore
from finagent_model.config.rules import ApprovalVerdict
from finagent_model.errors import ApprovalSettledError, BadInputError, UnknownApprovalError
from finagent_model.serving.auth import AuthError, require_this_machine, require_token

VERDICTS: dict[str, ApprovalVerdict] = {"approve": "approved", "reject": "rejected"}
VARIABLE = "FINAGENT_APPROVAL_TOKEN"


class ApprovalReply(loose.InputModel):
    """The body of a verdict."""

    by: str = Field(min_length=1)
    why: str | None = None


def add_approval_routes(app: FastAPI, approvals: ApprovalStore, token: SecretStr | None) -> None:
    """Each answer is JSON; a refusal's is `{"message": ...}` in one sentence."""

    @app.get("/approvals")
    def listed() -> list[dict[str, Any]]:
        found, now = approvals.list_approvals()
        return [asked.to_json(now) for asked in found]

    for verb, verdict in VERDICTS.items():
        app.post(f"/approvals/{{key}}/{verb}")(_settling(approvals, verdict, token))


def _settling(
    approvals: ApprovalStore, verdict: ApprovalVerdict, token: SecretStr | None
) -> Callable[[str, Request], Awaitable[JSONResponse]]:
    async def settle(key: str, request: Request) -> JSONResponse:
        try:
            _admit(request, token)
            said = _read(request, await request.body())
            # Not in the event loop's own threads: waiting decisions may have taken them all.
            asked = await run_in_threadpool(approvals.settle, key, verdict, said.by, said.why)
        except AuthError as error:
            return _refusal(error.status, error)
        except UnknownApprovalError as error:
            return _refusal(404, error)
        except ApprovalSettledError as error:
            return _refusal(409, error)
        except BadInputError as error:
            return _refusal(400, error)
        return JSONResponse(asked.to_json(asked.at or asked.deadline))

    return settle


def _admit(request: Request, token: SecretStr | None) -> None:
    if token is not None:
        require_token(request, token, VARIABLE)
    else:
        require_this_machine(
            request,
            "approvals are settled from the server's own machine (http://127.0.0.1 or "
            f"`finagent approve`); set {VARIABLE} to settle them from elsewhere",
        )


def _read(request: Request, body: bytes) -> ApprovalReply:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise AuthError(415, "send JSON, with Content-Type: application/json")
    try:
        given = json.loads(body)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise BadInputError('the body is no JSON object; send {"by": "your name", "why": "..."}')
    return ApprovalReply.parse(**given)


def _refusal(status: int, error: Exception) -> JSONResponse:
    return JSONResponse({"message": str(error)}, status)

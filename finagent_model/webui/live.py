"""What is at work now: runs that have not ended, decisions that wait for a human, and what a
platform elsewhere is still to have. Ages are by this machine's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from finagent_model.approvals import ApprovalStore
from finagent_model.errors import BadInputError, FinagentError, StoreError, TrackingError
from finagent_model.serving.approval_routes import VARIABLE, VERDICTS
from finagent_model.serving.auth import AuthError, is_token, require_this_machine
from finagent_model.settings import Settings
from finagent_model.store.outbox import Outbox
from finagent_model.tracking.queries import RunRecord, running
from finagent_model.tracking.runs import PROCESS, is_process_dead
from finagent_model.webui.login import Form
from finagent_model.webui.rendering import Renderer
from finagent_model.webui.run_pages import DecidedSymbols, symbols_of

SHOWN = 50


@dataclass(frozen=True)
class AtWork:
    """A run that has not ended."""

    run: RunRecord
    gone: bool
    """Its process has ended, and nobody will end the run."""
    decided: tuple[int, int] | None
    """Of a training: on how many of its symbols the desk has decided. Each leaves its run when it
    is done.
    """


@dataclass(frozen=True)
class Working:
    """Runs that have not ended, the newest first."""

    runs: list[AtWork]
    more: bool
    """Whether there are others, which began before."""


def live_routes(
    approvals: ApprovalStore, outbox: Outbox, settings: Settings, renderer: Renderer
) -> APIRouter:
    routes, decided = APIRouter(), DecidedSymbols()

    def progress(run: RunRecord) -> tuple[int, int] | None:
        wanted = symbols_of(run) if run.stage == "train" else None
        return None if wanted is None else (decided.count(run), wanted)

    def at_work() -> Working:
        found = running(SHOWN)
        decided.forget_but({run.run_id for run in found.runs})
        shown = [
            AtWork(run, is_process_dead(run.tags.get(PROCESS, "")), progress(run))
            for run in found.runs
        ]
        return Working(shown, found.older is not None)

    def known() -> dict[str, Any]:
        """Each part by itself: one that can't be read says so, the others are shown."""
        work, work_why = _or_reason(at_work, TrackingError)
        asked, asked_why = _or_reason(lambda: approvals.list_approvals()[0], BadInputError)
        queue, queue_why = _or_reason(outbox.status, StoreError)
        return {
            "now": datetime.now(UTC),
            "work": work,
            "work_why": work_why,
            "asked": asked,
            "asked_why": asked_why,
            "queue": queue,
            "queue_why": queue_why,
            "platform": settings.platform_url,
            "needs_token": settings.approval_token is not None,
        }

    @routes.get("/live")
    def live(request: Request) -> Response:
        return renderer.page(request, "live.html", **known())

    @routes.get("/live/now")
    def now(request: Request) -> Response:
        """The part of the page that changes."""
        return renderer.page(request, "live_now.html", **known())

    @routes.post("/approvals/{key}")
    def settle(request: Request, key: str, given: Form) -> Response:
        _admit(request, given, settings)
        verdict = VERDICTS.get(given.get("verdict", ""))
        if verdict is None:
            raise BadInputError(f"an approval is settled by one of: {', '.join(VERDICTS)}")
        approvals.settle(key, verdict, given.get("by", ""), given.get("why") or None)
        return RedirectResponse("/live", 303)

    return routes


def _admit(request: Request, given: dict[str, str], settings: Settings) -> None:
    """Raises NotAdmittedError. Who may look at the pages need not be who may approve."""
    if settings.approval_token is not None:
        if not is_token(given.get("token", ""), settings.approval_token):
            raise AuthError(401, f"that is not the token of {VARIABLE}")
    else:
        require_this_machine(
            request,
            "approvals are settled from the server's own machine (http://127.0.0.1 or "
            f"`finagent approve`); set {VARIABLE} to settle them from elsewhere",
        )


def _or_reason(read: Callable[[], Any], trouble: type[FinagentError]) -> tuple[Any, str | None]:
    try:
        return read(), None
    except trouble as error:
        return None, str(error)

"""Pages of what is going on now: runs that have not ended, decisions that wait for an approval, and
the outbox of a platform elsewhere; and one approval with all that a human needs to settle it.

Ages are by this machine's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from finagent_model.approvals import ApprovalStore
from finagent_model.errors import BadInputError, FinagentError, StoreError, TrackingError
from finagent_model.serving.approval_routes import VARIABLE, VERDICTS
from finagent_model.serving.auth import AuthError, check_token, require_this_machine
from finagent_model.settings import Settings
from finagent_model.store.outbox import Outbox
from finagent_model.tracking.queries import RunRecord, list_running_runs
from finagent_model.tracking.runs import PROCESS, is_process_dead
from finagent_model.webui._conversation import ApprovalCard, approval_card
from finagent_model.webui._login import FormFields
from finagent_model.webui._price_bars import send_chart_bars
from finagent_model.webui._rendering import Renderer
from finagent_model.webui._run_records import DecidedSymbols, count_symbols
from finagent_model.webui._stored_facts import VersionFactsReader

MAX_RUNS = 50


@dataclass(frozen=True)
class LiveRun:
    """A run that has not ended."""

    run: RunRecord
    is_dead: bool
    """Whether its process has ended, so that nothing will end the run."""
    progress: tuple[int, int] | None
    """For a training: on how many of its symbols the desk has decided; None: unknown."""

    @property
    def phase(self) -> str | None:
        """What a training is at, in words; None for other runs, or where it is unknown."""
        if self.progress is None:
            return None
        decided, total = self.progress
        if decided >= total:
            return f"all {total} symbols decided; packaging, checks of the gate, registering"
        if decided == 0:
            return f"fitting policies, then deciding: 0 of {total} symbols decided"
        return f"deciding: {decided} of {total} symbols decided"

    def remaining_s(self, now: datetime) -> float | None:
        """Return the seconds until all symbols are decided, at the pace so far; None: unknown."""
        if self.progress is None or self.is_dead or not 0 < self.progress[0] < self.progress[1]:
            return None
        decided, total = self.progress
        elapsed = (now - self.run.started_at).total_seconds()
        return elapsed / decided * (total - decided) if elapsed > 0 else None


@dataclass(frozen=True)
class LiveRuns:
    """Runs that have not ended, the newest first."""

    runs: list[LiveRun]
    has_more: bool
    """Whether there are others, which began before."""

    @classmethod
    def read(cls, decided_symbols: DecidedSymbols) -> Self:
        """Read the runs that have not ended. Raises TrackingError."""
        page = list_running_runs(MAX_RUNS)
        decided_symbols.retain({run.run_id for run in page.runs})
        runs = []
        for run in page.runs:
            total = count_symbols(run) if run.stage == "train" else None
            progress = None if total is None else (decided_symbols.count(run), total)
            runs.append(LiveRun(run, is_process_dead(run.tags.get(PROCESS, "")), progress))
        return cls(runs, page.older is not None)


def live_routes(
    approvals: ApprovalStore,
    outbox: Outbox,
    settings: Settings,
    facts: VersionFactsReader,
    renderer: Renderer,
) -> APIRouter:
    """Return the routes of the live page and of approvals."""
    routes, decided_symbols = APIRouter(), DecidedSymbols()

    def read_cards() -> list[ApprovalCard]:
        listed, now = approvals.list_approvals()
        return [approval_card(approval, now, facts) for approval in listed]

    def read_context() -> dict[str, Any]:
        # Each part is read by itself: one that fails shows its error, and the others are shown.
        work, work_error = read_or_error(lambda: LiveRuns.read(decided_symbols), TrackingError)
        cards, approvals_error = read_or_error(read_cards, BadInputError)
        queue, queue_error = read_or_error(outbox.status, StoreError)
        return {
            "now": datetime.now(UTC),
            "work": work,
            "work_error": work_error,
            "cards": cards,
            "approvals_error": approvals_error,
            "queue": queue,
            "queue_error": queue_error,
            "platform": settings.platform_url,
            "needs_token": settings.approval_token is not None,
        }

    @routes.get("/live")
    def show_page(request: Request) -> Response:
        return renderer.page(request, "live.html", **read_context())

    @routes.get("/live/now")
    def show_changing_part(request: Request) -> Response:
        return renderer.page(request, "live_now.html", **read_context())

    @routes.get("/approvals/{key}")
    def show_approval(request: Request, key: str) -> Response:
        card = approval_card(*approvals.find(key), facts)
        return renderer.page(
            request,
            "approval.html",
            card=card,
            levels_data=[asdict(level) for level in card.levels],
            needs_token=settings.approval_token is not None,
        )

    @routes.get("/approvals/{key}/bars.json")
    def send_bars(key: str) -> Response:
        # Never later ones: who is to approve must not be shown what came of it.
        signal = approvals.find(key)[0].signal
        return send_chart_bars(settings, signal.symbol, signal.as_of, signal.action)

    @routes.get("/waiting.json")
    def count_waiting() -> Response:
        return JSONResponse({"waiting": approvals.count_pending()})

    @routes.post("/approvals/{key}")
    def settle_approval(request: Request, key: str, fields: FormFields) -> Response:
        _check_approver(request, fields, settings)
        verdict = VERDICTS.get(fields.get("verdict", ""))
        if verdict is None:
            raise BadInputError(f"an approval is settled by one of: {', '.join(VERDICTS)}")
        approvals.settle(key, verdict, fields.get("by", ""), fields.get("why") or None)
        return RedirectResponse(f"/approvals/{key}", 303)

    return routes


def _check_approver(request: Request, fields: dict[str, str], settings: Settings) -> None:
    """Raise AuthError for a caller who may not settle approvals."""
    # The token is another one than that of the pages: who may look need not be who may approve.
    if settings.approval_token is not None:
        if not check_token(request, fields.get("token", ""), settings.approval_token):
            raise AuthError(401, f"that is not the token of {VARIABLE}")
    else:
        require_this_machine(
            request,
            "approvals are settled from the server's own machine (http://127.0.0.1 or "
            f"`finagent approve`); set {VARIABLE} to settle them from elsewhere",
        )


def read_or_error(
    read: Callable[[], Any], error_type: type[FinagentError]
) -> tuple[Any, str | None]:
    """Return what `read` returns and None, or None and the message of its error."""
    try:
        return read(), None
    except error_type as error:
        return None, str(error)

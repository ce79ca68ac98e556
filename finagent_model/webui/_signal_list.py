"""The list of signals, by signal or by execution, and its files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from finagent_model.approvals import ApprovalStore
from finagent_model.decision.signal import Action, Status
from finagent_model.errors import BadInputError
from finagent_model.reports.signal_summary import Circumstances, SignalSummary
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import OURS, Artifact
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.webui._conversation import (
    ApprovalCard,
    SignalIds,
    SignalRow,
    approval_card,
    approvals_by_signal,
    decided_action,
    signal_ids,
)
from finagent_model.webui._price_bars import SYMBOL_PATTERN
from finagent_model.webui._rendering import Renderer
from finagent_model.webui._signal_query import CHIPS, PAGE_SIZE, SignalQuery
from finagent_model.webui._stored_facts import Outcome, OutcomeReader, VersionFactsReader

Deadlines = Mapping[SignalIds, datetime]
"""Until when decisions wait for an approval."""
MAX_EXPORT_ROWS = 10_000
"""Signals in one exported file."""


def count_pending(approvals: ApprovalStore) -> int | None:
    """Return how many decisions wait for an approval; None: the approvals can't be read."""
    try:
        return approvals.count_pending()
    except BadInputError:
        return None


@dataclass(frozen=True)
class ListedSignal:
    """A row of the list."""

    signal: SignalRow
    summary: SignalSummary
    outcome: Outcome | None
    """What became of a call, as far as this machine has bars; None: unknown."""

    @property
    def export(self) -> dict[str, Any]:
        """The row of an exported file."""
        signal, row = self.signal, self.signal.row
        return {
            "id": row.id,
            "signal_id": row.key if row.origin == OURS else None,
            "symbol": row.symbol,
            "as_of": row.as_of.isoformat() if row.as_of else None,
            "action": row.action,
            "status": row.status,
            "verdict": self.summary.verdict,
            "reasons": "; ".join(self.summary.reasons),
            "confidence_score": signal.confidence,
            "calibrated": signal.calibrated,
            "entry": signal.number("suggested_entry_price"),
            "stop": signal.number("suggested_stop_loss"),
            "target": signal.number("suggested_take_profit"),
            "position_size_percent": signal.number("position_size_percent"),
            "evidence": signal.text("evidence"),
            "model_uri": signal.text("model_uri"),
            "trained_by": signal.text("run_id"),
            "cost_usd": signal.number("cost_usd"),
            "tokens": signal.number("tokens"),
            "outcome": self.outcome.ended if self.outcome else None,
            "earned": self.outcome.earned if self.outcome else None,
            "execution_id": row.execution_id,
            "run_id": row.run_id,
            "recorded_at": row.created_at.isoformat(),
            "reasoning": signal.text("reasoning"),
        }


def list_routes(
    store: ArtifactStore,
    approvals: ApprovalStore,
    settings: Settings,
    facts: VersionFactsReader,
    renderer: Renderer,
) -> APIRouter:
    """Return the routes of the list of signals, or of their executions, and of its files."""
    routes, outcomes = APIRouter(), OutcomeReader(settings)

    def read_waiting() -> tuple[list[ApprovalCard], str | None]:
        """Return what waits, the most urgent first, and why it can't be read."""
        try:
            requests, now = approvals.list_approvals()
        except BadInputError as error:
            return [], str(error)
        waiting = [request for request in requests if request.state == "pending"]
        return [approval_card(request, now, facts) for request in waiting], None

    def read_deadlines() -> Deadlines:
        # Whether it waits is one fact of a row: the list says once that approvals can't be read.
        try:
            requests, _ = approvals.list_approvals()
        except BadInputError:
            return {}
        waiting = [request for request in requests if request.state == "pending"]
        return {ids: each.deadline for ids, each in approvals_by_signal(waiting).items()}

    def listed(artifact: Artifact, now: datetime, deadlines: Deadlines) -> ListedSignal:
        signal = SignalRow.from_artifact(artifact)
        row = signal.row
        outcome = outcomes.find(
            row.symbol if row.symbol and re.fullmatch(SYMBOL_PATTERN, row.symbol) else None,
            row.as_of,
            decided_action(row),
            signal.number("suggested_stop_loss"),
            signal.number("suggested_take_profit"),
        )
        circumstances = Circumstances(now=now, waits_until=deadlines.get(signal_ids(row)))
        return ListedSignal(signal, signal.summary(circumstances), outcome)

    def read_signals(
        query: SignalQuery, limit: int, offset: int, now: datetime
    ) -> tuple[list[ListedSignal], int]:
        page = store.list_signals(query.criteria, query.order, limit, offset)
        deadlines = read_deadlines()
        return [listed(row, now, deadlines) for row in page.artifacts], page.total

    def read_rows(query: SignalQuery, now: datetime) -> tuple[Any, int]:
        if query.errors or query.show == "waiting":
            return (), 0
        if query.is_grouped:
            return store.list_executions(query.criteria, PAGE_SIZE, query.offset)
        return read_signals(query, PAGE_SIZE, query.offset, now)

    @routes.get("/signals")
    def list_signals(request: Request) -> Response:
        now = datetime.now(UTC)
        query = SignalQuery.read(request.query_params, now)
        rows, total = read_rows(query, now)
        cards, cards_error = read_waiting() if query.show == "waiting" else ([], None)
        return renderer.page(
            request,
            "signals.html",
            422 if query.errors else 200,
            query=query,
            rows=rows,
            total=total,
            unreadable=store.count_unreadable_signals(),
            pages=max(1, -(-total // PAGE_SIZE)),
            chips=CHIPS,
            statuses=[status.value for status in Status],
            actions=get_args(Action),
            grades=("none", "weak", "strong", "unknown"),
            cards=cards,
            cards_error=cards_error,
            needs_token=settings.approval_token is not None,
        )

    def read_export(request: Request) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        query = SignalQuery.read(request.query_params, now)
        if query.errors:
            raise BadInputError("; ".join(f"{k}: {v}" for k, v in query.errors.items()))
        if query.show == "waiting":
            raise BadInputError("what waits for an approval is not a signal yet; open /live")
        rows, total = read_signals(query, MAX_EXPORT_ROWS, 0, now)
        if total > len(rows):
            raise BadInputError(
                f"{total:,} signals are more than the {MAX_EXPORT_ROWS:,} of one file; narrow the "
                "filter, for example by dates"
            )
        return [row.export for row in rows]

    @routes.get("/signals.json")
    def export_json(request: Request) -> Response:
        return JSONResponse({"signals": read_export(request)})

    @routes.get("/signals.csv")
    def export_csv(request: Request) -> Response:
        text = io.StringIO()
        rows = read_export(request)
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["id"], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in rows)
        headers = {"content-disposition": 'attachment; filename="signals.csv"'}
        return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)

    return routes


def _csv_cell(value: object) -> object:
    """Return a cell that a spreadsheet takes for no formula: its texts are foreign."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value

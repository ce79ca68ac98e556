"""One signal with all that led to it: its page, its bars, its conversation and its lineage.

Bars after the decision are sent only when they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from finagent_model.approvals import ApprovalStore
from finagent_model.audit.chain import CONVERSATION_FILE, load_turns
from finagent_model.config.roster import Price
from finagent_model.config.rules import ApprovalRequest
from finagent_model.errors import (
    BadInputError,
    TrackingError,
    UnknownArtifactError,
    UnknownKeyError,
)
from finagent_model.reports.signal_summary import Circumstances
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import MAX_INTEGER, Artifact, ArtifactFilter
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._conversation import (
    Message,
    SignalRow,
    approvals_by_signal,
    decided_action,
    group_by_agent,
    messages_from_rows,
    messages_from_turns,
    signal_ids,
    with_seconds,
)
from finagent_model.webui._price_bars import SYMBOL_PATTERN, Call, no_bars, send_chart_bars
from finagent_model.webui._rendering import Renderer, is_failed
from finagent_model.webui._run_records import RUN_ID_PATTERN
from finagent_model.webui._signal_query import SignalQuery
from finagent_model.webui._stored_facts import VersionFacts, VersionFactsReader

MAX_MESSAGES = 200
"""Messages of one decision; a desk of seven agents has some twenty."""
VERSION_URI = r"models:/([A-Za-z0-9_.-]{1,100})/([0-9]{1,9})"
Number = Annotated[int, Path(ge=1, le=MAX_INTEGER)]


def signal_routes(
    store: ArtifactStore,
    approvals: ApprovalStore,
    settings: Settings,
    facts: VersionFactsReader,
    renderer: Renderer,
) -> APIRouter:
    """Return the routes of one signal: its page, its bars and its conversation."""
    routes = APIRouter(prefix="/signals")

    def read_stored_messages(row: Artifact, prices: Mapping[str, Price]) -> list[Message]:
        if not row.run_id:
            return []
        criteria = ArtifactFilter(type="llm", run_id=row.run_id)
        page = store.list_artifacts(criteria, MAX_MESSAGES, 0, "step")
        return messages_from_rows(page.artifacts, prices)

    def read_last_bar(row: Artifact) -> date | None:
        """Return the day of the last bar that the desk was shown, as its chart has it."""
        if not row.run_id:
            return None
        criteria = ArtifactFilter(type="chart", run_id=row.run_id)
        charts = store.list_artifacts(criteria, 1).artifacts
        return _last_bar_of(charts[0]) if charts else None

    # Before the numbers: a key that is all digits is still a key here.
    @routes.get("/key/{key}")
    def find_signal(key: Annotated[str, Path(max_length=200)]) -> Response:
        rows = store.list_artifacts(ArtifactFilter(type="signal", key=key), 1).artifacts
        if not rows:
            raise UnknownKeyError(key)
        return RedirectResponse(f"/signals/{rows[0].id}", 302)

    @routes.get("/{number}")
    def show_signal(request: Request, number: Number) -> Response:
        signal, now = _read_signal(store, number), datetime.now(UTC)
        approval, approval_error = _find_approval(approvals, signal.row)
        query = SignalQuery.read(request.query_params, now)
        newer = older = None
        if not query.errors and query.show != "waiting":
            newer, older = store.find_neighbours(query.criteria, query.order, signal.row)
        training = _mlflow_run_id(signal.text("run_id"))
        known = facts.find(training) or VersionFacts()
        waits = approval is not None and approval.state == "pending"
        circumstances = Circumstances(
            waits_until=approval.deadline if approval and waits else None,
            base_share=known.base_share,
            last_bar=read_last_bar(signal.row),
            now=now,
        )
        messages = read_stored_messages(signal.row, known.prices)
        return renderer.page(
            request,
            "signal.html",
            signal=signal,
            row=signal.row,
            summary=signal.summary(circumstances),
            levels_data=[asdict(level) for level in signal.levels],
            training_run_id=training,
            run_id=_mlflow_run_id(signal.row.run_id),
            version_page=_version_page(signal),
            reliability_mark=_reliability_mark(signal),
            agents=group_by_agent(messages, decided_action(signal.row), known.agents),
            approval=approval,
            approval_error=approval_error,
            needs_token=settings.approval_token is not None,
            now=now,
            query=query,
            newer=newer,
            older=older,
        )

    @routes.get("/{number}/bars.json")
    def send_bars(number: Number, later: bool = False) -> Response:
        signal = _read_signal(store, number)
        row = signal.row
        if row.symbol is None or row.as_of is None:
            return no_bars("this signal names no symbol and day, so there is nothing to draw")
        if not re.fullmatch(SYMBOL_PATTERN, row.symbol):
            return no_bars(f"{row.symbol[:40]!r} is not a symbol that a desk takes")
        action = None if is_failed(row.status) else row.action
        call = Call.from_fields(decided_action(row), signal.data)
        return send_chart_bars(settings, row.symbol, row.as_of, action, later, call)

    @routes.get("/{number}/conversation")
    def show_conversation(request: Request, number: Number) -> Response:
        signal = _read_signal(store, number)
        known = facts.find(_mlflow_run_id(signal.text("run_id"))) or VersionFacts()
        stored = read_stored_messages(signal.row, known.prices)
        messages, problem = stored, None
        try:
            if signal.row.run_id is None:
                raise TrackingError("this signal names no run of MLflow")
            with raise_tracking_errors():
                turns = load_turns(
                    RunLog(signal.row.run_id).read_artifact(CONVERSATION_FILE).decode()
                )
            messages = with_seconds(messages_from_turns(turns, known.prices), stored)
        except (TrackingError, ValueError, RecursionError) as error:
            # The whole record can't be read: its short form is shown below the reason.
            problem = str(error)
        return renderer.part(
            request,
            "conversation.html",
            f"Conversation about {signal.row.symbol or signal.row.name}",
            (f"/signals/{number}", "The signal"),
            200 if problem is None else 404,
            agents=group_by_agent(messages, decided_action(signal.row), known.agents),
            problem=problem,
            is_complete=problem is None,
            row=signal.row,
        )

    return routes


def _read_signal(store: ArtifactStore, number: int) -> SignalRow:
    """Return a signal. Raises UnknownArtifactError, also for an artifact of another type."""
    artifact = store.get(number)
    if artifact.type != "signal":
        raise UnknownArtifactError(number)
    return SignalRow.from_artifact(artifact)


def _find_approval(
    approvals: ApprovalStore, row: Artifact
) -> tuple[ApprovalRequest | None, str | None]:
    """Return the approval of a signal, if it is still listed, and why it can't be read."""
    try:
        listed, _ = approvals.list_approvals()
    except BadInputError as error:
        return None, str(error)
    return approvals_by_signal(listed).get(signal_ids(row)), None


def _last_bar_of(chart: Artifact) -> date | None:
    """Return the day of the last bar of a chart's artifact; None where it does not say."""
    metadata: object = chart.metadata
    snapshot = metadata.get("market_data_snapshot") if isinstance(metadata, dict) else None
    bars = snapshot.get("bars") if isinstance(snapshot, dict) else None
    last = bars[-1] if isinstance(bars, list) and bars else None
    try:
        return date.fromisoformat(last["date"]) if isinstance(last, dict) else None
    except (KeyError, TypeError, ValueError):
        return None


def _mlflow_run_id(value: str | None) -> str | None:
    """Return `value` if it has the form of MLflow's ids, else None."""
    return value if value and re.fullmatch(RUN_ID_PATTERN, value) else None


def _version_page(signal: SignalRow) -> str | None:
    uri = re.fullmatch(VERSION_URI, signal.text("model_uri") or "")
    return f"/models/{uri[1]}/{uri[2]}" if uri else None


def _reliability_mark(signal: SignalRow) -> dict[str, object]:
    """Return the query that marks a signal's confidence in the reliability diagram."""
    # The diagram is about calls: a signal without one has no place in it.
    if signal.row.action == "HOLD":
        return {}
    calibrated = signal.number("confidence_score") if signal.calibrated else None
    return {"raw": signal.number("raw_confidence_score"), "said": calibrated}

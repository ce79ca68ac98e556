"""Pages of signals: the list, by signal or by execution, and one signal with all that led to it.

A signal's page shows the bars up to its decision, the reasoning, the conversation and the lineage.
Bars after the decision are sent only when they are asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from finagent_model.approvals import ApprovalStore
from finagent_model.audit.chain import CONVERSATION_FILE, load_turns
from finagent_model.backtesting.outcomes import describe_call
from finagent_model.config.roster import Price
from finagent_model.config.rules import ApprovalRequest
from finagent_model.data.market import Market
from finagent_model.decision.signal import Action, Status
from finagent_model.errors import (
    BadInputError,
    DataError,
    DataSourceError,
    InvalidBarsError,
    NoBarsError,
    TrackingError,
    UnknownArtifactError,
)
from finagent_model.market.bars import PRICES, BarSeries, to_datetime64
from finagent_model.pipeline.run_metadata import TrainingState
from finagent_model.reports.charts import CHART_BARS
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import MAX_INTEGER, Artifact, ArtifactFilter, SignalFilter
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._conversation import (
    Message,
    SignalRow,
    messages_from_rows,
    messages_from_turns,
)
from finagent_model.webui._rendering import Renderer, is_failed
from finagent_model.webui._run_pages import RUN_ID_PATTERN

PAGE_SIZE = 50
"""Signals or executions on a page."""
MAX_PAGE = 1_000_000
FILTER_FIELDS = ("symbol", "execution_id", "status", "action", "as_of_from", "as_of_to")
GROUP_BY_EXECUTION = "execution"
"""Value of the query's `group`."""
MAX_MESSAGES = 200
"""Messages of one decision; a desk of seven agents has some twenty."""
VERSION_URI = r"models:/([A-Za-z0-9_.-]{1,100})/([0-9]{1,9})"
SYMBOL_PATTERN = r"[^a-z\s]{1,20}"
"""A symbol that a desk takes. A foreign row may have any other text, which no vendor should get."""
MAX_LATER_BARS = 60
LATER_RANGE = timedelta(days=92)
"""Range after a decision in which a market has that many bars."""
Number = Annotated[int, Path(ge=1, le=MAX_INTEGER)]


@dataclass(frozen=True)
class SignalQuery:
    """A query for signals: the form's fields, the filter that they mean, and what is wrong."""

    fields: Mapping[str, str]
    criteria: SignalFilter
    page: int
    """From 1 on."""
    is_grouped: bool
    """Whether executions are asked for."""
    errors: Mapping[str, str]
    """Messages by field."""

    @classmethod
    def read(cls, params: Mapping[str, str]) -> SignalQuery:
        """Return the query of a URL's parameters; an empty field selects any signal."""
        fields = {name: params.get(name, "").strip() for name in FILTER_FIELDS}
        criteria, errors = SignalFilter(type="signal"), {}
        try:
            values = {name: text for name, text in fields.items() if text}
            criteria = SignalFilter.model_validate({"type": "signal", **values})
        except ValidationError as error:
            errors = {str(e["loc"][0]): f"{e['input']!r} can't be used" for e in error.errors()}
        # A number that no page has is the nearest page; the offset must fit the database's integer.
        number = params.get("page", "1")
        page = min(int(number), MAX_PAGE) if number.isdecimal() and number.isascii() else 1
        is_grouped = params.get("group") == GROUP_BY_EXECUTION
        return cls(fields, criteria, max(page, 1), is_grouped, errors)

    @property
    def offset(self) -> int:
        """How many rows come before this page."""
        return (self.page - 1) * PAGE_SIZE

    @property
    def link_params(self) -> dict[str, str]:
        """Parameters of a link to another page of the same query."""
        return {**self.fields, "group": GROUP_BY_EXECUTION if self.is_grouped else ""}


@dataclass(frozen=True)
class PendingCount:
    """How many decisions wait for an approval."""

    count: int | None
    """None: the approvals can't be read."""
    error: str = ""
    """Why they can't."""

    @classmethod
    def read(cls, approvals: ApprovalStore) -> PendingCount:
        """Count the pending approvals."""
        try:
            return cls(
                sum(approval.state == "pending" for approval in approvals.list_approvals()[0])
            )
        except BadInputError as error:
            return cls(None, str(error))


def list_routes(store: ArtifactStore, approvals: ApprovalStore, renderer: Renderer) -> APIRouter:
    """Return the route of the list of signals, or of their executions."""
    routes = APIRouter()

    def read_rows(query: SignalQuery) -> tuple[Any, int]:
        if query.errors:
            return (), 0
        if query.is_grouped:
            return store.list_executions(query.criteria, PAGE_SIZE, query.offset)
        page = store.list_artifacts(query.criteria, PAGE_SIZE, query.offset)
        return [SignalRow.from_artifact(row) for row in page.artifacts], page.total

    @routes.get("/signals")
    def list_signals(request: Request) -> Response:
        query = SignalQuery.read(request.query_params)
        rows, total = read_rows(query)
        return renderer.page(
            request,
            "signals.html",
            422 if query.errors else 200,
            query=query,
            rows=rows,
            total=total,
            statuses=[status.value for status in Status],
            actions=get_args(Action),
            pending=PendingCount.read(approvals),
        )

    return routes


def signal_routes(
    store: ArtifactStore, approvals: ApprovalStore, settings: Settings, renderer: Renderer
) -> APIRouter:
    """Return the routes of one signal: its page, its bars and its conversation."""
    routes = APIRouter(prefix="/signals/{number}")

    def read_stored_messages(row: Artifact) -> list[Message]:
        if not row.run_id:
            return []
        criteria = ArtifactFilter(type="llm", run_id=row.run_id)
        page = store.list_artifacts(criteria, MAX_MESSAGES, 0, "step")
        return messages_from_rows(page.artifacts)

    @routes.get("")
    def show_signal(request: Request, number: Number) -> Response:
        signal = _read_signal(store, number)
        approval, approval_error = _find_approval(approvals, signal.row)
        return renderer.page(
            request,
            "signal.html",
            signal=signal,
            row=signal.row,
            levels_data=[asdict(level) for level in signal.levels],
            training_run_id=_mlflow_run_id(signal.text("run_id")),
            run_id=_mlflow_run_id(signal.row.run_id),
            version_page=_version_page(signal),
            reliability_mark=_reliability_mark(signal),
            messages=read_stored_messages(signal.row),
            approval=approval,
            approval_error=approval_error,
            needs_token=settings.approval_token is not None,
        )

    @routes.get("/bars.json")
    def send_bars(number: Number, later: bool = False) -> Response:
        signal = _read_signal(store, number)
        row = signal.row
        if row.symbol is None or row.as_of is None:
            return _no_bars("this signal names no symbol and day, so there is nothing to draw")
        if not re.fullmatch(SYMBOL_PATTERN, row.symbol):
            return _no_bars(f"{row.symbol[:40]!r} is no symbol that a desk takes")
        try:
            market, now = Market.from_settings(settings), datetime.now(UTC)
            call = _read_call(signal)
            chart = read_chart_bars(market, row.symbol, row.as_of, later, now, call)
            action = None if is_failed(row.status) else row.action
            return JSONResponse(chart | {"action": action})
        except (DataError, InvalidBarsError) as error:
            return _no_bars(f"{error}. FINAGENT_BARS names the folder that the desk decided on.")

    @routes.get("/conversation")
    def show_conversation(request: Request, number: Number) -> Response:
        signal = _read_signal(store, number)
        messages, problem = [], None
        try:
            if signal.row.run_id is None:
                raise TrackingError("this signal names no run of MLflow")
            with raise_tracking_errors():
                turns = load_turns(
                    RunLog(signal.row.run_id).read_artifact(CONVERSATION_FILE).decode()
                )
            messages = messages_from_turns(turns, _read_prices(signal))
        except (TrackingError, ValueError, RecursionError) as error:
            # The whole record can't be read: its short form is shown below the reason.
            messages, problem = read_stored_messages(signal.row), str(error)
        return renderer.part(
            request,
            "conversation.html",
            f"Conversation about {signal.row.symbol or signal.row.name}",
            (f"/signals/{number}", "The signal"),
            200 if problem is None else 404,
            messages=messages,
            problem=problem,
            is_complete=problem is None,
            row=signal.row,
        )

    return routes


@dataclass(frozen=True)
class Call:
    """A decision to act, with its levels in prices of its own day."""

    action: Literal["BUY", "SELL"]
    stop: float | None
    target: float | None


def _read_call(signal: SignalRow) -> Call | None:
    """Return the call of a signal; None where nothing was to be done."""
    action = signal.row.action
    if is_failed(signal.row.status) or (action != "BUY" and action != "SELL"):
        return None
    levels = [signal.number(f"suggested_{name}") for name in ("stop_loss", "take_profit")]
    return Call(action, *(None if level is None else float(level) for level in levels))


def read_chart_bars(
    market: Market,
    symbol: str,
    as_of: datetime,
    later: bool,
    now: datetime,
    call: Call | None = None,
) -> dict[str, Any]:
    """Return `chart_bars` from the market's bars, and a `note` if later ones can't be had.

    Raises DataError and InvalidBarsError.
    """
    # Up to the decision the bar cache is enough; a vendor is asked for later bars alone.
    if not later or as_of >= now:
        return chart_bars(market.bars(symbol, as_of), as_of, later, call) | {"note": None}
    try:
        series, note = market.bars(symbol, as_of + min(LATER_RANGE, now - as_of)), None
    except DataSourceError as error:
        series, note = market.bars(symbol, as_of), f"Later bars can't be had: {error}."
    return chart_bars(series, as_of, later, call) | {"note": note}


def chart_bars(
    bars: BarSeries, as_of: datetime, later: bool, call: Call | None = None
) -> dict[str, Any]:
    """Return the bars up to a decision (`seen`) and, if asked for, after it; JSON-ready.

    `outcome` says what became of the call; None where nothing was to be done, or nobody asked.

    Raises NoBarsError if there is no bar up to the decision.
    """
    seen = int(np.searchsorted(bars.closed_at, to_datetime64(as_of), side="right"))
    if seen == 0:
        raise NoBarsError(bars.symbol, as_of, bars.close_time(0) if len(bars) else None)
    # In units of the last bar that the decision saw, so that its levels lie where they belong.
    factor = bars.growth_factor / bars.growth_factor[seen - 1]
    first, last = max(0, seen - CHART_BARS), seen + MAX_LATER_BARS if later else seen
    last, outcome = min(last, len(bars)), None
    if later and call is not None:
        frame = bars[seen:last].to_frame()[["closed_at", *PRICES]]
        frame[list(PRICES)] = frame[list(PRICES)].mul(factor[seen:last], axis=0)
        after = BarSeries.from_frame(bars.symbol, frame) if len(frame) else None
        outcome = describe_call(after, call.action, call.stop, call.target)
    return {
        "symbol": bars.symbol,
        "seen": [_bar_point(bars, factor[i], i) for i in range(first, seen)],
        "later": [_bar_point(bars, factor[i], i) for i in range(seen, last)],
        "outcome": outcome,
    }


def _bar_point(bars: BarSeries, factor: float, i: int) -> dict[str, Any]:
    volume = float(bars.volume[i])
    return {
        "time": f"{bars.close_time(i):%Y-%m-%d}",
        **{name: round(float(getattr(bars, name)[i] * factor), 4) for name in PRICES},
        "volume": round(volume) if math.isfinite(volume) else None,
    }


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
    # By both ids: another version asked the same question in the same conversation.
    ids = (row.key, row.metadata.get("conversation_id"))
    matches = (a for a in listed if (a.signal.signal_id, a.signal.conversation_id) == ids)
    return next(matches, None), None


def _read_prices(signal: SignalRow) -> Mapping[str, Price]:
    """Return the list prices that the desk was trained with; none if they can't be read."""
    run_id = _mlflow_run_id(signal.text("run_id"))
    try:
        return TrainingState.read(RunLog(run_id)).config.prices if run_id else {}
    except TrackingError:
        return {}


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


def _no_bars(message: str) -> Response:
    return JSONResponse({"message": message}, 404)

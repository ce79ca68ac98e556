"""Pages of signals: the list, by signal or by execution, and one signal with all that led to it.

A signal's page shows the bars up to its decision, the reasoning, the conversation and the lineage.
Bars after the decision are sent only when they are asked for.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
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
from finagent_model.reports.charts import CHART_BARS
from finagent_model.reports.signal_summary import OVER_AFTER, Circumstances, SignalSummary
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import (
    MAX_INTEGER,
    OURS,
    Artifact,
    ArtifactFilter,
    SignalFilter,
    SignalSort,
    SortColumn,
)
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._conversation import (
    ApprovalCard,
    Message,
    SignalRow,
    approval_card,
    group_by_agent,
    messages_from_rows,
    messages_from_turns,
    with_seconds,
)
from finagent_model.webui._rendering import Renderer, is_failed
from finagent_model.webui._run_pages import RUN_ID_PATTERN
from finagent_model.webui._stored_facts import (
    Outcome,
    OutcomeReader,
    VersionFacts,
    VersionFactsReader,
)

PAGE_SIZE = 50
"""Signals or executions on a page."""
MAX_PAGE = 1_000_000
MAX_EXPORT_ROWS = 10_000
"""Signals in one exported file."""
FILTER_FIELDS = (
    *("symbol", "execution_id", "status", "action", "as_of_from", "as_of_to"),
    *("version", "trained_by", "evidence", "text"),
)
GROUP_BY_EXECUTION = "execution"
"""Value of the query's `group`."""
CHIPS = {"": "All", "act": "To act", "waiting": "Waiting", "failed": "Failed", "today": "Today"}
"""Names by value of the query's `show`."""
SORTS: Mapping[str, SortColumn] = {
    "as_of": "as_of",
    "recorded": "recorded",
    "symbol": "symbol",
    "confidence": "confidence",
}
"""Columns by value of the query's `sort`; a minus before it sorts downwards."""
DEFAULT_SORT = "-as_of"
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
    show: str
    """A key of `CHIPS`."""
    sort: str
    """A key of `SORTS`, with a minus before it to sort downwards."""
    errors: Mapping[str, str]
    """Messages by field."""

    @classmethod
    def read(cls, params: Mapping[str, str], now: datetime) -> SignalQuery:
        """Return the query of a URL's parameters; an empty field selects any signal.

        What was recorded today is counted by the day of `now`, in UTC.
        """
        fields = {name: params.get(name, "").strip() for name in FILTER_FIELDS}
        show, sort = params.get("show", ""), params.get("sort", "") or DEFAULT_SORT
        criteria, errors = SignalFilter(type="signal"), {}
        try:
            values = {name: text for name, text in fields.items() if text}
            if show in ("act", "failed"):
                values["kind"] = show
            # What a signal says of a day long past is nothing to act on.
            if show == "act" and "as_of_from" not in values:
                values["as_of_from"] = f"{now - OVER_AFTER:%Y-%m-%d}"
            if show == "today":
                values["created_from"] = f"{now.astimezone(UTC):%Y-%m-%d}"
            criteria = SignalFilter.model_validate({"type": "signal", **values})
        except ValidationError as error:
            errors = {
                str(e["loc"][0]): f"{str(e['input'])[:80]!r} can't be used" for e in error.errors()
            }
        if show not in CHIPS:
            errors["show"] = f"{show[:80]!r} is none of: {', '.join(filter(None, CHIPS))}"
        if sort.removeprefix("-") not in SORTS:
            errors["sort"] = f"{sort[:80]!r} is none of: {', '.join(SORTS)}"
        # A number that no page has is the nearest page; the offset must fit the database's integer.
        number = params.get("page", "1")
        page = min(int(number), MAX_PAGE) if number.isdecimal() and number.isascii() else 1
        is_grouped = params.get("group") == GROUP_BY_EXECUTION
        return cls(fields, criteria, max(page, 1), is_grouped, show, sort, errors)

    @property
    def offset(self) -> int:
        """How many rows come before this page."""
        return (self.page - 1) * PAGE_SIZE

    @property
    def order(self) -> SignalSort:
        """The order of the signals."""
        column = SORTS.get(self.sort.removeprefix("-"), "as_of")
        return SignalSort(column, ascending=not self.sort.startswith("-"))

    @property
    def has_filter(self) -> bool:
        """Whether this query selects fewer than all signals."""
        return bool(self.show or any(self.fields.values()))

    @property
    def link_params(self) -> dict[str, str]:
        """Parameters of a link to another page of the same query."""
        return {
            **self.fields,
            "show": self.show,
            "sort": self.sort if self.sort != DEFAULT_SORT else "",
            "group": GROUP_BY_EXECUTION if self.is_grouped else "",
        }

    @property
    def signal_params(self) -> dict[str, str]:
        """Parameters of a link to a signal, so that its neighbours are those of this query."""
        return self.link_params | {"group": ""}

    def sorted_by(self, name: str) -> str:
        """Return the `sort` of a column's header: the other way round if it is in force."""
        return name if self.sort == f"-{name}" else f"-{name}"


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

    def listed(artifact: Artifact, now: datetime) -> ListedSignal:
        signal = SignalRow.from_artifact(artifact)
        row = signal.row
        outcome = outcomes.find(
            row.symbol if row.symbol and re.fullmatch(SYMBOL_PATTERN, row.symbol) else None,
            row.as_of,
            decided_action(row),
            signal.number("suggested_stop_loss"),
            signal.number("suggested_take_profit"),
        )
        return ListedSignal(signal, signal.summary(Circumstances(now=now)), outcome)

    def read_signals(
        query: SignalQuery, limit: int, offset: int, now: datetime
    ) -> tuple[list[ListedSignal], int]:
        page = store.list_signals(query.criteria, query.order, limit, offset)
        return [listed(row, now) for row in page.artifacts], page.total

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
            raise BadInputError("what waits for an approval is no signal yet; open /live")
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
            raise BadInputError(
                f"no signal has the key {key[:80]!r}; it may be in another database"
            )
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
            agents=group_by_agent(messages, decided_action(signal.row)),
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
            return _no_bars("this signal names no symbol and day, so there is nothing to draw")
        if not re.fullmatch(SYMBOL_PATTERN, row.symbol):
            return _no_bars(f"{row.symbol[:40]!r} is no symbol that a desk takes")
        action = None if is_failed(row.status) else row.action
        return send_chart_bars(settings, row.symbol, row.as_of, action, later, _read_call(signal))

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
            agents=group_by_agent(messages, decided_action(signal.row)),
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
    action = decided_action(signal.row)
    if action != "BUY" and action != "SELL":
        return None
    levels = [signal.number(f"suggested_{name}") for name in ("stop_loss", "take_profit")]
    return Call(action, *(None if level is None else float(level) for level in levels))


def send_chart_bars(
    settings: Settings,
    symbol: str,
    as_of: datetime,
    action: str | None,
    later: bool = False,
    call: Call | None = None,
) -> Response:
    """Return the bars of a price chart as JSON, or 404 with a message where there are none.

    `action` is what was decided on; None: nothing was. With `later`, what became of `call` is
    told.
    """
    try:
        market, now = Market.from_settings(settings), datetime.now(UTC)
        chart = read_chart_bars(market, symbol, as_of, later, now, call)
        return JSONResponse(chart | {"action": action})
    except (DataError, InvalidBarsError) as error:
        return _no_bars(f"{error}. FINAGENT_BARS names the folder that the desk decided on.")


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
        # Within a day: seconds since 1970, of which the chart makes times.
        "time": int(bars.close_time(i).timestamp())
        if bars.timeframe.is_intraday
        else f"{bars.close_time(i):%Y-%m-%d}",
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


def decided_action(row: Artifact) -> Action | None:
    """Return the action that a desk decided on; None where it decided nothing."""
    return row.action if row.status in (None, "ok") else None


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

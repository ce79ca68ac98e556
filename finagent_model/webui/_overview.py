"""The first page: what waits, what failed today, what is served and how good it is, how fresh the
data are, what was spent, and what is running.

Each part is read by itself: one that can't be read says so, and the others are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import yaml
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from finagent_model.agents.budget import read_daily_spending
from finagent_model.approvals import ApprovalStore
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.rules import ApprovalRequest, SpendingLimits
from finagent_model.desk.desk import SPENDING_FILE
from finagent_model.errors import BadInputError, LocalStateError, StoreError, TrackingError
from finagent_model.reports.signal_summary import Circumstances, SignalSummary
from finagent_model.settings import Settings
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.tracking import registry
from finagent_model.tracking.queries import RunRecord
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._conversation import SignalRow, approvals_by_signal, signal_ids
from finagent_model.webui._live import LiveRuns, read_or_error
from finagent_model.webui._model_pages import (
    DEFAULT_NAME,
    Tile,
    read_training_run,
    state_verdict,
    version_tiles,
)
from finagent_model.webui._rendering import Renderer
from finagent_model.webui._run_records import DecidedSymbols, read_gate

MAX_SYMBOLS = 30
"""Symbols of the watchlist."""
SPENDING_DAYS = 30
COST_DAYS = 7
"""Days whose decisions' cost is summed, which reads each of them."""
STALE_DAYS = 5
"""Calendar days after which daily bars are called old: a long weekend has four."""


@dataclass(frozen=True)
class Champion:
    """The version that is served, with what its training recorded."""

    version: registry.Version
    run: RunRecord | None
    """None: unknown, or removed."""
    verdict: str
    tiles: tuple[Tile, ...]
    spending: SpendingLimits | None
    """Its budgets; None: not recorded."""

    @property
    def symbols(self) -> list[str]:
        """Symbols that it was trained on, the first `MAX_SYMBOLS`; empty where unknown."""
        listed = (self.run.params.get("symbols") or "") if self.run else ""
        return [symbol for symbol in listed.split(",") if symbol][:MAX_SYMBOLS]

    @classmethod
    def read(cls, name: str) -> Champion | None:
        """Read the champion of `name`; None: no version is champion. Raises TrackingError."""
        with raise_tracking_errors():
            version = registry.find_champion(name)
        if version is None:
            return None
        run = read_training_run(version)
        gate = read_gate(run) if run else None
        return cls(
            version=version,
            run=run,
            verdict=state_verdict(version, run, gate),
            tiles=version_tiles(run) if run else (),
            spending=_read_spending_limits(run) if run else None,
        )


@dataclass(frozen=True)
class Freshness:
    """Until when the data of one source and kind reach that the champion was trained on."""

    kind: str
    source: str
    symbols: int
    oldest: datetime
    """Last record of the symbol that ends first."""
    newest: datetime

    def age_days(self, today: date) -> int:
        """Return the calendar days from the newest record to `today`."""
        return (today - self.newest.date()).days


def overview_routes(
    store: ArtifactStore, approvals: ApprovalStore, settings: Settings, renderer: Renderer
) -> APIRouter:
    """Return the route of the first page."""
    routes, decided_symbols = APIRouter(), DecidedSymbols()

    def read_approvals() -> list[ApprovalRequest]:
        # The most urgent first, as they are listed.
        return [each for each in approvals.list_approvals()[0] if each.state == "pending"]

    @routes.get("/")
    def show_overview(request: Request) -> Response:
        if request.query_params:
            # Filters of the list, which was the first page: links to it still lead there.
            return RedirectResponse(f"/signals?{request.url.query}", 307)
        now = datetime.now(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        pending, approvals_error = read_or_error(read_approvals, BadInputError)
        today, today_error = read_or_error(lambda: store.count_signals(midnight), StoreError)
        champion, champion_error = read_or_error(lambda: Champion.read(DEFAULT_NAME), TrackingError)
        symbols = champion.symbols if champion else []
        last, last_error = read_or_error(
            lambda: _read_watchlist(store, symbols, pending or (), now), StoreError
        )
        path = settings.home / SPENDING_FILE
        spent, spent_error = read_or_error(
            lambda: read_daily_spending(path, SPENDING_DAYS), LocalStateError
        )
        days = [midnight - timedelta(days=back) for back in range(COST_DAYS)]
        costs, costs_error = read_or_error(lambda: store.sum_costs(days), StoreError)
        # A store that does not answer is asked once: each question may wait for its time-out.
        work, work_error = None, champion_error
        if champion_error is None:
            work, work_error = read_or_error(lambda: LiveRuns.read(decided_symbols), TrackingError)
        return renderer.page(
            request,
            "overview.html",
            now=now,
            name=DEFAULT_NAME,
            approvals=pending,
            approvals_error=approvals_error,
            today=today,
            today_error=today_error,
            champion=champion,
            champion_error=champion_error,
            freshness=_measure_freshness(champion.run) if champion and champion.run else [],
            stale_days=STALE_DAYS,
            watchlist=last,
            watchlist_error=last_error,
            spent=spent,
            spent_error=spent_error,
            costs=costs,
            costs_error=costs_error,
            work=work,
            work_error=work_error,
        )

    return routes


@dataclass(frozen=True)
class WatchedSymbol:
    """A symbol with what the desk recorded last about it."""

    name: str
    signal: SignalRow | None = None
    """None: no decision is stored."""
    summary: SignalSummary | None = None


def _read_watchlist(
    store: ArtifactStore, symbols: list[str], pending: Sequence[ApprovalRequest], now: datetime
) -> list[WatchedSymbol]:
    """Return the last decision on each symbol. Raises StoreError."""
    rows = store.find_last_signals(symbols) if symbols else {}
    waiting, watched = approvals_by_signal(pending), []
    for symbol in symbols:
        if symbol not in rows:
            watched.append(WatchedSymbol(symbol))
            continue
        signal = SignalRow.from_artifact(rows[symbol])
        approval = waiting.get(signal_ids(signal.row))
        circumstances = Circumstances(now=now, waits_until=approval.deadline if approval else None)
        watched.append(WatchedSymbol(symbol, signal, signal.summary(circumstances)))
    return watched


def _measure_freshness(run: RunRecord) -> list[Freshness]:
    """Return how far the data of a training reach, by kind and source."""
    groups: dict[tuple[str, str], list[datetime]] = {}
    for dataset in run.datasets:
        groups.setdefault((dataset.kind, dataset.source), []).append(dataset.last)
    return [
        Freshness(kind, source, len(ends), min(ends), max(ends))
        for (kind, source), ends in sorted(groups.items())
    ]


def _read_spending_limits(run: RunRecord) -> SpendingLimits | None:
    """Return the budgets of a trained desk; None where they can't be read."""
    try:
        text = RunLog(run.run_id).read_artifact("config.yaml")
        return DeskConfig.model_validate(yaml.safe_load(text)).spending
    except (TrackingError, BadInputError, ValidationError, yaml.YAMLError, ValueError):
        return None

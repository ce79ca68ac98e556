"""Facts about signals from elsewhere than their rows: what became of them, and how their version
did in its test.

Nothing here asks a vendor: outcomes come from bars that this machine has already. MLflow gets a
second to answer; after that a page says that the fact is unknown, and the next one may have it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from finagent_model.backtesting.kernel import STOP, TARGET, FillRules
from finagent_model.config.roster import AgentRow, Price
from finagent_model.data.bar_cache import BarStore, CachedBars
from finagent_model.data.market import Market
from finagent_model.errors import FinagentError, TrackingError
from finagent_model.evaluation.accounting import SIDES, PlainOrders, adjust_plainly, follow_call
from finagent_model.market.bars import BarSeries, to_datetime64
from finagent_model.pipeline.run_metadata import TrainingState
from finagent_model.policy.trained_state import HORIZON
from finagent_model.settings import Settings
from finagent_model.tracking.queries import read_run
from finagent_model.tracking.runs import RunLog

MLFLOW_WAIT_S = 1.0
"""How long a page waits for MLflow."""
RETRY_S = 60.0
"""After a failed read, seconds until MLflow is asked again about the same training."""
BARS_FOR_S = 300.0
"""Seconds for which read bars are kept."""
LAST_BAR_WITHIN = timedelta(days=5)
"""Longest time from the last bar to a decision; a market is closed no longer than that."""
MAX_KEPT = 500
"""Symbols, or trainings, that are kept."""
CAME_TRUE = "evidence/came_true"
"""Metric of a training: the share of its calibrated test calls that made money."""
Ended = Literal["stop", "target", "time", "open", "not filled"]


@dataclass(frozen=True)
class Outcome:
    """What became of a call of its own, before costs, filled at the next open."""

    ended: Ended
    earned: float | None
    """Fraction of the invested amount; of an open call as of the last close. None: no bar yet."""
    bars: int
    """Bars from the fill to the end, or up to now."""

    @property
    def end(self) -> str:
        """How it ended, in words."""
        return {
            "stop": "stop hit",
            "target": "target hit",
            "time": f"after {HORIZON} bars",
        }.get(self.ended, self.ended)


def find_outcome(
    bars: BarSeries, as_of: datetime, action: str, stop: float | None, target: float | None
) -> Outcome | None:
    """Return what became of a BUY or SELL; None where it is unknown, or for another action.

    `stop` and `target` are prices as traded on the last bar up to `as_of`.
    """
    at = int(np.searchsorted(bars.closed_at, to_datetime64(as_of), side="right")) - 1
    side = SIDES.get(action, 0)
    if at < 0 or not side:
        return None
    # In units of the bar that was decided on, on which the levels are as traded.
    plain = adjust_plainly(bars[at : at + HORIZON + 2])
    nan = float("nan")
    levels = [nan if stop is None else stop], [nan if target is None else target]
    orders, rules = PlainOrders([side], [1.0], *levels), FillRules()
    later = len(plain.close) - 1
    if later == 0:
        # Bars that end long before the day say nothing of what came after it.
        is_recent = as_of - bars.close_time(at) <= LAST_BAR_WITHIN
        return Outcome("open", None, 0) if is_recent else None
    fill = plain.open[1]
    if any((fill - level) * side <= 0 for level in levels[0]) or any(
        (level - fill) * side <= 0 for level in levels[1]
    ):
        return Outcome("not filled", None, 0)
    ended = follow_call(plain, 0, orders, rules, HORIZON)
    if ended is None:
        return Outcome("open", side * (plain.close[-1] / fill - 1), later)
    ends: Mapping[int, Ended] = {STOP: "stop", TARGET: "target"}
    return Outcome(ends.get(ended.reason, "time"), ended.earned, ended.exit_bar)


class OutcomeReader:
    """Finds outcomes in the bars that this machine has; safe to use from several threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._bars: OrderedDict[str, tuple[float, BarSeries | None]] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self,
        symbol: str | None,
        as_of: datetime | None,
        action: str | None,
        stop: float | None,
        target: float | None,
    ) -> Outcome | None:
        """Return what became of a call; None where it is unknown."""
        if symbol is None or as_of is None or action not in ("BUY", "SELL"):
            return None
        bars = self._read(symbol)
        return None if bars is None else find_outcome(bars, as_of, action, stop, target)

    def _read(self, symbol: str) -> BarSeries | None:
        with self._lock:
            read_at, bars = self._bars.get(symbol, (-BARS_FOR_S, None))
            if self._clock() - read_at < BARS_FOR_S:
                return bars
            try:
                bars = self._local_bars(symbol)
            except (FinagentError, OSError):
                bars = None
            self._bars[symbol] = self._clock(), bars
            self._bars.move_to_end(symbol)
            if len(self._bars) > MAX_KEPT:
                self._bars.popitem(last=False)
            return bars

    def _local_bars(self, symbol: str) -> BarSeries | None:
        source = Market.from_settings(self._settings).source
        if not isinstance(source, CachedBars):
            return source.bars(symbol)
        store = BarStore(self._settings.home)
        snapshots = store.snapshots(symbol, source.name)
        return store.load(symbol, snapshots[-1].content_hash) if snapshots else None


@dataclass(frozen=True)
class VersionFacts:
    """What the run of a training says of the version that it made."""

    base_share: float | None = None
    """Share of the calibrated calls of its test that made money; None: there were none."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """List prices by model."""
    agents: tuple[AgentRow, ...] = ()
    """The desk that was trained; empty: unknown."""


class VersionFactsReader:
    """Reads facts of trainings, each once; safe to use from several threads."""

    def __init__(
        self,
        read: Callable[[str], VersionFacts] | None = None,
        wait_s: float = MLFLOW_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` returns a training's facts by its run, and raises TrackingError."""
        self._read, self._wait_s, self._clock = read or read_version_facts, wait_s, clock
        self._reads: OrderedDict[str, tuple[float, Future[VersionFacts]]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, "version-facts")

    def find(self, run_id: str | None) -> VersionFacts | None:
        """Return the facts of the training `run_id`; None where MLflow does not say in time."""
        if run_id is None:
            return None
        future = self._start(run_id)
        wait([future], self._wait_s)
        if not future.done() or future.exception() is not None:
            return None
        return future.result()

    def _start(self, run_id: str) -> Future[VersionFacts]:
        with self._lock:
            started_at, future = self._reads.get(run_id, (0.0, None))
            if future is not None and not self._is_stale(started_at, future):
                return future
            future = self._pool.submit(self._read, run_id)
            self._reads[run_id] = self._clock(), future
            self._reads.move_to_end(run_id)
            if len(self._reads) > MAX_KEPT:
                self._reads.popitem(last=False)
            return future

    def _is_stale(self, started_at: float, future: Future[VersionFacts]) -> bool:
        # What a finished training says never changes.
        has_failed = future.done() and future.exception() is not None
        return has_failed and self._clock() - started_at > RETRY_S


def read_version_facts(run_id: str) -> VersionFacts:
    """Return the facts that the training `run_id` left. Raises TrackingError."""
    run = read_run(run_id)
    share = run.metrics.get(CAME_TRUE)
    try:
        config = TrainingState.read(RunLog(run_id)).config
    except TrackingError:
        config = None
    return VersionFacts(
        share if share is not None and 0 <= share <= 1 else None,
        config.prices if config else {},
        config.agents if config else (),
    )

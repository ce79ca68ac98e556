"""Equity of trainings on days that no fit had seen, from the backtests below them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from finagent_model.errors import TrackingError
from finagent_model.market.bars import Floats
from finagent_model.pipeline.run_metadata import SYMBOL
from finagent_model.policy.policy import PolicyBook
from finagent_model.reports.figures import Figure, equity_figure
from finagent_model.reports.tearsheet import DailyReturns
from finagent_model.tracking.queries import RunRecord
from finagent_model.tracking.runs import RunLog
from finagent_model.webui._backtest_files import MAX_MS, read_facts
from finagent_model.webui._run_records import FinishedBacktests

CURVE_TONES = ("accent", "warn", "good", "bad", "ink")
"""Tones of the runs of a comparison, as many as may be compared."""


@dataclass(frozen=True, eq=False)
class EquityCurves:
    """Equity of a training on days that no fit had seen."""

    pool: DailyReturns | None
    """Of its symbols together; None: nothing was decided out of sample yet."""
    folds: tuple[str, ...]
    """Days from which a newer fit was in force; empty where that is not recorded."""
    incomplete: str | None
    """Which symbols are missing, in words; None: none."""

    @classmethod
    def from_run(cls, run: RunRecord) -> Self:
        """Read the curves of a training, of the symbols whose backtests can be read.

        Raises TrackingError where none of them can be read.
        """
        backtests = FinishedBacktests.from_run(run)
        facts, problems = {}, []
        for backtest in backtests.runs:
            try:
                facts[backtest.run_id] = read_facts(backtest.run_id)
            except TrackingError as error:
                problems.append((backtest.tags[SYMBOL], error))
        if problems and not facts:
            raise problems[0][1]
        if not facts:
            return cls(None, (), None)
        firsts = [_read_first_close(run_id) for run_id in facts]
        known = [first for first in firsts if first is not None]
        # Without the first bar of every symbol the curve begins a bar later, at what was earned.
        first = np.datetime64(min(known), "ms") if len(known) == len(firsts) else None
        incomplete = [] if backtests.incomplete is None else [backtests.incomplete]
        incomplete += [f"{symbol} is left out: {error}" for symbol, error in problems]
        pool = DailyReturns.pool(list(facts.values()), first)
        return cls(pool, _read_folds(run), "; ".join(incomplete) or None)


def draw_equity(curves: Sequence[EquityCurves]) -> Figure:
    """Return equity and drawdown of some trainings, and of holding what the first one traded."""
    pools = [each.pool for each in curves if each.pool is not None]
    days = sorted({day for pool in pools for day in pool.days})
    # One run is compared with buying and holding alone, so its curve is simply the desk's.
    names = [f"run {i}" for i in range(1, len(curves) + 1)] if len(curves) > 1 else ["desk"]
    lines = []
    if curves[0].pool is not None:
        held = curves[0].pool.curve(curves[0].pool.held)
        lines.append(("buy and hold", "soft", _on_calendar(days, curves[0].pool.days, held)))
    for name, tone, each in zip(names, CURVE_TONES, curves, strict=False):
        if each.pool is not None:
            values = each.pool.curve(each.pool.desk)
            lines.append((name, tone, _on_calendar(days, each.pool.days, values)))
    missing = [
        f"{name}: {each.incomplete}."
        for name, each in zip(names, curves, strict=True)
        if each.incomplete
    ]
    empty = "No equity curve: nothing was decided on out-of-sample days, or not yet."
    # Fits of several trainings can't be told apart as lines of one kind.
    folds = curves[0].folds if len(curves) == 1 else ()
    return equity_figure(days, lines, folds, incomplete=" ".join(missing), empty=empty)


def _on_calendar(days: Sequence[str], own_days: Sequence[str], values: Floats) -> Floats:
    """Return the value on each of `days`; nan where the curve has none."""
    by_day = dict(zip(own_days, values.tolist(), strict=True))
    return np.array([by_day.get(day, math.nan) for day in days])


def _read_first_close(run_id: str) -> int | None:
    """Return a backtest's first close in milliseconds since 1970; None: not recorded."""
    try:
        first = RunLog(run_id).read_json("outcome.json")["first_closed_at"]
    except (TrackingError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return first if isinstance(first, int) and abs(first) < MAX_MS else None


def _read_folds(run: RunRecord) -> tuple[str, ...]:
    # Not the whole state of the training: each of its files is a call of the store.
    try:
        policies = PolicyBook.model_validate(RunLog(run.run_id).read_json("policy.json"))
    except (TrackingError, ValueError, RecursionError):
        return ()
    return tuple(f"{start:%Y-%m-%d}" for start in policies.start_times)

"""The training itself: fit each fold, let the desk decide on the unseen part, stitch the unseen
parts together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from finagent_model.backtest.engine import BacktestResult, buy_and_hold, run_backtest
from finagent_model.backtest.metrics import summarise
from finagent_model.domain.bars import BarSeries, from_datetime64
from finagent_model.domain.decision import Decision
from finagent_model.domain.policy import PolicyBook, PolicyFit
from finagent_model.errors import ShortHistoryError
from finagent_model.training.folds import walk_forward
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import History, candidates, search

Progress = Callable[[int], Callable[[], object]]
"""Told how many fits there will be; gives back what to call after each."""


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """What the desk did on bars that no fit had seen, for one symbol."""

    bars: BarSeries
    decisions: tuple[Decision, ...]
    result: BacktestResult
    benchmark: BacktestResult
    """Buy and hold over the same bars, at the same costs."""

    def metrics(self) -> dict[str, float]:
        """The desk's, the benchmark's (`benchmark_…`), the shares of HOLD and of failures, and what
        the conversations cost at list price (nan where a price is unknown).
        """
        signals = [decision.signal for decision in self.decisions]
        cost = math.fsum(math.nan if s.cost_usd is None else s.cost_usd for s in signals)
        equity = self.result.equity
        return {
            **summarise(self.result),
            **{f"benchmark_{name}": value for name, value in summarise(self.benchmark).items()},
            "hold_share": float(np.mean([s.action == "HOLD" for s in signals])),
            "model_cost_usd": cost,
            "total_return_after_model_cost": float((equity[-1] - cost) / equity[0] - 1.0),
            "failed_share": float(np.mean([s.status.is_failure for s in signals])),
        }


def fit_policies(
    histories: Mapping[str, BarSeries],
    request: TrainRequest,
    progress: Progress = lambda fits: lambda: None,
) -> PolicyBook:
    """One fit a fold, all symbols pooled, and a last one on the newest bars for whatever comes
    after them.
    """
    calendar = np.unique(np.concatenate([bars.closed_at for bars in histories.values()]))
    folds = walk_forward(len(calendar), request.train_bars, request.test_bars, request.purge_bars)
    policies = candidates(request.candidates, request.seed)
    prepared = {symbol: History(bars) for symbol, bars in histories.items()}
    spans = [(fold.train_start, fold.train_stop, calendar[fold.test_start]) for fold in folds]
    spans.append((len(calendar) - request.train_bars, len(calendar), None))
    done = progress(len(spans))
    fits = []
    for start, stop, valid in spans:
        first, last = calendar[start], calendar[stop - 1]
        parts = [
            (history, part)
            for history in prepared.values()
            if (part := _between(history.bars, first, last)).stop - part.start
            > request.train_bars // 2
        ]
        if not parts:
            raise ShortHistoryError(
                f"no symbol has bars for half of the fold that ends {last}; choose other symbols"
            )
        chosen = search(parts, policies, request.costs, request.allow_short)
        until = from_datetime64(last)
        fits.append(
            PolicyFit(
                policy=chosen.policy,
                symbols=tuple(history.bars.symbol for history, _ in parts),
                fit_from=from_datetime64(first),
                fit_until=until,
                # A day's decision may be asked for as of any time after its close.
                valid_from=until + timedelta(days=1) if valid is None else from_datetime64(valid),
                configurations=chosen.configurations,
            )
        )
        done()
    return PolicyBook(fits=tuple(fits))


def unseen_part(bars: BarSeries, policies: PolicyBook) -> slice:
    """The bars on which some fit may speak that has not seen them."""
    first = policies.fits[0].valid_from
    return slice(
        int(np.searchsorted(bars.closed_at, np.datetime64(first.replace(tzinfo=None), "us"))),
        len(bars),
    )


def judge(bars: BarSeries, decisions: list[Decision], request: TrainRequest) -> OutOfSample:
    """Trade the decisions, one a bar of `bars`, and hold them against buying and holding."""
    return OutOfSample(
        bars=bars,
        decisions=tuple(decisions),
        result=run_backtest(
            bars,
            [decision.signal for decision in decisions],
            request.costs,
            cash=request.cash,
            allow_short=request.allow_short,
        ),
        benchmark=buy_and_hold(bars, request.costs, cash=request.cash),
    )


def _between(bars: BarSeries, first: np.datetime64, last: np.datetime64) -> slice:
    start = int(np.searchsorted(bars.closed_at, first, side="left"))
    return slice(start, int(np.searchsorted(bars.closed_at, last, side="right")))

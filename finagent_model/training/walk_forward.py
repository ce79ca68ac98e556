"""Walk-forward fitting: fit on a training window, skip the purge, decide on the next test window.

Only the stitched test windows count as a result (Pardo, The Evaluation and Optimization of Trading
Strategies, 2008). Folds are cut on the union of the symbols' sessions; a symbol that begins later
is part of those that it has bars for, and is decided on from where the policy in force has the bars
that it needs. A schedule says on which out-of-sample bars the desk is asked: every k bars, or where
the fitted policy's technical vote changes. Between two decisions the position is kept, with its
stop and target, so a schedule saves calls of a chat model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from finagent_model.backtesting.engine import buy_and_hold
from finagent_model.backtesting.metrics import MIN_DEVIATION, simple_returns
from finagent_model.backtesting.portfolio import pool_by_day
from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import BarSeries, common_timeframe, from_datetime64
from finagent_model.market.timeframe import Timeframe
from finagent_model.policy.policy import Policy, PolicyBook, PolicyFit
from finagent_model.statistics.resampling import MIN_PERIODS
from finagent_model.statistics.sharpe import probability_of_overfitting
from finagent_model.statistics.skill import alpha_contributions
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import (
    TECHNICAL_ONLY,
    PolicyScorer,
    ScoreSources,
    Trials,
    draw_candidates,
    search_policy,
)

PBO_BLOCKS = 10
"""Blocks of the out-of-sample bars for the probability of overfitting: 252 ways to halve them."""
FitProgress = Callable[[int], Callable[[], object]]
"""Called with the number of fits; returns what to call after each fit."""


@dataclass(frozen=True)
class Fold:
    """One fold's windows, as positions in the calendar of sessions; stops are exclusive."""

    train_start: int
    train_stop: int
    test_start: int
    test_stop: int


@dataclass(frozen=True)
class FittedPolicies:
    """The fitted policies, and how many were tried to get them."""

    policies: PolicyBook
    trials: Trials


@dataclass(frozen=True)
class _FitWindow:
    """Sessions that a fit looks at (`stop` is exclusive), and the moment from which it is valid."""

    start: int
    stop: int
    valid_from: datetime


def walk_forward_folds(sessions: int, train: int, test: int, purge: int) -> tuple[Fold, ...]:
    """Return the folds of `sessions` sessions, whose test windows follow each other without gap.

    The last test window may be shorter. Raises ShortHistoryError where there is no fold.
    """
    first = train + purge
    if sessions <= first:
        raise ShortHistoryError(
            f"{sessions} sessions can't hold train_bars={train} + purge_bars={purge} + 1; "
            "use more history or shorter windows"
        )
    return tuple(
        Fold(start - purge - train, start - purge, start, min(start + test, sessions))
        for start in range(first, sessions, test)
    )


def out_of_sample_part(bars: BarSeries, policies: PolicyBook) -> slice:
    """Return the part of `bars`, up to the last one, that begins where the first fit is valid and
    its policy has the bars that it needs; empty where there is no such bar.

    `bars` are the whole history. Raises UnknownSymbolError for a symbol without a fit.
    """
    starts = [part.start for _, part in _decidable_periods(bars, policies)]
    return slice(starts[0] if starts else len(bars), len(bars))


def policy_periods(bars: BarSeries, policies: PolicyBook) -> Iterator[tuple[PolicyFit, slice]]:
    """Yield each fit of the bars' symbol with the bars on which it is in force, oldest first.

    Fits without any such bar are left out.
    """
    fits = policies.fits_for(bars.symbol)
    # NumPy's moments have no zone; all of them are UTC.
    moments = [np.datetime64(fit.valid_from.replace(tzinfo=None), "us") for fit in fits]
    starts = [*np.searchsorted(bars.closed_at, moments).tolist(), len(bars)]
    for fit, (start, stop) in zip(fits, pairwise(starts), strict=True):
        if start < stop:
            yield fit, slice(start, stop)


def bars_to_decide(bars: BarSeries, policies: PolicyBook, request: TrainRequest) -> list[int]:
    """Return the out-of-sample positions in `bars` on which the desk is asked, in order.

    `bars` are the whole history. No look-ahead: whether a position is among them depends on bars up
    to it only.
    """
    periods = list(_decidable_periods(bars, policies))
    if request.schedule != "change":
        scheduled = range(out_of_sample_part(bars, policies).start, len(bars), request.schedule)
        return [i for i in scheduled if any(p.start <= i < p.stop for _, p in periods)]
    scorer, positions = PolicyScorer(bars), []
    for fit, part in periods:
        action = scorer.orders(fit.policy, part).action
        # A new fit is always asked: its levels and size may differ though its vote does not.
        changed = np.append(True, action[1:] != action[:-1])
        positions += (part.start + np.flatnonzero(changed)).tolist()
    return positions


def _decidable_periods(bars: BarSeries, policies: PolicyBook) -> Iterator[tuple[PolicyFit, slice]]:
    """Yield each fit with those of its bars by which it has the history that its policy needs."""
    # A symbol that began a moment ago has no past to decide by: such a day is no decision that
    # failed, but none at all.
    for fit, part in policy_periods(bars, policies):
        start = max(part.start, fit.policy.warm_up - 1)
        if start < part.stop:
            yield fit, slice(start, part.stop)


def fit_policies(
    histories: Mapping[str, BarSeries],
    request: TrainRequest,
    progress: FitProgress = lambda fits: lambda: None,
    jobs: int = 1,
    score_sources: ScoreSources = TECHNICAL_ONLY,
) -> FittedPolicies:
    """Fit one policy for each fold, and a last one on the newest bars for the days after them.

    `histories` are the bars by symbol; the request says whether symbols are pooled in one fit or
    fitted apart. `jobs` threads fit at a time; their number does not change the result. Raises
    ShortHistoryError where a symbol has no fit, or no out-of-sample bars, and MixedBarsError where
    their bars differ in length.
    """
    policies = draw_candidates(request.candidates, request.seed, score_sources)
    scorers = {symbol: PolicyScorer(bars, score_sources) for symbol, bars in histories.items()}
    fits = _fit_windows(scorers, policies, request, progress, jobs)
    timeframe = common_timeframe(list(histories.values()))
    book = PolicyBook(fits=fits, pooled=request.pooled, timeframe=timeframe.name)
    _require_out_of_sample(histories, book)
    return FittedPolicies(book, _count_trials(scorers, book, policies, request))


def refit_fold(
    histories: Mapping[str, BarSeries],
    request: TrainRequest,
    number: int,
    score_sources: ScoreSources = TECHNICAL_ONLY,
) -> tuple[PolicyFit, ...]:
    """Return the fits of one fold alone, as `fit_policies` makes them of the same histories.

    `number` counts from 0; the last is that of the newest bars.
    """
    policies = draw_candidates(request.candidates, request.seed, score_sources)
    scorers = {symbol: PolicyScorer(bars, score_sources) for symbol, bars in histories.items()}
    return _fit_windows(scorers, policies, request, folds=slice(number, number + 1))


def _fit_windows(
    scorers: Mapping[str, PolicyScorer],
    policies: tuple[Policy, ...],
    request: TrainRequest,
    progress: FitProgress = lambda fits: lambda: None,
    jobs: int = 1,
    folds: slice = slice(None),
) -> tuple[PolicyFit, ...]:
    """Return the fits of all folds, or of those asked for, oldest first."""
    timeframe = common_timeframe([scorer.bars for scorer in scorers.values()])
    calendar = np.unique(np.concatenate([s.bars.closed_at for s in scorers.values()]))
    tasks = [
        (window, parts)
        for window in _training_windows(calendar, request, timeframe)[folds]
        for parts in _training_parts(scorers, calendar, window, request)
    ]
    done = progress(len(tasks))

    def fit(window: _FitWindow, parts: list[tuple[PolicyScorer, slice]]) -> PolicyFit:
        chosen = search_policy(parts, policies, request.costs, request.allow_short)
        done()
        return PolicyFit(
            policy=chosen.policy,
            symbols=tuple(scorer.bars.symbol for scorer, _ in parts),
            fit_from=from_datetime64(calendar[window.start]),
            fit_until=from_datetime64(calendar[window.stop - 1]),
            valid_from=window.valid_from,
            configurations=chosen.configurations,
        )

    # `map` keeps the order of the tasks, whichever thread ends first.
    with ThreadPoolExecutor(jobs) as pool:
        return tuple(pool.map(lambda task: fit(*task), tasks))


def _training_windows(
    calendar: npt.NDArray[np.datetime64], request: TrainRequest, timeframe: Timeframe
) -> list[_FitWindow]:
    """Return each fold's training window, and a last one that ends with the newest session."""
    folds = walk_forward_folds(
        len(calendar), request.train_bars, request.test_bars, request.purge_bars
    )
    windows = [
        _FitWindow(fold.train_start, fold.train_stop, from_datetime64(calendar[fold.test_start]))
        for fold in folds
    ]
    # A bar's decision may be asked for as of any time after its close, so the last fit, which has
    # seen the newest bar, is valid from the day after it, or from the next of shorter bars.
    after = from_datetime64(calendar[-1]) + min(timedelta(days=1), timeframe.length)
    return [*windows, _FitWindow(len(calendar) - request.train_bars, len(calendar), after)]


def _training_parts(
    scorers: Mapping[str, PolicyScorer],
    calendar: npt.NDArray[np.datetime64],
    window: _FitWindow,
    request: TrainRequest,
) -> list[list[tuple[PolicyScorer, slice]]]:
    """Return what each fit of a window looks at: one fit of all symbols, or one a symbol.

    Symbols with bars for at most half of the window are left out.
    """
    first, last = calendar[window.start], calendar[window.stop - 1]
    parts = [
        (scorer, part)
        for scorer in scorers.values()
        if (part := _between(scorer.bars, first, last)).stop - part.start > request.train_bars // 2
    ]
    if not request.pooled:
        return [[part] for part in parts]
    if not parts:
        raise ShortHistoryError(
            f"no symbol has bars for half of the fold that ends {last}; choose other symbols"
        )
    return [parts]


def _require_out_of_sample(histories: Mapping[str, BarSeries], book: PolicyBook) -> None:
    """Raise ShortHistoryError unless each symbol has a fit and two out-of-sample bars."""
    for symbol, bars in histories.items():
        has_fit = book.pooled or any(symbol in fit.symbols for fit in book.fits)
        # Two bars: a decision at the first close is filled at the second's open.
        if not has_fit or len(bars) - out_of_sample_part(bars, book).start < 2:
            raise ShortHistoryError(
                f"{symbol} has {len(bars)} bars until {bars.show_time(-1)}: too few for "
                "a fit, the bars that its policy needs, and two that it has not seen; choose other "
                "symbols or shorter windows"
            )


def _count_trials(
    scorers: Mapping[str, PolicyScorer],
    book: PolicyBook,
    policies: Sequence[Policy],
    request: TrainRequest,
) -> Trials:
    """Return the number of trials, and how all candidates differ on the out-of-sample bars.

    What differs is skill: each candidate's contributions to alpha, in the equal-weighted portfolio
    of all symbols on one calendar, as the evidence takes the desk's.
    """
    days, skill = [], []
    for scorer in scorers.values():
        part = out_of_sample_part(scorer.bars, book)
        bars = scorer.bars[part]
        held = simple_returns(buy_and_hold(bars, request.costs, cash=1.0).equity)
        if len(held) < MIN_PERIODS or not np.std(held) > MIN_DEVIATION:
            continue
        equities = [
            scorer.equity(policy, part, request.costs, request.allow_short) for policy in policies
        ]
        days.append(bars.closed_at[1:].astype(np.int64))
        skill.append(
            np.column_stack([alpha_contributions(simple_returns(e), held) for e in equities])
        )
    trials = Trials(
        configurations=len(policies) * (1 if request.pooled else len(scorers)),
        scorings=sum(fit.configurations for fit in book.fits),
        sharpe_variance=None,
        overfitting=None,
    )
    if not days:
        return trials
    _, pooled = pool_by_day(days, skill)
    # A candidate that never traded is no competitor, and has no ratio; one that lost an account has
    # no returns after it.
    pooled = pooled[:, np.std(pooled, axis=0) > MIN_DEVIATION]
    if pooled.shape[1] < 2:
        return trials
    overfitting = (
        # Blocks of calendar time: the question is whether the best of one time is good at another.
        probability_of_overfitting(pooled, PBO_BLOCKS) if len(pooled) >= 2 * PBO_BLOCKS else np.nan
    )
    return trials.model_copy(
        update={
            "sharpe_variance": float(np.var(pooled.mean(axis=0) / pooled.std(axis=0))),
            "overfitting": overfitting if np.isfinite(overfitting) else None,
        }
    )


def _between(bars: BarSeries, first: np.datetime64, last: np.datetime64) -> slice:
    """Return the bars that close from `first` to `last`, both included."""
    start = int(np.searchsorted(bars.closed_at, first, side="left"))
    return slice(start, int(np.searchsorted(bars.closed_at, last, side="right")))

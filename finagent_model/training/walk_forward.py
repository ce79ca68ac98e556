"""Walk-forward folds: fit on [a, a+train), skip the purge, decide on the next `test` sessions, roll
on by `test`.

Only the stitched test parts count as a result (Pardo, The Evaluation and Optimization of Trading
Strategies, 2008).

On which bars of a backtest the desk is asked: every bar, every k bars, or where the fitted
policy's technical vote changes. A schedule saves calls of a chat model; between two decisions the
position is kept, with its stop and target.

The training itself: fit each fold, let the desk decide on the unseen part, stitch the unseen
parts together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from finagent_model.backtesting.metrics import simple_returns
from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import BarSeries, from_datetime64
from finagent_model.policy.policy import Policy, PolicyBook, PolicyFit
from finagent_model.statistics.sharpe import Moments, probability_of_overfitting
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import (
    TECHNICAL_ONLY,
    PolicyScorer,
    ScoreSources,
    Trials,
    candidates,
    search,
)


@dataclass(frozen=True)
class Fold:
    """Positions in the training's calendar of sessions; ends are exclusive."""

    train_start: int
    train_stop: int
    test_start: int
    test_stop: int


def walk_forward_folds(sessions: int, train: int, test: int, purge: int) -> tuple[Fold, ...]:
    """Test parts follow each other without gap; the last may be shorter. Raises ShortHistoryError
    if there is none.
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


def unseen_part(bars: BarSeries, policies: PolicyBook) -> slice:
    """The bars on which some fit may speak that has not seen them. Raises UnknownSymbolError."""
    first = policies.fits_for(bars.symbol)[0].valid_from
    return slice(
        int(np.searchsorted(bars.closed_at, np.datetime64(first.replace(tzinfo=None), "us"))),
        len(bars),
    )


def policy_periods(bars: BarSeries, policies: PolicyBook) -> Iterator[tuple[PolicyFit, slice]]:
    """Each fit that may speak about the bars' symbol, with the bars that are its own to decide on;
    fits without any are left out.
    """
    fits = policies.fits_for(bars.symbol)
    moments = [np.datetime64(fit.valid_from.replace(tzinfo=None), "us") for fit in fits]
    starts = [*np.searchsorted(bars.closed_at, moments).tolist(), len(bars)]
    for fit, (start, stop) in zip(fits, pairwise(starts), strict=True):
        if start < stop:
            yield fit, slice(start, stop)


def bars_to_decide(bars: BarSeries, policies: PolicyBook, request: TrainRequest) -> list[int]:
    """Positions in `bars`, in order, from the first that no fit has seen. Which they are depends on
    nothing after each of them.
    """
    if request.schedule != "change":
        part = unseen_part(bars, policies)
        return list(range(part.start, part.stop, request.schedule))
    history, found = PolicyScorer(bars), []
    for fit, part in policy_periods(bars, policies):
        action = history.orders(fit.policy, part).action
        changed = np.append(True, action[1:] != action[:-1])
        found += (part.start + np.flatnonzero(changed)).tolist()
    return found


PBO_BLOCKS = 10
"""Of the unseen bars, for the probability of overfitting: 252 ways to halve them."""
FitProgress = Callable[[int], Callable[[], object]]
"""Told how many fits there will be; gives back what to call after each."""


@dataclass(frozen=True)
class Fitted:
    """The policies, and all that was tried to get them."""

    policies: PolicyBook
    trials: Trials


@dataclass(frozen=True)
class _FitWindow:
    """Sessions of a fit, and from when it may speak."""

    start: int
    stop: int
    valid_from: datetime


def fit_policies(
    histories: Mapping[str, BarSeries],
    request: TrainRequest,
    progress: FitProgress = lambda fits: lambda: None,
    jobs: int = 1,
    voices: ScoreSources = TECHNICAL_ONLY,
) -> Fitted:
    """One fit a fold and a last one on the newest bars for whatever comes after them; all symbols
    pooled, or each on its own. Raises ShortHistoryError where a symbol is left without a fit or
    without bars that no fit has seen.
    """
    calendar = np.unique(np.concatenate([bars.closed_at for bars in histories.values()]))
    policies = candidates(request.candidates, request.seed, voices)
    prepared = {symbol: PolicyScorer(bars, voices) for symbol, bars in histories.items()}
    asked = [
        (span, parts)
        for span in _spans(calendar, request)
        for parts in _parts(prepared, calendar, span, request)
    ]
    done = progress(len(asked))

    def fit(span: _FitWindow, parts: list[tuple[PolicyScorer, slice]]) -> PolicyFit:
        chosen = search(parts, policies, request.costs, request.allow_short)
        done()
        return PolicyFit(
            policy=chosen.policy,
            symbols=tuple(history.bars.symbol for history, _ in parts),
            fit_from=from_datetime64(calendar[span.start]),
            fit_until=from_datetime64(calendar[span.stop - 1]),
            valid_from=span.valid_from,
            configurations=chosen.configurations,
        )

    with ThreadPoolExecutor(jobs) as pool:
        fits = tuple(pool.map(lambda task: fit(*task), asked))
    book = PolicyBook(fits=fits, pooled=request.pooled)
    _require_unseen(histories, book)
    return Fitted(book, _trials(prepared, book, policies, request))


def _spans(calendar: npt.NDArray[np.datetime64], request: TrainRequest) -> list[_FitWindow]:
    folds = walk_forward_folds(
        len(calendar), request.train_bars, request.test_bars, request.purge_bars
    )
    spans = [
        _FitWindow(fold.train_start, fold.train_stop, from_datetime64(calendar[fold.test_start]))
        for fold in folds
    ]
    # A day's decision may be asked for as of any time after its close.
    after = from_datetime64(calendar[-1]) + timedelta(days=1)
    return [*spans, _FitWindow(len(calendar) - request.train_bars, len(calendar), after)]


def _parts(
    histories: Mapping[str, PolicyScorer],
    calendar: npt.NDArray[np.datetime64],
    span: _FitWindow,
    request: TrainRequest,
) -> list[list[tuple[PolicyScorer, slice]]]:
    """What each fit of a span looks at: the symbols with bars for half of it, all or one by one."""
    first, last = calendar[span.start], calendar[span.stop - 1]
    parts = [
        (history, part)
        for history in histories.values()
        if (part := _between(history.bars, first, last)).stop - part.start > request.train_bars // 2
    ]
    if not request.pooled:
        return [[part] for part in parts]
    if not parts:
        raise ShortHistoryError(
            f"no symbol has bars for half of the fold that ends {last}; choose other symbols"
        )
    return [parts]


def _require_unseen(histories: Mapping[str, BarSeries], book: PolicyBook) -> None:
    for symbol, bars in histories.items():
        fits = [fit for fit in book.fits if book.pooled or symbol in fit.symbols]
        if not fits or len(bars) < 2 or fits[0].valid_from > bars.close_time(-2):
            raise ShortHistoryError(
                f"{symbol} has {len(bars)} bars until {bars.close_time(-1):%Y-%m-%d}: too few for "
                "a fit and two bars that it has not seen; choose other symbols or shorter windows"
            )


def _trials(
    histories: Mapping[str, PolicyScorer],
    book: PolicyBook,
    policies: Sequence[Policy],
    request: TrainRequest,
) -> Trials:
    """All policies over all unseen bars: how they differ there, and how well their best lasts."""
    returns = []
    for history in histories.values():
        part = unseen_part(history.bars, book)
        if part.stop - part.start > 2 * PBO_BLOCKS:
            equities = [
                history.equity(policy, part, request.costs, request.allow_short)
                for policy in policies
            ]
            returns.append(np.array([simple_returns(equity) for equity in equities]).T)
    ratios = (
        [Moments.from_returns(column).sharpe for column in np.vstack(returns).T] if returns else []
    )
    defined = [ratio for ratio in ratios if np.isfinite(ratio)]
    # Symbols one under the other: the question is whether the best of one time is good at another.
    overfit = probability_of_overfitting(np.vstack(returns), PBO_BLOCKS) if returns else np.nan
    return Trials(
        configurations=len(policies) * (1 if request.pooled else len(histories)),
        scorings=sum(fit.configurations for fit in book.fits),
        sharpe_variance=float(np.var(defined)) if len(defined) > 1 else None,
        overfitting=overfit if np.isfinite(overfit) else None,
    )


def _between(bars: BarSeries, first: np.datetime64, last: np.datetime64) -> slice:
    start = int(np.searchsorted(bars.closed_at, first, side="left"))
    return slice(start, int(np.searchsorted(bars.closed_at, last, side="right")))

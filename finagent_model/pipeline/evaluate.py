"""Judge any decider as a desk is judged: walk-forward, costs, statistics, gate and report.

The decider sees one market view at a time, and each fold's days are decided by what was fitted
before them. What it keeps to itself between two decisions can't be seen from outside, so the gate
asks some days again, in another order, and wants equal answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finagent_model._base import Progress, no_progress
from finagent_model.config.rules import GateRules
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decider, Decision, TrainableDecider
from finagent_model.decision.ledger import LedgerRow, ledger_row
from finagent_model.errors import BadInputError, ShortHistoryError
from finagent_model.evaluation.calibrate import ConfidenceRecord, calibrate, confidence_record
from finagent_model.evaluation.evidence import Evidence, SymbolFacts, assess
from finagent_model.evaluation.gate import GateReport, judge_decider
from finagent_model.evaluation.out_of_sample import (
    OutOfSample,
    decide_views,
    decide_walk_forward,
    facts_of,
    judge_out_of_sample,
)
from finagent_model.market.bars import BarSeries, from_datetime64
from finagent_model.policy.trained_state import CalibrationBook
from finagent_model.reports.report import render_report
from finagent_model.training.request import EvaluationRequest
from finagent_model.training.search import Trials
from finagent_model.training.walk_forward import Fold, walk_forward_folds

REPEATS = 5
"""Days of each symbol that are asked again."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a decider did on days that it had not seen, and what may be concluded from it."""

    author: str
    """The decider's name, as its signals give it."""
    request: EvaluationRequest
    out_of_sample: Mapping[str, OutOfSample]
    """By symbol: decisions, trades and equity."""
    facts: Mapping[str, SymbolFacts]
    """By symbol: what the judgement of chance knows."""
    folds: Mapping[str, Sequence[slice]]
    """By symbol: the bars of its unseen part that each fold decided on."""
    calibrations: CalibrationBook
    confidence: ConfidenceRecord
    gate: GateReport

    @property
    def evidence(self) -> Evidence:
        """The grade of evidence of an edge after costs, with every number behind it."""
        return self.gate.evidence

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by symbol, the benchmark's as `benchmark_...`; nan where undefined."""
        return {symbol: unseen.metrics() for symbol, unseen in self.out_of_sample.items()}

    @property
    def report(self) -> str:
        """The report in Markdown, as a training writes it; its first line is the grade."""
        return render_report(self.metrics, self.author, self.evidence, self.calibrations.fits[-1])


def evaluate_decider(
    decider: Decider | TrainableDecider,
    market: Market,
    request: EvaluationRequest,
    rules: GateRules,
    *,
    configurations: int = 1,
    progress: Progress = no_progress,
) -> Evaluation:
    """Walk `decider` forward over the request's symbols, and judge it.

    A decider with a method `fit` is fitted anew in each fold, on bars that end with the fold's
    training window. The days decided on are those that a training with the same windows leaves
    unseen. `configurations` counts the variants that were tried before this one was chosen: the
    best of many is partly luck, and the deflated Sharpe ratio takes that off.

    Raises DataError where a symbol has no bars, ShortHistoryError where no day is left unseen, and
    BadInputError for a schedule that only a desk can follow.
    """
    if request.schedule == "change":
        raise BadInputError(
            "schedule 'change' follows a desk's fitted policy; give a number of bars"
        )
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    calendar = np.unique(np.concatenate([bars.closed_at for bars in histories.values()]))
    folds = walk_forward_folds(
        len(calendar), request.train_bars, request.test_bars, request.purge_bars
    )
    periods = {s: _periods(bars, calendar, folds) for s, bars in histories.items()}
    deciders = _fit_folds(decider, histories, calendar, folds)
    unseen = {
        s: _decide(deciders, market, s, periods[s], request.schedule, request, progress)
        for s in request.symbols
    }
    calls = [call for each in unseen.values() for call in each.closed_calls()]
    moments = [from_datetime64(calendar[fold.test_start]) for fold in folds]
    calibrations = calibrate(calls, moments)
    confidence = confidence_record(calls, calibrations)
    facts = {symbol: facts_of(each, request.seed) for symbol, each in unseen.items()}
    trials = Trials(
        configurations=configurations,
        scorings=configurations,
        # How the variants' ratios differ is not known here. `assess` caps the variance at that of
        # independent variants without merit, which is the strictest hurdle of its kind.
        sharpe_variance=1.0,
        overfitting=None,
    )
    gate = judge_decider(
        {symbol: each.metrics() for symbol, each in unseen.items()},
        {s: [ledger_row(d.signal) for d in each.decisions] for s, each in unseen.items()},
        _ask_again(deciders, market, unseen, periods),
        assess(list(facts.values()), trials, rules, confidence, seed=request.seed),
        rules,
    )
    return Evaluation(
        author=next(iter(unseen.values())).decisions[0].signal.model_used,
        request=request,
        out_of_sample=unseen,
        facts=facts,
        folds={
            symbol: [slice(p.start - parts[0].start, p.stop - parts[0].start) for p in parts]
            for symbol, parts in periods.items()
        },
        calibrations=calibrations,
        confidence=confidence,
        gate=gate,
    )


def _fit_folds(
    decider: Decider | TrainableDecider,
    histories: Mapping[str, BarSeries],
    calendar: npt.NDArray[np.datetime64],
    folds: Sequence[Fold],
) -> list[Decider]:
    """Return who decides in each fold."""
    if not isinstance(decider, TrainableDecider):
        return [decider for _ in folds]
    deciders = []
    for fold in folds:
        first, last = calendar[fold.train_start], calendar[fold.train_stop - 1]
        windows = {}
        for symbol, bars in histories.items():
            start = int(np.searchsorted(bars.closed_at, first))
            stop = int(np.searchsorted(bars.closed_at, last, side="right"))
            if start < stop:
                # Cut, not masked: a fit that looks ahead finds no bar there.
                windows[symbol] = bars[start:stop]
        deciders.append(decider.fit(windows))
    return deciders


def _periods(
    bars: BarSeries, calendar: npt.NDArray[np.datetime64], folds: Sequence[Fold]
) -> list[slice]:
    """Return the bars that each fold decides on; an empty slice where the symbol has none."""
    starts = [int(np.searchsorted(bars.closed_at, calendar[f.test_start])) for f in folds]
    if len(bars) - starts[0] < 2:
        raise ShortHistoryError(
            f"{bars.symbol} has {len(bars)} bars until {bars.closed(-1):%Y-%m-%d}: too few for a "
            "training window and two bars after it; choose other symbols or shorter windows"
        )
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(bars)], strict=True)]


def _decide(
    deciders: Sequence[Decider],
    market: Market,
    symbol: str,
    periods: Sequence[slice],
    every: int,
    request: EvaluationRequest,
    progress: Progress,
) -> OutOfSample:
    bars, first = market.bars(symbol), periods[0].start
    positions = range(first, len(bars), every)

    def decider_of(number: int, _: Sequence[Decision]) -> Decider:
        return deciders[number]

    done = progress(f"deciding on {symbol}", len(positions))
    decisions = decide_walk_forward(market, symbol, periods, positions, decider_of, done)
    return judge_out_of_sample(bars[first:], [i - first for i in positions], decisions, request)


def _ask_again(
    deciders: Sequence[Decider],
    market: Market,
    unseen: Mapping[str, OutOfSample],
    periods: Mapping[str, Sequence[slice]],
) -> dict[str, list[LedgerRow]]:
    """Return some days' rows, decided again from the last day to the first."""
    again: dict[str, list[LedgerRow]] = {}
    for symbol, each in unseen.items():
        first = periods[symbol][0].start
        chosen = np.unique(np.linspace(0, len(each.positions) - 1, REPEATS).astype(int))
        again[symbol] = []
        for index in chosen[::-1]:
            position = first + each.positions[index]
            number = next(n for n, p in enumerate(periods[symbol]) if p.start <= position < p.stop)
            views = market.daily_views(symbol, [position])
            [decision] = decide_views(deciders[number], views, lambda: None)
            again[symbol].append(ledger_row(decision.signal))
    return again

"""Train again and compare: on bars cut at each fold's end, and on bars corrupted after it.

Two experiments of `finagent verify --deep`. The first plans the folds by itself and searches each
policy on bars that end where its fold ends: what isn't there can't be looked at. The second repeats
the training's own steps on a history whose future is nonsense: what was learned by then must not
change by a bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from finagent_model._base import Check
from finagent_model._progress import Progress, no_progress
from finagent_model.evaluation.calibrate import calibrate
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest, label_decision_outcomes
from finagent_model.evaluation.probes import corrupt_after
from finagent_model.market.bars import BarSeries, from_datetime64, to_datetime64
from finagent_model.policy.policy import Policy, PolicyBook, PolicyFit
from finagent_model.policy.trained_state import TradeOutcome, TrainedState
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import (
    TECHNICAL_ONLY,
    PolicyScorer,
    ScoreSources,
    draw_candidates,
    search_policy,
)
from finagent_model.training.walk_forward import refit_fold

Histories = Mapping[str, BarSeries]


class _PlannedFold(NamedTuple):
    """The sessions that a fit may look at, both included, and the moment from which it decides."""

    first: datetime
    last: datetime
    valid_from: datetime


def check_policies_refitted(
    histories: Histories,
    policies: PolicyBook,
    request: TrainRequest,
    score_sources: ScoreSources = TECHNICAL_ONLY,
    progress: Progress = no_progress,
) -> Check:
    """Check that each policy comes out of a search on bars that end with its fold, to the bit.

    Also its dates: the folds are planned again from the request.
    """
    folds = _plan_folds(histories, request)
    done = progress("refitting policies on cut bars", len(folds))
    expected: list[PolicyFit] = []
    for fold in folds:
        expected += _fit_on_cut_bars(histories, fold, request, score_sources)
        done()
    wrong = [
        f"the fit of {', '.join(ours.symbols)} for {ours.valid_from:%Y-%m-%d} has another "
        f"{_differing(ours, theirs)}"
        for ours, theirs in zip(expected, policies.fits, strict=False)
        if ours != theirs
    ]
    if len(expected) != len(policies.fits):
        wrong.append(f"{len(policies.fits)} fits are packaged, {len(expected)} planned")
    summary = f"{len(expected)} fits on bars cut at their fold's end"
    if wrong:
        summary += f"; {len(wrong)} differ, first: {wrong[0]}"
    return Check(name="fitted_again", passed=not wrong, found=summary)


def check_training_causal(
    histories: Histories,
    state: TrainedState,
    backtests: Sequence[OutOfSampleBacktest],
    request: TrainRequest,
    score_sources: ScoreSources = TECHNICAL_ONLY,
    progress: Progress = no_progress,
) -> Check:
    """Check that training again on bars corrupted after each fold's end changes nothing before it.

    Compared are the fold's policies, the outcomes that had closed by the start of its test window,
    and the calibration that was fitted on them.
    """
    folds, wrong = _plan_folds(histories, request), list[str]()
    calls = [call for each in backtests for call in each.trade_outcomes()]
    done = progress("training on bars without a future", len(folds))
    for number, fold in enumerate(folds):
        day = f"{fold.last:%Y-%m-%d}"
        corrupted = {
            s: corrupt_after(bars, _closed(bars, fold.last)) for s, bars in histories.items()
        }
        sources = _corrupt_scores(score_sources, histories, fold.last)
        fits = refit_fold(corrupted, request, number, sources)
        if fits != tuple(fit for fit in state.policies.fits if fit.valid_from == fold.valid_from):
            wrong.append(f"bars after {day} change the policy that was fitted until then")
        wrong += [
            f"bars after {fold.valid_from:%Y-%m-%d} change outcomes of {each.bars.symbol} that had "
            "closed before"
            for each in backtests
            if not _outcomes_hold(each, fold.valid_from)
        ]
        if not _calibrations_hold(state, calls, fold.valid_from):
            wrong.append(f"outcomes after {fold.valid_from:%Y-%m-%d} change its calibration")
        done()
    summary = f"{len(folds)} folds trained on bars that are nonsense after their end"
    if wrong:
        summary += f"; {len(wrong)} know it, first: {wrong[0]}"
    return Check(name="training_causal", passed=not wrong, found=summary)


def _plan_folds(histories: Histories, request: TrainRequest) -> list[_PlannedFold]:
    """Return the folds that the request means, and the last fit on the newest bars."""
    closes = sorted({moment for bars in histories.values() for moment in bars.closed_at.tolist()})
    # NumPy's moments have no zone; all of them are UTC.
    sessions = [from_datetime64(np.datetime64(moment)) for moment in closes]
    train, purge = request.train_bars, request.purge_bars
    folds = [
        _PlannedFold(sessions[test - purge - train], sessions[test - purge - 1], sessions[test])
        for test in range(train + purge, len(sessions), request.test_bars)
    ]
    # Bars of less than a day: from the next one on.
    bar = min(bars.timeframe.length for bars in histories.values())
    after = sessions[-1] + min(timedelta(days=1), bar)
    newest = _PlannedFold(sessions[-train], sessions[-1], after)
    return [*folds, newest]


def _fit_on_cut_bars(
    histories: Histories, fold: _PlannedFold, request: TrainRequest, score_sources: ScoreSources
) -> list[PolicyFit]:
    """Return the fold's fits, searched on copies of the bars that end with the fold."""
    # `until` copies: no slice of the whole history is left to reach later bars by.
    cut = {s: bars.until(fold.last) for s, bars in histories.items()}
    external = {s: scores[: len(cut[s])].copy() for s, scores in score_sources.external.items()}
    sources = replace(score_sources, external=external)
    parts = []
    for bars in cut.values():
        start = int(np.searchsorted(bars.closed_at, to_datetime64(fold.first)))
        # A symbol takes part in a fold that it has bars for more than half of.
        if len(bars) - start > request.train_bars // 2:
            parts.append((PolicyScorer(bars, sources), slice(start, len(bars))))
    candidates = draw_candidates(request.candidates, request.seed, sources)
    groups = [parts] if request.pooled else [[part] for part in parts]
    return [_fit(group, candidates, fold, request) for group in groups]


def _fit(
    parts: list[tuple[PolicyScorer, slice]],
    candidates: tuple[Policy, ...],
    fold: _PlannedFold,
    request: TrainRequest,
) -> PolicyFit:
    chosen = search_policy(parts, candidates, request.costs, request.allow_short)
    return PolicyFit(
        policy=chosen.policy,
        symbols=tuple(scorer.bars.symbol for scorer, _ in parts),
        fit_from=fold.first,
        fit_until=fold.last,
        valid_from=fold.valid_from,
        configurations=chosen.configurations,
    )


def _differing(ours: PolicyFit, theirs: PolicyFit) -> str:
    names = [n for n in PolicyFit.model_fields if getattr(ours, n) != getattr(theirs, n)]
    return ", ".join(names)


def _corrupt_scores(
    score_sources: ScoreSources, histories: Histories, last: datetime
) -> ScoreSources:
    """Return the sources with an external analyst that says nonsense after `last`."""
    external = {}
    for symbol, scores in score_sources.external.items():
        cut, altered = _closed(histories[symbol], last), scores.copy()
        altered[cut:] = np.random.default_rng(cut).uniform(-1, 1, len(scores) - cut)
        external[symbol] = altered
    return replace(score_sources, external=external)


def _outcomes_hold(backtest: OutOfSampleBacktest, moment: datetime) -> bool:
    """Return whether outcomes that had closed by `moment` stay the same with other bars later."""
    bars, cut = backtest.bars, _closed(backtest.bars, moment)
    labelled = (
        label_decision_outcomes(each, backtest.positions, backtest.decisions, backtest.rules)
        for each in (bars, corrupt_after(bars, cut))
    )
    known = [
        # The weight counts later calls that overlap, and so may change.
        [call.model_copy(update={"weight": 1.0}) for call in calls if call.closed_at <= moment]
        for calls in labelled
    ]
    return known[0] == known[1]


def _calibrations_hold(
    state: TrainedState, calls: Sequence[TradeOutcome], moment: datetime
) -> bool:
    """Return whether calibrations up to `moment` ignore how calls ended that closed later."""
    if state.calibrations is None:
        return True
    altered = [
        call if call.closed_at <= moment else call.model_copy(update={"earned": -call.earned})
        for call in calls
    ]
    starts = [start for start in state.policies.start_times if start <= moment]
    return calibrate(altered, starts).fits == state.calibrations.fits[: len(starts)]


def _closed(bars: BarSeries, moment: datetime) -> int:
    """Return the number of bars that had closed by `moment`."""
    return int(np.searchsorted(bars.closed_at, to_datetime64(moment), side="right"))

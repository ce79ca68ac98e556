"""Walk-forward folds and fits: no fit sees what it decides on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from finagent_model.backtesting.engine import Costs, buy_and_hold
from finagent_model.data.bundled import BundledBars
from finagent_model.errors import BadInputError, BeforeFirstFitError, ShortHistoryError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.policy.policy import Policy
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import draw_candidates, grid_coordinates, smooth_scores
from finagent_model.training.walk_forward import (
    fit_policies,
    out_of_sample_part,
    walk_forward_folds,
)

SMALL = TrainRequest(symbols=("FB",), train_bars=120, test_bars=30, candidates=24)


@pytest.fixture(scope="module")
def fb() -> BarSeries:
    return BundledBars().bars("FB")


def test_walk_forward_folds_are_contiguous_with_purge() -> None:
    folds = walk_forward_folds(1000, train=500, test=120, purge=5)
    assert folds[0].test_start == 505
    for one, two in pairwise(folds):
        assert one.test_stop == two.test_start
    assert folds[-1].test_stop == 1000
    for fold in folds:
        assert fold.train_stop - fold.train_start == 500
        assert fold.test_start - fold.train_stop == 5


def test_walk_forward_folds_refuse_short_history() -> None:
    with pytest.raises(ShortHistoryError, match="505 sessions"):
        walk_forward_folds(505, train=500, test=120, purge=5)


def test_draw_candidates_is_distinct_for_a_seed() -> None:
    assert len(set(draw_candidates(50, 7))) == 50
    assert draw_candidates(50, 7) == draw_candidates(50, 7) != draw_candidates(50, 8)


def test_policy_fit_is_valid_only_after_its_training_window(fb: BarSeries) -> None:
    book = fit_policies({"FB": fb}, SMALL).policies
    assert len(book.fits) == 4
    for fit in book.fits:
        assert fit.fit_from < fit.fit_until < fit.valid_from
    with pytest.raises(BeforeFirstFitError, match="ask for a later date"):
        book.at(parse_as_of("2012-06-01"), "FB")
    assert out_of_sample_part(fb, book) == slice(125, 196)


def test_fit_policies_ignores_bars_after_training_window(fb: BarSeries) -> None:
    frame = fb.to_frame()
    later = frame.index >= 150
    scale = np.random.default_rng(1).uniform(0.5, 2.0, later.sum())
    for column in ("open", "high", "low", "close"):
        frame.loc[later, column] *= scale
    altered = BarSeries.from_frame("FB", frame)
    fits = [fit_policies({"FB": bars}, SMALL).policies.fits for bars in (fb, altered)]
    assert fits[0][:2] == fits[1][:2]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"train_bars": "many"},
            "train_bars: .* allowed: at least 120, at most 10000; default: 504",
        ),
        ({"train_bars": 3}, "train_bars: must be at least 120, not 3"),
        ({"mode": "dry"}, "mode: .*one of"),
        ({"symbols": "A" * 21}, "symbols: .* has 21 characters; at most 20"),
        ({"symbols": "GOOG,GOOG"}, "named twice"),
        ({"commission": 1}, "commission: .*below 0.1"),
        ({"colour": "red"}, "unknown parameter 'colour'; there is: symbols, train_bars"),
    ],
)
def test_train_request_error_names_field_with_bounds(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        TrainRequest.parse(**params)


def test_smooth_scores_prefers_plateau_to_peak() -> None:
    near = [Policy(threshold=t, stop_atr=s) for t in (0.05, 0.1, 0.2) for s in (2.0, 3.0)]
    corner = {"fast": 50, "slow": 200, "rsi": 21, "channel": 100, "target_atr": 20.0}
    far = [Policy.model_validate(corner | {"threshold": t}) for t in (0.05, 0.1, 0.2, 0.3)]
    lone = Policy.model_validate(corner | {"threshold": 0.4})
    policies = (*near, *far, lone)
    scores = np.array([1.0] * 6 + [0.0] * 4 + [1.8])
    averaged = smooth_scores(scores, grid_coordinates(policies))
    assert int(np.argmax(scores)) == 10
    assert int(np.argmax(averaged)) < 6
    assert averaged[0] == pytest.approx(1.0)


def test_smooth_scores_keeps_nan_of_policy_without_trades() -> None:
    policies = tuple(Policy(threshold=t) for t in (0.05, 0.1, 0.2, 0.3, 0.4))
    averaged = smooth_scores(np.array([1.0, np.nan, 1.0, 1.0, 1.0]), grid_coordinates(policies))
    assert np.isnan(averaged).tolist() == [False, True, False, False, False]
    assert averaged[0] == pytest.approx(0.8)


def test_buy_and_hold_includes_corporate_actions() -> None:
    aapl = BundledBars().bars("AAPL")
    free = Costs(commission=0, slippage=0)
    held = buy_and_hold(aapl, free, cash=1.0).equity[-1]
    grown = aapl.close[-1] * aapl.growth_factor[-1] / (aapl.open[1] * aapl.growth_factor[1])
    assert held == pytest.approx(grown)
    assert 12 < held < 15  # the raw price rose to 3.3 times

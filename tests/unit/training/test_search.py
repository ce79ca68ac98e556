"""The search of a policy: what must not change its choice, and how ties end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting.engine import Costs
from finagent_model.data.bundled import BundledBars
from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import PRICES, BarSeries, Floats
from finagent_model.policy.policy import Policy
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import (
    PolicyScorer,
    draw_candidates,
    robust_score,
    search_policy,
    select_policy,
)
from finagent_model.training.walk_forward import fit_policies

# Few candidates share their neighbours, so that nearly every fit ends in a tie.
TIED = TrainRequest(symbols=("AAPL",), train_bars=252, test_bars=63, candidates=8)
MONEY = [*PRICES, "dividend"]


@pytest.fixture(scope="module")
def apple() -> BarSeries:
    return BundledBars().bars("AAPL")[:1000]


def decide(*histories: BarSeries) -> list[tuple[Policy, list[int]]]:
    """Return each fit's policy, and its actions on the first history."""
    scorer = PolicyScorer(histories[0])
    fits = fit_policies({bars.symbol: bars for bars in histories}, TIED).policies.fits
    whole = slice(0, len(histories[0]))
    return [(fit.policy, scorer.orders(fit.policy, whole).action.tolist()) for fit in fits]


@pytest.fixture(scope="module")
def decided(apple: BarSeries) -> list[tuple[Policy, list[int]]]:
    return decide(apple)


def changed(bars: BarSeries, change: Callable[[pd.DataFrame], None]) -> BarSeries:
    frame = bars.to_frame()
    change(frame)
    return BarSeries.from_frame(bars.symbol, frame)


@pytest.mark.parametrize("times", [1e4, 1e-4, 3.0, 7.31])
def test_search_is_indifferent_to_scale_of_prices(
    apple: BarSeries, decided: object, times: float
) -> None:
    def scale(frame: pd.DataFrame) -> None:
        frame[MONEY] *= times

    assert decide(changed(apple, scale)) == decided


@pytest.mark.parametrize(("day", "ratio"), [(1, 3.0), (300, 7.0), (700, 1 / 30), (999, 3.0)])
def test_search_is_indifferent_to_split_at_any_day(
    apple: BarSeries, decided: object, day: int, ratio: float
) -> None:
    def split(frame: pd.DataFrame) -> None:
        frame.loc[day:, MONEY] /= ratio
        frame.loc[day, "split"] *= ratio

    assert decide(changed(apple, split)) == decided


@pytest.mark.parametrize("days", [1, 7, 3650])
def test_search_is_indifferent_to_shift_in_time(
    apple: BarSeries, decided: object, days: int
) -> None:
    def shift(frame: pd.DataFrame) -> None:
        frame["closed_at"] += pd.Timedelta(days=days)

    assert decide(changed(apple, shift)) == decided


def test_search_is_indifferent_to_order_of_symbols(apple: BarSeries) -> None:
    others = [BundledBars().bars(symbol)[:700] for symbol in ("IBM", "MSFT")]
    assert decide(apple[:700], *others) == decide(apple[:700], *reversed(others))


def test_search_hardly_notices_dividends_of_equal_total_return(
    apple: BarSeries, decided: list[tuple[Policy, list[int]]]
) -> None:
    def pay(frame: pd.DataFrame) -> None:
        for day in range(60, 1000, 63):
            # Paid in whole cents, as dividends are: total returns are equal to four digits.
            paid = np.round(0.01 * frame.loc[day - 1, "close"], 2)
            frame.loc[day:, MONEY] *= 1 - paid / frame.loc[day - 1, "close"]
            frame.loc[day, "dividend"] += paid / frame.loc[day, "split"]

    paying = decide(changed(apple, pay))
    same = [one[0] == other[0] for one, other in zip(paying, decided, strict=True)]
    actions = [
        np.mean(np.array(one[1]) == other[1]) for one, other in zip(paying, decided, strict=True)
    ]
    assert np.mean(same) >= 0.9
    assert np.mean(actions) >= 0.98


def mutual(scores: list[float]) -> tuple[Floats, tuple[Policy, ...]]:
    """Return scores of policies that are one neighbourhood, so that all smoothed scores tie."""
    policies = tuple(Policy(threshold=t) for t in (0.2, 0.05, 0.1, 0.3, 0.4))
    return np.array(scores), policies


def test_select_policy_breaks_tie_by_own_score() -> None:
    assert select_policy(*mutual([0.1, 0.2, 0.9, 0.3, 0.2])) == 2


def test_select_policy_breaks_tie_of_scores_by_distance_to_untrained() -> None:
    # 0.3 is one step of the grid from the untrained 0.2; 0.05 and 0.4 are two.
    assert select_policy(*mutual([0.1, 0.9, 0.1, 0.9, 0.9])) == 3


def test_select_policy_ignores_last_digits() -> None:
    rng = np.random.default_rng(3)
    scores, policies = mutual([0.1, 0.9, 0.1, 0.9, 0.9])
    for _ in range(50):
        assert select_policy(scores + rng.normal(0, 1e-12, 5), policies) == 3


def test_select_policy_never_takes_undefined_score() -> None:
    assert select_policy(*mutual([np.nan, np.nan, -0.5, np.nan, np.nan])) == 2


def test_robust_score_of_lost_account_is_undefined() -> None:
    won = np.linspace(1, 3, 90) + np.sin(np.arange(90)) / 10
    assert robust_score([won]) > 0
    lost = np.r_[won[:80], np.zeros(10)]
    assert np.isnan(robust_score([won, lost]))


def test_search_policy_refuses_prices_that_do_not_move() -> None:
    days = pd.date_range("2020-01-01", periods=300, tz="UTC")
    frame = pd.DataFrame({"closed_at": days, **dict.fromkeys(PRICES, 10.0)})
    scorer = PolicyScorer(BarSeries.from_frame("FLAT", frame))
    costs = Costs(commission=0, slippage=0)
    with pytest.raises(ShortHistoryError, match=r"prices that don't move .* FLAT"):
        search_policy([(scorer, slice(0, 300))], draw_candidates(4, 1), costs, False)

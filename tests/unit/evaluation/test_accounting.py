"""The plain account: adjustments and calls; its fills are held beside the kernel in test_kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finagent_model.backtesting.kernel import OPEN, STOP, TARGET, FillRules
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.accounting import (
    PlainBars,
    PlainOrders,
    adjust_plainly,
    follow_call,
    hold_from_first_open,
    simulate_account,
)

FREE = FillRules()


def test_adjust_plainly_equals_growth_to_the_bit() -> None:
    bars = BundledBars().bars("AAPL")  # with splits and dividends
    growth, plain = bars.adjust_to_first_bar(), adjust_plainly(bars)
    assert plain.factor == bars.growth_factor.tolist()
    for name in ("open", "high", "low", "close"):
        assert getattr(plain, name) == getattr(growth, name).tolist()


def follow(*bars: tuple[float, float, float], horizon: int = 3, rules: FillRules = FREE) -> object:
    """Follow a call to buy at 100 before these bars (high, low, close), all opened at 100."""
    count = len(bars) + 1
    high, low, close = zip((100.0, 100.0, 100.0), *bars, strict=True)
    plain = PlainBars([100.0] * count, list(high), list(low), list(close), [1.0] * count)
    levels = [90.0] + [math.nan] * len(bars), [120.0] + [math.nan] * len(bars)
    orders = PlainOrders([1] + [0] * len(bars), [0.1] * count, *levels)
    return follow_call(plain, 0, orders, rules, horizon)


@pytest.mark.parametrize(
    ("bars", "outcome"),
    [
        ([(101, 99, 100), (130, 99, 120)], (2, TARGET, 0.2)),
        ([(101, 80, 100)], (1, STOP, -0.1)),
        ([(130, 80, 100)], (1, STOP, -0.1)),  # both: the worse
        ([(101, 99, 100), (101, 99, 100), (106, 99, 105)], (3, OPEN, 0.05)),
    ],
)
def test_follow_call_ends_at_first_barrier(
    bars: list[tuple[float, float, float]], outcome: tuple[int, int, float]
) -> None:
    assert follow(*bars) == pytest.approx(outcome)


def test_follow_call_is_unknown_until_its_horizon() -> None:
    assert follow((101, 99, 100), (101, 99, 100)) is None


def test_follow_call_is_cancelled_by_a_gap_beyond_its_target() -> None:
    plain = PlainBars([100.0, 125.0], [100.0, 130.0], [100.0, 120.0], [100.0, 125.0], [1.0, 1.0])
    orders = PlainOrders([1, 0], [1.0, 1.0], [90.0, math.nan], [120.0, math.nan])
    assert follow_call(plain, 0, orders, FREE, 1) is None


def test_hold_from_first_open_buys_at_second_bar() -> None:
    opens = [10.0, 20.0, 30.0]
    account = simulate_account([opens] * 4, hold_from_first_open(3), [0.0] * 3, 100.0, FREE)
    assert [(t.entry_bar, t.entry_price, t.exit_bar) for t in account.trades] == [(1, 20.0, -1)]
    assert account.units == [0.0, 5.0, 5.0]
    assert np.array(account.equity).tolist() == [100.0, 100.0, 150.0]

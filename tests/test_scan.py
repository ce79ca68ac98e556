"""A scan gives each pair what the kernel gives it alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.backtest.kernel import Rules
from finagent_model.backtest.metrics import summarise
from finagent_model.backtest.rule import Crossover, run_rule
from finagent_model.backtest.scan import COLUMNS, scan
from finagent_model.data.bundled import BundledBars
from finagent_model.domain.bars import BarSeries

PAIRS = np.array([(f, s) for f in (2, 5, 10, 21) for s in (22, 30, 55, 90)])
FULL = [name for name in COLUMNS if name != "final_equity"]


def assert_equal(bars: BarSeries, rules: Rules, cash: float, whole: bool) -> None:
    pairs = PAIRS[PAIRS[:, 1] < len(bars)]
    table = scan(bars, pairs, rules, cash=cash, whole_shares=whole)
    lean = scan(bars, pairs, rules, cash=cash, whole_shares=whole, lean=True)
    for i, (fast, slow) in enumerate(pairs.tolist()):
        alone = run_rule(bars, Crossover(fast, slow), rules, cash=cash, whole_shares=whole)
        ruined = (alone.trades["reason"] == "ruin").any()
        row = table.iloc[i]
        assert (row["fast"], row["slow"]) == (fast, slow)
        assert row["final_equity"] == alone.equity[-1]
        assert lean["final_equity"].iloc[i] == alone.equity[-1]
        expected = summarise(alone)
        for name in FULL:
            if ruined and name not in ("total_return", "closed_trades", "exposure"):
                continue  # ratios of a curve below zero mean nothing
            found = float(row[name])
            assert found == pytest.approx(expected[name], rel=1e-9, abs=1e-12, nan_ok=True), name


@pytest.mark.slow
@pytest.mark.parametrize("symbol", ["GOOG", "AAPL"])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(("stop", "target"), [(np.nan, np.nan), (0.05, 0.1), (0.03, np.nan)])
def test_on_real_bars(symbol: str, short: bool, stop: float, target: float) -> None:
    rules = Rules(0.002, 0.0005, short, stop, target)
    assert_equal(BundledBars().bars(symbol), rules, 10_000.0, whole=not short)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(91, 300),
    st.booleans(),
    st.booleans(),
    st.sampled_from([np.nan, 0.02, 0.1]),
    st.sampled_from([np.nan, 0.02, 0.3]),
    st.sampled_from([0.01, 0.04, 0.25]),
)
def test_on_generated_bars(
    seed: int, n: int, short: bool, whole: bool, stop: float, target: float, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, spread, n)))
    opens = close * np.exp(rng.normal(0, spread, n))
    frame = pd.DataFrame(
        {
            "closed_at": pd.date_range("2020-01-01", periods=n, tz="UTC"),
            "open": opens,
            "high": np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, spread, n))),
            "low": np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, spread, n))),
            "close": close,
        }
    )
    bars = BarSeries.from_frame("X", frame)
    assert_equal(bars, Rules(0.001, 0.001, short, stop, target), 1000.0, whole)


@pytest.mark.parametrize(
    "rules", [Rules(fill_at_close=True), Rules(entry_bar_stops=False), Rules(open_exit_first=False)]
)
def test_the_rules_of_the_cross_check_are_refused(rules: Rules) -> None:
    with pytest.raises(ValueError, match="the kernel's own rules alone"):
        scan(BundledBars().bars("FB"), PAIRS[:1], rules, cash=1.0)

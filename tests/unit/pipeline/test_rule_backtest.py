"""`finagent backtest --rule`: published numbers from the shell, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from finagent_model.cli import app
from finagent_model.data.bundled import BundledBars
from finagent_model.errors import FinagentError
from finagent_model.pipeline.rule_backtest import RuleRequest, run_rule_backtest
from finagent_model.settings import Settings


def row(**given: Any) -> dict[str, Any]:
    return run_rule_backtest(RuleRequest.parse(rule="sma:10,30", **given), Settings.load({})).row()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GOOG bars that come with backtesting.py, as pandas writes them."""
    from backtesting import __file__ as package

    table = pd.read_csv(Path(package).parent / "test" / "GOOG.csv", index_col=0)
    path = tmp_path_factory.mktemp("bars") / "goog.csv"
    table.to_csv(path)
    return path


@pytest.mark.parametrize(
    ("given", "final", "trades"),
    [
        ({"commission": 0.0}, 57_752.99, 32),
        ({"commission": 0.0001}, 57_527.4441, 32),
        ({"commission": 0.001}, 54_101.3692, 32),
        ({"commission": 0.002}, 50_462.40614, 32),
        ({"commission": 0.01}, 30_049.1328, 32),
        ({"commission": 0.002, "cash": 1e6}, 5_116_681.38252, 32),
        ({"commission": 0.002, "slippage": 0.0005}, 48_816.4087, 32),
        ({"commission": 0.002, "fill": "close"}, 55_804.264, 32),
        ({"commission": 0.002, "stop": 0.05, "target": 0.1}, 18_809.404579, 33),
        ({"commission": 0.002, "stop": 0.03}, 21_264.643803, 32),
    ],
)
def test_an_sma_crossover_ends_where_it_is_known_to(
    published: Path, given: dict[str, Any], final: float, trades: int
) -> None:
    found = row(bars=published, **given)
    assert found["final_equity"] == pytest.approx(final, abs=1e-4)
    assert found["trades"] == len(found["closed_trades"]) == trades


def test_its_metrics_and_open_position_are_the_known_ones(published: Path) -> None:
    found = row(bars=published, commission=0.002)
    known = {"sharpe": 0.963257, "sortino": 1.534572, "max_drawdown": 0.31187651, "cagr": 0.209232}
    for name, value in known.items():
        assert found["metrics"][name] == pytest.approx(value, abs=1e-6), name
    held = found["open_position"]
    assert (held["entry_bar"], held["entry_price"], held["shares"]) == (2088, 695.0, 62)


@pytest.mark.slow
def test_the_shell_prints_the_result_alone_at_full_precision() -> None:
    command = [sys.executable, "-m", "finagent_model.cli", "backtest", "--rule", "sma:10,30"]
    options = ["--symbols", "GOOG", "--cash", "10000", "--commission", "0.002", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == row(symbol="GOOG", cash=10_000.0, commission=0.002)
    assert found["final_equity"] == pytest.approx(50_626.81324, abs=1e-6)
    assert found["request"]["fill"] == "next-open"


@pytest.mark.parametrize(
    ("flag", "final", "left_at_once"),
    [
        ((), 18_479.4769012, 14),
        (("--entry-bar-stops",), 18_479.4769012, 14),
        (("--no-entry-bar-stops",), 17_441.5253576, 0),
    ],
)
def test_whether_stops_are_live_on_the_entry_bar_is_told_apart(
    flag: tuple[str, ...], final: float, left_at_once: int
) -> None:
    options = ["--rule", "sma:10,30", "--commission", "0.002", "--stop", "0.01", "--json"]
    done = CliRunner().invoke(app, ["backtest", *options, *flag])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["final_equity"] == pytest.approx(final, abs=1e-4)
    closed = found["closed_trades"]
    assert sum(trade["exit_bar"] == trade["entry_bar"] for trade in closed) == left_at_once


def test_a_split_is_no_crash_and_the_holders_dividends_count() -> None:
    found = row(symbol="AAPL", fractional=True, commission=0.0)
    growth = BundledBars().bars("AAPL").adjust_to_first_bar()
    held = growth.close[-1] / growth.open[1]
    assert found["buy_and_hold"]["total_return"] == pytest.approx(held - 1)


def test_without_a_crossing_nothing_is_traded_and_ratios_are_null(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    flat = {name: 100.0 for name in ("open", "high", "low", "close")}
    path = tmp_path / "flat.csv"
    pd.DataFrame({"date": days, **flat}).to_csv(path, index=False)
    found = row(bars=path)
    assert (found["trades"], found["open_position"], found["final_equity"]) == (0, None, 10_000.0)
    for name in ("sharpe", "sortino", "calmar", "hit_rate", "profit_factor", "expectancy"):
        assert found["metrics"][name] is None, name
        assert found["undefined"][name], name
    assert found["undefined"]["hit_rate"] == "no closed trade"
    nulls = [name for name, value in found["metrics"].items() if value is None]
    nulls += [f"benchmark_{n}" for n, value in found["buy_and_hold"].items() if value is None]
    assert set(found["undefined"]) == set(nulls)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rule": "sma:30,10"}, "FAST must be at least 1 and shorter than SLOW"),
        ({"rule": "ema:3,9"}, "write sma:FAST,SLOW"),
        ({"rule": "sma:10,3000"}, "has 2148 bars; sma:10,3000 needs more"),
        ({"stop": 2}, "parameter stop: .*allowed: above 0, below 1"),
        ({"cash": -5}, "parameter cash: .*allowed: above 0"),
        ({"commission": math.nan}, "parameter commission"),
        ({"side": "up"}, "parameter side: .*long-short"),
        ({"bars": "nowhere.csv"}, "nowhere.csv can't be read"),
        ({"symbol": "NOPE"}, "unknown symbol 'NOPE'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(given: dict[str, Any], said: str) -> None:
    with pytest.raises(FinagentError, match=said):
        run_rule_backtest(RuleRequest.parse(**{"rule": "sma:10,30", **given}), Settings.load({}))

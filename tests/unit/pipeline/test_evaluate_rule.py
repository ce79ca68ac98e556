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
from finagent_model.pipeline.evaluate import RuleRequest, run_rule_backtest
from finagent_model.settings import Settings


def row(**options: Any) -> dict[str, Any]:
    return run_rule_backtest(
        RuleRequest.parse(**{"rule": "sma:10,30", **options}), Settings.load({})
    ).row()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GOOG bars that come with backtesting.py, as pandas writes them."""
    from backtesting import __file__ as package

    table = pd.read_csv(Path(package).parent / "test" / "GOOG.csv", index_col=0)
    path = tmp_path_factory.mktemp("bars") / "goog.csv"
    table.to_csv(path)
    return path


@pytest.mark.parametrize(
    ("options", "final", "trades"),
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
def test_rule_backtest_of_sma_crossover_ends_at_published_equity(
    published: Path, options: dict[str, Any], final: float, trades: int
) -> None:
    result = row(bars=published, **options)
    assert result["final_equity"] == pytest.approx(final, abs=1e-4)
    assert result["trades"] == len(result["closed_trades"]) == trades


def test_rule_backtest_reports_published_metrics(published: Path) -> None:
    result = row(bars=published, commission=0.002)
    expected = {
        "sharpe": 0.963257,
        "sortino": 1.534572,
        "max_drawdown": 0.31187651,
        # By the calendar: 0.209232 where every year has 252 bars.
        "cagr": 0.208927,
    }
    for name, value in expected.items():
        assert result["metrics"][name] == pytest.approx(value, abs=1e-6), name
    held = result["open_position"]
    assert (held["entry_bar"], held["entry_price"], held["shares"]) == (2088, 695.0, 62)


def bars_file(tmp_path: Path, closes: list[float]) -> Path:
    """Write bars that open where they close, on weekdays from 2020 on; return their file."""
    days = pd.bdate_range("2020-01-01", periods=len(closes)).strftime("%Y-%m-%d")
    prices = {name: closes for name in ("open", "high", "low", "close")}
    path = tmp_path / "bars.csv"
    pd.DataFrame({"date": days, **prices}).to_csv(path, index=False)
    return path


ZIGZAG = [100.0, 90.0, 80.0, 70.0, 90.0, 110.0, 130.0, 150.0, 120.0, 90.0, 60.0, 50.0, 45.0]


def test_rule_backtest_says_that_a_share_costs_more_than_the_cash(tmp_path: Path) -> None:
    path = bars_file(tmp_path, [7000 * close for close in ZIGZAG])
    result = row(bars=path, rule="sma:1,2")
    assert (result["trades"], result["final_equity"]) == (0, 10_000)
    rule, held = result["notes"]
    assert "bought nothing: a share costs more than the cash" in rule
    assert "--fractional" in rule
    assert held.startswith("buy and hold: 1 entry bought nothing")


def test_rule_backtest_without_a_share_has_no_benchmark(tmp_path: Path) -> None:
    result = row(bars=bars_file(tmp_path, [7000 * close for close in ZIGZAG]), rule="sma:1,2")
    assert set(result["buy_and_hold"].values()) == {None}
    assert result["undefined"]["benchmark_total_return"] == "a share costs more than the cash"


def test_rule_backtest_of_fractions_buys_less_than_a_share(tmp_path: Path) -> None:
    path = bars_file(tmp_path, [7000 * close for close in ZIGZAG])
    result = row(bars=path, rule="sma:1,2", fractional=True)
    assert (result["trades"], result["notes"]) == (1, [])


def test_rule_backtest_says_that_a_short_lost_everything(tmp_path: Path) -> None:
    path = bars_file(tmp_path, [*ZIGZAG, 300.0, 200.0, 100.0])
    result = row(bars=path, rule="sma:1,2", side="long-short", cash=1e6)
    assert (result["final_equity"], result["closed_trades"][-1]["reason"]) == (0, "ruin")
    [note] = result["notes"]
    assert note.startswith("a short lost all equity on 2020-01-20")
    assert result["undefined"]["sharpe"] == "all was lost"


def test_rule_backtest_cli_prints_notes(tmp_path: Path) -> None:
    path = bars_file(tmp_path, [7000 * close for close in ZIGZAG])
    done = CliRunner().invoke(app, ["backtest", "--rule", "sma:1,2", "--bars", str(path)])
    assert "(buy and hold undefined)" in done.output
    assert "note: 1 entry bought nothing" in done.output


@pytest.mark.slow
def test_rule_backtest_cli_prints_full_precision_json() -> None:
    command = [sys.executable, "-m", "finagent_model.cli", "backtest", "--rule", "sma:10,30"]
    options = ["--symbols", "GOOG", "--cash", "10000", "--commission", "0.002", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result == row(symbol="GOOG", cash=10_000.0, commission=0.002)
    assert result["final_equity"] == pytest.approx(50_626.81324, abs=1e-6)
    assert result["request"]["fill"] == "next-open"


@pytest.mark.parametrize(
    ("flag", "final", "left_at_once"),
    [
        ((), 18_479.4769012, 14),
        (("--entry-bar-stops",), 18_479.4769012, 14),
        (("--no-entry-bar-stops",), 17_441.5253576, 0),
    ],
)
def test_rule_backtest_entry_bar_stops_switch(
    flag: tuple[str, ...], final: float, left_at_once: int
) -> None:
    options = ["--rule", "sma:10,30", "--commission", "0.002", "--stop", "0.01", "--json"]
    done = CliRunner().invoke(app, ["backtest", *options, *flag])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["final_equity"] == pytest.approx(final, abs=1e-4)
    closed = result["closed_trades"]
    assert sum(trade["exit_bar"] == trade["entry_bar"] for trade in closed) == left_at_once


def test_rule_backtest_uses_total_return() -> None:
    result = row(symbol="AAPL", fractional=True, commission=0.0)
    growth = BundledBars().bars("AAPL").adjust_to_first_bar()
    held = growth.close[-1] / growth.open[1]
    assert result["buy_and_hold"]["total_return"] == pytest.approx(held - 1)


def test_rule_backtest_without_crossing_has_null_ratios(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    flat = {name: 100.0 for name in ("open", "high", "low", "close")}
    path = tmp_path / "flat.csv"
    pd.DataFrame({"date": days, **flat}).to_csv(path, index=False)
    result = row(bars=path)
    assert (result["trades"], result["open_position"], result["final_equity"]) == (
        0,
        None,
        10_000.0,
    )
    for name in ("sharpe", "sortino", "calmar", "hit_rate", "profit_factor", "expectancy"):
        assert result["metrics"][name] is None, name
        assert result["undefined"][name], name
    assert result["undefined"]["hit_rate"] == "no closed trade"
    nulls = [name for name, value in result["metrics"].items() if value is None]
    nulls += [f"benchmark_{n}" for n, value in result["buy_and_hold"].items() if value is None]
    assert set(result["undefined"]) == set(nulls)


@pytest.mark.parametrize(
    ("options", "message"),
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
def test_rule_backtest_refuses_bad_request(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FinagentError, match=message):
        run_rule_backtest(RuleRequest.parse(**{"rule": "sma:10,30", **options}), Settings.load({}))

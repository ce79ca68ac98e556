"""`finagent backtest` of a desk: what it says of failed decisions, and its exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from finagent_model.cli import app
from finagent_model.pipeline import backtest as backtest_stage
from finagent_model.pipeline.backtest import BacktestRerun


def rerun(symbol: str, failed_share: float) -> BacktestRerun:
    note = f"{failed_share:.0%} failed: no recorded reply"
    return BacktestRerun(
        "f" * 32, symbol, {"failed_share": failed_share}, f"{symbol}: a verdict", None, (note,)
    )


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command on backtests whose failed shares are given by symbol."""

    def run(shares: dict[str, float], *options: str) -> Result:
        reruns = [rerun(symbol, share) for symbol, share in shares.items()]
        monkeypatch.setattr(backtest_stage, "backtest", lambda *_: reruns)
        return CliRunner().invoke(app, ["backtest", *options])

    return run


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_backtest_exits_4_where_every_decision_failed(
    invoke: Any, options: tuple[str, ...]
) -> None:
    assert invoke({"GOOG": 0.0, "AAPL": 1.0}, *options).exit_code == 4


def test_backtest_exits_0_where_some_decisions_failed(invoke: Any) -> None:
    assert invoke({"GOOG": 0.99}).exit_code == 0


def test_backtest_prints_why_decisions_failed(invoke: Any) -> None:
    assert "note: 100% failed: no recorded reply" in invoke({"AAPL": 1.0}).output


def test_backtest_json_has_notes(invoke: Any) -> None:
    [row] = json.loads(invoke({"AAPL": 1.0}, "--json").stdout)
    assert row["notes"] == ["100% failed: no recorded reply"]

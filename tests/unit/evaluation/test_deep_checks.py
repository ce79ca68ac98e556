"""Checks by plain accounting: each fault, planted in the code that backtests, is caught."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model._base import Check
from finagent_model.backtesting import metrics as metrics_module
from finagent_model.backtesting.engine import Orders, run_orders
from finagent_model.backtesting.kernel import FillRules
from finagent_model.config.knowledge import Knowledge
from finagent_model.config.rules import GateRules
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision, make_decision
from finagent_model.evaluation import deep_checks, out_of_sample
from finagent_model.evaluation.calibrate import build_confidence_record, calibrate
from finagent_model.evaluation.deep_checks import PlainBacktest
from finagent_model.evaluation.evidence import grade_evidence
from finagent_model.evaluation.out_of_sample import (
    OutOfSampleBacktest,
    collect_symbol_facts,
    judge_out_of_sample,
)
from finagent_model.market.bars import BarSeries, Floats, parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.training.request import EvaluationRequest
from finagent_model.training.search import Trials

REQUEST = EvaluationRequest(allow_short=True)
TRIALS = Trials(configurations=6, scorings=24, sharpe_variance=None, overfitting=None)


def make_bars(n: int = 160, close_hour: timedelta = timedelta(hours=21)) -> BarSeries:
    """A random walk with wide bars, a split and dividends."""
    rng = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(rng.normal(0.0005, 0.015, n)))
    opened = close * np.exp(rng.normal(0, 0.005, n))
    split, dividend = np.ones(n), np.zeros(n)
    split[n // 2], dividend[n // 4 :: 40] = 2.0, 0.5
    traded = 1 / np.cumprod(split)
    days = pd.bdate_range("2020-01-01", periods=n, tz="UTC") + close_hour
    frame = pd.DataFrame(
        {
            "closed_at": days,
            "open": opened * traded,
            "high": np.maximum(opened, close) * 1.01 * traded,
            "low": np.minimum(opened, close) * 0.99 * traded,
            "close": close * traded,
            "split": split,
            "dividend": dividend,
        }
    )
    return BarSeries.from_frame("GOOG", frame)


def decide(bars: BarSeries) -> list[Decision]:
    """Calls to act on every third bar, with levels that are soon touched; else HOLD."""
    made = []
    for i in range(len(bars)):
        view = MarketView.at(parse_as_of(bars.close_time(i).date()), bars)
        if i % 3:
            made.append(make_decision(view, "HOLD", reasoning="nothing to do", author="test"))
            continue
        side = 1 if (i // 12) % 2 else -1
        made.append(
            make_decision(
                view,
                "BUY" if side > 0 else "SELL",
                reasoning="by the calendar",
                author="test",
                confidence=55.0,
                stop=view.last_close * (1 - side * 0.03),
                target=view.last_close * (1 + side * 0.05),
                size_percent=80.0,
            )
        )
    return made


BARS = make_bars()


@cache
def decisions() -> list[Decision]:
    return decide(BARS)


@dataclass(frozen=True)
class Record:
    """A backtest and what a training would have written down of it."""

    backtest: OutOfSampleBacktest
    metrics: dict[str, float]
    evidence: dict[str, Any]

    def checks(self) -> list[Check]:
        plain = PlainBacktest.derive(self.backtest, REQUEST)
        return [
            deep_checks.check_accounts(plain, self.metrics),
            deep_checks.check_exits_in_range(plain),
            deep_checks.check_equity_adds_up(plain, REQUEST),
            deep_checks.check_outcomes(plain),
            deep_checks.check_evidence([plain], self.evidence, GateRules(), confidence(self), 7),
        ]

    def failed(self) -> set[str]:
        return {check.name for check in self.checks() if not check.passed}


def confidence(record: Record) -> Any:
    calls = record.backtest.trade_outcomes()
    return build_confidence_record(calls, calibrate(calls, [BARS.close_time(80)]))


def record_backtest() -> Record:
    """Trade, measure and grade with the code as it is, and so with what was planted in it."""
    backtest = judge_out_of_sample(BARS, range(len(BARS)), decisions(), REQUEST)
    record = Record(backtest, backtest.metrics(), {})
    facts = [collect_symbol_facts(backtest, 7)]
    evidence = grade_evidence(facts, TRIALS, GateRules(), confidence(record), seed=7)
    return replace(record, evidence=evidence.model_dump(mode="json"))


def test_deep_checks_pass_honest_backtest() -> None:
    record = record_backtest()
    reasons = set(record.backtest.result.trades["reason"])
    assert {"stop", "target", "signal"} <= reasons
    assert [check for check in record.checks() if not check.passed] == []


def test_lows_cut_off_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    adjust = BarSeries.adjust_to_first_bar

    def without_wicks(self: BarSeries) -> BarSeries:
        growth = adjust(self)
        return replace(growth, low=np.minimum(growth.open, growth.close))

    monkeypatch.setattr(BarSeries, "adjust_to_first_bar", without_wicks)
    assert {"accounted_again", "exits_in_range", "outcomes_again"} <= record_backtest().failed()


def test_losing_days_at_60_percent_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = metrics_module.simple_returns

    def flattered(equity: Floats) -> Floats:
        returns = measured(equity)
        return np.where(returns < 0, 0.6 * returns, returns)

    monkeypatch.setattr(metrics_module, "simple_returns", flattered)
    monkeypatch.setattr(out_of_sample, "simple_returns", flattered)
    assert record_backtest().failed() == {"accounted_again", "evidence_again"}


def test_commission_that_pays_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    paying = FillRules(-REQUEST.commission, REQUEST.slippage, allow_short=True)
    monkeypatch.setattr(EvaluationRequest, "rules", property(lambda self: paying))
    assert {"accounted_again", "equity_adds_up", "evidence_again"} <= record_backtest().failed()


def test_benchmark_that_starts_late_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(bars: BarSeries, costs: Any, *, cash: float) -> Any:
        action = np.zeros(len(bars), dtype=np.int8)
        action[30] = 1
        rules = FillRules(costs.commission, costs.slippage)
        return run_orders(bars, Orders.all_in(action), rules, cash=cash, whole_shares=False)

    monkeypatch.setattr(out_of_sample, "buy_and_hold", late)
    record = record_backtest()
    assert record.failed() == {"accounted_again", "evidence_again"}
    assert "buy and hold" in record.checks()[0].found


def test_outcomes_stamped_closed_early_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    label = out_of_sample.label_outcomes

    def early(*args: Any) -> tuple[TradeOutcome, ...]:
        return tuple(
            call.model_copy(update={"closed_at": call.as_of + timedelta(days=1)})
            for call in label(*args)
        )

    monkeypatch.setattr(out_of_sample, "label_outcomes", early)
    assert "outcomes_again" in record_backtest().failed()


def test_outcomes_left_out_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    label = out_of_sample.label_outcomes

    def winners(*args: Any) -> tuple[TradeOutcome, ...]:
        return tuple(call for call in label(*args) if call.earned > 0)

    monkeypatch.setattr(out_of_sample, "label_outcomes", winners)
    assert "outcomes_again" in record_backtest().failed()


def test_equity_beside_the_books_is_caught() -> None:
    record = record_backtest()
    result = record.backtest.result
    equity = result.equity.copy()
    equity[50:] *= 1.001
    forged = replace(record.backtest, result=replace(result, equity=equity))
    assert {"accounted_again", "equity_adds_up"} <= replace(record, backtest=forged).failed()


@pytest.mark.parametrize("reason", ["stop", "target"])
def test_exit_price_outside_its_bar_is_caught(reason: str) -> None:
    record = record_backtest()
    trades = record.backtest.result.trades.copy()
    row = trades.index[trades["reason"] == reason][0]
    trades.loc[row, "exit_price"] *= 1.05
    forged = replace(record.backtest, result=replace(record.backtest.result, trades=trades))
    assert "exits_in_range" in replace(record, backtest=forged).failed()


@pytest.mark.parametrize("name", ["sharpe", "alpha", "t_alpha", "cost_margin", "p_delay"])
def test_forged_evidence_number_is_caught(name: str) -> None:
    record = record_backtest()
    numbers = record.evidence["numbers"] | {name: 3.5}
    forged = replace(record, evidence=record.evidence | {"numbers": numbers})
    [check] = [check for check in forged.checks() if not check.passed]
    assert f"{name} is " in check.found


def test_forged_grade_is_caught() -> None:
    record = record_backtest()
    forged = replace(record, evidence=record.evidence | {"grade": "strong"})
    assert forged.failed() == {"evidence_again"}


def check_news(close_hour: timedelta, published: timedelta) -> Check:
    """Of one item, published so long after midnight UTC of a day that was decided on."""
    bars = make_bars(12, close_hour)
    backtest = judge_out_of_sample(bars, range(len(bars)), decide(bars), REQUEST)
    midnight = bars.close_time(5).replace(hour=0, minute=0)
    item = NewsItem(published_at=midnight + published, headline="Something is known")
    market = Market(_Source(bars), _News(item))
    return deep_checks.check_news_before_fill(market, backtest)


@dataclass(frozen=True)
class _Source:
    series: BarSeries
    name: str = "test"

    def bars(self, symbol: str) -> BarSeries:
        return self.series

    def symbols(self) -> tuple[str, ...]:
        return (self.series.symbol,)


@dataclass(frozen=True)
class _News:
    item: NewsItem

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        return (self.item,), 0


@pytest.mark.parametrize(
    ("close_hour", "published", "passed"),
    [
        # Wellington opens at 21:00 UTC the day before, and closes at 03:45.
        (timedelta(hours=3, minutes=45), timedelta(hours=22), False),
        (timedelta(hours=3, minutes=45), timedelta(hours=20), True),
        # New York opens on the next day in UTC: the whole of the day is known before.
        (timedelta(hours=21), timedelta(hours=23), True),
    ],
)
def test_news_after_next_open_is_caught(
    close_hour: timedelta, published: timedelta, passed: bool
) -> None:
    check = check_news(close_hour, published)
    assert check.passed is passed
    assert passed or "22:00 UTC" in check.found


@pytest.mark.parametrize("cutoff", ["unknown", BARS.close_time(60).date()])
def test_evidence_of_days_that_nobody_has_read_about_is_derived_again(cutoff: Any) -> None:
    record, knowledge = record_backtest(), Knowledge(author="gpt-x", cutoff=cutoff, margin_days=0)
    facts = [collect_symbol_facts(record.backtest, 7, knowledge)]
    evidence = grade_evidence(
        *(facts, TRIALS, GateRules(), confidence(record)),
        seed=7,
        knowledge=knowledge,
        needs_probes=False,
    ).model_dump(mode="json")
    plain = PlainBacktest.derive(record.backtest, REQUEST)

    def check(recorded: dict[str, Any]) -> Check:
        found = (recorded, GateRules(), confidence(record), 7, knowledge)
        return deep_checks.check_evidence([plain], *found)

    assert check(evidence).passed, check(evidence).found
    assert not check(evidence | {"grade": "weak"}).passed
    if cutoff != "unknown":
        changed = evidence["numbers"] | {"alpha": 1.0}
        assert not check(evidence | {"numbers": changed}).passed

"""Random entries, cost curves and the grade of evidence, where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from finagent_model.backtesting.engine import BacktestResult, Orders, run_orders
from finagent_model.backtesting.kernel import Rules
from finagent_model.config.rules import GateRules
from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.evidence import Evidence, SymbolFacts, assess
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.statistics.resampling import (
    HIGHEST,
    break_even_commission,
    cost_curve,
    p_value,
    random_entries,
)
from finagent_model.training.search import Trials

COSTS = Rules(commission=0.001, slippage=0.0005)


def market(seed: int, n: int = 1500) -> BarSeries:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.015, n)))
    opens = close * np.exp(rng.normal(0, 0.002, n))
    columns = {"open": opens, "close": close}
    columns["high"] = np.maximum(opens, close) * 1.002
    columns["low"] = np.minimum(opens, close) * 0.998
    days = pd.date_range("2000-01-01", periods=n, tz="UTC")
    return BarSeries.from_frame("X", pd.DataFrame({"closed_at": days, **columns}))


def orders(action: npt.NDArray[np.int8]) -> Orders:
    none = np.full(len(action), np.nan)
    return Orders(action.astype(np.int8), np.ones(len(action)), none, none)


def traded(bars: BarSeries, action: npt.NDArray[np.int8], rules: Rules = COSTS) -> BacktestResult:
    return run_orders(bars, orders(action), rules, cash=1.0, whole_shares=False)


def blind(seed: int, n: int = 1500) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).choice([-1, 0, 1], n, p=[0.05, 0.9, 0.05]).astype(np.int8)


def foresight(bars: BarSeries) -> npt.NDArray[np.int8]:
    """In before rises of the next ten days, out before falls: what only the future knows."""
    ahead = np.append(np.log(bars.close[10:] / bars.close[:-10]), np.zeros(10))
    return np.where(ahead > 0.03, 1, np.where(ahead < -0.03, -1, 0)).astype(np.int8)


def earned(result: BacktestResult) -> float:
    return float(result.equity[-1] - 1)


def test_foresight_beats_chance_and_blindness_does_not_more_often_than_said() -> None:
    bars = market(1)
    clever = traded(bars, foresight(bars))
    assert p_value(earned(clever), random_entries(bars, clever, COSTS, seed=1)) < 0.01
    values = []
    for i in range(120):
        bars = market(100 + i, 600)
        result = traded(bars, blind(i, 600))
        drawn = random_entries(bars, result, COSTS, seed=i, draws=200)
        values.append(p_value(earned(result), drawn))
    assert 0.02 <= np.mean(np.array(values) <= 0.1) <= 0.19


def test_a_position_that_is_always_held_can_be_put_nowhere_else() -> None:
    bars = market(2, 300)
    action = np.zeros(300, dtype=np.int8)
    action[0] = 1
    result = traded(bars, action, Rules())
    drawn = random_entries(bars, result, Rules(), seed=3, draws=50)
    # Held from the second open on: one bar is left to move within.
    held = bars.close[-1] / bars.open[1] - 1, bars.open[-1] / bars.open[0] - 1
    assert set(np.round(drawn, 9)) == set(np.round(held, 9))


def test_shorts_are_placed_as_shorts() -> None:
    bars = market(4, 400)
    rules = Rules(allow_short=True)
    action = np.zeros(400, dtype=np.int8)
    action[[5, 50]] = -1, 1
    result = traded(bars, action, rules)
    assert list(result.trades["side"]) == ["short", "long"]
    assert np.isfinite(random_entries(bars, result, rules, seed=1)).all()


def test_without_a_trade_chance_has_nothing_to_say() -> None:
    bars = market(5, 100)
    result = traded(bars, np.zeros(100, dtype=np.int8))
    drawn = random_entries(bars, result, COSTS, seed=1)
    assert np.isnan(drawn).all()
    assert math.isnan(p_value(0.0, drawn))


def test_costs_eat_returns_and_break_even_is_where_nothing_is_left() -> None:
    bars = market(1)
    chosen = orders(foresight(bars))
    curve = cost_curve(bars, chosen, COSTS, [0.0, 0.001, 0.01, 0.05])
    assert curve == sorted(curve, reverse=True)
    spare = break_even_commission(bars, chosen, COSTS)
    [left] = cost_curve(bars, chosen, COSTS, [spare])
    assert left == pytest.approx(0, abs=1e-3)
    [gone] = cost_curve(bars, chosen, COSTS, [spare + 1e-5])
    assert gone < 0


def test_what_loses_without_costs_has_no_break_even() -> None:
    bars = market(1)
    assert math.isnan(break_even_commission(bars, orders(-foresight(bars)), Rules()))


def test_what_gains_at_any_commission_has_the_highest_as_its_break_even() -> None:
    """One trade that doubles: a tenth each way is less than it earns."""
    days = pd.date_range("2000-01-01", periods=100, tz="UTC")
    close = np.linspace(100, 250, 100)
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    bars = BarSeries.from_frame("X", pd.DataFrame({"closed_at": days, **columns}))
    action = np.zeros(100, dtype=np.int8)
    action[0], action[90] = 1, -1
    assert break_even_commission(bars, orders(action), COSTS) == HIGHEST


def facts(returns: Floats, *, benchmark: Floats | None = None, lucky: bool = False) -> SymbolFacts:
    n = len(returns)
    other = np.random.default_rng(99).normal(0, 0.01, n) if benchmark is None else benchmark
    total = float(np.prod(1 + returns) - 1)
    return SymbolFacts(
        symbol="X",
        closed_at=tuple(range(n)),
        returns=tuple(returns.tolist()),
        benchmark_returns=tuple(other.tolist()),
        total_return=total,
        random_returns=tuple([total + 1.0 if lucky else total - 1.0] * 200),
        cost_curve=(),
        break_even_commission=0.01,
        commission=0.001,
        slippage=0.0005,
        lagged_sharpe=1.0,
    )


def confidence(said: float = 0.6, calls: int = 100) -> ConfidenceRecord:
    """Of calls of which six in ten came true."""
    true = (np.arange(calls) % 10 < 6).astype(float)
    probability = np.full(calls, said)
    return ConfidenceRecord(raw=probability, said=probability, true=true, weight=np.ones(calls))


def graded(
    found: SymbolFacts, trials: Trials | None = None, stated: ConfidenceRecord | None = None
) -> Evidence:
    tried = trials or Trials(configurations=96, scorings=960, sharpe_variance=1e-4, overfitting=0.1)
    return assess([found], tried, GateRules(), stated or confidence(), seed=7)


def edge(sharpe: float, n: int = 2016, seed: int = 11) -> Floats:
    """Returns of which exactly this annual Sharpe ratio was seen."""
    noise = np.random.default_rng(seed).normal(0, 0.01, n)
    noise = (noise - noise.mean()) / noise.std() * 0.01
    return noise + sharpe / math.sqrt(252) * 0.01


def test_a_large_edge_is_strong_evidence_and_its_absence_none() -> None:
    assert graded(facts(edge(3.0))).grade == "strong"
    assert graded(facts(edge(0.0))).grade == "none"
    assert graded(facts(edge(-2.0))).grade == "none"


@pytest.mark.parametrize(
    ("found", "trials", "missing"),
    [
        (facts(edge(3.0), lucky=True), None, "better_than_random_entry"),
        (facts(edge(3.0), benchmark=edge(3.0)), None, "better_than_buy_and_hold"),
        (
            facts(edge(1.5)),
            Trials(configurations=10**6, scorings=10**6, sharpe_variance=0.002, overfitting=0.1),
            "above_the_best_of_chance",
        ),
        (
            facts(edge(3.0)),
            Trials(configurations=96, scorings=960, sharpe_variance=None, overfitting=0.1),
            "above_the_best_of_chance",
        ),
        (
            facts(edge(3.0)).model_copy(update={"break_even_commission": 0.001}),
            None,
            "costs_may_double",
        ),
        (
            facts(edge(3.0)).model_copy(update={"break_even_commission": None}),
            None,
            "costs_may_double",
        ),
    ],
)
def test_each_check_alone_makes_strong_evidence_weak(
    found: SymbolFacts, trials: Trials | None, missing: str
) -> None:
    evidence = graded(found, trials)
    assert evidence.grade == "weak"
    assert [check.name for check in evidence.checks if not check.passed] == [missing]


@pytest.mark.parametrize("stated", [confidence(0.9), confidence(calls=0)])
def test_confidence_that_misleads_or_was_never_calibrated_makes_strong_evidence_weak(
    stated: ConfidenceRecord,
) -> None:
    evidence = graded(facts(edge(3.0)), stated=stated)
    assert evidence.grade == "weak"
    missing = [check.name for check in evidence.checks if not check.passed]
    assert missing == ["confidence_means_what_it_says"]


def test_a_desk_that_never_traded_has_no_numbers_and_no_evidence() -> None:
    still = facts(np.zeros(500)).model_copy(update={"random_returns": None})
    evidence = graded(still)
    assert evidence.grade == "none"
    for name in ("sharpe", "probabilistic_sharpe", "p_cash", "p_random_entry"):
        assert evidence.numbers[name] is None, name
    whys = {check.name: check.why for check in evidence.checks}
    assert whys["sharpe_above_zero"] == "the returns don't vary, or are too few"
    assert whys["better_than_random_entry"] == "no trade, or none whose times could be others"
    assert whys["costs_may_double"] is None


def test_every_undefined_number_of_a_check_has_its_reason() -> None:
    still = facts(np.zeros(500), benchmark=np.zeros(500))
    gone = {"random_returns": None, "break_even_commission": None}
    nothing = Trials(configurations=1, scorings=1, sharpe_variance=None, overfitting=None)
    evidence = graded(still.model_copy(update=gone), nothing, confidence(calls=3))
    assert [check.number for check in evidence.checks] == [None] * len(evidence.checks)
    assert all(check.why for check in evidence.checks)
    free = facts(edge(1.0)).model_copy(update={"commission": 0.0, "slippage": 0.0})
    [margin] = [check for check in graded(free).checks if check.name == "costs_may_double"]
    assert (margin.passed, margin.shown) == (True, "undefined: no costs are assumed")


def test_symbols_with_other_calendars_are_pooled_by_the_day() -> None:
    one, two = edge(1.0, 300), edge(1.0, 300, seed=12)
    early = facts(one)
    late = facts(two).model_copy(update={"closed_at": tuple(range(100, 400))})
    evidence = assess(
        [early, late],
        Trials(configurations=2, scorings=2, sharpe_variance=1e-4, overfitting=0.1),
        GateRules(),
        confidence(),
        seed=1,
    )
    assert evidence.numbers["observations"] == 400

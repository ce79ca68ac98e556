"""Random entries, cost curves and the grade of evidence, where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.backtesting.engine import BacktestResult, Orders, run_orders
from finagent_model.backtesting.kernel import FillRules
from finagent_model.config.rules import GateRules
from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.evidence import Evidence, SymbolFacts, grade_evidence
from finagent_model.evaluation.plain_statistics import count_bars_per_year
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.statistics.resampling import (
    MAX_COMMISSION,
    break_even_commission,
    cost_curve,
    monte_carlo_p_value,
    random_entry_returns,
)
from finagent_model.training.search import Trials

COSTS = FillRules(commission=0.001, slippage=0.0005)


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


def traded(
    bars: BarSeries, action: npt.NDArray[np.int8], rules: FillRules = COSTS
) -> BacktestResult:
    return run_orders(bars, orders(action), rules, cash=1.0, whole_shares=False)


def blind(seed: int, n: int = 1500) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).choice([-1, 0, 1], n, p=[0.05, 0.9, 0.05]).astype(np.int8)


def foresight(bars: BarSeries) -> npt.NDArray[np.int8]:
    """In before rises of the next ten days, out before falls: what only the future knows."""
    ahead = np.append(np.log(bars.close[10:] / bars.close[:-10]), np.zeros(10))
    return np.where(ahead > 0.03, 1, np.where(ahead < -0.03, -1, 0)).astype(np.int8)


def earned(result: BacktestResult) -> float:
    return float(result.equity[-1] - 1)


def test_random_entries_p_value_detects_foresight_at_stated_size() -> None:
    bars = market(1)
    clever = traded(bars, foresight(bars))
    assert (
        monte_carlo_p_value(earned(clever), random_entry_returns(bars, clever, COSTS, seed=1))
        < 0.01
    )
    values = []
    for i in range(120):
        bars = market(100 + i, 600)
        result = traded(bars, blind(i, 600))
        returns = random_entry_returns(bars, result, COSTS, seed=i, draws=200)
        values.append(monte_carlo_p_value(earned(result), returns))
    assert 0.02 <= np.mean(np.array(values) <= 0.1) <= 0.19


def test_random_entries_of_always_held_position_equal_it() -> None:
    bars = market(2, 300)
    action = np.zeros(300, dtype=np.int8)
    action[0] = 1
    result = traded(bars, action, FillRules())
    returns = random_entry_returns(bars, result, FillRules(), seed=3, draws=50)
    # Held from the second open on: one bar is left to move within.
    held = bars.close[-1] / bars.open[1] - 1, bars.open[-1] / bars.open[0] - 1
    assert set(np.round(returns, 9)) == set(np.round(held, 9))


def test_random_entries_place_shorts_as_shorts() -> None:
    bars = market(4, 400)
    rules = FillRules(allow_short=True)
    action = np.zeros(400, dtype=np.int8)
    action[[5, 50]] = -1, 1
    result = traded(bars, action, rules)
    assert list(result.trades["side"]) == ["short", "long"]
    assert np.isfinite(random_entry_returns(bars, result, rules, seed=1)).all()


def test_random_entries_without_trade_are_undefined() -> None:
    bars = market(5, 100)
    result = traded(bars, np.zeros(100, dtype=np.int8))
    returns = random_entry_returns(bars, result, COSTS, seed=1)
    assert np.isnan(returns).all()
    assert math.isnan(monte_carlo_p_value(0.0, returns))


def test_break_even_commission_is_where_return_is_zero() -> None:
    bars = market(1)
    trade_orders = orders(foresight(bars))
    curve = cost_curve(bars, trade_orders, COSTS, [0.0, 0.001, 0.01, 0.05])
    assert curve == sorted(curve, reverse=True)
    commission = break_even_commission(bars, trade_orders, COSTS)
    [remaining] = cost_curve(bars, trade_orders, COSTS, [commission])
    assert remaining == pytest.approx(0, abs=1e-3)
    [beyond] = cost_curve(bars, trade_orders, COSTS, [commission + 1e-5])
    assert beyond < 0


def test_break_even_commission_of_loser_is_undefined() -> None:
    bars = market(1)
    assert math.isnan(break_even_commission(bars, orders(-foresight(bars)), FillRules()))


def test_break_even_commission_is_capped_at_maximum() -> None:
    """One trade that doubles: a tenth each way is less than it earns."""
    days = pd.date_range("2000-01-01", periods=100, tz="UTC")
    close = np.linspace(100, 250, 100)
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    bars = BarSeries.from_frame("X", pd.DataFrame({"closed_at": days, **columns}))
    action = np.zeros(100, dtype=np.int8)
    action[0], action[90] = 1, -1
    assert break_even_commission(bars, orders(action), COSTS) == MAX_COMMISSION


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
        delayed_returns=tuple((0.9 * returns).tolist()),
        cost_curve=(),
        break_even_commission=0.01,
        commission=0.001,
        slippage=0.0005,
        lagged_sharpe=1.0,
    )


def confidence(informative: bool = True, calls: int = 200) -> ConfidenceRecord:
    """Return a record of calls of which half made money, known beforehand or not."""
    rng = np.random.default_rng(3)
    true = (rng.random(calls) < 0.5).astype(float)
    learned = np.where(true > 0, 0.7, 0.3) if informative else rng.uniform(0.2, 0.8, calls)
    half = np.full(calls, 0.5)
    return ConfidenceRecord(
        raw=learned,
        calibrated=learned,
        learned=learned,
        climatology=half,
        outcome=true,
        weight=np.ones(calls),
        day=np.arange(calls),
    )


def graded(
    symbol_facts: SymbolFacts,
    trials: Trials | None = None,
    stated: ConfidenceRecord | None = None,
    earlier_trainings: int = 0,
) -> Evidence:
    tried = trials or Trials(configurations=96, scorings=960, sharpe_variance=1e-4, overfitting=0.1)
    return grade_evidence(
        [symbol_facts],
        tried,
        GateRules(),
        stated or confidence(),
        seed=7,
        earlier_trainings=earlier_trainings,
    )


def failed(evidence: Evidence) -> list[str]:
    return [check.name for check in evidence.checks if not check.passed]


def edge(sharpe: float, n: int = 1260, seed: int = 11) -> Floats:
    """Returns of which exactly this annual Sharpe ratio was seen."""
    noise = np.random.default_rng(seed).normal(0, 0.01, n)
    noise = (noise - noise.mean()) / noise.std() * 0.01
    return noise + sharpe / math.sqrt(252) * 0.01


RISING = edge(1.0, seed=99)
"""A market in which holding earned something."""


def test_evidence_grade_follows_edge() -> None:
    assert graded(facts(edge(3.0))).grade == "strong"
    assert graded(facts(edge(0.0))).grade == "none"
    assert graded(facts(edge(-2.0))).grade == "none"


@pytest.mark.parametrize(
    ("symbol_facts", "trials", "missing"),
    [
        (facts(edge(2.0), benchmark=edge(2.5, seed=12)), None, "better_than_buy_and_hold"),
        (
            facts(edge(1.5)),
            Trials(configurations=10**6, scorings=10**6, sharpe_variance=0.002, overfitting=0.1),
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
        (
            facts(edge(3.0)).model_copy(update={"delayed_returns": tuple(edge(-1.0, seed=5))}),
            None,
            "survives_delay",
        ),
    ],
)
def test_evidence_each_failed_check_makes_it_weak(
    symbol_facts: SymbolFacts, trials: Trials | None, missing: str
) -> None:
    evidence = graded(symbol_facts, trials)
    assert evidence.grade == "weak"
    assert failed(evidence) == [missing]


def test_evidence_is_none_where_random_entries_earn_as_much() -> None:
    evidence = graded(facts(edge(3.0), lucky=True))
    assert (evidence.grade, failed(evidence)) == ("none", ["better_than_random_entry"])


@pytest.mark.parametrize("ratio", [1.0, -1.0])
def test_evidence_of_exposure_alone_is_none(ratio: float) -> None:
    """A share of the market, held by chance or always, is no skill in a rise or in a fall."""
    market = edge(ratio, seed=99)
    months = np.random.default_rng(2).random(len(market) // 20 + 1) < 0.5
    for returns in (market, 0.3 * market, market * months.repeat(20)[: len(market)]):
        assert graded(facts(returns, benchmark=market)).grade == "none"


def test_evidence_of_cash_in_falling_market_is_none() -> None:
    market = edge(-1.5, seed=99)
    evidence = graded(facts(np.zeros(len(market)), benchmark=market))
    assert evidence.grade == "none"
    assert "better_than_buy_and_hold" in failed(evidence)


def test_evidence_does_not_depend_on_size() -> None:
    """A small desk that earns less money than holding, at a better ratio."""
    small, large = 0.1 * edge(2.5), edge(2.5)
    assert small.sum() < RISING.sum()
    for returns in (small, large):
        assert graded(facts(returns, benchmark=RISING)).grade == "strong"


def test_evidence_takes_each_symbol_beside_its_own_market() -> None:
    """Holding more of the symbol that rose is exposure."""
    risen, fallen = edge(2.5, seed=20), edge(-1.0, seed=21)
    noise = 1e-5 * np.random.default_rng(1).standard_normal((2, len(risen)))
    own = [facts(0.9 * risen + noise[0], benchmark=risen)]
    own += [facts(0.1 * fallen + noise[1], benchmark=fallen)]
    tried = Trials(configurations=2, scorings=2, sharpe_variance=1e-4, overfitting=0.1)
    evidence = grade_evidence(own, tried, GateRules(), confidence(), seed=1)
    assert evidence.numbers["p_sharpe_difference"] < 0.05  # type: ignore[operator]
    assert evidence.numbers["p_alpha"] > 0.05  # type: ignore[operator]


def test_evidence_counts_earlier_trainings() -> None:
    once, often = (graded(facts(edge(1.2)), earlier_trainings=n) for n in (0, 500))
    assert once.numbers["deflated_hurdle"] < often.numbers["deflated_hurdle"]  # type: ignore[operator]
    assert "above_the_best_of_chance" not in failed(once)
    assert "above_the_best_of_chance" in failed(often)
    assert often.numbers["earlier_trainings"] == 500


@pytest.mark.parametrize("stated", [confidence(informative=False), confidence(calls=10)])
def test_evidence_grade_ignores_empty_confidence(stated: ConfidenceRecord) -> None:
    """The check fails, and decides what confidence is served: no edge depends on it."""
    evidence = graded(facts(edge(3.0)), stated=stated)
    assert (evidence.grade, failed(evidence)) == ("strong", ["confidence_means_what_it_says"])


def test_evidence_without_trades_is_none() -> None:
    still = facts(np.zeros(500)).model_copy(update={"random_returns": None})
    evidence = graded(still)
    assert evidence.grade == "none"
    for name in ("sharpe", "probabilistic_sharpe", "p_alpha", "p_random_entry", "p_delay"):
        assert evidence.numbers[name] is None, name
    whys = {check.name: check.why for check in evidence.checks}
    assert whys["sharpe_above_zero"] == "the returns don't vary, or are too few"
    assert whys["better_than_random_entry"] == "no trade, or none whose times could be others"
    assert whys["costs_may_double"] is None


def test_evidence_undefined_number_has_its_reason() -> None:
    still = facts(np.zeros(500), benchmark=np.zeros(500))
    gone = {"random_returns": None, "break_even_commission": None}
    nothing = Trials(configurations=1, scorings=1, sharpe_variance=None, overfitting=None)
    evidence = graded(still.model_copy(update=gone), nothing, confidence(calls=3))
    assert [check.number for check in evidence.checks] == [None] * len(evidence.checks)
    assert all(check.why for check in evidence.checks)
    assert failed(evidence) == [check.name for check in evidence.checks]
    free = facts(edge(1.0)).model_copy(update={"commission": 0.0, "slippage": 0.0})
    [margin] = [check for check in graded(free).checks if check.name == "costs_may_double"]
    assert (margin.passed, margin.number_text) == (True, "undefined: no costs are assumed")


@given(n=st.integers(1, 30), value=st.sampled_from([0.0, 0.01, -0.01]))
@settings(max_examples=20)
def test_evidence_of_constant_or_few_returns_is_none(n: int, value: float) -> None:
    returns = np.full(n, value) if n > 19 else np.random.default_rng(n).normal(0.01, 0.001, n)
    evidence = graded(facts(returns))
    assert evidence.grade == "none"
    assert evidence.numbers["p_alpha"] is None
    assert evidence.numbers["deflated_sharpe"] is None


def test_evidence_pools_symbols_by_day() -> None:
    one, two = edge(1.0, 300), edge(1.0, 300, seed=12)
    early = facts(one)
    late = facts(two).model_copy(update={"closed_at": tuple(range(100, 400))})
    evidence = grade_evidence(
        [early, late],
        Trials(configurations=2, scorings=2, sharpe_variance=1e-4, overfitting=0.1),
        GateRules(),
        confidence(),
        seed=1,
    )
    assert evidence.numbers["observations"] == 400


@pytest.mark.parametrize(
    ("freq", "periods"), [("B", 252), ("D", 365), ("h", 24 * 365), ("W-FRI", 52), ("ME", 12)]
)
def test_evidence_is_annualised_by_the_calendar_of_the_bars(freq: str, periods: float) -> None:
    returns = edge(3.0, 900)
    closed_at = pd.date_range("2000-01-03", periods=900, freq=freq).as_unit("ms").asi8
    own = facts(returns).model_copy(update={"closed_at": tuple(closed_at.tolist())})
    numbers = graded(own).numbers
    ratio = float(returns.mean() / returns.std())
    assert numbers["sharpe"] == pytest.approx(ratio * math.sqrt(periods))
    assert count_bars_per_year(closed_at.tolist()) == pytest.approx(periods)
    low, high = numbers["sharpe_low"], numbers["sharpe_high"]
    assert low is not None
    assert high is not None
    assert low < ratio * math.sqrt(periods) < high

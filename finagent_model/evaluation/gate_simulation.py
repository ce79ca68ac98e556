"""Measure how often the gate errs, on simulated markets whose truth is known.

The whole training runs on each market: walk-forward folds, search, out-of-sample trades with the
desk's own sizes, stops and costs, calibration, evidence. Only the agents are left out: the desk
trades the policy's technical vote. All markets but one kind rise, so that being in them earns
something without any skill.

Three kinds of truth. *No pattern*: nothing in the past tells of the future, so that no desk has
skill. *Decided elsewhere*: prices do have a pattern, but the desk decides on another path of the
same kind, and so can't have skill. *Planted*: a hidden state makes a market rise or fall beside its
drift, and the desk knows the state: it has skill in timing, by a known information ratio, which is
alpha over the risk that the market leaves unexplained. Each market has eight out-of-sample years.

`calibrate_gate` grades many markets in parallel processes; equal seeds give equal tables.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model._progress import Progress, no_progress
from finagent_model.backtesting.engine import Orders
from finagent_model.backtesting.outcomes import label_outcomes
from finagent_model.config.rules import GateRules
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.calibrate import build_confidence_record, calibrate
from finagent_model.evaluation.evidence import Evidence, SymbolFacts, grade_evidence
from finagent_model.evaluation.out_of_sample import collect_symbol_facts, trade
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.timeframe import TRADING_DAYS_PER_YEAR
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import PolicyScorer
from finagent_model.training.walk_forward import fit_policies, out_of_sample_part, policy_periods

Kind = Literal[
    "random walk",
    "bear",
    "garch",
    "t3",
    "volatility regimes",
    "shuffled",
    "ar",
    "trends",
    "planted",
]
NO_PATTERN: tuple[Kind, ...] = (
    "random walk",
    "bear",
    "garch",
    "t3",
    "volatility regimes",
    "shuffled",
)
DECIDED_ELSEWHERE: tuple[Kind, ...] = ("ar", "trends")
"""Prices with a pattern, of which the desk sees another path."""
OUT_OF_SAMPLE_YEARS = 8
VOLATILITY = 0.015
"""Standard deviation of a simulated day's log return."""
MARKET_SHARPE = 0.7
"""Annual Sharpe ratio of holding; of the kind `bear` minus this."""
OVERNIGHT_SHARE = 0.1
"""Share of a day's variance between a close and the next open."""
LOCAL_DAYS = 21
"""Days from which a day's own volatility is taken; odd."""
STATE_DAYS = 60
"""Mean length of a hidden state, in days."""
CORRELATION = 0.5
"""Correlation of the symbols of one market."""
MANY_SYMBOLS = 4
KEPT_SHARES = {1: 0.65, MANY_SYMBOLS: 0.57}
"""Share of a planted ratio that stops, targets and late entries leave, by number of symbols:
measured, and a little too low; see docs/evidence.md.
"""
SIMULATION_REQUEST = TrainRequest()
"""The default training."""


@dataclass(frozen=True)
class SimulatedMarket:
    """One market to simulate, determined by its fields."""

    kind: Kind
    seed: int
    information_ratio: float = 0.0
    """Annual, of the planted skill; 0 without one."""
    symbols: int = 1

    @property
    def truth(self) -> str:
        """The row of the table that the market counts in."""
        if self.kind == "planted":
            text = f"information ratio {self.information_ratio:g}"
        else:
            text = f"{self.kind}, decided elsewhere" if self.is_decided_elsewhere else self.kind
        return f"{text}, {self.symbols} symbols" if self.symbols > 1 else text

    @property
    def is_decided_elsewhere(self) -> bool:
        return self.kind in DECIDED_ELSEWHERE


@dataclass(frozen=True)
class GateResult:
    """Grades of the gate on the markets of one truth."""

    truth: str
    markets: int
    weak: int
    """Markets that were graded weak or better."""
    strong: int
    appraisal_ratio: float
    """Mean measured annual ratio of alpha to the risk that the market leaves unexplained."""
    passed: Mapping[str, int]
    """Markets on which each check of evidence passed."""


def calibrate_gate(
    markets: int,
    ratios: Sequence[float],
    rules: GateRules,
    *,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> list[GateResult]:
    """Return the gate's grades by truth: `markets` of each kind and of each information ratio.

    `jobs` counts processes.
    """
    simulated = make_markets(markets, tuple(ratios), seed)
    advance = progress("judging markets", len(simulated))
    real_returns = load_real_returns()
    judged: list[tuple[SimulatedMarket, Evidence]] = []
    # Not fork: numba's and BLAS's threads don't survive it.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(judge_market, market, real_returns, rules) for market in simulated]
        for market, future in zip(simulated, futures, strict=True):
            judged.append((market, future.result()))
            advance()
    return count_grades(judged)


def make_markets(markets: int, ratios: tuple[float, ...], seed: int) -> list[SimulatedMarket]:
    """Return `markets` of each kind without skill and of each information ratio.

    The kinds `random walk` and `garch`, and the ratios, come with several symbols as well.
    """
    truths = [SimulatedMarket(kind, 0) for kind in (*NO_PATTERN, *DECIDED_ELSEWHERE)]
    truths += [SimulatedMarket(kind, 0, symbols=MANY_SYMBOLS) for kind in ("random walk", "garch")]
    truths += [SimulatedMarket("planted", 0, ratio) for ratio in ratios]
    truths += [SimulatedMarket("planted", 0, ratio, MANY_SYMBOLS) for ratio in ratios]
    # A million apart: no seed comes twice, or two kinds would share their random numbers.
    return [
        replace(truth, seed=seed + 1_000_000 * number + i)
        for number, truth in enumerate(truths)
        for i in range(markets)
    ]


def count_grades(judged: Sequence[tuple[SimulatedMarket, Evidence]]) -> list[GateResult]:
    """Return one row a truth, in the order of the markets."""
    by_truth: dict[str, list[Evidence]] = {}
    for market, evidence in judged:
        by_truth.setdefault(market.truth, []).append(evidence)
    return [
        GateResult(
            truth=truth,
            markets=len(each),
            weak=sum(e.meets("weak") for e in each),
            strong=sum(e.meets("strong") for e in each),
            appraisal_ratio=_mean_defined([e.numbers["appraisal_ratio"] for e in each]),
            passed={
                name: sum(check.passed for e in each for check in e.checks if check.name == name)
                for name in (check.name for check in each[0].checks)
            },
        )
        for truth, each in by_truth.items()
    ]


def load_real_returns() -> Floats:
    """Return the daily log returns of the four long bundled histories, one after the other."""
    source = BundledBars()
    closes = [
        source.bars(symbol).adjust_to_first_bar().close
        for symbol in ("AAPL", "GOOG", "IBM", "MSFT")
    ]
    # Differenced before they are joined: no return leads from one symbol to the next.
    return np.concatenate([np.diff(np.log(close)) for close in closes])


def judge_market(market: SimulatedMarket, real_returns: Floats, rules: GateRules) -> Evidence:
    """Return the evidence that a training on the simulated market finds.

    The kind `shuffled` is drawn from `real_returns`, daily log returns.
    """
    # The order of draws from `rng` is part of the result: equal seeds give equal markets.
    rng = np.random.default_rng(market.seed)
    request = SIMULATION_REQUEST
    count = request.train_bars + request.purge_bars + OUT_OF_SAMPLE_YEARS * TRADING_DAYS_PER_YEAR
    names = [f"SIM{number}" for number in range(market.symbols)]
    states = {s: _draw_states(rng, count) for s in names} if market.kind == "planted" else {}
    histories = simulate_histories(rng, market, count, real_returns, states)
    # What the desk sees to decide.
    seen = histories
    if market.is_decided_elsewhere:
        seen = simulate_histories(rng, market, count, real_returns, {})
    fitted = fit_policies(seen, request)
    facts: list[SymbolFacts] = []
    calls: list[TradeOutcome] = []
    for name, bars in histories.items():
        scorer, part = PolicyScorer(seen[name]), out_of_sample_part(bars, fitted.policies)
        orders, confidence = _make_policy_orders(scorer, fitted.policies, states.get(name))
        if market.is_decided_elsewhere:
            orders = _move_orders(orders, seen[name][part], bars[part])
        backtest = trade(bars[part], orders, request)
        calls += label_outcomes(backtest.bars, orders, backtest.rules, confidence)
        facts.append(collect_symbol_facts(backtest, market.seed))
    record = build_confidence_record(calls, calibrate(calls, fitted.policies.start_times))
    return grade_evidence(facts, fitted.trials, rules, record, seed=market.seed)


def simulate_histories(
    rng: np.random.Generator,
    market: SimulatedMarket,
    count: int,
    real_returns: Floats,
    states: Mapping[str, npt.NDArray[np.bool_]],
) -> dict[str, BarSeries]:
    """Return the market's bars by symbol."""
    model = _RETURN_MODELS[market.kind]
    # Weights of a shared and an own part that keep the variance and give the correlation.
    shared, own = (math.sqrt(CORRELATION), math.sqrt(1 - CORRELATION))
    common = model(rng, count, real_returns) if market.symbols > 1 else np.zeros(count)
    histories = {}
    for number in range(market.symbols):
        name, returns = f"SIM{number}", model(rng, count, real_returns)
        if market.symbols > 1:
            returns = shared * common + own * returns
        if market.kind != "shuffled":
            sign = -1 if market.kind == "bear" else 1
            returns = returns + sign * MARKET_SHARPE * VOLATILITY / math.sqrt(TRADING_DAYS_PER_YEAR)
        if name in states:
            reach = _daily_edge(market.information_ratio, market.symbols)
            returns = returns + np.where(states[name], reach, -reach)
        histories[name] = _make_bars(rng, name, returns)
    return histories


def _make_policy_orders(
    scorer: PolicyScorer, policies: PolicyBook, state: npt.NDArray[np.bool_] | None
) -> tuple[Orders, Floats]:
    """Return the orders of each fit in its own period, and their confidence.

    They follow the technical vote or, where the desk knows the `state` of each day, the next one.
    """
    parts = list(policy_periods(scorer.bars, policies))
    orders, confidence = [], []
    for fit, part in parts:
        policy = fit.policy
        made, scores = scorer.orders(policy, part), scorer.score(policy, part)
        if state is not None:
            # The state of the next bar is known at this bar's close: it is filled at its open.
            up = np.append(state[1:], state[-1])[part]
            made = scorer.size_orders(policy, part, np.where(up, 1, -1).astype(np.int8))
            scores = np.full(len(up), 0.6)
        orders.append(made)
        confidence += [policy.confidence(s, abs(s) >= policy.threshold) for s in scores.tolist()]
    names = ("action", "size", "stop", "target")
    joined = {name: np.concatenate([getattr(part, name) for part in orders]) for name in names}
    return Orders(**joined), np.array(confidence)


def _move_orders(orders: Orders, seen: BarSeries, traded: BarSeries) -> Orders:
    """Return the orders with their levels as far from the traded bars' closes as from the seen."""
    ratio = traded.adjust_to_first_bar().close / seen.adjust_to_first_bar().close
    return replace(orders, stop=orders.stop * ratio, target=orders.target * ratio)


def _mean_defined(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else math.nan


def _daily_edge(information_ratio: float, symbols: int) -> float:
    """Return by how much a state moves a day's return so that knowing it has this annual ratio."""
    # In the market half of the time at a size w: alpha is w/2 times the edge less costs, and the
    # market leaves w/2 times its volatility unexplained. Timing of several symbols is independent
    # but for what they share.
    round_trips = TRADING_DAYS_PER_YEAR / (2 * STATE_DAYS)
    cost = round_trips * 4 * (SIMULATION_REQUEST.commission + SIMULATION_REQUEST.slippage)
    risk = VOLATILITY * math.sqrt(TRADING_DAYS_PER_YEAR)
    ratio = information_ratio / math.sqrt(symbols) / KEPT_SHARES[symbols]
    return (ratio * risk + cost) / TRADING_DAYS_PER_YEAR


def _draw_states(rng: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    """Return whether each day's state is up: a Markov chain, with runs of `STATE_DAYS`."""
    switches = rng.random(count) < 1 / STATE_DAYS
    flips = np.cumsum(switches) + int(rng.integers(2))
    up: npt.NDArray[np.bool_] = flips % 2 == 0
    return up


def _random_walk(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    return rng.normal(0, VOLATILITY, count)


def _garch(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Return GARCH(1,1) log returns: alpha 0.08, beta 0.9, Student shocks with 5 df."""
    # A Student variable has variance df / (df - 2): scaled to 1.
    shocks = rng.standard_t(5, count) / math.sqrt(5 / 3)
    variance, returns = VOLATILITY**2, np.empty(count)
    for t in range(count):
        returns[t] = math.sqrt(variance) * shocks[t]
        # omega = 1 - alpha - beta keeps the long-run variance at VOLATILITY squared.
        variance = 0.02 * VOLATILITY**2 + 0.08 * returns[t] ** 2 + 0.9 * variance
    return returns


def _t3(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Return independent Student log returns with 3 df: fat tails."""
    # A Student variable has variance df / (df - 2): scaled to 1.
    return VOLATILITY * rng.standard_t(3, count) / math.sqrt(3)


def _volatility_regimes(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Return normal log returns whose volatility is high or low for months."""
    wild = _draw_states(rng, count)
    # Root mean square 1.
    return VOLATILITY * np.where(wild, 1.34, 0.45) * rng.normal(0, 1, count)


def _autoregressive(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Return first-order autoregressive log returns with coefficient 0.3."""
    returns = rng.normal(0, VOLATILITY * math.sqrt(1 - 0.3**2), count)
    for t in range(1, count):
        returns[t] += 0.3 * returns[t - 1]
    return returns


def _trends(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Return a random walk with a hidden drift that changes its sign every few months."""
    reach = VOLATILITY / math.sqrt(TRADING_DAYS_PER_YEAR)
    return _random_walk(rng, count, real) + np.where(_draw_states(rng, count), reach, -reach)


def _shuffled(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Return blocks of twenty real days in a new order, with the drift that they had."""
    # Blocks keep volatility clusters; no pattern longer than a month survives.
    starts = rng.integers(0, len(real) - 20, count // 20 + 1)
    return np.concatenate([real[s : s + 20] for s in starts])[:count]


_RETURN_MODELS: dict[Kind, Callable[[np.random.Generator, int, Floats], Floats]] = {
    "random walk": _random_walk,
    "bear": _random_walk,
    "garch": _garch,
    "t3": _t3,
    "volatility regimes": _volatility_regimes,
    "shuffled": _shuffled,
    "ar": _autoregressive,
    "trends": _trends,
    "planted": _random_walk,
}


def _make_bars(rng: np.random.Generator, symbol: str, returns: Floats) -> BarSeries:
    """Return daily bars whose closes have these log returns.

    Within a day prices are a Brownian motion, of which a stop or a target takes nothing on average:
    with other highs and lows those fills alone would earn or lose.
    """
    count = len(returns)
    # The day's own volatility, from the days around it.
    width = np.ones(LOCAL_DAYS) / LOCAL_DAYS
    squares = np.pad(returns**2, LOCAL_DAYS // 2, mode="reflect")
    local = np.sqrt(np.convolve(squares, width, "valid"))
    # A share of the day's variance is overnight, independent of what follows.
    share = OVERNIGHT_SHARE
    overnight = share * returns + math.sqrt(share * (1 - share)) * local * rng.normal(0, 1, count)
    intraday = returns - overnight
    # The highest and the lowest point of a Brownian bridge from open to close (the reflection
    # principle), each drawn on its own.
    spread = -2 * (1 - share) * local**2 * np.log(1 - rng.random((2, count)))
    reach = np.sqrt(intraday**2 + spread)
    close = 100 * np.exp(np.cumsum(returns))
    opens = np.append(100.0, close[:-1]) * np.exp(overnight)
    frame = pd.DataFrame(
        {
            "closed_at": pd.date_range("2000-01-03", periods=count, freq="B", tz="UTC"),
            "open": opens,
            "high": np.maximum(opens * np.exp((intraday + reach[0]) / 2), np.maximum(opens, close)),
            "low": np.minimum(opens * np.exp((intraday - reach[1]) / 2), np.minimum(opens, close)),
            "close": close,
        }
    )
    return BarSeries.from_frame(symbol, frame)

"""Measure how often the gate errs, on simulated markets whose truth is known.

On a market without edge the whole training runs: walk-forward folds, search, out-of-sample trades,
evidence. A market with a planted edge has a hidden state that drifts up or down, and the decider
knows the state; the drift is such that holding the up state earns the planted Sharpe ratio after
costs. Each market has eight out-of-sample years. `calibrate_gate` grades many markets in parallel
processes and counts the grades; equal seeds give equal tables.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model._base import Progress, no_progress
from finagent_model.backtesting.engine import Orders
from finagent_model.backtesting.outcomes import label_outcomes
from finagent_model.config.rules import GateRules, Grade
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.calibrate import build_confidence_record, calibrate
from finagent_model.evaluation.evidence import Evidence, grade_evidence
from finagent_model.evaluation.out_of_sample import collect_symbol_facts, trade
from finagent_model.market.bars import TRADING_DAYS_PER_YEAR, BarSeries, Floats
from finagent_model.policy.policy import PolicyBook
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import PolicyScorer
from finagent_model.training.walk_forward import fit_policies, out_of_sample_part, policy_periods

Kind = Literal["random walk", "garch", "shuffled", "planted"]
OUT_OF_SAMPLE_YEARS = 8
VOLATILITY = 0.015
"""Standard deviation of a simulated day's log return."""
STATE_DAYS = 60
"""Mean length of a hidden state, in days."""
SIMULATION_REQUEST = TrainRequest(candidates=24)
"""A default training with fewer policies, so that a market takes seconds."""


@dataclass(frozen=True)
class SimulatedMarket:
    """One market to simulate, determined by its fields."""

    kind: Kind
    seed: int
    sharpe: float = 0.0
    """Annual Sharpe ratio of the planted edge; 0 without one."""


@dataclass(frozen=True)
class GateResult:
    """Grades of the gate on the markets of one kind and edge."""

    truth: str
    markets: int
    weak: int
    """Markets that were graded weak or better."""
    strong: int


def calibrate_gate(
    markets: int,
    sharpes: Sequence[float],
    rules: GateRules,
    *,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> list[GateResult]:
    """Return the gate's grades by truth: `markets` without edge, and a fifth for each Sharpe ratio.

    `jobs` counts processes.
    """
    simulated = make_markets(markets, tuple(sharpes), seed)
    advance = progress("judging markets", len(simulated))
    real_returns = load_real_returns()
    grades: list[tuple[SimulatedMarket, Grade]] = []
    # Not fork: numba's and BLAS's threads don't survive it.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(_grade, market, real_returns, rules) for market in simulated]
        for market, future in zip(simulated, futures, strict=True):
            grades.append((market, future.result()))
            advance()
    return count_grades(grades)


def make_markets(markets: int, sharpes: tuple[float, ...], seed: int) -> list[SimulatedMarket]:
    """Return `markets` without edge, a third of each kind, and a fifth as many for each ratio."""
    kinds: tuple[Kind, ...] = ("random walk", "garch", "shuffled")
    simulated = [SimulatedMarket(kinds[i % 3], seed + i) for i in range(markets)]
    for j, sharpe in enumerate(sharpes):
        # A million apart: no seed comes twice, or two kinds would share their random numbers.
        start = seed + 1_000_000 * (j + 1)
        simulated += [
            SimulatedMarket("planted", start + i, sharpe) for i in range(max(markets // 5, 1))
        ]
    return simulated


def count_grades(grades: Sequence[tuple[SimulatedMarket, Grade]]) -> list[GateResult]:
    """Return one row a truth, in the order of the markets."""
    by_truth: dict[str, list[Grade]] = {}
    for market, grade in grades:
        truth = market.kind if market.kind != "planted" else f"Sharpe {market.sharpe:g}"
        by_truth.setdefault(truth, []).append(grade)
    return [
        GateResult(truth, len(each), sum(g != "none" for g in each), each.count("strong"))
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


def _grade(market: SimulatedMarket, real_returns: Floats, rules: GateRules) -> Grade:
    return judge_market(market, real_returns, rules).grade


def judge_market(market: SimulatedMarket, real_returns: Floats, rules: GateRules) -> Evidence:
    """Return the evidence that a training on the simulated market finds.

    The kind `shuffled` is drawn from `real_returns`, daily log returns.
    """
    # The order of draws from `rng` is part of the result: equal seeds give equal markets.
    rng = np.random.default_rng(market.seed)
    count = (
        SIMULATION_REQUEST.train_bars
        + SIMULATION_REQUEST.purge_bars
        + OUT_OF_SAMPLE_YEARS * TRADING_DAYS_PER_YEAR
    )
    state = _draw_states(rng, count) if market.kind == "planted" else None
    returns = _RETURN_MODELS[market.kind](rng, count, real_returns)
    if state is not None:
        returns = returns + np.where(state, 1, -1) * _daily_drift(market.sharpe)
    bars = _make_bars(rng, returns)
    fitted = fit_policies({bars.symbol: bars}, SIMULATION_REQUEST)
    scorer, out_of_sample = PolicyScorer(bars), out_of_sample_part(bars, fitted.policies)
    if state is None:
        orders, confidence = _make_policy_orders(scorer, fitted.policies)
    else:
        # The state of the next bar is known at this bar's close: it is filled at the next open.
        next_state = np.append(state[1:], state[-1])[out_of_sample]
        count = len(next_state)
        none = np.full(count, math.nan)
        orders = Orders(np.where(next_state, 1, -1).astype(np.int8), np.ones(count), none, none)
        confidence = np.full(count, 75.0)
    backtest = trade(bars[out_of_sample], orders, SIMULATION_REQUEST)
    calls = label_outcomes(backtest.bars, orders, backtest.rules, confidence)
    record = build_confidence_record(calls, calibrate(calls, fitted.policies.start_times))
    facts = collect_symbol_facts(backtest, market.seed)
    return grade_evidence([facts], fitted.trials, rules, record, seed=market.seed)


def _make_policy_orders(scorer: PolicyScorer, policies: PolicyBook) -> tuple[Orders, Floats]:
    """Return the orders of each fit's technical vote in its own period, and their confidence."""
    parts = list(policy_periods(scorer.bars, policies))
    orders = [scorer.orders(fit.policy, part) for fit, part in parts]
    confidence = [
        [fit.policy.confidence(s, abs(s) >= fit.policy.threshold) for s in scores]
        for fit, part in parts
        for scores in [scorer.score(fit.policy, part).tolist()]
    ]
    names = ("action", "size", "stop", "target")
    joined = {name: np.concatenate([getattr(part, name) for part in orders]) for name in names}
    return Orders(**joined), np.concatenate(confidence)


def _daily_drift(sharpe: float) -> float:
    """Return the daily drift at which holding the up states has this annual Sharpe ratio."""
    # In the market half of the time: mean d/2 less costs, deviation close to sigma/sqrt(2).
    round_trips = TRADING_DAYS_PER_YEAR / (2 * STATE_DAYS)
    cost = round_trips * 2 * (SIMULATION_REQUEST.commission + SIMULATION_REQUEST.slippage)
    spread = VOLATILITY * math.sqrt(TRADING_DAYS_PER_YEAR / 2)
    return 2 * (sharpe * spread + cost) / TRADING_DAYS_PER_YEAR


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


def _shuffled(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Return blocks of twenty real days in a new order, centred on 0."""
    # Blocks keep volatility clusters; no pattern longer than a month survives.
    centred = real - real.mean()
    starts = rng.integers(0, len(centred) - 20, count // 20 + 1)
    return np.concatenate([centred[s : s + 20] for s in starts])[:count]


_RETURN_MODELS: dict[Kind, Callable[[np.random.Generator, int, Floats], Floats]] = {
    "random walk": _random_walk,
    "garch": _garch,
    "shuffled": _shuffled,
    "planted": _random_walk,
}


def _make_bars(rng: np.random.Generator, returns: Floats) -> BarSeries:
    """Return daily bars whose closes have these log returns."""
    # 0.3 squared: about a tenth of a day's variance is overnight, between close and open.
    close = 100 * np.exp(np.cumsum(returns))
    opens = np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.3 * VOLATILITY, len(close)))
    reach = np.exp(np.abs(rng.normal(0, 0.5 * VOLATILITY, (2, len(close)))))
    frame = pd.DataFrame(
        {
            "closed_at": pd.date_range("2000-01-03", periods=len(close), freq="B", tz="UTC"),
            "open": opens,
            "high": np.maximum(opens, close) * reach[0],
            "low": np.minimum(opens, close) / reach[1],
            "close": close,
        }
    )
    return BarSeries.from_frame("SIM", frame)

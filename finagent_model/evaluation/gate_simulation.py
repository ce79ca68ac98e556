"""How often the gate errs: training and judging on simulated markets whose truth is known.

Without edge the whole training runs on each market: folds, search, unseen trades, evidence. With a
planted edge the market has a hidden state that drifts up or down, and the desk is told the state;
the drift is such that holding the up state earns the planted Sharpe ratio after costs. Each market
has eight years that no fit has seen.

The gate tried on many simulated markets, as many at once as there are cores.
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
from finagent_model.evaluation.calibrate import calibrate, confidence_record
from finagent_model.evaluation.evidence import Evidence, assess
from finagent_model.evaluation.out_of_sample import facts_of, trade
from finagent_model.market.bars import TRADING_DAYS_PER_YEAR, BarSeries, Floats
from finagent_model.policy.policy import PolicyBook
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import PolicyScorer
from finagent_model.training.walk_forward import fit_policies, out_of_sample_part, policy_periods

Kind = Literal["random walk", "garch", "shuffled", "planted"]
UNSEEN_YEARS = 8
VOLATILITY = 0.015
"""Of a simulated day."""
STATE_DAYS = 60
"""Mean length of a hidden state."""
SIMULATION_REQUEST = TrainRequest(candidates=24)
"""Everything as in a default training, but for fewer policies, so that it ends in minutes."""


@dataclass(frozen=True)
class SimulatedMarket:
    """One market to simulate; `sharpe` only where an edge is planted."""

    kind: Kind
    seed: int
    sharpe: float = 0.0


def judge_market(case: SimulatedMarket, real_returns: Floats, rules: GateRules) -> Evidence:
    """The evidence that a training on the case's market finds. `real_returns` are what the kind
    `shuffled` is drawn from.
    """
    rng = np.random.default_rng(case.seed)
    count = (
        SIMULATION_REQUEST.train_bars
        + SIMULATION_REQUEST.purge_bars
        + UNSEEN_YEARS * TRADING_DAYS_PER_YEAR
    )
    state = _states(rng, count) if case.kind == "planted" else None
    returns = _MARKETS[case.kind](rng, count, real_returns)
    if state is not None:
        returns = returns + np.where(state, 1, -1) * _drift(case.sharpe)
    bars = _bars(rng, returns)
    fitted = fit_policies({bars.symbol: bars}, SIMULATION_REQUEST)
    history, unseen = PolicyScorer(bars), out_of_sample_part(bars, fitted.policies)
    if state is None:
        orders, confidence = _searched(history, fitted.policies)
    else:
        # The state of the next bar is known at this bar's close: it is filled at the next open.
        known = np.append(state[1:], state[-1])[unseen]
        none = np.full(len(known), math.nan)
        orders = Orders(np.where(known, 1, -1).astype(np.int8), np.ones(len(known)), none, none)
        confidence = np.full(len(known), 75.0)
    traded = trade(bars[unseen], orders, SIMULATION_REQUEST)
    calls = label_outcomes(traded.bars, orders, traded.rules, confidence)
    said = confidence_record(calls, calibrate(calls, fitted.policies.start_times))
    facts = facts_of(traded, case.seed)
    return assess([facts], fitted.trials, rules, said, seed=case.seed)


@dataclass(frozen=True)
class GateResult:
    """What the gate said of the markets of one truth."""

    truth: str
    markets: int
    weak: int
    """Graded weak or better."""
    strong: int


def table(found: Sequence[tuple[SimulatedMarket, Grade]]) -> list[GateResult]:
    """One row a truth, in the order in which they were asked."""
    rows: dict[str, list[Grade]] = {}
    for case, grade in found:
        truth = case.kind if case.kind != "planted" else f"Sharpe {case.sharpe:g}"
        rows.setdefault(truth, []).append(grade)
    return [
        GateResult(truth, len(grades), sum(g != "none" for g in grades), grades.count("strong"))
        for truth, grades in rows.items()
    ]


def cases(markets: int, sharpes: tuple[float, ...], seed: int) -> list[SimulatedMarket]:
    """`markets` without edge, a third of each kind, and a fifth as many for each planted ratio."""
    kinds: tuple[Kind, ...] = ("random walk", "garch", "shuffled")
    found = [SimulatedMarket(kinds[i % 3], seed + i) for i in range(markets)]
    for j, sharpe in enumerate(sharpes):
        start = seed + 1_000_000 * (j + 1)
        found += [
            SimulatedMarket("planted", start + i, sharpe) for i in range(max(markets // 5, 1))
        ]
    return found


def _searched(history: PolicyScorer, policies: PolicyBook) -> tuple[Orders, Floats]:
    """The technical vote of each fit on the bars that it may speak about, and its confidence."""
    parts = list(policy_periods(history.bars, policies))
    orders = [history.orders(fit.policy, part) for fit, part in parts]
    confidence = [
        [fit.policy.confidence(s, abs(s) >= fit.policy.threshold) for s in score]
        for fit, part in parts
        for score in [history.score(fit.policy, part).tolist()]
    ]
    names = ("action", "size", "stop", "target")
    joined = {name: np.concatenate([getattr(part, name) for part in orders]) for name in names}
    return Orders(**joined), np.concatenate(confidence)


def _drift(sharpe: float) -> float:
    """Daily drift of a state at which being in during the up states alone has this annual ratio.

    In half of the time: mean d/2 less costs, deviation close to sigma/sqrt(2).
    """
    round_trips = TRADING_DAYS_PER_YEAR / (2 * STATE_DAYS)
    cost = round_trips * 2 * (SIMULATION_REQUEST.commission + SIMULATION_REQUEST.slippage)
    spread = VOLATILITY * math.sqrt(TRADING_DAYS_PER_YEAR / 2)
    return 2 * (sharpe * spread + cost) / TRADING_DAYS_PER_YEAR


def _states(rng: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    switched = rng.random(count) < 1 / STATE_DAYS
    flips = np.cumsum(switched) + int(rng.integers(2))
    up: npt.NDArray[np.bool_] = flips % 2 == 0
    return up


def _random_walk(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    return rng.normal(0, VOLATILITY, count)


def _garch(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """GARCH(1,1) with Student shocks: alpha 0.08, beta 0.9, five degrees of freedom."""
    shocks = rng.standard_t(5, count) / math.sqrt(5 / 3)
    variance, found = VOLATILITY**2, np.empty(count)
    for t in range(count):
        found[t] = math.sqrt(variance) * shocks[t]
        variance = 0.02 * VOLATILITY**2 + 0.08 * found[t] ** 2 + 0.9 * variance
    return found


def _shuffled(rng: np.random.Generator, count: int, real: Floats) -> Floats:
    """Blocks of twenty real days in a new order, their mean taken off: nothing longer than a month
    repeats.
    """
    centred = real - real.mean()
    starts = rng.integers(0, len(centred) - 20, count // 20 + 1)
    return np.concatenate([centred[s : s + 20] for s in starts])[:count]


_MARKETS: dict[Kind, Callable[[np.random.Generator, int, Floats], Floats]] = {
    "random walk": _random_walk,
    "garch": _garch,
    "shuffled": _shuffled,
    "planted": _random_walk,
}


def _bars(rng: np.random.Generator, returns: Floats) -> BarSeries:
    """Daily bars whose closes have these log returns; a tenth of a day's variance is overnight."""
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


def calibrate_gate(
    markets: int,
    sharpes: Sequence[float],
    rules: GateRules,
    *,
    seed: int = 1,
    jobs: int = 1,
    watch: Progress = no_progress,
) -> list[GateResult]:
    """`markets` without edge and a fifth as many for each planted ratio; the gate's grades."""
    asked = cases(markets, tuple(sharpes), seed)
    done = watch("judging markets", len(asked))
    real = real_returns()
    found: list[tuple[SimulatedMarket, Grade]] = []
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(_grade, case, real, rules) for case in asked]
        for case, future in zip(asked, futures, strict=True):
            found.append((case, future.result()))
            done()
    return table(found)


def real_returns() -> Floats:
    """Daily log returns of the four long embedded histories, one after the other."""
    source = BundledBars()
    closes = [
        source.bars(symbol).adjust_to_first_bar().close
        for symbol in ("AAPL", "GOOG", "IBM", "MSFT")
    ]
    return np.concatenate([np.diff(np.log(close)) for close in closes])


def _grade(case: SimulatedMarket, real: Floats, rules: GateRules) -> Grade:
    return judge_market(case, real, rules).grade

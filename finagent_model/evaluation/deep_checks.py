"""Check a backtest against bars, ledger and records, by plain accounting: `finagent verify --deep`.

What was filled and earned is derived again (`evaluation/accounting.py`) from the bars as traded and
from the signals of the ledger, then compared with what the engine says and with what the training
recorded. The first four checks take milliseconds a symbol and are asked by every gate.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np

from finagent_model._base import Check
from finagent_model.backtesting.engine import REASONS, BacktestResult
from finagent_model.backtesting.kernel import OPEN, FillRules
from finagent_model.config.knowledge import Knowledge
from finagent_model.config.rules import GateRules
from finagent_model.data.market import Market
from finagent_model.evaluation.accounting import (
    Account,
    PlainBars,
    PlainOrders,
    adjust_plainly,
    follow_call,
    hold_from_first_open,
    read_orders,
    simulate_account,
)
from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.evidence import SymbolFacts, grade_evidence, select_graded
from finagent_model.evaluation.out_of_sample import (
    OutOfSampleBacktest,
    cut_from,
)
from finagent_model.evaluation.plain_statistics import (
    alpha_by_day,
    annual_sharpe,
    close_times_ms,
    count_bars_per_year,
    grade_plainly,
    measure_account,
    measure_evidence,
    pool_plainly,
    returns_of,
)
from finagent_model.market.bars import from_datetime64, show_as_of
from finagent_model.policy.trained_state import HORIZON
from finagent_model.statistics.resampling import MAX_COMMISSION, random_entry_returns
from finagent_model.training.request import EvaluationRequest
from finagent_model.training.search import Trials

TOLERANCE = 1e-9
"""Relative: far above rounding, far below anything that could be earned by it."""
SHORTEST_SESSION = timedelta(hours=6)
"""No exchange's day session is shorter, so that a bar opened at least so long before it closed."""
_FIELDS = ("entry_bar", "exit_bar", "side", "shares", "entry_price", "exit_price", "fees", "pnl")


@dataclass(frozen=True)
class PlainBacktest:
    """One symbol's out-of-sample part, accounted for again beside buy and hold."""

    backtest: OutOfSampleBacktest
    bars: PlainBars
    orders: PlainOrders
    rules: FillRules
    account: Account
    benchmark: Account

    @classmethod
    def derive(cls, backtest: OutOfSampleBacktest, request: EvaluationRequest) -> PlainBacktest:
        """Account for the signals of `backtest` at the costs and with the cash of `request`."""
        bars = adjust_plainly(backtest.bars)
        signals = [decision.signal for decision in backtest.decisions]
        orders = read_orders(signals, backtest.positions, bars.factor)
        # From the request's own fields: whatever rules the engine was given are not trusted.
        rules = FillRules(request.commission, request.slippage, request.allow_short)
        held = hold_from_first_open(len(bars.close))
        return cls(
            backtest,
            bars,
            orders,
            rules,
            _trade(bars, orders, rules, request.cash),
            _trade(bars, held, rules._replace(allow_short=False), request.cash),
        )

    def cut_from(self, first_ms: int) -> PlainBacktest | None:
        """Return the part of the bars that close at or after `first_ms`, traded anew from there.

        Milliseconds since 1970. None: no bar closes so late.
        """
        part = cut_from(self.backtest, first_ms)
        if part is None or part is self.backtest:
            return None if part is None else self
        start = len(self.backtest.bars) - len(part.bars)
        # In order of their bars: the later ones are the last ones.
        skipped = bisect_left(self.backtest.positions, start)
        backtest = replace(
            self.backtest,
            bars=part.bars,
            orders=part.orders,
            result=part.result,
            benchmark=part.benchmark,
            decisions=self.backtest.decisions[skipped:],
            positions=tuple(at - start for at in self.backtest.positions[skipped:]),
        )
        bars = adjust_plainly(part.bars)
        signals = [decision.signal for decision in backtest.decisions]
        orders = read_orders(signals, backtest.positions, bars.factor)
        held = hold_from_first_open(len(bars.close))
        return PlainBacktest(
            backtest,
            bars,
            orders,
            self.rules,
            _trade(bars, orders, self.rules, 1.0),
            _trade(bars, held, self.rules._replace(allow_short=False), 1.0),
        )


def check_accounts(plain: PlainBacktest, recorded: Mapping[str, float | None]) -> Check:
    """Check that fills, equity and metrics are those of plain accounting; holding's as well.

    `recorded` are the metrics that the training wrote down, by name; None is undefined.
    """
    backtest, wrong = plain.backtest, list[str]()
    for name, result, account in (
        ("", backtest.result, plain.account),
        ("buy and hold: ", backtest.benchmark, plain.benchmark),
    ):
        wrong += [f"{name}{what}" for what in _compare_account(plain, result, account)]
        prefix = "benchmark_" if name else ""
        wrong += _compare_numbers(
            {
                f"{prefix}{metric}": value
                for metric, value in measure_account(account, backtest.bars).items()
            },
            recorded,
        )
    fills = len(plain.account.trades) + len(plain.benchmark.trades)
    summary = f"{fills} trades, equity and metrics of {backtest.bars.symbol} derived again"
    return Check(name="accounted_again", passed=not wrong, found=_found(summary, wrong))


def check_exits_in_range(plain: PlainBacktest) -> Check:
    """Check stops and targets against the bars: none was missed, each exit was within its bar.

    Reads trades of the engine beside levels of the ledger, and simulates nothing.
    """
    backtest, orders, wrong = plain.backtest, plain.orders, list[str]()
    bars, n = plain.bars, len(plain.bars.close)
    for trade in backtest.result.trades.to_dict("records"):
        side, entry, reason = (
            1 if trade["side"] == "long" else -1,
            trade["entry_bar"],
            trade["reason"],
        )
        exit_bar = trade["exit_bar"] if trade["exit_bar"] >= 0 else n
        stop, target = orders.stop[entry - 1], orders.target[entry - 1]
        if any(_touches(bars, t, side, stop, target) for t in range(entry, exit_bar)):
            wrong.append(f"a level of the entry of {_day(plain, entry)} was touched and not taken")
        elif reason in ("stop", "target"):
            # A stop slips; before that it was a price of the bar, as a target is.
            slip = 1 - side * plain.rules.slippage if reason == "stop" else 1.0
            price = trade["exit_price"] / slip * bars.factor[exit_bar]
            expected = _level_price(bars, exit_bar, side, reason, stop, target)
            if not _is_within(price, bars, exit_bar) or not _is_same(price, expected):
                wrong.append(f"the {reason} of {_day(plain, exit_bar)} is not a price of its bar")
    summary = f"{len(backtest.result.trades)} trades of {backtest.bars.symbol} beside their bars"
    return Check(name="exits_in_range", passed=not wrong, found=_found(summary, wrong))


def check_equity_adds_up(plain: PlainBacktest, request: EvaluationRequest) -> Check:
    """Check that equity is cash plus position at each close, and that every fill paid its costs."""
    wrong: list[str] = []
    for name, result in (
        ("", plain.backtest.result),
        ("buy and hold: ", plain.backtest.benchmark),
    ):
        wrong += [f"{name}{what}" for what in _check_books(plain, result, request)]
    summary = f"cash plus position on {len(plain.bars.close)} bars of {plain.backtest.bars.symbol}"
    return Check(name="equity_adds_up", passed=not wrong, found=_found(summary, wrong))


def check_outcomes(plain: PlainBacktest) -> Check:
    """Check each labelled outcome: what it earned, how it ended, and the bar on which it closed."""
    backtest, wrong = plain.backtest, list[str]()
    labelled = {call.as_of: call for call in backtest.trade_outcomes()}
    for position, decision in zip(backtest.positions, backtest.decisions, strict=True):
        if not plain.orders.action[position]:
            continue
        call = labelled.pop(decision.signal.as_of, None)
        known = follow_call(plain.bars, position, plain.orders, plain.rules, HORIZON)
        if known is None or call is None:
            if (known is None) != (call is None):
                state = "not known yet" if known is None else "known, and left out"
                wrong.append(f"the call of {show_as_of(decision.signal.as_of)} is {state}")
            continue
        closed_at = from_datetime64(backtest.bars.closed_at[known.exit_bar])
        ended = "time" if known.reason == OPEN else REASONS[known.reason]
        is_same = (call.closed_at, call.ended) == (closed_at, ended)
        if not is_same or not _is_same(known.earned, call.earned):
            wrong.append(
                f"the call of {show_as_of(call.as_of)} closed on {show_as_of(closed_at)} by "
                f"{ended} with {known.earned:.4%}, labelled {show_as_of(call.closed_at)}, "
                f"{call.ended} and {call.earned:.4%}"
            )
    wrong += [f"nobody made a call as of {show_as_of(moment)}" for moment in labelled]
    calls = sum(action != 0 for action in plain.orders.action)
    summary = f"{calls} calls of {backtest.bars.symbol} followed"
    return Check(name="outcomes_again", passed=not wrong, found=_found(summary, wrong))


def check_news_before_fill(market: Market, backtest: OutOfSampleBacktest) -> Check:
    """Check that no decision was shown news from after the open at which it was filled.

    `as_of = D` holds the whole of D in UTC. An exchange that opens before midnight UTC has filled
    the decision by then. Bars have no time of opening; it is taken as `SHORTEST_SESSION` before
    their close, or as the length of a shorter bar, and never before the decision's own bar closed,
    so that what is found is later than the open for sure.
    """
    symbol, bars = backtest.bars.symbol, backtest.bars
    records = (*market.news(symbol)[0], *market.facts(symbol)[0])
    moments = sorted(record.published_at for record in records)
    first, wrong, asked = len(market.bars(symbol)) - len(bars), list[str](), 0
    for position, decision in zip(backtest.positions, backtest.decisions, strict=True):
        if position + 1 == len(bars):
            continue  # the last decision is not filled
        latest = bars.close_time(position + 1) - min(SHORTEST_SESSION, bars.timeframe.length)
        opened = max(latest, bars.close_time(position))
        asked += 1
        # Views are costly: only where something was published between the open and `as_of`.
        if bisect_right(moments, opened) >= bisect_right(moments, decision.signal.as_of):
            continue
        # What the view really holds decides, whatever the sources have.
        [view] = market.bar_views(symbol, [first + position])
        late = [r for r in (*view.news, *view.fundamentals) if r.published_at > opened]
        if late:
            wrong.append(
                f"the decision as of {show_as_of(decision.signal.as_of)} knew what was published "
                f"at {late[-1].published_at:%Y-%m-%d %H:%M} UTC, filled by {opened:%Y-%m-%d %H:%M}"
            )
    summary = f"news of {asked} decisions about {symbol}"
    return Check(name="news_before_fill", passed=not wrong, found=_found(summary, wrong))


def check_evidence(
    plains: Sequence[PlainBacktest],
    recorded: Mapping[str, Any],
    rules: GateRules,
    confidence: ConfidenceRecord,
    seed: int,
    knowledge: Knowledge | None = None,
) -> Check:
    """Check that the numbers of the evidence, and its grade, follow from the plain accounts.

    `recorded` is the package's evidence as JSON; with `knowledge` only days that the desk's models
    can't have read about are graded, as in a training. What follows from returns alone is computed
    plainly; p-values by resampling are asked of the same functions again, on the plain returns.
    """
    was = recorded["numbers"]
    trials = Trials(
        # The search counts itself; how policies differ moves no check.
        configurations=int(was["configurations"]),
        scorings=int(was["scorings"]),
        sharpe_variance=None,
        overfitting=was["overfitting"],
    )
    facts = [_facts(plain, seed) for plain in plains]
    first = knowledge.first_unread_ms if knowledge else None
    if first is not None:
        parts = [plain.cut_from(first) for plain in plains]
        facts = [
            whole
            if part is None or len(part.bars.close) < 2
            else whole.model_copy(update={"unread": _facts(part, seed)})
            for whole, part in zip(facts, parts, strict=True)
        ]
    again = grade_evidence(
        facts, trials, rules, confidence, seed=seed, knowledge=knowledge, needs_probes=False
    )
    graded = select_graded(facts, knowledge)
    numbers = {
        name: math.nan if value is None else value
        for name, value in again.numbers.items()
        if name != "deflated_hurdle_observed"
    }
    if any(each.returns for each in graded):
        numbers |= _plain_numbers(graded)
    wrong = _compare_numbers(numbers, was)
    too_few = again.memory is not None and again.memory.reason is not None
    grade = "none" if too_few else grade_plainly(numbers, rules)
    if grade != recorded["grade"]:
        wrong.append(f"the grade is {grade}, recorded as {recorded['grade']}")
    summary = f"{len(numbers)} numbers and the grade {grade} from {len(plains)} plain accounts"
    return Check(name="evidence_again", passed=not wrong, found=_found(summary, wrong))


def _trade(bars: PlainBars, orders: PlainOrders, rules: FillRules, cash: float) -> Account:
    # Fractional shares, as in a training: the result does not depend on the cash.
    return simulate_account(bars[:4], orders, [0.0] * len(bars.close), cash, rules)


def _compare_account(plain: PlainBacktest, result: BacktestResult, account: Account) -> list[str]:
    """Return, in words, the first differences between the engine's result and the account."""
    rows, factor, wrong = result.trades.to_dict("records"), plain.bars.factor, []
    if len(rows) != len(account.trades):
        wrong.append(f"{len(rows)} trades, plainly {len(account.trades)}")
    for row, trade in zip(rows, account.trades, strict=False):
        expected = (
            trade.entry_bar,
            trade.exit_bar,
            trade.side,
            trade.units * factor[trade.entry_bar],
            trade.entry_price / factor[trade.entry_bar],
            trade.exit_price / factor[trade.exit_bar],
            trade.fees,
            trade.pnl,
        )
        values = {**row, "side": 1 if row["side"] == "long" else -1}
        # Money is compared with the trade's own size: a gain of nearly nothing has no digits.
        size = trade.units * trade.entry_price
        differs = [
            name
            for name, value in zip(_FIELDS, expected, strict=True)
            if not _is_same(value, values[name], size if name in ("fees", "pnl") else 0.0)
        ]
        if row["reason"] != REASONS[trade.reason]:
            differs.append("reason")
        if differs:
            wrong.append(
                f"the trade of {_day(plain, trade.entry_bar)} has another {', '.join(differs)}"
            )
            break
    for t, (value, known) in enumerate(zip(account.equity, result.equity, strict=True)):
        if not _is_same(value, known):
            wrong.append(f"equity of {_day(plain, t)} is {value:.6f}, not {known:.6f}")
            break
    return wrong


def _check_books(
    plain: PlainBacktest, result: BacktestResult, request: EvaluationRequest
) -> list[str]:
    """Return, in words, the first bar whose equity is not cash plus position, and wrong fees."""
    n, bars = len(plain.bars.close), plain.bars
    # Changes by bar; one more, where trades that are still open would end.
    cash_change, units_change = [0.0] * (n + 1), [0.0] * (n + 1)
    for trade in result.trades.to_dict("records"):
        entry, side = trade["entry_bar"], 1 if trade["side"] == "long" else -1
        exit_bar = trade["exit_bar"] if trade["exit_bar"] >= 0 else n
        units = trade["shares"] / bars.factor[entry]
        paid = units * trade["entry_price"] * bars.factor[entry]
        got = units * trade["exit_price"] * bars.factor[exit_bar] if exit_bar < n else 0.0
        fees = (paid + got) * request.commission
        if not _is_same(fees, trade["fees"], paid):
            return [f"the trade of {_day(plain, entry)} paid {trade['fees']:.6f}, not {fees:.6f}"]
        cash_change[entry] -= side * paid + paid * request.commission
        cash_change[exit_bar] += side * got - got * request.commission
        units_change[entry] += side * units
        units_change[exit_bar] -= side * units
    cash, held = request.cash, 0.0
    for t in range(n):
        cash, held = cash + cash_change[t], held + units_change[t]
        equity = cash + held * bars.close[t]
        if not _is_same(equity, result.equity[t], request.cash):
            return [f"equity of {_day(plain, t)} is {result.equity[t]:.6f}, not {equity:.6f}"]
    return []


def _touches(bars: PlainBars, t: int, side: int, stop: float, target: float) -> bool:
    """Return whether bar `t` reached a level; a level of nan is none."""
    low, high = (stop, target) if side > 0 else (target, stop)
    return bars.low[t] <= low or bars.high[t] >= high


def _level_price(
    bars: PlainBars, t: int, side: int, reason: str, stop: float, target: float
) -> float:
    """Return the price before slippage of a stop or a target in bar `t`; nan for none."""
    opened, worst = bars.open[t], bars.low[t] if side > 0 else bars.high[t]
    level = stop if reason == "stop" else target
    # A gap beyond either level fills at the open.
    beyond = opened - level if reason == "target" else level - opened
    if side * beyond >= 0:
        return opened
    # Where a bar touches both, the stop is taken.
    if reason == "target" and side * (stop - worst) >= 0:
        return math.nan
    return level


def _is_within(price: float, bars: PlainBars, t: int) -> bool:
    slack = TOLERANCE * price
    return bars.low[t] - slack <= price <= bars.high[t] + slack


def _facts(plain: PlainBacktest, seed: int) -> SymbolFacts:
    """Return what the grade needs of one symbol, from the plain account."""
    backtest = plain.backtest
    returns, held = returns_of(plain.account.equity), returns_of(plain.benchmark.equity)
    delayed = returns_of(_trade(plain.bars, plain.orders.delayed(), plain.rules, 1.0).equity)
    drawn = random_entry_returns(backtest.bars, backtest.result, plain.rules, seed=seed)
    periods = count_bars_per_year(close_times_ms(backtest.bars))
    lagged, break_even = annual_sharpe(delayed, periods), _break_even(plain)
    # A ruined account has no returns after its end.
    known = int(np.isfinite(returns).sum())
    late = delayed[:known]
    return SymbolFacts(
        symbol=backtest.bars.symbol,
        closed_at=tuple((backtest.bars.closed_at[1 : known + 1].astype(np.int64) // 1000).tolist()),
        returns=tuple(returns[:known].tolist()),
        benchmark_returns=tuple(held[:known].tolist()),
        total_return=plain.account.equity[-1] / plain.account.equity[0] - 1,
        random_returns=tuple(drawn.tolist()) if np.isfinite(drawn).all() else None,
        delayed_returns=tuple(late.tolist()) if np.isfinite(late).all() else None,
        cost_curve=(),  # enters no check
        break_even_commission=None if math.isnan(break_even) else break_even,
        commission=plain.rules.commission,
        slippage=plain.rules.slippage,
        lagged_sharpe=None if math.isnan(lagged) else lagged,
    )


def _break_even(plain: PlainBacktest) -> float:
    """Return the commission at which the orders earn nothing; nan where they lose without any."""

    def gains(commission: float) -> bool:
        rules = plain.rules._replace(commission=commission)
        return _trade(plain.bars, plain.orders, rules, 1.0).equity[-1] > 1

    if not gains(0.0):
        return math.nan
    if gains(MAX_COMMISSION):
        return MAX_COMMISSION
    low, high = 0.0, MAX_COMMISSION
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if gains(middle) else (low, middle)
    return low


def _plain_numbers(facts: Sequence[SymbolFacts]) -> dict[str, float]:
    """Return the numbers of the evidence that need no resampling."""
    returns = pool_plainly([(f.closed_at, np.array(f.returns)) for f in facts])
    held = pool_plainly([(f.closed_at, np.array(f.benchmark_returns)) for f in facts])
    # Each symbol beside its own benchmark: more of one than of another is exposure.
    skill = pool_plainly(
        [
            (f.closed_at, alpha_by_day(np.array(f.returns), np.array(f.benchmark_returns)))
            for f in facts
        ]
    )
    costs = facts[0].commission + facts[0].slippage
    break_even = _mean([f.break_even_commission for f in facts])
    periods = count_bars_per_year(sorted({moment for f in facts for moment in f.closed_at}))
    return measure_evidence(returns, held, skill, periods) | {
        "break_even_commission": break_even,
        "cost_margin": (break_even + facts[0].slippage) / costs if costs > 0 else math.inf,
        "lagged_sharpe": _mean([f.lagged_sharpe for f in facts]),
    }


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([math.nan if value is None else value for value in values]))


def _is_same(value: float, known: float | None, scale: float = 0.0) -> bool:
    """Return whether two numbers are equal but for rounding; what is undefined equals itself."""
    if known is None or not math.isfinite(known):
        return not math.isfinite(value)
    return math.isclose(value, known, rel_tol=TOLERANCE, abs_tol=max(scale, 1e-3) * TOLERANCE)


def _compare_numbers(
    numbers: Mapping[str, float], recorded: Mapping[str, float | None]
) -> list[str]:
    """Return, in words, each number that is recorded as another, or not at all."""
    return [
        f"{name} is {value:.6g}, recorded as {recorded.get(name, 'nothing')}"
        for name, value in numbers.items()
        if name not in recorded or not _is_same(value, recorded[name])
    ]


def _day(plain: PlainBacktest, bar: int) -> str:
    return f"{plain.backtest.bars.show_time(bar)}"


def _found(summary: str, wrong: Sequence[str]) -> str:
    return f"{summary}; {len(wrong)} differ, first: {wrong[0]}" if wrong else summary

"""What two trainings did on the days that both decided on: returns, decisions and agents.

Only what is common is compared, bar by bar of the symbols that both have; what is left out is said.
A finished backtest never changes, so that what was read of a pair is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

import numpy as np

from finagent_model.decision.decision import LedgerRow
from finagent_model.decision.opinions import debater_name, read_stance
from finagent_model.errors import TrackingError
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.market.timeframe import bars_per_year
from finagent_model.pipeline.run_metadata import SYMBOL
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.reports.tearsheet import DailyReturns
from finagent_model.statistics.comparison import MetricComparison, compare_curves
from finagent_model.webui._backtest_files import (
    COMPARED_COLUMNS,
    read_facts,
    read_ledger_rows,
    read_messages,
    read_outcomes,
)
from finagent_model.webui._run_records import FinishedBacktests

SEED = 7
"""Of the resampled histories: the same two runs are always told apart alike."""
KEPT_PAIRS = 32
"""Pairs of runs whose comparison is kept."""
MAX_TRANSCRIPT_SYMBOLS = 20
"""Symbols whose conversations are read; each file has all messages of a backtest."""
SAME_RETURN = 1e-9
"""Difference of two returns that only rounding left."""
DAY_MS = 86_400_000
DIFFERENT_LENGTH = 1.5
"""Ratio of two distances between closes from which on they are of two bar lengths."""
BacktestIds = tuple[tuple[str, str], ...]
"""Symbol and run of each finished backtest."""


def backtest_ids(backtests: FinishedBacktests) -> BacktestIds:
    """Return symbol and run of each backtest, by symbol."""
    return tuple(sorted((run.tags[SYMBOL], run.run_id) for run in backtests.runs))


@dataclass(frozen=True, eq=False)
class CommonDays:
    """The returns of two runs on the days that both have, and what was left out."""

    pools: tuple[DailyReturns, DailyReturns] | None
    """None: they have nothing in common."""
    symbols: tuple[str, ...]
    left_out: tuple[str, ...]
    """Sentences; all there is where nothing is common."""
    metrics: tuple[MetricComparison, ...] = ()

    @property
    def days(self) -> list[str]:
        """The common days, as YYYY-MM-DD."""
        return self.pools[0].days if self.pools else []


@lru_cache(maxsize=KEPT_PAIRS)
def compare_backtests(first: BacktestIds, second: BacktestIds) -> CommonDays:
    """Return what two runs earned on their common days, with intervals. Raises TrackingError."""
    by_symbol = dict(first), dict(second)
    symbols = tuple(sorted(by_symbol[0].keys() & by_symbol[1].keys()))
    only = [sorted(ids.keys() - set(symbols)) for ids in by_symbol]
    left_out = [
        f"{', '.join(names)}: run {number} alone has a finished backtest of it"
        for number, names in enumerate(only, 1)
        if names
    ]
    cut: tuple[list[SymbolFacts], list[SymbolFacts]] = [], []
    outside: tuple[list[int], list[int]] = [], []
    foreign_prices, lengths = 0, set()
    for symbol in symbols:
        facts = [read_facts(ids[symbol]) for ids in by_symbol]
        shared = _on_common_days(facts[0], facts[1])
        lengths.add(shared.lengths)
        for number in (0, 1):
            outside[number].extend(shared.outside[number])
            if shared.sides is not None:
                cut[number].append(shared.sides[number])
        if shared.sides is not None:
            foreign_prices += _has_other_prices(*shared.sides)
    left_out += [
        f"run {number}: {len(times):,} bars from {_day(min(times))} to {_day(max(times))}, on "
        "which the other one has none"
        for number, times in enumerate(outside, 1)
        if times
    ]
    if not cut[0]:
        why = "no symbol" if not symbols else "no day"
        return CommonDays(None, symbols, (f"The two have {why} in common", *left_out))
    for one, other in sorted(lengths):
        if max(one, other) > DIFFERENT_LENGTH * min(one, other):
            left_out.append(
                f"bar lengths differ: a bar of run 1 is {_show_length(one)} and one of run 2 "
                f"{_show_length(other)}; the returns of both are compounded from one common day to "
                "the next"
            )
    if foreign_prices:
        left_out.append(
            f"the two saw other prices of {foreign_prices} of {len(cut[0])} symbols: holding "
            "earned something else on the same days"
        )
    costs = [{(each.commission, each.slippage) for each in side} for side in cut]
    if costs[0] != costs[1]:
        words = [
            f"run {number} pays {_mean_cost(side):.4g} basis points"
            for number, side in enumerate(cut, 1)
        ]
        left_out.append(f"{' and '.join(words)} of each fill and its slippage")
    pools = DailyReturns.pool(cut[0]), DailyReturns.pool(cut[1])
    metrics = compare_curves(
        pools[0].desk, pools[1].desk, periods=bars_per_year(pools[0].closed_at), seed=SEED
    )
    return CommonDays(pools, tuple(each.symbol for each in cut[0]), tuple(left_out), metrics)


@dataclass(frozen=True, eq=False)
class _CommonFacts:
    """Facts of one symbol in two runs, by day, on the days that both have."""

    sides: tuple[SymbolFacts, SymbolFacts] | None
    """None: they have no day in common."""
    outside: tuple[list[int], list[int]]
    """Closes, in milliseconds since 1970, of the bars that are not compared."""
    lengths: tuple[int, int]
    """Usual milliseconds from one close to the next; 0: one bar tells none."""


def _on_common_days(first: SymbolFacts, second: SymbolFacts) -> _CommonFacts:
    """Return what two runs earned on the days that both have, whatever their bar lengths.

    The returns within a day are compounded. Where a bar of the one is longer than a day, the other
    one's are compounded over the same days.
    """
    facts = first, second
    times = [np.array(each.closed_at, dtype=np.int64) for each in facts]
    days = [each // DAY_MS for each in times]
    common = np.intersect1d(days[0], days[1])
    gaps = [int(np.median(np.diff(each))) if len(each) > 1 else 0 for each in times]
    lengths = gaps[0], gaps[1]
    is_longer = max(gaps) > DIFFERENT_LENGTH * max(min(gaps), DAY_MS)
    if is_longer:
        # What came before the first common day is not of the same days in both.
        start, common = common[:1], common[1:]
    sides, outside = [], []
    for each, own, own_days in zip(facts, times, days, strict=True):
        if is_longer and len(common):
            used = (own_days > start[0]) & (own_days <= common[-1])
        else:
            used = np.isin(own_days, common)
        outside.append(own[~used].tolist())
        if len(common):
            # Each common day ends a span, which begins after the one before.
            ends = np.searchsorted(own_days[used], common, side="right")
            starts = np.append(0, ends[:-1])
            grown = {
                name: tuple(
                    (
                        np.multiply.reduceat(1.0 + np.array(getattr(each, name))[used], starts)
                        - 1.0
                    ).tolist()
                )
                for name in ("returns", "benchmark_returns")
            }
            # The day alone: two bar lengths close at two times of it.
            closes = tuple((common * DAY_MS).tolist())
            sides.append(each.model_copy(update={"closed_at": closes, **grown}))
    both = (sides[0], sides[1]) if sides else None
    return _CommonFacts(both, (outside[0], outside[1]), lengths)


def _show_length(milliseconds: int) -> str:
    days = milliseconds / DAY_MS
    if days >= 1:
        return "1 day" if round(days) == 1 else f"{days:.3g} days"
    minutes = milliseconds / 60_000
    return f"{minutes:.3g} minutes" if minutes < 60 else f"{minutes / 60:.3g} hours"


def _has_other_prices(one: SymbolFacts, other: SymbolFacts) -> bool:
    distance = np.abs(np.array(one.benchmark_returns) - np.array(other.benchmark_returns))
    # Holding pays its entry on the first day of its own run, which may be a common one.
    return int((distance > SAME_RETURN).sum()) > 2


def _mean_cost(facts: Sequence[SymbolFacts]) -> float:
    return 1e4 * float(np.mean([each.commission + each.slippage for each in facts]))


def _day(closed_at: int) -> str:
    return str(np.datetime64(closed_at, "ms").astype("datetime64[D]"))


@dataclass(frozen=True)
class SideDecision:
    """What one run decided, and what became of it."""

    run_id: str
    """Of the backtest."""
    action: str
    status: str
    confidence: float | None
    """Before calibration, 0 to 100; None: nothing was decided, or it is not recorded."""
    outcome: TradeOutcome | None
    """None: no call, or its end is not known yet."""


@dataclass(frozen=True)
class DecisionDifference:
    """A day on which two runs decided differently."""

    symbol: str
    as_of: datetime
    sides: tuple[SideDecision, SideDecision]


@dataclass(frozen=True)
class ComparedDecisions:
    """Decisions of two runs on the same symbols and moments."""

    common: int
    """Moments on which both decided."""
    alone: tuple[int, int]
    """Moments of the common symbols on which only one did."""
    different: tuple[DecisionDifference, ...]
    """Oldest first."""
    problems: tuple[str, ...] = ()
    """Why outcomes are not known."""


@lru_cache(maxsize=KEPT_PAIRS)
def compare_decisions(first: BacktestIds, second: BacktestIds) -> ComparedDecisions:
    """Return the decisions that differ in action or status. Raises TrackingError."""
    by_symbol = dict(first), dict(second)
    common, alone, different = 0, [0, 0], []
    problems: list[str] = []
    for symbol in sorted(by_symbol[0].keys() & by_symbol[1].keys()):
        rows = [read_ledger_rows(ids[symbol], COMPARED_COLUMNS) for ids in by_symbol]
        ends = [_find_outcomes(ids[symbol], problems) for ids in by_symbol]
        both = sorted(rows[0].keys() & rows[1].keys())
        common += len(both)
        for number in (0, 1):
            alone[number] += len(rows[number]) - len(both)
        for as_of in both:
            one, other = (side[as_of] for side in rows)
            if (one["action"], one["status"]) == (other["action"], other["status"]):
                continue
            sides = [
                _side(ids[symbol], side[as_of], end.get(as_of))
                for ids, side, end in zip(by_symbol, rows, ends, strict=True)
            ]
            different.append(DecisionDifference(symbol, as_of, (sides[0], sides[1])))
    different.sort(key=lambda each: (each.as_of, each.symbol))
    return ComparedDecisions(common, (alone[0], alone[1]), tuple(different), tuple(problems))


def _find_outcomes(run_id: str, problems: list[str]) -> dict[datetime, TradeOutcome]:
    """Return the outcomes of a backtest; none, and why in `problems`, where they can't be read."""
    try:
        return read_outcomes(run_id)
    except TrackingError as error:
        # What was decided is known without them.
        problems.append(str(error))
        return {}


def _side(run_id: str, row: LedgerRow, outcome: TradeOutcome | None) -> SideDecision:
    confidence = row["raw_confidence_score"] if row["status"] == "ok" else None
    return SideDecision(run_id, row["action"], row["status"], confidence, outcome)


@dataclass
class AgentComparison:
    """How often an agent of that name saw the same in two runs."""

    name: str
    common: int = 0
    """Decisions in which the agents of both runs took part."""
    same: int = 0
    """Those in which both saw the same."""
    stances: tuple[Counter[str], Counter[str]] = field(
        default_factory=lambda: (Counter(), Counter())
    )
    """Of all its decisions on common moments, by run: up, down, flat, unknown."""

    @property
    def alone(self) -> int | None:
        """Number of the run that alone has such an agent; None: both have."""
        taking_part = [number for number, each in enumerate(self.stances, 1) if each]
        return taking_part[0] if len(taking_part) == 1 else None


@lru_cache(maxsize=KEPT_PAIRS)
def compare_agents(first: BacktestIds, second: BacktestIds) -> tuple[AgentComparison, ...]:
    """Return each agent's stances in two runs on the moments on which both decided, those that
    differ most first.

    Of at most `MAX_TRANSCRIPT_SYMBOLS` symbols. Raises TrackingError.
    """
    by_symbol = dict(first), dict(second)
    agents: dict[str, AgentComparison] = {}
    for symbol in sorted(by_symbol[0].keys() & by_symbol[1].keys())[:MAX_TRANSCRIPT_SYMBOLS]:
        sides = [read_stances(ids[symbol]) for ids in by_symbol]
        for moment in sides[0].keys() & sides[1].keys():
            seen = sides[0][moment], sides[1][moment]
            for name in seen[0].keys() | seen[1].keys():
                agent = agents.setdefault(name, AgentComparison(name))
                for number in (0, 1):
                    if name in seen[number]:
                        agent.stances[number][seen[number][name]] += 1
                if name in seen[0] and name in seen[1]:
                    agent.common += 1
                    agent.same += seen[0][name] == seen[1][name]
    return tuple(sorted(agents.values(), key=lambda each: (each.same - each.common, each.name)))


def read_stances(run_id: str) -> dict[datetime, dict[str, str]]:
    """Return what each agent saw by moment, `unknown` where its reply does not say.

    Raises TrackingError.
    """
    replies: dict[datetime, dict[str, str]] = {}
    for message in read_messages(run_id):
        if message.message_type == "response":
            said = replies.setdefault(message.as_of, {})
            said[message.agent_name] = message.message_content
    return {
        moment: {
            # A later round of a debater counts as the debater's last word.
            debater_name(name, texts.keys()): read_stance(text) or "unknown"
            for name, text in texts.items()
        }
        for moment, texts in replies.items()
    }

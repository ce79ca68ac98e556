"""Scan for look-ahead: experiments that fail if a decision could use the future.

Bars: history is cut at many places, also within the warm-up, and continued with nonsense; whatever
was computed before a cut must stay equal to the bit. News: an undated item must be dropped. Fills:
each must be at an open that its decision could have had, and the result must survive a bar's delay.
Trained state: every lesson must have closed before it was read, and calibrations and lessons must
follow from the recorded outcomes. Clock: `find_clock_reads` searches the source of all code that
decides, since no experiment shows that a branch which was not taken reads no clock.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

import finagent_model
from finagent_model._base import Check
from finagent_model._lazy import without_garbage_collection
from finagent_model.backtesting.engine import run_orders
from finagent_model.backtesting.metrics import sharpe, simple_returns
from finagent_model.errors import DataError
from finagent_model.evaluation.calibrate import calibrate, select_lessons
from finagent_model.evaluation.out_of_sample import OrdersBacktest
from finagent_model.market.bars import PRICES, BarSeries, Floats, show_as_of
from finagent_model.market.news import Fact, NewsItem, read_news
from finagent_model.market.timeframe import bars_per_year
from finagent_model.market.view import MarketView
from finagent_model.policy.context import FeatureBook, build_context
from finagent_model.policy.policy import Policy
from finagent_model.policy.trained_state import TradeOutcome, TrainedState
from finagent_model.statistics.skill import delay_p_value

MAX_CUTS = 40
"""Cuts of one history."""
FAILED_DELAY_P_VALUE = 0.001
"""Below this p-value the loss by one bar's delay is no accident: the version is refused."""
WARNED_DELAY_P_VALUE = 0.05
"""Below this p-value it is suspicious; the grade `strong` is not given either."""
DECISION_ROOMS = frozenset(
    [
        "_base",
        "_event_loop",
        "_redact",
        "_secrets",
        "market",
        "decision",
        "policy",
        "config",
        "data",
        "cassette",
        "audit",
        "agents",
        "desk",
        "backtesting",
        "contrib",
    ]
)
"""Files and folders of the package from which a decision or its fill comes."""
TIMESTAMP_FUNCTIONS = frozenset({("desk/desk.py", "utc_now"), ("data/bar_cache.py", "utc_now")})
"""Functions that may read the clock, by file.

They stamp a record, of a decision or of what a vendor answered, through a seam that tests stop.
"""
WALL_CLOCK_NAMES = frozenset({"now", "utcnow", "today"})
MONOTONIC_NAMES = frozenset({"monotonic", "monotonic_ns", "sleep"})
"""Names of the module `time` that say how long something took, and not when."""
_CLOCK_WORDS = re.compile(
    r"\b(?:now|utcnow|today)\b|\b(?:import|from)\b.*\btime\b|\\$", re.MULTILINE
)
"""What a file has that reads a clock, or a line that goes on in the next, which may hide it."""


# Bars, news and fundamentals


def check_features_causal(bars: BarSeries, policies: Sequence[Policy]) -> Check:
    """Check that adjustment factors and features before a cut ignore the bars after it."""
    leaking: set[str] = set()
    comparisons = 0
    for policy in policies:
        whole = _compute_arrays(bars, policy)
        for cut in choose_cuts(len(bars), policy.warm_up):
            # Without later bars a leak may come out as nan; with false ones it changes the number.
            for altered in (bars[:cut], corrupt_after(bars, cut)):
                arrays = _compute_arrays(altered, policy)
                comparisons += 1
                leaking |= {
                    name
                    for name, values in whole.items()
                    # Equal to the bit: a tolerance would pass a leak that is small today.
                    if not np.array_equal(values[:cut], arrays[name][:cut], equal_nan=True)
                }
    summary = f"{comparisons} cuts and corruptions of {bars.symbol}"
    if leaking:
        summary += f"; later bars change earlier {', '.join(sorted(leaking))}"
    return Check(name="features_causal", passed=not leaking, found=summary)


def check_questions_causal(
    bars: BarSeries,
    news: tuple[NewsItem, ...],
    policy: Policy,
    facts: tuple[Fact, ...] = (),
    external: Callable[[BarSeries], str] | None = None,
) -> Check:
    """Check that what agents are asked at a cut ignores later bars, news and fundamentals.

    `external` returns the digest of what an external analyst is shown of these bars; None where the
    desk hears none.
    """
    changed: list[str] = []
    cuts = choose_cuts(len(bars), policy.warm_up)
    for cut in cuts:
        as_of = bars.decision_time(cut - 1)
        # The smallest step into the future that a record can be dated with.
        later = as_of + timedelta(microseconds=1)
        future_news = NewsItem(published_at=later, headline="All is known now")
        future_fact = Fact(published_at=later, name="all_is_known", value=1.0)
        past_news = tuple(item for item in news if item.published_at <= as_of)
        past_facts = tuple(fact for fact in facts if fact.published_at <= as_of)
        views = (
            MarketView.at(as_of, bars, news, 0, facts),
            MarketView.at(as_of, bars[:cut], past_news, 0, past_facts),
            MarketView.at(
                as_of,
                corrupt_after(bars, cut),
                (*past_news, future_news),
                0,
                (*past_facts, future_fact),
            ),
        )
        if len({_question_text(view, policy, external) for view in views}) > 1:
            changed.append(show_as_of(as_of))
    summary = f"{len(cuts)} questions about {bars.symbol}"
    if changed:
        summary += f"; {len(changed)} change with their future, first as of {changed[0]}"
    return Check(name="questions_causal", passed=not changed, found=summary)


def check_news_dated() -> Check:
    """Check that a news item without a publication time is left out and counted."""
    items, dropped = read_news([{"headline": "Nobody says when this was published"}])
    summary = "an undated item is left out" if not items else "an undated item is read as known"
    return Check(name="news_dated", passed=not items and dropped == 1, found=summary)


def choose_cuts(count: int, warm_up: int) -> list[int]:
    """Return the lengths to cut a history of `count` bars to, ascending, at most `MAX_CUTS`."""
    # Eight within the warm-up: windows that are not full yet are where back-filling leaks.
    early = np.linspace(2, max(warm_up, 2), 8)
    late = np.linspace(warm_up + 1, count - 1, MAX_CUTS - 8)
    return sorted({int(c) for c in (*early, *late) if 1 < c < count})


def corrupt_after(bars: BarSeries, cut: int) -> BarSeries:
    """Return bars equal until `cut`, with nonsense from there on: prices, volumes and actions."""
    # Seeded by the cut: a verification that is run again compares the same bars.
    rng, count = np.random.default_rng(cut), max(len(bars) - cut, 0)
    # One factor for all prices of a bar, so that it stays a valid bar.
    scale = np.append(np.ones(len(bars) - count), rng.uniform(0.2, 5.0, count))
    split, dividend = bars.split.copy(), bars.dividend.copy()
    split[cut:] = np.where(rng.random(count) < 0.02, 2.0, 1.0)
    dividend[cut:] = 0.0
    prices = {name: getattr(bars, name) * scale for name in (*PRICES, "volume")}
    return replace(bars, **prices, split=split, dividend=dividend)


def _compute_arrays(bars: BarSeries, policy: Policy) -> Mapping[str, Floats]:
    return {"adjustment": bars.growth_factor, **FeatureBook(bars).compute(policy).arrays()}


def _question_text(
    view: MarketView, policy: Policy, external: Callable[[BarSeries], str] | None
) -> str:
    """Return the question and what the external analyst is shown, or why there is no question."""
    try:
        digest = external(view.bars) if external else ""
        return build_context(view, policy).text + digest
    except DataError as error:
        return str(error)


# Fills


def check_fills_possible(backtest: OrdersBacktest) -> Check:
    """Check that entries fill at the open after their decision, and market exits at an open."""
    bars, orders, rules = backtest.bars, backtest.orders, backtest.rules
    impossible: list[str] = []
    for trade in backtest.result.trades.to_dict("records"):
        side = 1 if trade["side"] == "long" else -1
        entry_bar, exit_bar = int(trade["entry_bar"]), int(trade["exit_bar"])
        # Slippage is against the trader: buys fill above the open, sales below.
        price = bars.open[entry_bar] * (1 + side * rules.slippage)
        has_order = entry_bar > 0 and orders.action[entry_bar - 1] == side
        if not has_order or not np.isclose(trade["entry_price"], price, rtol=1e-9):
            impossible.append(f"entry of {bars.show_time(entry_bar)}")
        # Stops and targets fill within a bar, by the kernel's own rules.
        if trade["reason"] == "signal":
            price = bars.open[exit_bar] * (1 - side * rules.slippage)
            if not np.isclose(trade["exit_price"], price, rtol=1e-9):
                impossible.append(f"exit of {bars.show_time(exit_bar)}")
    summary = f"{len(backtest.result.trades)} trades of {bars.symbol}"
    if impossible:
        summary += f"; {len(impossible)} fills could not have been had, first the {impossible[0]}"
    return Check(name="fills_possible", passed=not impossible, found=summary)


def check_survives_delay(backtest: OrdersBacktest) -> Check:
    """Check that the Sharpe ratio does not collapse when every decision waits one bar."""
    # A delay costs an honest strategy something. What collapses knew more than a bar's close.
    delayed = run_orders(
        backtest.bars,
        backtest.orders.delay_one_bar(),
        backtest.rules,
        cash=float(backtest.result.equity[0]),
        whole_shares=False,
    )
    returns = simple_returns(backtest.result.equity)
    delayed_returns = simple_returns(delayed.equity)
    # Undefined without a trade: then no fill can have come too early.
    p_value = delay_p_value(returns, delayed_returns, seed=1)
    periods = bars_per_year(backtest.bars.closed_at)
    summary = (
        f"Sharpe {sharpe(returns, periods):.3f} of {backtest.bars.symbol}, "
        f"{sharpe(delayed_returns, periods):.3f} when each decision waits a bar"
    )
    if p_value < WARNED_DELAY_P_VALUE:
        summary += f" (warning: chance explains such a loss with p = {p_value:.2g} only)"
    return Check(name="survives_delay", passed=not p_value < FAILED_DELAY_P_VALUE, found=summary)


# Trained state


def check_memory_dated(
    trained_state: TrainedState, symbol: str, moments: Sequence[datetime]
) -> Check:
    """Check that no decision at one of `moments` may read a lesson that closed after it."""
    max_lessons, early = 0, []
    for moment in moments:
        lessons = trained_state.at(symbol, moment).lessons
        max_lessons = max(max_lessons, len(lessons))
        if any(lesson.closed_at > moment for lesson in lessons):
            early.append(moment)
    summary = f"up to {max_lessons} lessons read on {len(moments)} days of {symbol}"
    if early:
        first = show_as_of(early[0])
        summary += f"; on {len(early)} of them one had not closed, first as of {first}"
    return Check(name="memory_dated", passed=not early, found=summary)


def check_trained_state_repeats(
    trained_state: TrainedState, calls: Mapping[str, Sequence[TradeOutcome]]
) -> Check:
    """Check that calibrations and lessons follow again from the replayed record's closed calls.

    `calls` are by symbol, in the order of training.
    """
    all_calls = [call for own in calls.values() for call in own]
    lessons = [lesson for own in calls.values() for lesson in select_lessons(own)]
    different = []
    if calibrate(all_calls, trained_state.policies.start_times) != trained_state.calibrations:
        different.append("calibrations")
    if lessons != list(trained_state.lessons):
        different.append("lessons")
    summary = f"calibrations and lessons from {len(all_calls)} closed calls"
    if different:
        summary += f"; other {' and '.join(different)} than were packaged"
    # The name is a stored one, of gate reports and of the docs.
    return Check(name="learned_again", passed=not different, found=summary)


# Clock


def find_clock_reads(root: Path = Path(finagent_model.__file__).parent) -> list[str]:
    """Return `file:line: expression` of each forbidden clock read below `root`, in order."""
    reads = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0].removesuffix(".py") not in DECISION_ROOMS:
            continue
        if not _CLOCK_WORDS.search(path.read_text()):
            continue  # parsing is most of the seconds of this check
        tree = parse_source(path)
        allowed = {function for file, function in TIMESTAMP_FUNCTIONS if file == name.as_posix()}
        time_names = _time_module_names(tree)
        for node in _walk_outside(tree, allowed):
            reads += [
                f"{name}:{node.lineno}: {text}" for text in _describe_clock_reads(node, time_names)
            ]
    return reads


def parse_source(path: Path) -> ast.Module:
    """Return a Python file's syntax tree."""
    # A collection during the parse may parse something itself, which CPython 3.11 takes for a
    # fault of its own: https://github.com/python/cpython/issues/106905
    with without_garbage_collection():
        return ast.parse(path.read_text())


def _walk_outside(tree: ast.AST, excluded: set[str]) -> Iterator[ast.expr | ast.stmt]:
    """Yield all nodes but those within the functions named."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef) and child.name in excluded:
            continue
        if isinstance(child, ast.expr | ast.stmt):
            yield child
        yield from _walk_outside(child, excluded)


def _time_module_names(tree: ast.AST) -> set[str]:
    """Return the names under which a file imports the module `time`."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "time"
    }


def _describe_clock_reads(node: ast.expr | ast.stmt, time_names: set[str]) -> Iterator[str]:
    """Yield the source text of each read of a wall clock in `node` itself."""
    if isinstance(node, ast.Attribute):
        # Monotonic clocks are no dates: limits ask them how long a conversation has taken. An
        # event loop's `time` is one too, and passes because the loop is no module `time`.
        of_time = isinstance(node.value, ast.Name) and node.value.id in time_names
        if node.attr in WALL_CLOCK_NAMES or (of_time and node.attr not in MONOTONIC_NAMES):
            yield ast.unparse(node)
    elif isinstance(node, ast.ImportFrom) and node.module == "time":
        yield from (f"time.{a.name}" for a in node.names if a.name not in MONOTONIC_NAMES)
    elif isinstance(node, ast.Call):
        # `getattr(datetime, "now")`, `np.datetime64("now")`, `pd.Timestamp("today")`
        constants = [a.value for a in node.args if isinstance(a, ast.Constant)]
        yield from (ast.unparse(node) for value in constants if value in WALL_CLOCK_NAMES)

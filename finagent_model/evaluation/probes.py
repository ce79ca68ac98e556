"""Source files as syntax trees.

Does the code that decides read a clock? Its source is searched: no experiment can show that a
branch which was not taken is free of one.

Monotonic clocks (`time.monotonic`, an event loop's `time`) are no dates: they say how long a
conversation has taken, which its limits ask, and not when it took place.

Does anything known at a bar depend on what came after it?

A history is cut at many bars, also within the first windows, and continued with nonsense; whatever
was computed before the cut must stay the same to the bit. Fills are held against the opens that
decisions could have had, and delayed by a bar.

Was what a version learned known when it was used, and does its record give it again?
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

import finagent_model
from finagent_model._base import Check
from finagent_model.backtesting.engine import run_orders
from finagent_model.backtesting.metrics import sharpe, simple_returns
from finagent_model.errors import DataError
from finagent_model.evaluation.calibrate import calibrate, reflect
from finagent_model.evaluation.out_of_sample import Traded
from finagent_model.market.bars import PRICES, BarSeries, Floats, parse_as_of
from finagent_model.market.news import Fact, NewsItem, read_news
from finagent_model.market.view import MarketView
from finagent_model.policy.context import FeatureBook, build_context
from finagent_model.policy.policy import Policy
from finagent_model.policy.trained_state import TradeOutcome, TrainedState
from finagent_model.statistics.resampling import superior_predictive_ability


def parsed(path: Path) -> ast.Module:
    """The file's tree.

    No garbage is collected meanwhile: what is thrown away may have something parsed too, which
    CPython 3.11 takes for a fault of its own (python/cpython#106905).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        if collecting:
            gc.enable()


ROOMS = frozenset(
    [
        "_base",
        "_event_loop",
        "_redact",
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
STAMPS = frozenset({("desk/desk.py", "utc_now"), ("data/bar_cache.py", "utc_now")})
"""The functions that may ask for the time: it stamps a record, of a decision or of what a vendor
gave, through a seam that tests stop.
"""
MOMENTS = frozenset({"now", "utcnow", "today"})
MONOTONIC = frozenset({"monotonic", "monotonic_ns", "sleep"})


def clocks_read(root: Path = Path(finagent_model.__file__).parent) -> list[str]:
    """`file:line: what` of each place under `root` that reads a clock without leave, in order."""
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0].removesuffix(".py") not in ROOMS:
            continue
        tree = parsed(path)
        times, allowed = _times(tree), {f for file, f in STAMPS if file == name.as_posix()}
        for node in _nodes(tree, allowed):
            found += [f"{name}:{node.lineno}: {read}" for read in _reads(node, times)]
    return found


def _nodes(tree: ast.AST, allowed: set[str]) -> Iterator[ast.expr | ast.stmt]:
    """All but the bodies of the functions named."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef) and child.name in allowed:
            continue
        if isinstance(child, ast.expr | ast.stmt):
            yield child
        yield from _nodes(child, allowed)


def _times(tree: ast.AST) -> set[str]:
    """What a file calls the module `time`."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "time"
    }


def _reads(node: ast.expr | ast.stmt, times: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        of_time = isinstance(node.value, ast.Name) and node.value.id in times
        if node.attr in MOMENTS or (of_time and node.attr not in MONOTONIC):
            yield ast.unparse(node)
    elif isinstance(node, ast.ImportFrom) and node.module == "time":
        yield from (f"time.{a.name}" for a in node.names if a.name not in MONOTONIC)
    elif isinstance(node, ast.Call):
        said = [a.value for a in node.args if isinstance(a, ast.Constant)]
        yield from (ast.unparse(node) for value in said if value in MOMENTS)


CUTS = 40
CHANCE = 0.001
"""Below this p-value a loss by one bar's delay is no accident."""
COLLAPSE = 0.5
"""Share of its Sharpe ratio that an honest strategy keeps when it acts a bar later."""


def cuts(count: int, warm_up: int) -> list[int]:
    """Lengths to cut a history of `count` bars to: eight within the warm-up, the rest spread over
    the whole, `CUTS` in all where there are as many bars.
    """
    early = np.linspace(2, max(warm_up, 2), 8)
    late = np.linspace(warm_up + 1, count - 1, CUTS - 8)
    return sorted({int(c) for c in (*early, *late) if 1 < c < count})


def corrupted_after(bars: BarSeries, cut: int) -> BarSeries:
    """The same until `cut`, nonsense from there on: other prices, volumes and actions."""
    rng, count = np.random.default_rng(cut), max(len(bars) - cut, 0)
    scale = np.append(np.ones(len(bars) - count), rng.uniform(0.2, 5.0, count))
    split, dividend = bars.split.copy(), bars.dividend.copy()
    split[cut:] = np.where(rng.random(count) < 0.02, 2.0, 1.0)
    dividend[cut:] = 0.0
    prices = {name: getattr(bars, name) * scale for name in (*PRICES, "volume")}
    return replace(bars, **prices, split=split, dividend=dividend)


def features_causal(bars: BarSeries, policies: Sequence[Policy]) -> Check:
    """Adjustment factors and features before a cut, without and with other bars after it."""
    wrong: set[str] = set()
    asked = 0
    for policy in policies:
        whole = _computed(bars, policy)
        for cut in cuts(len(bars), policy.warm_up):
            for other in (bars[:cut], corrupted_after(bars, cut)):
                found = _computed(other, policy)
                asked += 1
                wrong |= {
                    name
                    for name, values in whole.items()
                    if not np.array_equal(values[:cut], found[name][:cut], equal_nan=True)
                }
    said = f"{asked} cuts and corruptions of {bars.symbol}"
    if wrong:
        said += f"; later bars change earlier {', '.join(sorted(wrong))}"
    return Check(name="features_causal", passed=not wrong, found=said)


def questions_causal(
    bars: BarSeries,
    news: tuple[NewsItem, ...],
    policy: Policy,
    facts: tuple[Fact, ...] = (),
    external: Callable[[BarSeries], str] | None = None,
) -> Check:
    """What the agents are asked at a cut, with other bars, news and fundamentals after it; and
    what an external analyst is shown, whose digest is `external`.
    """
    different: list[str] = []
    asked = 0
    for cut in cuts(len(bars), policy.warm_up):
        as_of = parse_as_of(bars.close_time(cut - 1).date())
        later = as_of + timedelta(microseconds=1)
        fake = NewsItem(published_at=later, headline="All is known now")
        told = Fact(published_at=later, name="all_is_known", value=1.0)
        known = tuple(item for item in news if item.published_at <= as_of)
        stated = tuple(fact for fact in facts if fact.published_at <= as_of)
        whole = MarketView.at(as_of, bars, news, 0, facts)
        others = (
            MarketView.at(as_of, bars[:cut], known, 0, stated),
            MarketView.at(as_of, corrupted_after(bars, cut), (*known, fake), 0, (*stated, told)),
        )
        asked += 1
        if len({_asked(view, policy, external) for view in (whole, *others)}) > 1:
            different.append(f"{as_of:%Y-%m-%d}")
    said = f"{asked} questions about {bars.symbol}"
    if different:
        said += f"; {len(different)} change with their future, first as of {different[0]}"
    return Check(name="questions_causal", passed=not different, found=said)


def news_dated() -> Check:
    """An item without a publication time must be left out and counted."""
    items, dropped = read_news([{"headline": "Nobody says when this was published"}])
    said = "an undated item is left out" if not items else "an undated item is read as known"
    return Check(name="news_dated", passed=not items and dropped == 1, found=said)


def fills_possible(traded: Traded) -> Check:
    """Every entry at the open after the bar that was decided on, every market exit at an open."""
    bars, orders, rules = traded.bars, traded.orders, traded.rules
    wrong: list[str] = []
    for trade in traded.result.trades.to_dict("records"):
        side = 1 if trade["side"] == "long" else -1
        entry, left = int(trade["entry_bar"]), int(trade["exit_bar"])
        price = bars.open[entry] * (1 + side * rules.slippage)
        decided = entry > 0 and orders.action[entry - 1] == side
        if not decided or not np.isclose(trade["entry_price"], price, rtol=1e-9):
            wrong.append(f"entry of {bars.close_time(entry):%Y-%m-%d}")
        if trade["reason"] == "signal":
            price = bars.open[left] * (1 - side * rules.slippage)
            if not np.isclose(trade["exit_price"], price, rtol=1e-9):
                wrong.append(f"exit of {bars.close_time(left):%Y-%m-%d}")
    said = f"{len(traded.result.trades)} trades of {bars.symbol}"
    if wrong:
        said += f"; {len(wrong)} fills could not have been had, first the {wrong[0]}"
    return Check(name="fills_possible", passed=not wrong, found=said)


def survives_delay(traded: Traded) -> Check:
    """Acting one bar later may cost something; what collapses knew more than a bar's close."""
    later = run_orders(
        traded.bars,
        traded.orders.delay_one_bar(),
        traded.rules,
        cash=float(traded.result.equity[0]),
        whole_shares=False,
    )
    mine, delayed = simple_returns(traded.result.equity), simple_returns(later.equity)
    one, other = sharpe(mine), sharpe(delayed)
    lost = superior_predictive_ability((mine - delayed)[:, None], seed=1, draws=2000)
    collapsed = bool(one > 0 and other < COLLAPSE * one and lost < CHANCE)
    said = f"Sharpe {one:.3f} of {traded.bars.symbol}, {other:.3f} when each decision waits a bar"
    return Check(name="survives_delay", passed=not collapsed, found=said)


def _computed(bars: BarSeries, policy: Policy) -> Mapping[str, Floats]:
    return {"adjustment": bars.growth_factor, **FeatureBook(bars).compute(policy).arrays()}


def _asked(view: MarketView, policy: Policy, external: Callable[[BarSeries], str] | None) -> str:
    """The question and what the external analyst is shown, or why there is none."""
    try:
        shown = external(view.bars) if external else ""
        return build_context(view, policy).text + shown
    except DataError as error:
        return str(error)


def memory_dated(learned: TrainedState, symbol: str, moments: Sequence[datetime]) -> Check:
    """No decision at one of `moments` may read a lesson whose outcome had not closed by then."""
    read, early = 0, []
    for moment in moments:
        lessons = learned.at(symbol, moment).lessons
        read = max(read, len(lessons))
        early += [moment for lesson in lessons if lesson.closed_at > moment][:1]
    said = f"up to {read} lessons read on {len(moments)} days of {symbol}"
    if early:
        said += f"; on {len(early)} of them one had not closed, first as of {early[0]:%Y-%m-%d}"
    return Check(name="memory_dated", passed=not early, found=said)


def learned_again(learned: TrainedState, calls: Mapping[str, Sequence[TradeOutcome]]) -> Check:
    """Calibrations and lessons, made again from the calls of the replayed record."""
    everything = [call for own in calls.values() for call in own]
    wrong = []
    if calibrate(everything, learned.policies.start_times) != learned.calibrations:
        wrong.append("calibrations")
    if [lesson for own in calls.values() for lesson in reflect(own)] != list(learned.lessons):
        wrong.append("lessons")
    said = f"calibrations and lessons from {len(everything)} closed calls"
    if wrong:
        said += f"; other {' and '.join(wrong)} than were packaged"
    return Check(name="learned_again", passed=not wrong, found=said)

"""The one question that every agent gets: a market view as date-free JSON with rounded numbers.

Without dates a model can't look the answer up by the calendar, and equal situations give equal
requests, which the cassette can replay.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finagent_model.errors import ShortHistoryError, UndefinedFeatureError
from finagent_model.market import indicators
from finagent_model.market.bars import BarSeries, Floats, show_as_of, to_datetime64
from finagent_model.market.news import NewsItem
from finagent_model.market.timeframe import DAILY, bars_per_year
from finagent_model.market.view import MarketView
from finagent_model.policy.policy import Policy
from finagent_model.policy.trained_state import TradeOutcome

_Indicator = Callable[[int], Floats]


@dataclass(frozen=True, eq=False)
class Features:
    """One entry a bar in each array; nan until a window is full or where a ratio is undefined."""

    trend_atr: Floats
    """Fast minus slow average, in ATR."""
    momentum_z: Floats
    """Return over `slow` bars, in standard deviations of such a return."""
    rsi: Floats
    """Wilder's RSI, 0..100."""
    channel_position: Floats
    """Where the close lies between the channel's low (0) and high (1)."""
    atr: Floats
    """Average true range, in traded prices of that bar."""
    support: Floats
    resistance: Floats
    """Lowest low and highest high of the channel, in traded prices of that bar."""

    def at(self, index: int) -> dict[str, float]:
        """Return all features of one bar by name."""
        return {name: float(values[index]) for name, values in self.arrays().items()}

    def arrays(self) -> dict[str, Floats]:
        """Return the array of every feature by name."""
        return dict(vars(self))


class FeatureBook:
    """Features of one history under many policies; indicators of equal windows are cached.

    Averages and deviations are not computed before `first_bar`: what needs them is nan there.
    """

    def __init__(self, bars: BarSeries, first_bar: int = 0) -> None:
        self._first_bar = first_bar
        self._adjusted = bars.adjust_to_first_bar()
        self._factor = bars.growth_factor
        self._cache: dict[tuple[str, int], Floats] = {}

    def compute(self, policy: Policy) -> Features:
        """Compute the features of every bar with the windows of `policy`."""
        prices, factor = self._adjusted, self._factor
        # Ratios over zero are expected where prices do not move; `_nan_if_infinite` handles them.
        with np.errstate(divide="ignore", invalid="ignore"):
            atr = self._cached(
                "atr",
                policy.atr,
                lambda n: indicators.atr(prices.high, prices.low, prices.close, n),
            )
            low = self._cached("lowest", policy.channel, lambda n: indicators.lowest(prices.low, n))
            high = self._cached(
                "highest", policy.channel, lambda n: indicators.highest(prices.high, n)
            )
            fast = self._cached("sma", policy.fast, self._average)
            slow = self._cached("sma", policy.slow, self._average)
            return Features(
                trend_atr=_nan_if_infinite((fast - slow) / atr),
                momentum_z=self._cached("momentum_z", policy.slow, self._momentum_z),
                rsi=self._cached("rsi", policy.rsi, lambda n: indicators.rsi(prices.close, n)),
                channel_position=_nan_if_infinite((prices.close - low) / (high - low)),
                atr=atr / factor,
                support=low / factor,
                resistance=high / factor,
            )

    def _average(self, window: int) -> Floats:
        return indicators.sma(self._adjusted.close, window, self._first_bar)

    def _momentum_z(self, window: int) -> Floats:
        close = self._adjusted.close
        daily = indicators.rate_of_change(close, 1)
        std = np.full(len(close), np.nan)
        # The first bar has no daily return, so the deviation's window begins one bar later.
        std[1:] = indicators.rolling_std(daily[1:], window, self._first_bar - 1)
        return _nan_if_infinite(indicators.rate_of_change(close, window) / (std * np.sqrt(window)))

    def _cached(self, name: str, window: int, compute: _Indicator) -> Floats:
        key = (name, window)
        # A search tries many policies whose windows come from a small grid.
        if key not in self._cache:
            self._cache[key] = compute(window)
        return self._cache[key]


def _nan_if_infinite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


MAX_CLOSES = 10
"""Closes that the question lists."""


@dataclass(frozen=True)
class Context:
    """The desk's question, and the numbers against which code checks the desk's answer.

    Prices are in prices of the last bar, rounded as the agents read them.
    """

    text: str
    """JSON, as the agents read it."""
    last_close: float
    atr: float
    low: float
    high: float
    """`low` and `high` are the range of the last year."""
    policy: Policy


def build_context(
    view: MarketView, policy: Policy, lessons: Sequence[TradeOutcome] = (), max_lessons: int = 0
) -> Context:
    """Build the question about `view` under `policy`.

    `lessons` are the desk's past trades that it may remember, oldest first; the last `max_lessons`
    are told in full. Raises ShortHistoryError where the view has too few bars for the policy, and
    UndefinedFeatureError where a feature is not finite.
    """
    bars = view.bars
    if len(bars) < policy.warm_up:
        raise ShortHistoryError(
            f"{view.symbol} has {len(bars)} bars by {show_as_of(view.as_of)}; "
            f"the policy needs {policy.warm_up}; send more history"
        )
    # Only the last bar is asked about, so the averages before it are not computed.
    features = FeatureBook(bars, first_bar=len(bars) - 1).compute(policy).at(-1)
    undefined = sorted(name for name, value in features.items() if not math.isfinite(value))
    if undefined:
        raise UndefinedFeatureError(
            f"{view.symbol} at {show_as_of(view.as_of)}: {', '.join(undefined)} undefined "
            "(prices that don't move have no range)"
        )
    prices = bars.adjust_to_last_bar()
    year = slice(-round(bars_per_year(bars.closed_at)), None)
    numbers = {name: round_significant(value) for name, value in features.items()}
    # The order of the keys is part of the prompt, and so of every recorded reply's fingerprint.
    question: dict[str, Any] = {
        "symbol": view.symbol,
        "timeframe": bars.timeframe.label,
        "last_close": round_significant(view.last_close),
        "atr": numbers.pop("atr"),
        "support": numbers.pop("support"),
        "resistance": numbers.pop("resistance"),
        "features": numbers,
        "recent_closes": [round_significant(p) for p in prices.close[-MAX_CLOSES:]],
        "year_low": round_significant(prices.low[year].min()),
        "year_high": round_significant(prices.high[year].max()),
        "policy": policy.model_dump(exclude_none=True),
        "news": [_describe_news(view, item) for item in view.news],
        **_describe_fundamentals(view),
        "memory": _describe_lessons(view, lessons, max_lessons),
    }
    return Context(
        # ensure_ascii=False: escapes would cost tokens.
        text=json.dumps(question, sort_keys=False, ensure_ascii=False),
        # Rounded: risk checks must compare with the numbers that the agents were shown.
        last_close=question["last_close"],
        atr=question["atr"],
        low=question["year_low"],
        high=question["year_high"],
        policy=policy,
    )


def round_significant(value: float, digits: int = 6) -> float:
    """Round to significant digits, as agents see numbers and code compares them."""
    return float(f"{value:.{digits}g}")


def round_or_none(value: float) -> float | None:
    """Round to six significant digits; None where `value` is not finite."""
    return round_significant(float(value)) if math.isfinite(value) else None


def _describe_news(view: MarketView, item: NewsItem) -> dict[str, Any]:
    """Return an item as an agent reads it; beside bars within a day it has its age in hours."""
    described = item.envelope(view.as_of)
    if view.bars.timeframe.is_intraday:
        hours = (view.as_of - item.published_at).total_seconds() / 3600
        described = {"hours_ago": round_significant(hours, 3), **described}
    return described


def _age(view: MarketView, lesson: TradeOutcome) -> dict[str, int]:
    """Return how long ago a trade was proposed: in days, or in bars of another length."""
    if view.bars.timeframe == DAILY:
        return {"days_ago": (view.as_of.date() - lesson.as_of.date()).days}
    made_at = to_datetime64(lesson.as_of)
    return {"bars_ago": int((view.bars.closed_at > made_at).sum())}


def _describe_fundamentals(view: MarketView) -> dict[str, Any]:
    # No key at all without facts: requests recorded before there were fundamentals still replay.
    if not view.fundamentals:
        return {}
    return {
        "fundamentals": [
            {
                "name": fact.name,
                "value": round_significant(fact.value),
                "unit": fact.unit,
                "period": fact.relative_period(view.as_of),
                "days_ago": fact.days_before(view.as_of),
            }
            for fact in view.fundamentals
        ]
    }


def _describe_lessons(
    view: MarketView, lessons: Sequence[TradeOutcome], max_lessons: int
) -> dict[str, Any] | None:
    """Return how the desk's own trades in the symbol came out; None where there are none."""
    if not lessons or not max_lessons:
        return None
    profitable_share = sum(lesson.was_profitable for lesson in lessons) / len(lessons)
    return {
        "calls": len(lessons),
        "came_true": round_significant(profitable_share, 3),
        "latest": [
            {
                **_age(view, lesson),
                "action": lesson.action,
                "confidence": lesson.confidence,
                "earned_percent": round_significant(100 * lesson.earned, 3),
                "ended_by": lesson.ended,
                "bars_held": lesson.bars_held,
                "key_factors": list(lesson.key_factors),
            }
            for lesson in lessons[-max_lessons:]
        ],
    }

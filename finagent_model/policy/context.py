"""The one question that every agent gets: a market view as date-free JSON with rounded numbers.

Without dates a model can't look the answer up by the calendar, and equal situations give equal
requests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finagent_model.errors import ShortHistoryError, UndefinedFeatureError
from finagent_model.market.bars import TRADING_DAYS_PER_YEAR
from finagent_model.market.view import MarketView
from finagent_model.policy.features import FeatureBook
from finagent_model.policy.policy import Policy
from finagent_model.policy.trained_state import TradeOutcome

CLOSES_SHOWN = 10


@dataclass(frozen=True)
class Context:
    """What the desk is asked, and the numbers that code will hold its answer against."""

    text: str
    """JSON, as the agents read it."""
    last_close: float
    atr: float
    low: float
    high: float
    """Range of the last year, in prices of the last bar."""
    policy: Policy


def build_context(
    view: MarketView, policy: Policy, lessons: Sequence[TradeOutcome] = (), shown: int = 0
) -> Context:
    """`lessons` are the calls that the desk may remember, oldest first; the last `shown` are told
    in full. Raises ShortHistoryError or UndefinedFeatureError where the policy can't speak about
    the view.
    """
    bars = view.bars
    if len(bars) < policy.warm_up:
        raise ShortHistoryError(
            f"{view.symbol} has {len(bars)} bars by {view.as_of:%Y-%m-%d}; "
            f"the policy needs {policy.warm_up}; send more history"
        )
    features = FeatureBook(bars, since=len(bars) - 1).under(policy).at(-1)
    undefined = sorted(name for name, value in features.items() if not math.isfinite(value))
    if undefined:
        raise UndefinedFeatureError(
            f"{view.symbol} at {view.as_of:%Y-%m-%d}: {', '.join(undefined)} undefined "
            "(prices that don't move have no range)"
        )
    prices = bars.in_last_prices()
    year = slice(-TRADING_DAYS_PER_YEAR, None)
    numbers = {name: rounded(value) for name, value in features.items()}
    question: dict[str, Any] = {
        "symbol": view.symbol,
        "timeframe": "1 day",
        "last_close": rounded(view.last_close),
        "atr": numbers.pop("atr"),
        "support": numbers.pop("support"),
        "resistance": numbers.pop("resistance"),
        "features": numbers,
        "recent_closes": [rounded(p) for p in prices.close[-CLOSES_SHOWN:]],
        "year_low": rounded(prices.low[year].min()),
        "year_high": rounded(prices.high[year].max()),
        "policy": policy.model_dump(exclude_none=True),
        "news": [item.envelope(view.as_of) for item in view.news],
        **_fundamentals(view),
        "memory": _memory(view, lessons, shown),
    }
    return Context(
        text=json.dumps(question, sort_keys=False, ensure_ascii=False),
        last_close=question["last_close"],
        atr=question["atr"],
        low=question["year_low"],
        high=question["year_high"],
        policy=policy,
    )


def _fundamentals(view: MarketView) -> dict[str, Any]:
    """Under their key; nothing at all where there are none."""
    if not view.fundamentals:
        return {}
    return {
        "fundamentals": [
            {
                "name": fact.name,
                "value": rounded(fact.value),
                "unit": fact.unit,
                "period": fact.period_from(view.as_of),
                "days_ago": fact.days_before(view.as_of),
            }
            for fact in view.fundamentals
        ]
    }


def _memory(view: MarketView, lessons: Sequence[TradeOutcome], shown: int) -> dict[str, Any] | None:
    """How the desk's own calls in the symbol came out; None where there is nothing to tell."""
    if not lessons or not shown:
        return None
    return {
        "calls": len(lessons),
        "came_true": rounded(sum(call.came_true for call in lessons) / len(lessons), 3),
        "latest": [
            {
                "days_ago": (view.as_of.date() - call.as_of.date()).days,
                "action": call.action,
                "confidence": call.confidence,
                "earned_percent": rounded(100 * call.earned, 3),
                "ended_by": call.ended,
                "bars_held": call.bars_held,
                "key_factors": list(call.key_factors),
            }
            for call in lessons[-shown:]
        ],
    }


def rounded(value: float, digits: int = 6) -> float:
    """To significant digits: what an agent sees, and what code compares with."""
    return float(f"{value:.{digits}g}")


def rounded_or_null(value: float) -> float | None:
    """The same; null where undefined."""
    return rounded(float(value)) if math.isfinite(value) else None

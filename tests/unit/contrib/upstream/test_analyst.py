"""What upstream is shown, and what is made of its reply."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from finagent_model.contrib.upstream.analyst import LEAST_BARS, read_reply, window_of
from finagent_model.errors import ShortHistoryError, UpstreamError
from support.upstream_repository import DAY, bars_of

BARS = bars_of("GOOG")
REPLY: dict[str, Any] = {
    "ticker_symbol": "GOOG",
    "candlestick_patterns": {},
    "indicators": {
        "close_price": 580.07,
        "ema": {"short_ema": 570.7, "long_ema": 576.9, "signal": "neutral"},
        "rsi": {"value": 51.3, "signal": "overbought"},
        "macd": {"value": -6.2, "signal_line": -8.1, "hist": 1.9, "trend": "bullish"},
        "bollinger": {"upper": 585.2, "lower": 555.9, "mid": 570.6, "signal": "within_band"},
        "stochastics": {"%K": 84.8, "%D": 52.1, "signal": "oversold"},
        "atr": 11.779572692361144,
        "adx": {
            "adx_value": 28.8,
            "+DI": 24.9,
            "-DI": 25.7,
            "trend_strength": "strong_trend",
            "trend_direction": "bearish_trend",
        },
    },
    "fundamentals": {},
    "news_sentiment": 0.0,
    "final_decision": {"score": 0, "max_score_possible": 5, "probability": 0.6, "rating": "hold"},
}


def changed(*path: str, to: Any) -> dict[str, Any]:
    reply = copy.deepcopy(REPLY)
    inner: Any = reply
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return reply


def test_the_day_of_the_last_bar_is_seen_and_the_clock_shows_the_next() -> None:
    window = window_of(BARS)
    assert (window.rows[-1][0], window.clock_day) == (DAY, "2012-06-30")
    assert window.rows[0][0] == "2011-07-01"


def test_later_bars_change_nothing_since_they_are_not_sent() -> None:
    longer = bars_of("GOOG", 320, "2012-07-27")
    again = longer[: len(longer) - 20]
    assert again.close_time(-1).date().isoformat() == DAY
    assert window_of(again).rows[-1][0] == DAY


def test_prices_are_in_units_of_the_last_bar() -> None:
    split = np.ones(300)
    split[290] = 2.0
    halved = replace(BARS, split=split)
    rows = window_of(halved).rows
    assert rows[-1][4] == BARS.close[-1]
    assert rows[-12][4] == pytest.approx(BARS.close[-12] / 2)


def test_an_unknown_volume_is_sent_as_unknown() -> None:
    rows = window_of(replace(BARS, volume=np.full(300, math.nan))).rows
    assert {row[5] for row in rows} == {None}


def test_too_few_bars_are_refused_before_upstream_is_asked() -> None:
    with pytest.raises(ShortHistoryError, match=f"needs {LEAST_BARS}"):
        window_of(bars_of("GOOG", LEAST_BARS - 1))


def test_any_change_of_the_bars_changes_the_digest() -> None:
    other = replace(BARS, high=BARS.high + np.eye(1, 300, 299)[0])
    assert len({window_of(b).digest for b in (BARS, other, bars_of("MSFT"))}) == 3


def test_a_reply_is_read_with_its_votes_and_without_what_is_always_empty() -> None:
    read = read_reply(REPLY, "GOOG")
    votes = {"ema_cross": 0, "rsi": -1, "macd": 1, "stochastic": 1, "adx": -1}
    assert (read.rating, read.votes, read.trend) == ("hold", votes, "bearish")
    assert read.score == pytest.approx(0.2)
    assert '"atr_14": 11.7796' in read.report
    for word in ("news", "candlestick", "fundamental"):
        assert word not in read.report


def test_a_weak_trend_is_none() -> None:
    reply = changed("indicators", "adx", "trend_strength", to="weak_or_sideways")
    assert read_reply(reply, "GOOG").trend == "neutral"


@pytest.mark.parametrize(
    ("reply", "code", "named"),
    [
        ({"ticker_symbol": "GOOG", "error": "No data found", "analysis": {}}, "no_data", "GOOG"),
        (changed("indicators", "macd", "hist", to=math.nan), "nonfinite", "indicators.macd.hist"),
        (changed("final_decision", "probability", to=math.inf), "nonfinite", "probability"),
        (changed("final_decision", "probability", to=1.2), "schema", "probability"),
        (changed("final_decision", "probability", to=-0.1), "schema", "probability"),
        (changed("final_decision", "rating", to="strong buy"), "schema", "strong buy"),
        (changed("indicators", "adx", "trend_direction", to="up"), "schema", "up"),
        (changed("indicators", "rsi", "signal", to=None), "schema", "None"),
        (changed("indicators", "atr", to="11"), "schema", "atr_14"),
        (changed("ticker_symbol", to="MSFT"), "schema", "MSFT"),
        (changed("indicators", to={}), "schema", "adx"),
        ({}, "schema", "ticker_symbol"),
        ([], "schema", "list"),
        ("buy", "schema", "str"),
        (None, "schema", "NoneType"),
    ],
)
def test_what_can_not_be_used_is_told_apart(reply: Any, code: str, named: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        read_reply(reply, "GOOG")
    assert caught.value.code == code
    assert named in str(caught.value)

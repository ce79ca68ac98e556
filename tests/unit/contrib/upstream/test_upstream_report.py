"""What is made of upstream's reply, and which replies are refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from finagent_model.contrib.upstream.source import UpstreamError
from finagent_model.contrib.upstream.upstream_report import read_reply

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


def test_report_has_the_votes_without_what_is_always_empty() -> None:
    report = read_reply(REPLY, "GOOG")
    votes = {"ema_cross": 0, "rsi": -1, "macd": 1, "stochastic": 1, "adx": -1}
    assert (report.rating, report.votes, report.trend) == ("hold", votes, "bearish")
    assert report.score == pytest.approx(0.2)
    assert '"atr_14": 11.7796' in report.text
    for word in ("news", "candlestick", "fundamental"):
        assert word not in report.text


def test_report_weak_trend_is_neutral() -> None:
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
def test_report_of_an_unusable_reply_raises_with_its_code(
    reply: Any, code: str, named: str
) -> None:
    with pytest.raises(UpstreamError) as caught:
        read_reply(reply, "GOOG")
    assert caught.value.code == code
    assert named in str(caught.value)

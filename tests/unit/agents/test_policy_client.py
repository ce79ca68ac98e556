"""The fitted policy, speaking: what each rule answers to a question made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from finagent_model.agents._replies import AnalystReply, ExecutorReply, Reply, RiskReply
from finagent_model.agents.policy_client import RULES, ColleagueReply
from finagent_model.policy.policy import Policy

POLICY = Policy(
    trend_weight=1.0,
    momentum_weight=0.0,
    reversion_weight=0.0,
    breakout_weight=0.0,
    news_weight=1.0,
    threshold=0.2,
    stop_atr=3.0,
    target_atr=9.0,
    risk_fraction=0.02,
)
FEATURES = {"trend_atr": 2.0, "momentum_z": 0.0, "rsi": 50.0, "channel_position": 0.5}


def question(**changes: Any) -> dict[str, Any]:
    return {
        "last_close": 100.0,
        "atr": 2.0,
        "support": 90.0,
        "resistance": 110.0,
        "features": FEATURES,
        "news": [],
        "policy": POLICY.model_dump(),
        **changes,
    }


def ask(prompt: str, heard: list[ColleagueReply], **changes: Any) -> Reply:
    return RULES[prompt](question(**changes), heard)


def analyst(score: float, prompt: str = "technical") -> ColleagueReply:
    reply = AnalystReply(trend="neutral", score=score, summary="a few words", key_factors=["f"])
    return ColleagueReply(prompt.title(), prompt, reply)


def terms(direction: str = "long") -> ColleagueReply:
    reply = RiskReply.model_validate(
        {
            "direction": direction,
            "stop_loss": None if direction == "none" else 94.0,
            "take_profit": None if direction == "none" else 118.0,
            "position_size_percent": None if direction == "none" else 33.0,
            "summary": "the terms of a trade",
        }
    )
    return ColleagueReply("RiskManager", "risk", reply)


def test_technical_rule_votes_by_policy_weights() -> None:
    reply = ask("technical", [])
    assert isinstance(reply, AnalystReply)
    assert (reply.score, reply.trend) == (0.5, "bullish")  # 2 ATR of at most 4
    assert reply.key_factors[0] == "trend vote +0.50"


def test_technical_rule_has_no_trend_within_threshold() -> None:
    reply = ask("technical", [], features={**FEATURES, "trend_atr": 0.4})
    assert isinstance(reply, AnalystReply)
    assert (reply.score, reply.trend) == (0.1, "neutral")


@pytest.mark.parametrize(
    ("headline", "days_ago", "sign"),
    [
        ("Profit rises beyond forecasts", 3, 1),
        ("Regulator opens fraud case", 3, -1),
        ("Annual meeting held", 3, 0),
        ("Profit rises beyond forecasts", 60, 0),
    ],
)
def test_news_rule_counts_tone_of_last_month(headline: str, days_ago: int, sign: int) -> None:
    reply = ask("news", [], news=[{"days_ago": days_ago, "headline": headline}])
    assert isinstance(reply, AnalystReply)
    assert (reply.score > 0) - (reply.score < 0) == sign


@pytest.mark.parametrize(
    ("score", "direction", "stop", "target"),
    [(0.5, "long", 94.0, 118.0), (-0.5, "short", 106.0, 82.0), (0.1, "none", None, None)],
)
def test_risk_rule_sets_levels_in_atr(
    score: float, direction: str, stop: float | None, target: float | None
) -> None:
    reply = ask("risk", [analyst(score)])
    assert isinstance(reply, RiskReply)
    assert (reply.direction, reply.stop_loss, reply.take_profit) == (direction, stop, target)
    # 2 % of equity over a stop 6 % away.
    assert reply.position_size_percent == (None if stop is None else 33.33)


def test_executor_rule_acts_beyond_threshold() -> None:
    near = ask("executor", [analyst(0.3), terms()])
    far = ask("executor", [analyst(0.9), terms()])
    assert isinstance(near, ExecutorReply) and isinstance(far, ExecutorReply)
    assert (near.action, far.action) == ("BUY", "BUY")
    assert near.confidence_score == pytest.approx(50 + 50 * 0.1 / 0.8)
    assert far.confidence_score == pytest.approx(50 + 50 * 0.7 / 0.8)
    assert (near.suggested_stop_loss, near.position_size_percent) == (94.0, 33.0)


@pytest.mark.parametrize("heard", [[analyst(0.9)], [analyst(0.9), terms("none")]])
def test_executor_rule_holds_without_risk_terms(heard: list[ColleagueReply]) -> None:
    reply = ask("executor", heard)
    assert isinstance(reply, ExecutorReply)
    assert (reply.action, reply.suggested_stop_loss) == ("HOLD", None)


def test_executor_rule_weighs_analysts_by_news_weight() -> None:
    both = ask("executor", [analyst(0.8), analyst(-0.8, "news"), terms()])
    alone = ask("executor", [analyst(0.8), terms()])
    assert isinstance(both, ExecutorReply) and isinstance(alone, ExecutorReply)
    assert (both.action, alone.action) == ("HOLD", "BUY")

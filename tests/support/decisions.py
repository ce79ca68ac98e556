"""A decision made by hand: turns and events of every kind, each with its stamp."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from finagent_model.config.roster import Price
from finagent_model.decision.decision import Decision, Event, Turn
from finagent_model.decision.signal import TradingSignal

ASKED = datetime(2026, 3, 2, 21, 0, 5, 250_000, tzinfo=UTC)
QUESTION = '{"symbol": "GOOG"}'
PRICES = {"stub-1": Price(prompt=1.0, completion=4.0, as_of=date(2026, 1, 1))}


def at(seconds: float) -> datetime:
    return ASKED + timedelta(seconds=seconds)


def signal(**changes: Any) -> TradingSignal:
    fields: dict[str, Any] = {
        "symbol": "GOOG",
        "action": "BUY",
        "confidence": "MEDIUM",
        "confidence_score": 60,
        "raw_confidence_score": 70,
        "calibrated": True,
        "status": "ok",
        "reasoning": "Both reports point the same way.",
        "key_factors": ("trend",),
        "trend": "bullish",
        "suggested_entry_price": 580.25,
        "suggested_stop_loss": 550.0,
        "suggested_take_profit": 650.0,
        "r_multiple": 2.3,
        "position_size_percent": 10.0,
        "model_used": "stub-1",
        "generated_at": at(7),
        "as_of": datetime(2012, 6, 29, 20, tzinfo=UTC),
        "conversation_id": "c0ffee",
        "clamps": ("the target was lowered",),
        "tokens": 660,
        "cost_usd": 0.00088,
    }
    return TradingSignal.model_validate(fields | changes)


def turns() -> tuple[Turn, ...]:
    """Two analysts side by side, one of them mended and one failed; then an executor."""
    spoke: dict[str, Any] = {"model": "stub-1"}
    return (
        Turn("desk", "request", QUESTION, at(0)),
        Turn("NewsAnalyst", "skipped", "no dated news in the view", at(0)),
        Turn("TechnicalAnalyst", "response", "It rises\u2028\0they say.", at(2), 100, 20, **spoke),
        Turn("TechnicalAnalyst", "request", "That was not usable: prose.", at(2)),
        Turn("TechnicalAnalyst", "response", '{"trend": "bullish"}', at(3), 200, 20, **spoke),
        Turn("RiskManager", "failed", "model_error: no reply within 45 s", at(5)),
        Turn("Executor", "response", '{"action": "BUY"}', at(6.5), 300, 20, cached=True, **spoke),
    )


def asked(agent: str, seconds: float, *more: dict[str, Any], model: str = "stub-1") -> Event:
    messages = [
        {"type": "SystemMessage", "content": "You are an analyst."},
        {"type": "UserMessage", "content": QUESTION, "source": "desk"},
        *more,
    ]
    body = {"key": "k", "model": model, "tools": [], "messages": messages}
    return Event("request", at(seconds), agent, body)


def replied(
    agent: str,
    seconds: float,
    text: str,
    tokens: tuple[int, int],
    *,
    tool_calls: tuple[tuple[str, str, str], ...] = (),
    model: str = "stub-1",
    cached: bool = False,
) -> Event:
    body = {
        "key": "k",
        "text": text,
        "tool_calls": [list(call) for call in tool_calls],
        "finish_reason": "stop",
        "tokens": tokens,
        "model": model,
        "cached": cached,
    }
    return Event("reply", at(seconds), agent, body)


def events() -> tuple[Event, ...]:
    """The same, and a look-up and a retry that turns don't tell."""
    reached = {"name": "indicator", "text": "{}"}
    return (
        Event("question", at(0), "", {"text": QUESTION}),
        Event("skipped", at(0), "NewsAnalyst", {"why": "no dated news in the view"}),
        asked("TechnicalAnalyst", 0.5),
        replied("TechnicalAnalyst", 2, "", (100, 20), tool_calls=(("1", "indicator", "{}"),)),
        Event("tool_call", at(2), "TechnicalAnalyst", reached),
        Event("tool_result", at(2.25), "TechnicalAnalyst", {**reached, "error": False}),
        asked("TechnicalAnalyst", 2.25),
        replied("TechnicalAnalyst", 3, '{"trend": "bullish"}', (200, 20)),
        asked("RiskManager", 3),
        Event("retry", at(4), "RiskManager", {"attempt": 1, "why": "HTTP 500", "pause_s": 0.5}),
        Event(
            "failed",
            at(5),
            "RiskManager",
            {"status": "model_error", "reason": "no reply within 45 s"},
        ),
        asked("Executor", 5),
        replied("Executor", 6.5, '{"action": "BUY"}', (300, 20), cached=True),
    )


def decision(**changes: Any) -> Decision:
    return Decision(signal(**changes), turns(), 2, events())

"""A decision made by hand, with a turn of every kind and a stamp for each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from finagent_model.domain.decision import Decision, Turn
from finagent_model.domain.signal import TradingSignal

ASKED = datetime(2026, 3, 2, 21, 0, 5, 250_000, tzinfo=UTC)
QUESTION = '{"symbol": "GOOG"}'


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


def decision(**changes: Any) -> Decision:
    return Decision(signal(**changes), turns(), 2)

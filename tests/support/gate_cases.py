"""A record that passes the gate, and evidence of a chosen grade."""

from __future__ import annotations

from typing import Any

from finagent_model.config.rules import Grade
from finagent_model.evaluation.evidence import Evidence, EvidenceCheck

GOOD: dict[str, Any] = {
    "symbol": "GOOG",
    "as_of": "2012-06-29T23:59:59.999999Z",
    "fit_until": "2012-01-31T21:00:00Z",
    "action": "BUY",
    "status": "ok",
    "reasoning": "because of the trend",
    "suggested_entry_price": 100.0,
    "suggested_stop_loss": 90.0,
    "suggested_take_profit": 120.0,
}
METRICS = {"total_return": 0.1, "benchmark_total_return": 0.2, "max_drawdown": 0.3}


def graded(grade: Grade) -> Evidence:
    """Evidence with one check, passed only where the grade is strong."""
    check = EvidenceCheck(
        name="alpha_above_zero",
        needed_for="weak",
        passed=grade == "strong",
        number=0.2,
        threshold=0.05,
        at_least=False,
    )
    return Evidence(grade=grade, checks=(check,), numbers={})

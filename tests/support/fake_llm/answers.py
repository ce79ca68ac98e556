"""What the double's model says, before a protocol writes it down, and what it says by default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

ANALYST = {"trend": "bullish", "score": 0.5, "summary": "It rises, they say.", "key_factors": []}
TERMS = {
    "direction": "long",
    "stop_loss": 550.0,
    "take_profit": 650.0,
    "position_size_percent": 10.0,
    "summary": "A stop below, a target above.",
}
DECISION: dict[str, Any] = {
    "action": "BUY",
    "confidence_score": 70,
    "reasoning": "Both reports point the same way.",
    "key_factors": ["trend"],
    "trend": "bullish",
    "support_level": 560.0,
    "resistance_level": None,
    "suggested_entry_price": 580.0,
    "suggested_stop_loss": 550.0,
    "suggested_take_profit": 650.0,
    "position_size_percent": 10.0,
}
USUAL: dict[str, dict[str, Any]] = {"Analyst": ANALYST, "RiskManager": TERMS, "Executor": DECISION}
"""By a part of the agent's name."""
PIECE = 24
"""Characters of a streamed piece."""


class Stop(StrEnum):
    """Why the model stopped."""

    END = "end"
    LENGTH = "length"
    REFUSAL = "refusal"
    """It declined; the answer's text is what it says about that."""
    FILTERED = "filtered"
    """The provider's filter cut the answer off."""


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants called."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = "call_1"


@dataclass(frozen=True)
class Answer:
    """One reply of the model."""

    text: str = ""
    tools: tuple[ToolCall, ...] = ()
    stop: Stop = Stop.END
    prompt_tokens: int = 1000
    completion_tokens: int = 100


Said = Answer | str | Mapping[str, Any]
"""How a test may write a reply: whole, its text, or the JSON object that is its text."""


def answer_of(said: Said) -> Answer:
    if isinstance(said, Answer):
        return said
    return Answer(text=said if isinstance(said, str) else json.dumps(said))


def usual_answer(agent: str) -> Answer:
    """What an agent of the desk gets unless a test says otherwise; a greeting for anybody else."""
    return answer_of(next((said for part, said in USUAL.items() if part in agent), "Good day."))


def pieces(text: str) -> list[str]:
    """`text` as it is streamed."""
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)]

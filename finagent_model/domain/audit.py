"""What happened on the way to a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

EventKind = Literal[
    "question",
    "request",
    "reply",
    "repair",
    "tool_call",
    "tool_result",
    "retry",
    "failed",
    "skipped",
    "budget",
    "clamp",
    "signal",
]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened on the way to a decision, as the audit keeps it."""

    kind: EventKind
    at: datetime
    """UTC; the record's own stamp. Nothing is decided by it."""
    agent: str
    """Empty: the desk itself."""
    body: Mapping[str, Any]
    """JSON-ready."""

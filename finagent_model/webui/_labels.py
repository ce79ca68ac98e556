"""Labels of statuses, verdicts, grades and states: a word, a sign and a tone each.

The sign and the word carry the meaning; colour (the tone) is never the only difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from finagent_model.store.artifact_models import FAILED_STATUSES

Tone = Literal["good", "bad", "warn", "calm"]


@dataclass(frozen=True)
class Badge:
    """How one value is shown."""

    word: str
    sign: str
    tone: Tone
    meaning: str = ""
    """What the word means; a page shows it as a tooltip."""


UNKNOWN = Badge("unknown", "?", "calm", "nobody said")
STATUSES: Mapping[str, Badge] = {
    "ok": Badge("decided", "✓", "good", "the desk decided"),
    "abstained": Badge("abstained", "○", "calm", "the desk worked and came to no conclusion"),
    "approval_rejected": Badge("rejected", "◇", "warn", "the desk decided; a human said no"),
    "approval_expired": Badge("expired", "◇", "warn", "the desk decided; nobody answered in time"),
    "parse_failed": Badge("failed: reply unreadable", "✕", "bad", "no reply could be read"),
    "data_missing": Badge("failed: data missing", "✕", "bad", "there was nothing to decide on"),
    "model_error": Badge("failed: model error", "✕", "bad", "a chat model could not be asked"),
    "budget_exceeded": Badge("failed: over budget", "✕", "bad", "the budget was used up"),
    "levels_rejected": Badge("failed: levels rejected", "✕", "bad", "stop or target made no sense"),
    "upstream_error": Badge("failed: upstream error", "✕", "bad", "another system failed"),
}
ACTIONS: Mapping[str, Badge] = {
    "BUY": Badge("BUY", "▲", "good"),
    "SELL": Badge("SELL", "▼", "bad"),
    "HOLD": Badge("HOLD", "■", "calm"),
}
VERDICTS: Mapping[str, Badge] = {
    "passed": Badge("gate passed", "✓", "good"),
    "refused": Badge("gate refused", "✕", "bad"),
}
GRADES: Mapping[str, Badge] = {
    "none": Badge("no evidence", "○", "calm", "what was earned may well be chance"),
    "weak": Badge("weak evidence", "◐", "warn", "not every check against chance passed"),
    "strong": Badge("strong evidence", "●", "good", "every check against chance passed"),
}
RUNS: Mapping[str, Badge] = {
    "RUNNING": Badge("running", "…", "calm"),
    "SCHEDULED": Badge("scheduled", "…", "calm"),
    "FINISHED": Badge("finished", "✓", "good"),
    "FAILED": Badge("failed", "✕", "bad"),
    "KILLED": Badge("killed", "✕", "bad"),
}
APPROVALS: Mapping[str, Badge] = {
    "pending": Badge("waits for you", "◆", "warn"),
    "approved": Badge("approved", "✓", "good"),
    "rejected": Badge("rejected", "◇", "warn"),
    "expired": Badge("expired", "◇", "warn"),
}


def badge(badges: Mapping[str, Badge], value: str | None) -> Badge:
    """Return the badge of `value`; a value without one is shown as it is written."""
    if value is None:
        return UNKNOWN
    return badges.get(value) or Badge(value, "?", "calm")


def is_failed(status: str | None) -> bool:
    """Return whether there is no decision behind a signal's action."""
    return status in FAILED_STATUSES

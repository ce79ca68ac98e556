"""How statuses, verdicts and grades are shown: a word, a sign, a tone. Never colour alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from finagent_model.decision.signal import Status

Tone = Literal["good", "bad", "warn", "calm"]


@dataclass(frozen=True)
class Badge:
    """`about` is what the word means, for whoever asks."""

    word: str
    sign: str
    tone: Tone
    about: str = ""


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


def badge(kinds: Mapping[str, Badge], value: str | None) -> Badge:
    """One that nobody knows is shown as it is written."""
    if value is None:
        return UNKNOWN
    return kinds.get(value) or Badge(value, "?", "calm")


def failed(status: str | None) -> bool:
    """Whether there is no decision behind the action."""
    return status in {known.value for known in Status if known.is_failure}

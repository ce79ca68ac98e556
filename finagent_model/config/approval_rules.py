"""When a human has the last word about a decision, and what leaves the desk after it.

A BUY or a SELL that is large, or little believed in, waits. Approved, the signal leaves as it was
proposed; rejected, or unanswered at its deadline, it is HOLD with a status of its own. Neither is a
failure of the desk. What was approved is what is handed out, even if the desk, asked again, would
propose something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from finagent_model._base import FrozenModel
from finagent_model.decision.signal import Status, TradingSignal

ApprovalVerdict = Literal["approved", "rejected"]
ApprovalState = Literal["pending", "approved", "rejected", "expired"]
APPROVED_FIELDS = (
    "action",
    "confidence_score",
    "position_size_percent",
    "suggested_entry_price",
    "suggested_stop_loss",
    "suggested_take_profit",
)
"""What a human agrees to; two proposals that share them are the same."""


class ApprovalRules(FrozenModel):
    """Which decisions wait for a human, and how long. Off unless a bound is given."""

    above_size_percent: float | None = Field(None, ge=0, le=100)
    """Percent of equity: a larger position waits. None: no size does."""
    below_confidence: float | None = Field(None, ge=0, le=100)
    """Confidence score, 0..100, as the signal has it: a lower one waits. None: none does."""
    timeout_s: float = Field(300.0, gt=0, le=604_800)
    """From the first time that it was asked for; then HOLD. At most a week."""

    @property
    def is_on(self) -> bool:
        return self.above_size_percent is not None or self.below_confidence is not None

    def needed_for(self, signal: TradingSignal) -> str | None:
        """Why `signal` waits for a human, in words; None: it may leave."""
        if signal.action == "HOLD":
            return None
        size, why = signal.position_size_percent, []
        if self.above_size_percent is not None:
            if size is None:
                why.append("its size is unknown")
            elif size > self.above_size_percent:
                why.append(f"size {size:g} % is above {self.above_size_percent:g} %")
        if self.below_confidence is not None and signal.confidence_score < self.below_confidence:
            why.append(f"confidence {signal.confidence_score:g} is below {self.below_confidence:g}")
        return " and ".join(why) or None


@dataclass(frozen=True)
class PendingApproval:
    """One approval that was asked for, and what became of it."""

    id: str
    proposed: TradingSignal
    reason: str
    asked_at: datetime
    deadline: datetime
    state: ApprovalState
    by: str | None = None
    at: datetime | None = None
    """When it was settled; of an expired one, its deadline."""
    why: str | None = None

    @property
    def proposal(self) -> str:
        """In words."""
        signal = self.proposed
        size = signal.position_size_percent
        percent = "unknown" if size is None else f"{size:g} %"
        return (
            f"{signal.action} {signal.symbol} as of {signal.as_of:%Y-%m-%d}, size {percent}, "
            f"confidence {signal.confidence_score:g}"
        )

    def remaining_s(self, now: datetime) -> float | None:
        """Until the deadline; None once it is settled."""
        return (self.deadline - now).total_seconds() if self.state == "pending" else None

    def outcome(self, signal: TradingSignal) -> TradingSignal:
        """What leaves the desk for `signal`, its answer to the same question; raises ValueError
        while it is pending.
        """
        if self.state == "pending":
            raise ValueError(f"approval {self.id} is pending")
        if self.state == "approved":
            return self._approved(signal)
        if self.state == "rejected":
            because = f": {self.why}" if self.why else ""
            said = f"approval {self.id}: {self.by} rejected {self.proposal}{because}"
            return _held(signal, Status.APPROVAL_REJECTED, said)
        waited = (self.deadline - self.asked_at).total_seconds()
        said = f"approval {self.id}: nobody answered within {waited:g} s; held, to be safe"
        return _held(signal, Status.APPROVAL_EXPIRED, f"{said}: {self.proposal} ({self.reason})")

    def row(self, now: datetime) -> dict[str, Any]:
        """JSON-ready; names that a signal has too mean the same."""
        remaining = self.remaining_s(now)
        return {
            "id": self.id,
            "symbol": self.proposed.symbol,
            "as_of": self.proposed.as_of.isoformat(),
            **{name: getattr(self.proposed, name) for name in APPROVED_FIELDS},
            "model_used": self.proposed.model_used,
            "model_uri": self.proposed.model_uri,
            "reasoning": self.proposed.reasoning,
            "reason": self.reason,
            "state": self.state,
            "asked_at": self.asked_at.isoformat(),
            "deadline": self.deadline.isoformat(),
            "remaining_s": None if remaining is None else round(remaining, 1),
            "by": self.by,
            "at": self.at.isoformat() if self.at else None,
            "why": self.why,
        }

    def _approved(self, signal: TradingSignal) -> TradingSignal:
        because = f": {self.why}" if self.why else ""
        notes = [f"approval {self.id}: approved by {self.by}{because} ({self.reason})"]
        if any(getattr(signal, name) != getattr(self.proposed, name) for name in APPROVED_FIELDS):
            signal = self.proposed
            notes.append("asked again, the desk proposed otherwise: this is what was approved")
        return with_warnings(signal, *notes)


def with_warnings(signal: TradingSignal, *notes: str) -> TradingSignal:
    """The same signal that says more."""
    return signal.model_copy(update={"warnings": (*signal.warnings, *notes)})


def _held(signal: TradingSignal, status: Status, reasoning: str) -> TradingSignal:
    """HOLD, with what the desk saw of the market but nothing that it suggested."""
    changes = {
        "action": "HOLD",
        "confidence": "LOW",
        "confidence_score": 0,
        "raw_confidence_score": 0,
        "calibrated": False,
        "status": status,
        "reasoning": reasoning,
        "suggested_entry_price": None,
        "suggested_stop_loss": None,
        "suggested_take_profit": None,
        "r_multiple": None,
        "position_size_percent": None,
    }
    kept = signal.model_dump(exclude={"is_actionable"})
    return TradingSignal.model_validate({**kept, **changes})

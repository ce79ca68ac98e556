"""Which decisions wait for a human (approval rules), and what is returned after the answer.

A BUY or a SELL that is large, or of low confidence, waits. Approved, the signal is returned as it
was proposed; rejected, or unanswered at its deadline, it becomes a HOLD with a status of its own.
Neither is a failure of the desk. The approved signal is returned even if the desk, asked again,
would propose something else.
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
"""The fields that a human agrees to; two proposals that share them are the same."""


class ApprovalRules(FrozenModel):
    """Which decisions wait for a human, and how long. Off unless a bound is given."""

    above_size_percent: float | None = Field(None, ge=0, le=100)
    """Percent of equity: a larger position waits. None: no size does."""
    below_confidence: float | None = Field(None, ge=0, le=100)
    """Confidence score, 0..100, as the signal has it: a lower one waits. None: none does."""
    timeout_s: float = Field(300.0, gt=0, le=604_800)
    """Seconds from the first request for the approval to its deadline; at most a week."""

    @property
    def is_enabled(self) -> bool:
        """Whether any decision can need an approval."""
        return self.above_size_percent is not None or self.below_confidence is not None

    def approval_reason(self, signal: TradingSignal) -> str | None:
        """Return in words why `signal` must wait for a human; None where it need not."""
        # A HOLD trades nothing, so there is nothing to agree to.
        if signal.action == "HOLD":
            return None
        size, reasons = signal.position_size_percent, []
        if self.above_size_percent is not None:
            # A size that is unknown may be large.
            if size is None:
                reasons.append("its size is unknown")
            elif size > self.above_size_percent:
                reasons.append(f"size {size:g} % is above {self.above_size_percent:g} %")
        if self.below_confidence is not None and signal.confidence_score < self.below_confidence:
            reasons.append(
                f"confidence {signal.confidence_score:g} is below {self.below_confidence:g}"
            )
        return " and ".join(reasons) or None


@dataclass(frozen=True)
class ApprovalRequest:
    """A request for a human's approval of one signal, and its state."""

    id: str
    signal: TradingSignal
    """The signal as it was proposed."""
    reason: str
    """Why it waits, in words."""
    asked_at: datetime
    deadline: datetime
    state: ApprovalState
    by: str | None = None
    """Who settled it; None while pending and where it expired."""
    at: datetime | None = None
    """When it was settled; for an expired one, its deadline."""
    why: str | None = None
    """The reason that the human gave."""

    @property
    def summary(self) -> str:
        """The proposal in words: action, symbol, date, size and confidence."""
        signal = self.signal
        size = signal.position_size_percent
        percent = "unknown" if size is None else f"{size:g} %"
        return (
            f"{signal.action} {signal.symbol} as of {signal.as_of:%Y-%m-%d}, size {percent}, "
            f"confidence {signal.confidence_score:g}"
        )

    def remaining_s(self, now: datetime) -> float | None:
        """Return the seconds until the deadline; None where it is settled."""
        return (self.deadline - now).total_seconds() if self.state == "pending" else None

    def apply_to(self, signal: TradingSignal) -> TradingSignal:
        """Return what may leave the desk for `signal`, its answer to the same question.

        Raises ValueError while the request is pending.
        """
        if self.state == "pending":
            raise ValueError(f"approval {self.id} is pending")
        if self.state == "approved":
            # The desk may have been asked again, since the process that waited may have died.
            return self._approve(signal)
        if self.state == "rejected":
            comment = f": {self.why}" if self.why else ""
            reasoning = f"approval {self.id}: {self.by} rejected {self.summary}{comment}"
            return _hold(signal, Status.APPROVAL_REJECTED, reasoning)
        timeout_s = (self.deadline - self.asked_at).total_seconds()
        reasoning = (
            f"approval {self.id}: nobody answered within {timeout_s:g} s; held, to be safe: "
            f"{self.summary} ({self.reason})"
        )
        return _hold(signal, Status.APPROVAL_EXPIRED, reasoning)

    def to_json(self, now: datetime) -> dict[str, Any]:
        """Return a JSON-ready row; keys that a signal has too mean the same."""
        remaining = self.remaining_s(now)
        return {
            "id": self.id,
            "symbol": self.signal.symbol,
            "as_of": self.signal.as_of.isoformat(),
            **{name: getattr(self.signal, name) for name in APPROVED_FIELDS},
            "model_used": self.signal.model_used,
            "model_uri": self.signal.model_uri,
            "reasoning": self.signal.reasoning,
            "reason": self.reason,
            "state": self.state,
            "asked_at": self.asked_at.isoformat(),
            "deadline": self.deadline.isoformat(),
            # A tenth of a second is what a page or a shell can show.
            "remaining_s": None if remaining is None else round(remaining, 1),
            "by": self.by,
            "at": self.at.isoformat() if self.at else None,
            "why": self.why,
        }

    def _approve(self, signal: TradingSignal) -> TradingSignal:
        comment = f": {self.why}" if self.why else ""
        notes = [f"approval {self.id}: approved by {self.by}{comment} ({self.reason})"]
        if any(getattr(signal, name) != getattr(self.signal, name) for name in APPROVED_FIELDS):
            # A human agreed to these numbers; a later answer of the desk was never approved.
            signal = self.signal
            notes.append("asked again, the desk proposed otherwise: this is what was approved")
        return signal.with_warnings(*notes)


def _hold(signal: TradingSignal, status: Status, reasoning: str) -> TradingSignal:
    """Return a HOLD that keeps what the desk saw of the market and nothing that it suggested."""
    return TradingSignal.from_dump(
        {
            **signal.model_dump(),
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
    )

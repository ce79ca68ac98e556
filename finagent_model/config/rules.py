"""Limits of a desk and thresholds of the gate, as blocks of the configuration.

The limits hold in one decision (rounds, tokens, time, budget), in a run or day (spending) and
against one provider (rate limiter, circuit breaker). The gate's rules are what a version must show
before it may be champion.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finagent_model._base import FrozenModel
from finagent_model.config.parsing import CallLimits
from finagent_model.config.roster import AgentGroup
from finagent_model.decision.opinions import Opinion
from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.market.bars import show_as_of

Grade = Literal["none", "weak", "strong"]
"""How much evidence there is of an edge after costs."""
MaskKind = Literal["none", "names", "levels"]
"""What a desk hides from its models."""


class DecisionLimits(FrozenModel):
    """Limits of one decision. Reaching one is a status, never a crash."""

    max_rounds: int = Field(10, ge=1, le=100)
    """Messages that agents may exchange; after them the desk abstains."""
    max_tokens: int = Field(40_000, ge=0)
    """Prompt and reply together, over all agents; the client `rules` uses none."""
    wall_clock_s: float = Field(120.0, gt=0, le=3600)
    """Deadline of the whole decision, in seconds."""
    call_timeout_s: float = Field(45.0, gt=0, le=600)
    """Time-out of one call of a chat model, in seconds."""
    retries: int = Field(3, ge=0, le=10)
    """Retries of one call after a busy or broken server or a time-out."""
    repairs: int = Field(2, ge=0, le=2)
    """Times that an agent may correct an invalid reply."""
    tool_rounds: int = Field(4, ge=0, le=20)
    """Times that an agent may ask for tools before it must answer."""
    budget_usd: float = Field(0.0, ge=0)
    """US dollars; 0: no limit in money. Otherwise every model's price must be known."""


class SpendingLimits(FrozenModel):
    """Budgets beyond one decision; 0: none.

    A run is one process's use of a desk, a day one of UTC on this machine.
    """

    run_tokens: int = Field(0, ge=0)
    """Tokens of a run, prompt and reply together."""
    run_usd: float = Field(0.0, ge=0)
    """US dollars of a run."""
    day_tokens: int = Field(0, ge=0)
    """Tokens of a day, prompt and reply together."""
    day_usd: float = Field(0.0, ge=0)
    """US dollars of a day."""
    drop_first: tuple[AgentGroup, ...] = ("debate", "news")
    """Agents to leave out, in this order, where a decision would exceed the remaining budget."""


class RateLimits(FrozenModel):
    """Rate limiter and circuit breaker of one provider, over all decisions of a process, or of all
    workers of a server.
    """

    requests_per_minute: int = Field(0, ge=0)
    """Most requests per minute; 0: no limit."""
    tokens_per_minute: int = Field(0, ge=0)
    """Most tokens per minute, prompt and reply together; 0: no limit."""
    # Counted over all decisions: a provider that is down fails for each of them.
    break_after: int = Field(5, ge=0)
    """Failures in a row that open the circuit breaker; 0: it never opens."""
    break_s: float = Field(30.0, gt=0, le=3600)
    """Seconds for which the breaker stays open; then one trial call is let through."""


class RiskLimits(FrozenModel):
    """Limits that code enforces on an answer, whatever a model says."""

    entry_atr: float = Field(1.0, ge=0, le=10)
    """Largest distance of an entry price from the last close, in ATR."""
    max_stop_fraction: float = Field(0.5, gt=0, lt=1)
    """Largest distance of a stop from the entry, as a fraction of the entry price."""
    # The most that training may fit (`Policy.target_atr`): no fitted target is ever moved.
    max_target_atr: float = Field(30.0, gt=0, le=100)
    """Largest distance of a target from the entry, in ATR."""


class MemoryConfig(FrozenModel):
    """How many of the desk's past trades its prompts contain."""

    lessons: int = Field(5, ge=0, le=50)
    """The latest closed trades, in full; 0: none."""


class GateRules(BaseModel):
    """Thresholds of the gate. Integrity is always required; this sets how much evidence is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    require_evidence: Grade = "none"
    """Grade of evidence that a version needs to become champion."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of each test against chance, two-sided for those that `weak` needs."""
    min_deflated: float = Field(0.5, gt=0, lt=1)
    """Least deflated ratio: the probability that alpha over its own risk exceeds the best that as
    many policies without skill would show.
    """
    # A share of failed decisions is a hole in the record, whatever the others earned.
    max_failed_share: float = Field(0.0, ge=0, lt=1)
    """Largest failed share of the out-of-sample decisions; this one is about integrity."""
    cost_margin: float = Field(2.0, ge=1, le=100)
    """Least ratio of break-even costs to assumed costs."""

    @property
    def proves_training(self) -> bool:
        """Whether the gate also trains again, as `finagent verify --deep` does.

        Who requires strong evidence is about to act on it.
        """
        return self.require_evidence == "strong"


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
    opinions: tuple[Opinion, ...] | None = None
    """What each agent of the desk thought; None: older code asked, and did not keep it."""

    @property
    def summary(self) -> str:
        """The proposal in words: action, symbol, date, size and confidence."""
        signal = self.signal
        size = signal.position_size_percent
        percent = "unknown" if size is None else f"{size:g} %"
        return (
            f"{signal.action} {signal.symbol} as of {show_as_of(signal.as_of)}, size {percent}, "
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


def narrow_limits(
    limits: DecisionLimits, request: CallLimits
) -> tuple[DecisionLimits, tuple[str, ...]]:
    """Return `limits` narrowed by `request`, and a warning for each wider value it asks for."""
    changes: dict[str, float] = {}
    warnings: list[str] = []
    if request.max_rounds is not None:
        if request.max_rounds < limits.max_rounds:
            changes["max_rounds"] = request.max_rounds
        elif request.max_rounds > limits.max_rounds:
            warnings.append(
                f"max_rounds {request.max_rounds} was asked for; "
                f"this version allows {limits.max_rounds}"
            )
    if request.budget_usd is not None:
        # A budget of 0 is no limit, so it is the widest of all.
        requested, allowed = request.budget_usd or inf, limits.budget_usd or inf
        if requested < allowed:
            changes["budget_usd"] = request.budget_usd
        elif requested > allowed:
            amount = f"{requested:g}" if request.budget_usd else "0 (no limit)"
            warnings.append(f"budget_usd {amount} was asked for; this version allows {allowed:g}")
    return limits.model_copy(update=changes), tuple(warnings)

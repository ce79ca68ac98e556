"""Limits of a desk and thresholds of the gate, as blocks of the configuration.

The limits hold in one decision (rounds, tokens, time, budget), in a run or day (spending) and
against one provider (rate limiter, circuit breaker). The gate's rules are what a version must show
before it may be champion.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finagent_model._base import FrozenModel
from finagent_model.config.roster import AgentGroup

Grade = Literal["none", "weak", "strong"]
"""How much evidence there is of an edge after costs."""


class DecisionLimits(FrozenModel):
    """Limits of one decision. Reaching one is a status, never a crash."""

    max_rounds: int = Field(10, ge=1, le=100)
    """Messages that agents may exchange; without a decision by then the desk abstains."""
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
    run_usd: float = Field(0.0, ge=0)
    day_tokens: int = Field(0, ge=0)
    day_usd: float = Field(0.0, ge=0)
    drop_first: tuple[AgentGroup, ...] = ("debate", "news")
    """Agents to leave out, in this order, where a decision would exceed the remaining budget."""


class RateLimits(FrozenModel):
    """Rate limiter and circuit breaker of one provider, over all decisions of a process."""

    requests_per_minute: int = Field(0, ge=0)
    """0: no limit."""
    tokens_per_minute: int = Field(0, ge=0)
    """0: no limit."""
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


class MemoryConfig(FrozenModel):
    """What the desk is told of its own past trades."""

    lessons: int = Field(5, ge=0, le=50)
    """The latest ones, told in full; 0: nothing is remembered."""


class GateRules(BaseModel):
    """Thresholds of the gate. Integrity is always required; this sets how much evidence is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    require_evidence: Grade = "none"
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of each test against chance."""
    min_deflated: float = Field(0.5, gt=0, lt=1)
    """Least deflated Sharpe ratio: the probability that the Sharpe ratio exceeds the best of as
    many policies without skill.
    """
    # A share of failed decisions is a hole in the record, whatever the others earned.
    max_failed_share: float = Field(0.0, ge=0, lt=1)
    """Largest failed share of the out-of-sample decisions; this one is about integrity."""
    cost_margin: float = Field(2.0, ge=1, le=100)
    """Least ratio of break-even costs to assumed costs."""

"""How far a desk may go: in one decision, in a run, in a day, and in a minute.

What a version must show before it may be champion.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finagent_model._base import FrozenModel
from finagent_model.config.roster import Group


class Limits(FrozenModel):
    """Bounds of one decision. Reaching one is a status, never a crash."""

    max_rounds: int = Field(10, ge=1, le=100)
    """Messages that agents may exchange; without a decision by then the desk abstains."""
    max_tokens: int = Field(40_000, ge=0)
    """Prompt and reply together, over all agents; the client `rules` uses none."""
    wall_clock_s: float = Field(120.0, gt=0, le=3600)
    call_timeout_s: float = Field(45.0, gt=0, le=600)
    retries: int = Field(3, ge=0, le=10)
    """Times that a call is tried again where that may help: a busy or broken server, a time-out."""
    repairs: int = Field(2, ge=0, le=2)
    """Times that an agent is told what was wrong with its reply."""
    tool_rounds: int = Field(4, ge=0, le=20)
    """Times that an agent may ask for tools before it must answer."""
    budget_usd: float = Field(0.0, ge=0)
    """0: no limit in money. Otherwise every model's price must be known."""


class Spending(FrozenModel):
    """Bounds beyond one decision; 0: none. A run is one process's use of a desk, a day one of UTC
    on this machine.
    """

    run_tokens: int = Field(0, ge=0)
    run_usd: float = Field(0.0, ge=0)
    day_tokens: int = Field(0, ge=0)
    day_usd: float = Field(0.0, ge=0)
    drop_first: tuple[Group, ...] = ("debate", "news")
    """Who is left out, in this order, where a decision would not fit into what is left."""


class RateLimits(FrozenModel):
    """Calls to one provider by all decisions of a process."""

    requests_per_minute: int = Field(0, ge=0)
    """0: no limit."""
    tokens_per_minute: int = Field(0, ge=0)
    break_after: int = Field(5, ge=0)
    """Failures in a row after which the provider is left alone; 0: never."""
    break_s: float = Field(30.0, gt=0, le=3600)
    """For how long; then one call tries."""


class RiskLimits(FrozenModel):
    """What code allows, whatever a model says."""

    entry_atr: float = Field(1.0, ge=0, le=10)
    """An entry price may lie this many ATR from the last close."""
    max_stop_fraction: float = Field(0.5, gt=0, lt=1)
    """A stop may lie this fraction of the entry price away."""


class Memory(FrozenModel):
    """What the desk is told of its own past calls."""

    lessons: int = Field(5, ge=0, le=50)
    """The latest ones, told in full; 0: nothing is remembered."""


Grade = Literal["none", "weak", "strong"]
"""How much evidence there is of an edge after costs."""


class GateRules(BaseModel):
    """Integrity is always required; this says how much evidence is, and by which thresholds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    require_evidence: Grade = "none"
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of each test against chance."""
    min_deflated: float = Field(0.5, gt=0, lt=1)
    """Probability that the Sharpe ratio exceeds the best that as many policies without merit would
    show.
    """
    max_failed_share: float = Field(0.0, ge=0, lt=1)
    """Of the unseen days' decisions; a matter of integrity, whatever evidence is required."""
    cost_margin: float = Field(2.0, ge=1, le=100)
    """How many times the assumed costs the break-even costs must be."""

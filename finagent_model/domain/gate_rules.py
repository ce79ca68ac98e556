"""What a version must show before it may be champion."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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

"""What trading costs, charged on every fill."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Costs(BaseModel):
    """Fractions of the traded notional; the defaults are 10 and 5 basis points."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    commission: float = Field(0.001, ge=0, lt=0.1)
    """Paid on every fill: 0.001 is 10 basis points."""
    slippage: float = Field(0.0005, ge=0, lt=0.1)
    """How much worse a market or stop fill is than its price; a target is a limit and has none."""

"""What every block of a desk's configuration is: frozen, closed to unknown keys, finite."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Row(BaseModel):
    """A block of YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

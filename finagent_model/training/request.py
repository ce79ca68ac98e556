"""What a training was asked to do. Every value is checked here, whoever asks: MLflow, Airflow or a
shell.
"""

from __future__ import annotations

import hashlib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from finagent_model.backtest.costs import Costs
from finagent_model.domain.desk_config import Mode, explain
from finagent_model.errors import BadInputError


class TrainRequest(BaseModel):
    """Frozen. Windows in bars (sessions), money in the bars' currency, costs as fractions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symbols: tuple[str, ...] = Field(("GOOG",), min_length=1, max_length=1000)
    config: str = "default"
    """A preset's name or a YAML file."""
    mode: Mode = "cached"
    train_bars: int = Field(504, ge=120, le=10_000)
    """Bars that each fit looks at: two years."""
    test_bars: int = Field(126, ge=5, le=5_000)
    """Bars that each fit then decides on, unseen: half a year."""
    purge_bars: int = Field(5, ge=1, le=500)
    """Bars left out between the two, so that no outcome straddles them."""
    candidates: int = Field(96, ge=2, le=20_000)
    """Policies scored in each fold."""
    seed: int = Field(7, ge=0, lt=2**32)
    cash: float = Field(10_000.0, gt=0)
    commission: float = Field(0.001, ge=0, lt=0.1)
    slippage: float = Field(0.0005, ge=0, lt=0.1)
    allow_short: bool = False
    register_as: str = Field("finagent", pattern=r"^[A-Za-z0-9_\-]{1,100}$")

    @field_validator("symbols", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        if isinstance(names, list | tuple):
            bad = [n for n in names if not isinstance(n, str) or not n or n != n.upper()]
            if bad:
                raise ValueError(f"{bad[0]!r} is not an upper-case ticker such as GOOG")
            if len(set(names)) != len(names):
                raise ValueError("a symbol is named twice")
            return tuple(names)
        return value

    @classmethod
    def read(cls, **given: Any) -> Self:
        """From loose values; raises BadInputError naming the value and what is allowed."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            raise BadInputError(f"parameter {explain(error)}{cls._allowed(name)}") from None

    @classmethod
    def _allowed(cls, name: str) -> str:
        """What a parameter may be, for the message that refuses it."""
        schema = cls.model_json_schema()["properties"].get(name)
        if schema is None:
            return f"; there is: {', '.join(cls.model_fields)}"
        words = {
            "minimum": "at least",
            "exclusiveMinimum": "above",
            "maximum": "at most",
            "exclusiveMaximum": "below",
            "enum": "one of",
            "pattern": "letters, digits, - and _:",
            "default": "default",
        }
        said = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
        return f"; allowed: {', '.join(said)}"

    @property
    def costs(self) -> Costs:
        return Costs(commission=self.commission, slippage=self.slippage)

    def digest(self, *facts: str) -> str:
        """SHA-256 of the request and of what else it depends on (data, desk)."""
        return hashlib.sha256("\n".join([self.model_dump_json(), *facts]).encode()).hexdigest()

"""A row of a signal as pages read it. Another system may have written it: what is not of the kind
that a page shows is as if nobody had said it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from finagent_model.artifacts.price_chart import LEVELS
from finagent_model.domain.artifact import Artifact
from finagent_model.webui.finite import finite

TONES = {"entry": "accent", "stop": "bad", "target": "good"}


@dataclass(frozen=True)
class Level:
    """A price that the signal names."""

    name: str
    price: float
    tone: str


@dataclass(frozen=True)
class SignalRow:
    """`row` has a dictionary for its `metadata` at least; `given` is its `signal_data`."""

    row: Artifact
    given: dict[str, Any]

    @classmethod
    def of(cls, row: Artifact) -> Self:
        return cls(with_metadata(row), _object(row.signal_data))

    def text(self, name: str) -> str | None:
        value = self.given.get(name)
        return value if isinstance(value, str) and value else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Of a list, or the one text that stands in its place."""
        value = self.given.get(name)
        values = value if isinstance(value, list) else [value]
        return tuple(each for each in values if isinstance(each, str) and each)

    def number(self, name: str) -> int | float | None:
        return finite(self.given.get(name))

    @property
    def calibrated(self) -> bool:
        return self.given.get("calibrated") is True

    @property
    def confidence(self) -> float | None:
        """0 to 100; None: unknown, or nothing was decided."""
        if self.row.status not in (None, "ok"):
            return None
        if (said := self.number("confidence_score")) is not None:
            return float(said)
        share = finite(self.row.confidence)
        return 100.0 * share if share is not None and 0 <= share <= 1 else None

    @property
    def levels(self) -> list[Level]:
        """From the highest to the lowest."""
        found = [
            Level(name, float(price), TONES.get(name, "soft"))
            for field, (name, _) in LEVELS.items()
            if (price := self.number(field)) is not None and price > 0
        ]
        return sorted(found, key=lambda level: -level.price)


def with_metadata(row: Artifact) -> Artifact:
    return row.model_copy(update={"metadata": _object(row.metadata)})


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

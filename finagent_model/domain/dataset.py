"""What a run was given to look at, named by its content: a symbol's bars, its news, its
fundamentals. The data itself stay where they are.

A name says what it is (`GOOG bars`), a SHA-256 exactly which. Equal content has an equal hash,
wherever it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from finagent_model.domain.bars import BarSeries
from finagent_model.domain.dated import Published

Kind = Literal["bars", "news", "fundamentals"]
DIGITS = 32
"""Of the hash; MLflow keeps at most 36 of a data set's."""


@dataclass(frozen=True)
class Dataset:
    """Never empty: where there is nothing, there is no data set."""

    symbol: str
    kind: Kind
    sha256: str
    source: str
    """The word for where it came from, such as `bundled`."""
    rows: int
    first: datetime
    last: datetime

    @property
    def name(self) -> str:
        return f"{self.symbol} {self.kind}"

    @property
    def digest(self) -> str:
        """The hash as far as MLflow keeps it, and as people copy it."""
        return self.sha256[:DIGITS]

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        dates = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {"name": self.name, "digest": self.digest, **vars(self), **dates}


def dataset_of_bars(bars: BarSeries, source: str) -> Dataset:
    """`bars` holds at least one."""
    dates = bars.closed(0), bars.closed(-1)
    return Dataset(bars.symbol, "bars", bars.digest(), source, len(bars), *dates)


def dataset_of_items(
    symbol: str, kind: Kind, items: Sequence[Published], source: str
) -> Dataset | None:
    """News or facts in their order; None where there are none."""
    if not items:
        return None
    told = "\n".join([symbol, *(item.model_dump_json() for item in items)])
    days = [item.published_at for item in items]
    sha256 = hashlib.sha256(told.encode()).hexdigest()
    return Dataset(symbol, kind, sha256, source, len(items), min(days), max(days))

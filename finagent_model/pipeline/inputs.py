"""Which data a run was given, as data sets named by their content, and whether the same are at hand
today.

A training and a backtest were given all that the sources had of a symbol; a decision what its view
held. Bars and items that came later are no change: of what is at hand only as much is looked at as
there was then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from finagent_model.domain.bars import BarSeries
from finagent_model.domain.dataset import Dataset, dataset_of_bars, dataset_of_items
from finagent_model.domain.dated import Published
from finagent_model.domain.market_view import MarketView
from finagent_model.errors import BadInputError, DataError
from finagent_model.market import Market

State = Literal["same", "changed", "not at hand"]


@dataclass(frozen=True)
class Compared:
    """A data set of the past beside what the sources of today have."""

    was: Dataset
    now: State
    why: str
    """In words, for what is not the same."""

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.was.row(), "now": self.now, "why": self.why}


def given(market: Market, symbol: str) -> tuple[Dataset, ...]:
    """All that is known of a symbol. Raises DataError."""
    bars, news, facts = market.bars(symbol), market.news(symbol)[0], market.facts(symbol)[0]
    return _datasets(market, bars, news, facts)


def seen(market: Market, view: MarketView) -> tuple[Dataset, ...]:
    """What a decision was made from."""
    return _datasets(market, view.bars, view.news, view.fundamentals)


def compare(
    past: Sequence[Dataset], market: Market, as_of: datetime | None = None
) -> list[Compared]:
    """Each data set beside its like of today; `as_of` is the moment of a decision, None where the
    run was given all there was.
    """
    compared = []
    for was in past:
        try:
            now = _now(market, was, as_of)
        except (DataError, BadInputError) as error:
            compared.append(Compared(was, "not at hand", str(error)))
            continue
        if now is not None and now.sha256 == was.sha256:
            compared.append(Compared(was, "same", ""))
        else:
            compared.append(Compared(was, "changed", _difference(was, now)))
    return compared


def _now(market: Market, was: Dataset, as_of: datetime | None) -> Dataset | None:
    """What the sources of today make of it; None: nothing."""
    if as_of is not None:
        found = seen(market, market.view(was.symbol, as_of))
        return next((each for each in found if each.kind == was.kind), None)
    if was.kind == "bars":
        if (kept := market.kept(was.symbol, was.sha256)) is not None:
            return dataset_of_bars(kept, was.source)
        bars = market.bars(was.symbol).until(was.last)
        return dataset_of_bars(bars, was.source) if len(bars) else None
    items = market.news(was.symbol)[0] if was.kind == "news" else market.facts(was.symbol)[0]
    then = [item for item in items if item.published_at <= was.last]
    return dataset_of_items(was.symbol, was.kind, then, was.source)


def _difference(was: Dataset, now: Dataset | None) -> str:
    if now is None:
        return f"there were {was.rows} rows from {was.source}, there are none today"
    if now.rows != was.rows:
        return f"there were {was.rows} rows from {was.source}, there are {now.rows} of that time"
    return f"of the {was.rows} rows from {was.source} some differ"


def _datasets(
    market: Market, bars: BarSeries, news: Sequence[Published], facts: Sequence[Published]
) -> tuple[Dataset, ...]:
    origins = market.origins
    found = (
        dataset_of_bars(bars, origins["bars"]),
        dataset_of_items(bars.symbol, "news", news, origins["news"]),
        dataset_of_items(bars.symbol, "fundamentals", facts, origins["fundamentals"]),
    )
    return tuple(each for each in found if each is not None)

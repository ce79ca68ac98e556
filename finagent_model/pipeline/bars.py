"""Bars looked after by hand: what there is, what is good, what a vendor has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finagent_model.data.fetched import FetchedBars
from finagent_model.data.kept import Kept
from finagent_model.domain.seen import Seen
from finagent_model.errors import BadInputError, DataSourceError, FinagentError
from finagent_model.market import Market
from finagent_model.settings import Settings


@dataclass(frozen=True)
class Checked:
    """One symbol's bars: read, or refused with a reason."""

    symbol: str
    seen: Seen | None
    refused: str | None = None

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        told = self.seen.model_dump(mode="json") if self.seen else {}
        return {
            "symbol": self.symbol,
            "good": self.seen is not None,
            "refused": self.refused,
        } | told


def check(settings: Settings, symbols: Sequence[str]) -> list[Checked]:
    """Read `symbols`, or all that the source has; a vendor is asked now. A bad symbol hides no
    other. Raises DataSourceError where there is no list.
    """
    market = Market.of(settings)
    return [_read(market, symbol, None) for symbol in symbols or market.source.symbols()]


def fetch(settings: Settings, symbols: Sequence[str], as_of: datetime | None) -> list[Checked]:
    """Keep what a vendor has of `symbols`; where what was kept reaches `as_of` it isn't asked.
    Raises BadInputError for a source that needs no fetching.
    """
    market = Market.of(settings)
    if not isinstance(market.source, FetchedBars):
        raise BadInputError(
            f"FINAGENT_BARS is {market.source.name}, of which nothing is fetched; set it to "
            "yfinance, to a SQLAlchemy URL or to an entry point"
        )
    return [_read(market, symbol, as_of) for symbol in symbols]


def kept(settings: Settings) -> list[tuple[str, tuple[Seen, ...]]]:
    """Every symbol that was kept, with its readings, the newest last."""
    home = Kept(settings.home)
    return [(symbol, home.readings(symbol)) for symbol in home.symbols()]


def there(settings: Settings) -> tuple[str, tuple[str, ...] | None, str | None]:
    """The name of the source and the symbols that it has, or None and why there is no list."""
    source = Market.of(settings).source
    try:
        return source.name, source.symbols(), None
    except DataSourceError as error:
        return source.name, None, str(error)


def _read(market: Market, symbol: str, as_of: datetime | None) -> Checked:
    try:
        market.bars(symbol, as_of)
        return Checked(symbol, market.seen(symbol))
    except FinagentError as error:
        return Checked(symbol, None, str(error))

"""What the package asks of a vendor of bars, news or fundamentals: three small protocols, and
nothing else.

A source that fails says so (DataSourceError); that is never the same as having nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from finagent_model._redact import redact_addresses
from finagent_model.errors import DataSourceError, FinagentError
from finagent_model.market.bars import BarSeries
from finagent_model.market.news import Fact, NewsItem, PublishedRecord

P = TypeVar("P", bound=PublishedRecord)
REASON = 300
"""Characters of a reason."""


class BarSource(Protocol):
    """Daily bars by symbol."""

    @property
    def name(self) -> str:
        """One word for reports and messages, such as `bundled`."""
        ...

    def symbols(self) -> tuple[str, ...]:
        """The tickers it has, sorted. Raises DataSourceError when the vendor fails or has no
        list.
        """
        ...

    def bars(self, symbol: str) -> BarSeries:
        """Every bar it has of `symbol`, oldest first.

        Raises UnknownSymbolError for a ticker that it doesn't have, DataSourceError when the vendor
        fails, and InvalidBarsError when what came breaks a rule of the market.
        """
        ...


class NewsSource(Protocol):
    """Dated news by symbol."""

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        """Items oldest first, and how many were dropped as undated. A symbol without news has none:
        `((), 0)`.

        Raises DataSourceError when the vendor fails and InvalidNewsError for a record that can't be
        read.
        """
        ...


class FundamentalsSource(Protocol):
    """Dated facts about a company by symbol."""

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        """Every fact as it was published, oldest first, and how many were dropped as undated. A
        symbol without facts has none: `((), 0)`.

        Raises DataSourceError when the vendor fails and InvalidFundamentalsError for a record that
        can't be read.
        """
        ...


@contextmanager
def vendor_errors(asked: str) -> Iterator[None]:
    """Raises DataSourceError, saying who was `asked` for what, for whatever a vendor's code raises
    in the block beside this package's errors. Without the error itself: a log that shows where
    it came from would show what is struck out of the message.
    """
    try:
        yield
    except FinagentError:
        raise
    except Exception as error:  # somebody else's code
        raise DataSourceError(f"{asked} failed: {reason_of(error)}") from None


def oldest_first(given: object, kind: type[P]) -> tuple[tuple[P, ...], int]:
    """Dated records as a source should give them; `[]` is none. Raises TypeError."""
    match given:
        case []:
            return (), 0
        case [list() | tuple() as items, int(undated)]:
            if all(isinstance(item, kind) for item in items):
                return tuple(sorted(items, key=lambda item: item.published_at)), undated
    raise TypeError(
        f"it gave {type(given).__name__}, not a pair of {kind.__name__}s and how many were undated"
    )


def reason_of(error: Exception) -> str:
    """What somebody else's error says, in a line; of an address without user, password and query,
    which may hold a key.
    """
    return redact_addresses(" ".join(f"{type(error).__name__}: {error}".split()))[:REASON]

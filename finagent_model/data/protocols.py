"""The protocols of data sources: bars, news and fundamentals by symbol.

A source that fails raises DataSourceError; that is never the same as having nothing. The helpers
below hold somebody else's code to this contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from finagent_model._redact import redact_addresses
from finagent_model._secrets import redact_message
from finagent_model.errors import DataSourceError, FinagentError
from finagent_model.market.bars import BarSeries
from finagent_model.market.news import Fact, NewsItem, PublishedRecord

P = TypeVar("P", bound=PublishedRecord)
MAX_REASON_CHARS = 300


class BarSource(Protocol):
    """Daily bars by symbol."""

    @property
    def name(self) -> str:
        """Return one word for reports and messages, such as `bundled`."""
        ...

    def symbols(self) -> tuple[str, ...]:
        """Return the tickers of the source, sorted.

        Raises DataSourceError when the vendor fails or has no list.
        """
        ...

    def bars(self, symbol: str) -> BarSeries:
        """Return every bar of `symbol`, oldest first.

        Raises UnknownSymbolError for a ticker that the source doesn't have, DataSourceError when
        the vendor fails, and InvalidBarsError when the data break a rule of the market.
        """
        ...


class NewsSource(Protocol):
    """Dated news by symbol."""

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        """Return the items oldest first, and how many were dropped as undated.

        A symbol without news has `((), 0)`. Raises DataSourceError when the vendor fails and
        InvalidNewsError for a record that can't be read.
        """
        ...


class FundamentalsSource(Protocol):
    """Dated facts about a company by symbol."""

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        """Return every fact as published, oldest first, and how many were dropped as undated.

        A symbol without facts has `((), 0)`. Raises DataSourceError when the vendor fails and
        InvalidFundamentalsError for a record that can't be read.
        """
        ...


@contextmanager
def wrap_vendor_errors(request: str) -> Iterator[None]:
    """Turn whatever a vendor's code raises in the block into DataSourceError.

    `request` says who was asked for what. Errors of this package pass through as they are.
    """
    try:
        yield
    except FinagentError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        # Not `from error`: a logged traceback would show the secrets that the message leaves out.
        raise DataSourceError(f"{request} failed: {describe_error(error)}") from None


def sort_records(answer: object, kind: type[P]) -> tuple[tuple[P, ...], int]:
    """Return a source's records of `kind` oldest first, and how many were dropped as undated.

    `answer` is what the source returned; `[]` is none. Raises TypeError for anything but records
    and a count.
    """
    match answer:
        case []:
            return (), 0
        case [list() | tuple() as items, int(undated)]:
            if all(isinstance(item, kind) for item in items):
                return tuple(sorted(items, key=lambda item: item.published_at)), undated
    raise TypeError(
        f"it gave {type(answer).__name__}, not a pair of {kind.__name__}s and how many were undated"
    )


def describe_error(error: Exception) -> str:
    """Return type and message of somebody else's error as one line without secrets."""
    # An address in the message loses user, password and query, any of which may hold a key.
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return redact_message(redact_addresses(line))[:MAX_REASON_CHARS]

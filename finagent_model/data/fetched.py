"""Bars of a vendor, asked for and kept: `FetchedBars` stands before every source that is not a file
of this machine.

What was kept is used where it reaches the day that is asked about; otherwise the vendor is asked,
once in a process for each close, and if it fails nothing older takes its place. What it says
differently than before is named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime

from finagent_model.data.kept import Kept
from finagent_model.data.revision import changes
from finagent_model.data.source import BarSource, vendor
from finagent_model.domain.bars import BarSeries
from finagent_model.domain.seen import Change, Seen, last_close
from finagent_model.errors import DataSourceError

NEVER: tuple[date, frozenset[date]] = date.min, frozenset()
log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The stamp of what is fetched: no bar that closes later can be in it. Nothing else is decided
    by it.
    """
    return datetime.now(UTC)


class FetchedBars:
    """A BarSource over another; safe to use from several threads."""

    def __init__(self, source: BarSource, kept: Kept, clock: Callable[[], datetime]) -> None:
        """`clock` stamps what is fetched."""
        self._source, self._kept, self._clock = source, kept, clock
        self.name = source.name
        self._handed: dict[str, tuple[BarSeries, Seen]] = {}
        self._asked: dict[str, tuple[date, frozenset[date]]] = {}
        """The last close before the vendor was asked in this process, and those asked for."""

    def symbols(self) -> tuple[str, ...]:
        with vendor(f"{self.name}, asked for its symbols,"):
            return self._source.symbols()

    def bars(self, symbol: str) -> BarSeries:
        return self.reaching(symbol, None)

    def reaching(self, symbol: str, as_of: datetime | None) -> BarSeries:
        """Bars that are all that could be known at `as_of`, or all that the vendor had when it was
        asked in this process for such a moment; None: what this process has already, else what the
        vendor has now. Raises as a source does, and HomeError.
        """
        if (found := self._at_hand(symbol, as_of)) is not None:
            return found
        with self._kept.locked(symbol):
            if (found := self._at_hand(symbol, as_of)) is not None:  # another thread was faster
                return found
            rows = self._kept.readings(symbol, self.name)
            if as_of is not None and rows and rows[-1].reaches(as_of):
                reading = rows[-1]
                series = self._kept.read(symbol, reading.content_hash)
            else:
                now = self._clock()
                series, reading = self._fetch(symbol, rows, now)
                self._kept.keep(series, reading)
                _, closes = self._asked.get(symbol, NEVER)
                self._asked[symbol] = last_close(now), closes | {last_close(as_of or now)}
            self._handed[symbol] = series, reading
        return series

    def exactly(self, symbol: str, content_hash: str) -> BarSeries | None:
        """The bars of that hash, if they were kept here."""
        known = {row.content_hash for row in self._kept.readings(symbol)}
        return self._kept.read(symbol, content_hash) if content_hash in known else None

    def seen(self, symbol: str) -> Seen:
        """Of the bars that were handed out last; KeyError before that."""
        return self._handed[symbol][1]

    def _at_hand(self, symbol: str, as_of: datetime | None) -> BarSeries | None:
        if symbol not in self._handed:
            return None
        series, reading = self._handed[symbol]
        if as_of is None or reading.reaches(as_of):
            return series
        before, closes = self._asked.get(symbol, NEVER)
        close = last_close(as_of)
        return series if close <= before or close in closes else None

    def _fetch(self, symbol: str, rows: tuple[Seen, ...], now: datetime) -> tuple[BarSeries, Seen]:
        with vendor(f"{self.name}, asked for bars of {symbol},"):
            given = self._source.bars(symbol)
        if not isinstance(given, BarSeries) or given.symbol != symbol:
            raise DataSourceError(f"{self.name}, asked for {symbol}, gave something else")
        series = given.until(now)
        if len(series) < len(given):
            log.info("%s: %d bars not closed yet", symbol, len(given) - len(series))
        if len(series) == 0:
            raise DataSourceError(f"{self.name} gave no closed bar of {symbol}")
        revised = changes(self._kept.read(symbol, rows[-1].content_hash), series) if rows else ()
        if revised:
            log.warning("%s: %s", symbol, in_words(self.name, revised))
        elif rows and rows[-1].content_hash == series.digest():
            return series, rows[-1].model_copy(update={"fetched_at": now})
        return series, Seen.of(series, self.name, now, revised)


def in_words(source: str, revised: tuple[Change, ...], shown: int = 5) -> str:
    """What differs, for a log."""
    told = [
        f"{c.closed_at:%Y-%m-%d} {c.field} {_number(c.before)} -> {_number(c.after)}"
        for c in revised[:shown]
    ]
    more = f" and {len(revised) - shown} more" if len(revised) > shown else ""
    return f"{source} has revised its history: {'; '.join(told)}{more}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"

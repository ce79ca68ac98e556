"""What vendors gave, kept in FINAGENT_HOME/bars: a folder a symbol, with bars in Parquet, named by
the hash of their content, and `index.json` that says what was fetched when.

A history that only grew is kept once: its beginning is cut from the newer file, and held against
its hash. Files are put in place whole; several processes may read and write.

Bars of a vendor, asked for and kept: `FetchedBars` stands before every source that is not a file
of this machine.

What was kept is used where it reaches the day that is asked about; otherwise the vendor is asked,
once in a process for each close, and if it fails nothing older takes its place. What it says
differently than before is named.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from finagent_model.data.protocols import BarSource, vendor_errors
from finagent_model.data.snapshots import BarChange, BarsSnapshot, bar_changes, last_close
from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    InvalidBarsError,
    LocalStateError,
    UnknownSymbolError,
)
from finagent_model.market.bars import BarSeries

FOLDER = "bars"
INDEX = "index.json"
_ROWS = TypeAdapter(tuple[BarsSnapshot, ...])


class BarStore:
    """The folder of one home; made when something is kept."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def symbols(self) -> tuple[str, ...]:
        found = (file.parent.name for file in self._folder.glob(f"*/{INDEX}"))
        return tuple(sorted(unquote(name) for name in found))

    def readings(self, symbol: str, source: str | None = None) -> tuple[BarsSnapshot, ...]:
        """Those of `source`, or of any; the newest last. Raises DataSourceError."""
        file = self._place(symbol) / INDEX
        try:
            rows = _ROWS.validate_json(file.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataSourceError(
                f"{file} can't be read ({reason}); {_way_out(file.parent)}"
            ) from None
        return tuple(row for row in rows if source in (None, row.source))

    def read(self, symbol: str, content_hash: str) -> BarSeries:
        """Raises DataSourceError where nothing that is kept has this hash."""
        for _ in range(2):  # who keeps more replaces the file that an index, just read, leads to
            if (series := self._found(symbol, content_hash)) is not None:
                return series
        place = self._place(symbol)
        raise DataSourceError(
            f"the bars of {symbol} that were kept as {content_hash[:12]} in {place} are gone or "
            f"damaged; {_way_out(place)}"
        )

    def _found(self, symbol: str, content_hash: str) -> BarSeries | None:
        rows = self.readings(symbol)
        named = next((row for row in rows if row.content_hash == content_hash), None)
        for row in reversed(rows) if named else ():
            if named and row.last >= named.last:
                whole = _parquet(symbol, self._file(symbol, row.content_hash))
                if whole is None:
                    continue
                series = whole.until(named.last)
                if series.digest() == content_hash:
                    return series
        return None

    def keep(self, series: BarSeries, reading: BarsSnapshot) -> None:
        """To be called while the symbol is locked. Raises HomeError."""
        symbol = series.symbol
        said = (reading.source, reading.content_hash)
        rows = [r for r in self.readings(symbol) if (r.source, r.content_hash) != said]
        file = self._file(symbol, reading.content_hash)
        try:
            if not file.exists():
                with _put(file) as temporary:
                    series.to_frame().to_parquet(temporary, index=False)
            with _put(self._place(symbol) / INDEX) as temporary:
                listed = [row.model_dump(mode="json") for row in (*rows, reading)]
                temporary.write_text(json.dumps(listed, indent=1) + "\n")
            for row in rows:
                older = self._file(symbol, row.content_hash)
                if older != file and series.until(row.last).digest() == row.content_hash:
                    older.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self._place(symbol), error) from error

    @contextmanager
    def locked(self, symbol: str) -> Iterator[None]:
        """One process and thread at a time: the next finds what the first has kept. Raises
        HomeError.
        """
        place = self._place(symbol)
        try:
            place.mkdir(parents=True, exist_ok=True)
            file = (place / "lock").open("w")
        except OSError as error:
            raise _unusable(place, error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _place(self, symbol: str) -> Path:
        # No symbol leads out of the folder: '..' is '%2E%2E'.
        return self._folder / quote(symbol, safe="").replace(".", "%2E")

    def _file(self, symbol: str, content_hash: str) -> Path:
        return self._place(symbol) / f"{content_hash}.parquet"


class StoredBars:
    """A BarSource over what was kept, from whatever source, without asking anybody."""

    name = "kept"

    def __init__(self, kept: BarStore, hashes: Sequence[str] = ()) -> None:
        """With `hashes`, or beginnings of them, only what they name; else the newest of a symbol.
        Raises BadInputError for what is no hash.
        """
        for given in hashes:
            if len(given) < 8 or set(given) - set("0123456789abcdef"):
                raise BadInputError(
                    f"FINAGENT_BARS: {given!r} is no hash of kept bars; write 8 or more of the "
                    "digits that `finagent bars list` shows, such as kept:0123abcd"
                )
        self._kept, self._hashes = kept, tuple(hashes)
        self._handed: dict[str, BarsSnapshot] = {}

    def symbols(self) -> tuple[str, ...]:
        return self._kept.symbols()

    def bars(self, symbol: str) -> BarSeries:
        reading = self._newest(symbol)
        series = self._kept.read(symbol, reading.content_hash)
        self._handed[symbol] = reading
        return series

    def seen(self, symbol: str) -> BarsSnapshot:
        """Of the bars that were handed out last, whatever was kept since; KeyError before that."""
        return self._handed[symbol]

    def _newest(self, symbol: str) -> BarsSnapshot:
        rows = self._kept.readings(symbol)
        if self._hashes:
            rows = tuple(r for r in rows if r.content_hash.startswith(self._hashes))
        if not rows:
            where = "the bars kept" + (f" as {', '.join(self._hashes)}" if self._hashes else "")
            raise UnknownSymbolError(symbol, self.symbols(), where)
        return rows[-1]


def _parquet(symbol: str, file: Path) -> BarSeries | None:
    """None: there is no such file."""
    try:
        return BarSeries.from_frame(symbol, pd.read_parquet(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, InvalidBarsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataSourceError(
            f"kept bars {file} can't be read ({reason}); {_way_out(file.parent)}"
        ) from None


@contextmanager
def _put(file: Path) -> Iterator[Path]:
    """A temporary file beside `file`, which takes its place at the end of the block."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".new")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _way_out(place: Path) -> str:
    return (
        f"put back a copy, or move {place} away: its symbol is then fetched again, and runs that "
        "name what was kept there can't be repeated without it"
    )


def _unusable(place: Path, error: OSError) -> LocalStateError:
    return LocalStateError(
        f"bars can't be kept in {place} ({error.strerror}); make it writable, or set FINAGENT_HOME"
    )


NEVER_FETCHED: tuple[date, frozenset[date]] = date.min, frozenset()
log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The stamp of what is fetched: no bar that closes later can be in it. Nothing else is decided
    by it.
    """
    return datetime.now(UTC)


class CachedBars:
    """A BarSource over another; safe to use from several threads."""

    def __init__(self, source: BarSource, kept: BarStore, clock: Callable[[], datetime]) -> None:
        """`clock` stamps what is fetched."""
        self._source, self._kept, self._clock = source, kept, clock
        self.name = source.name
        self._handed: dict[str, tuple[BarSeries, BarsSnapshot]] = {}
        self._asked: dict[str, tuple[date, frozenset[date]]] = {}
        """The last close before the vendor was asked in this process, and those asked for."""

    def symbols(self) -> tuple[str, ...]:
        with vendor_errors(f"{self.name}, asked for its symbols,"):
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
                _, closes = self._asked.get(symbol, NEVER_FETCHED)
                self._asked[symbol] = last_close(now), closes | {last_close(as_of or now)}
            self._handed[symbol] = series, reading
        return series

    def exactly(self, symbol: str, content_hash: str) -> BarSeries | None:
        """The bars of that hash, if they were kept here."""
        known = {row.content_hash for row in self._kept.readings(symbol)}
        return self._kept.read(symbol, content_hash) if content_hash in known else None

    def seen(self, symbol: str) -> BarsSnapshot:
        """Of the bars that were handed out last; KeyError before that."""
        return self._handed[symbol][1]

    def _at_hand(self, symbol: str, as_of: datetime | None) -> BarSeries | None:
        if symbol not in self._handed:
            return None
        series, reading = self._handed[symbol]
        if as_of is None or reading.reaches(as_of):
            return series
        before, closes = self._asked.get(symbol, NEVER_FETCHED)
        close = last_close(as_of)
        return series if close <= before or close in closes else None

    def _fetch(
        self, symbol: str, rows: tuple[BarsSnapshot, ...], now: datetime
    ) -> tuple[BarSeries, BarsSnapshot]:
        with vendor_errors(f"{self.name}, asked for bars of {symbol},"):
            given = self._source.bars(symbol)
        if not isinstance(given, BarSeries) or given.symbol != symbol:
            raise DataSourceError(f"{self.name}, asked for {symbol}, gave something else")
        series = given.until(now)
        if len(series) < len(given):
            log.info("%s: %d bars not closed yet", symbol, len(given) - len(series))
        if len(series) == 0:
            raise DataSourceError(f"{self.name} gave no closed bar of {symbol}")
        revised = (
            bar_changes(self._kept.read(symbol, rows[-1].content_hash), series) if rows else ()
        )
        if revised:
            log.warning("%s: %s", symbol, in_words(self.name, revised))
        elif rows and rows[-1].content_hash == series.digest():
            return series, rows[-1].model_copy(update={"fetched_at": now})
        return series, BarsSnapshot.of(series, self.name, now, revised)


def in_words(source: str, revised: tuple[BarChange, ...], shown: int = 5) -> str:
    """What differs, for a log."""
    told = [
        f"{c.closed_at:%Y-%m-%d} {c.field} {_number(c.before)} -> {_number(c.after)}"
        for c in revised[:shown]
    ]
    more = f" and {len(revised) - shown} more" if len(revised) > shown else ""
    return f"{source} has revised its history: {'; '.join(told)}{more}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"

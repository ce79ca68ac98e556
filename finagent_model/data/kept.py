"""What vendors gave, kept in FINAGENT_HOME/bars: a folder a symbol, with bars in Parquet, named by
the hash of their content, and `index.json` that says what was fetched when.

A history that only grew is kept once: its beginning is cut from the newer file, and held against
its hash. Files are put in place whole; several processes may read and write.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from finagent_model.domain.bars import BarSeries
from finagent_model.domain.seen import Seen
from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    HomeError,
    InvalidBarsError,
    UnknownSymbolError,
)

FOLDER = "bars"
INDEX = "index.json"
_ROWS = TypeAdapter(tuple[Seen, ...])


class Kept:
    """The folder of one home; made when something is kept."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def symbols(self) -> tuple[str, ...]:
        found = (file.parent.name for file in self._folder.glob(f"*/{INDEX}"))
        return tuple(sorted(unquote(name) for name in found))

    def readings(self, symbol: str, source: str | None = None) -> tuple[Seen, ...]:
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

    def keep(self, series: BarSeries, reading: Seen) -> None:
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


class KeptBars:
    """A BarSource over what was kept, from whatever source, without asking anybody."""

    name = "kept"

    def __init__(self, kept: Kept, hashes: Sequence[str] = ()) -> None:
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
        self._handed: dict[str, Seen] = {}

    def symbols(self) -> tuple[str, ...]:
        return self._kept.symbols()

    def bars(self, symbol: str) -> BarSeries:
        reading = self._newest(symbol)
        series = self._kept.read(symbol, reading.content_hash)
        self._handed[symbol] = reading
        return series

    def seen(self, symbol: str) -> Seen:
        """Of the bars that were handed out last, whatever was kept since; KeyError before that."""
        return self._handed[symbol]

    def _newest(self, symbol: str) -> Seen:
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


def _unusable(place: Path, error: OSError) -> HomeError:
    return HomeError(
        f"bars can't be kept in {place} ({error.strerror}); make it writable, or set FINAGENT_HOME"
    )

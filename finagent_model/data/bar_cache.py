"""The cache of vendors' bars in FINAGENT_HOME/bars, and the sources that read and fill it.

One folder per symbol: bars in Parquet files named by content hash, and `index.json`, which lists
what was fetched when. Several processes may read and write.

`CachedBars` stands before every source that is not a file of this machine. Cached bars that cover
the requested day are used. Otherwise the vendor is asked, once in a process for each close. On
vendor failure it raises, and never falls back to stale bars. A history that the vendor revised is
logged. `StoredBars` reads the cache alone.
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
from typing import NamedTuple
from urllib.parse import quote, unquote

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from finagent_model._local_files import make_private_file
from finagent_model.data.protocols import BarSource, wrap_vendor_errors
from finagent_model.data.snapshots import BarChange, BarsSnapshot, compare_bars, last_close
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
MIN_HASH_DIGITS = 8
MAX_REVISIONS = 5
"""Revised fields that a log line names."""
_SNAPSHOTS = TypeAdapter(tuple[BarsSnapshot, ...])
log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time that stamps a fetch: no bar that closes later can be in it."""
    # The package's only wall clock for bars. No decision depends on it.
    return datetime.now(UTC)


class BarStore:
    """The cache folder of one FINAGENT_HOME; created on the first write."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def symbols(self) -> tuple[str, ...]:
        """Return the cached symbols, sorted."""
        names = (file.parent.name for file in self._folder.glob(f"*/{INDEX}"))
        return tuple(sorted(unquote(name) for name in names))

    def snapshots(self, symbol: str, source: str | None = None) -> tuple[BarsSnapshot, ...]:
        """Return what was fetched of `symbol` from `source`, or from any, the newest last.

        Raises DataSourceError for a damaged index.
        """
        file = self._symbol_folder(symbol) / INDEX
        try:
            snapshots = _SNAPSHOTS.validate_json(file.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            raise DataSourceError(
                f"{file} can't be read ({_one_line(error)}); {_way_out(file.parent)}"
            ) from None
        return tuple(each for each in snapshots if source in (None, each.source))

    def load(self, symbol: str, content_hash: str) -> BarSeries:
        """Return the cached bars of that hash.

        Raises DataSourceError where there are none, or where they are damaged.
        """
        # Twice: a writer may replace the file that the index, just read, points to.
        for _ in range(2):
            if (series := self._find(symbol, content_hash)) is not None:
                return series
        folder = self._symbol_folder(symbol)
        raise DataSourceError(
            f"the bars of {symbol} that were kept as {content_hash[:12]} in {folder} are gone or "
            f"damaged; {_way_out(folder)}"
        )

    def _find(self, symbol: str, content_hash: str) -> BarSeries | None:
        """Return the bars of that hash; None where no file holds them."""
        snapshots = self.snapshots(symbol)
        target = next((each for each in snapshots if each.content_hash == content_hash), None)
        if target is None:
            return None
        # The newest first: it is most likely to hold the whole history.
        for snapshot in reversed(snapshots):
            if snapshot.last < target.last:
                continue
            series = _read_parquet(symbol, self._parquet_file(symbol, snapshot.content_hash))
            if series is not None:
                # A history that only grew is stored once: cut it, and check the hash.
                series = series.until(target.last)
                if series.digest() == content_hash:
                    return series
        return None

    def save(self, series: BarSeries, snapshot: BarsSnapshot) -> None:
        """Write the bars and list their snapshot as the newest; the caller holds the symbol's lock.

        Raises LocalStateError where the folder can't be written.
        """
        symbol = series.symbol
        identity = (snapshot.source, snapshot.content_hash)
        older = [s for s in self.snapshots(symbol) if (s.source, s.content_hash) != identity]
        file = self._parquet_file(symbol, snapshot.content_hash)
        try:
            for unfinished in file.parent.glob(".*.new"):  # of a process that was killed
                unfinished.unlink(missing_ok=True)
            if not file.exists():
                with _replacing(file) as temporary:
                    series.to_frame().to_parquet(temporary, index=False)
            with _replacing(self._symbol_folder(symbol) / INDEX) as temporary:
                rows = [each.model_dump(mode="json") for each in (*older, snapshot)]
                temporary.write_text(json.dumps(rows, indent=1) + "\n")
            # Files whose bars are the beginning of the new ones are no longer needed.
            for each in older:
                old_file = self._parquet_file(symbol, each.content_hash)
                if old_file != file and series.until(each.last).digest() == each.content_hash:
                    old_file.unlink(missing_ok=True)
        except OSError as error:
            raise _not_writable(self._symbol_folder(symbol), error) from error

    @contextmanager
    def lock(self, symbol: str) -> Iterator[None]:
        """Let one process and thread at a time fetch `symbol`; the next finds it cached.

        Raises LocalStateError where the folder can't be written.
        """
        folder = self._symbol_folder(symbol)
        try:
            make_private_file(folder / "lock")
            file = (folder / "lock").open("w")
        except OSError as error:
            raise _not_writable(folder, error) from error
        with file:
            # Mapped Airflow tasks start together: one asks the vendor, the others wait.
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _symbol_folder(self, symbol: str) -> Path:
        # No symbol leads out of the folder: '..' is '%2E%2E'.
        return self._folder / quote(symbol, safe="").replace(".", "%2E")

    def _parquet_file(self, symbol: str, content_hash: str) -> Path:
        return self._symbol_folder(symbol) / f"{content_hash}.parquet"


class _FetchHistory(NamedTuple):
    """What this process has fetched of one symbol."""

    last_close: date
    """The last close before the vendor was asked most recently."""
    requested_closes: frozenset[date]


_NEVER_FETCHED = _FetchHistory(date.min, frozenset())


class CachedBars:
    """A BarSource that caches another one; safe to use from several threads."""

    def __init__(self, source: BarSource, store: BarStore, clock: Callable[[], datetime]) -> None:
        """Cache `source` in `store`; `clock` stamps what is fetched."""
        self._source, self._store, self._clock = source, store, clock
        self.name = source.name
        self._current: dict[str, tuple[BarSeries, BarsSnapshot]] = {}
        self._fetches: dict[str, _FetchHistory] = {}

    def symbols(self) -> tuple[str, ...]:
        """Return the vendor's own list. Raises DataSourceError."""
        with wrap_vendor_errors(f"{self.name}, asked for its symbols,"):
            return self._source.symbols()

    def bars(self, symbol: str) -> BarSeries:
        """Return the bars that this process has already, else what the vendor has now."""
        return self.bars_as_of(symbol, None)

    def bars_as_of(self, symbol: str, as_of: datetime | None) -> BarSeries:
        """Return bars that cover `as_of`, or all that the vendor has for such a moment.

        None stands for no particular moment: what this process has already, else what the vendor
        has now. Raises the source's errors, and LocalStateError where the cache can't be written.
        """
        if (series := self._in_memory(symbol, as_of)) is not None:
            return series
        with self._store.lock(symbol):
            # Another thread may have fetched the symbol while we waited.
            if (series := self._in_memory(symbol, as_of)) is not None:
                return series
            snapshots = self._store.snapshots(symbol, self.name)
            if as_of is not None and snapshots and snapshots[-1].covers(as_of):
                snapshot = snapshots[-1]
                series = self._store.load(symbol, snapshot.content_hash)
                series = snapshot.describe(series)
            else:
                now = self._clock()
                series, snapshot = self._fetch(symbol, snapshots, now)
                self._store.save(series, snapshot)
                closes = self._fetches.get(symbol, _NEVER_FETCHED).requested_closes
                self._fetches[symbol] = _FetchHistory(
                    last_close(now), closes | {last_close(as_of or now)}
                )
            self._current[symbol] = series, snapshot
        return series

    def bars_by_hash(self, symbol: str, content_hash: str) -> BarSeries | None:
        """Return the cached bars of that hash, or None; the vendor is not asked."""
        # Of any source: equal content is the same bars.
        hashes = {each.content_hash for each in self._store.snapshots(symbol)}
        return self._store.load(symbol, content_hash) if content_hash in hashes else None

    def snapshot(self, symbol: str) -> BarsSnapshot:
        """Return the snapshot of the bars that were read last. Raises KeyError before that."""
        return self._current[symbol][1]

    def _in_memory(self, symbol: str, as_of: datetime | None) -> BarSeries | None:
        """Return this process's bars if asking the vendor again could add nothing to them."""
        if symbol not in self._current:
            return None
        series, snapshot = self._current[symbol]
        if as_of is None or snapshot.covers(as_of):
            return series
        history = self._fetches.get(symbol, _NEVER_FETCHED)
        close = last_close(as_of)
        fetched = close <= history.last_close or close in history.requested_closes
        return series if fetched else None

    def _fetch(
        self, symbol: str, snapshots: tuple[BarsSnapshot, ...], now: datetime
    ) -> tuple[BarSeries, BarsSnapshot]:
        """Ask the vendor for bars closed by `now`, and compare them with the newest snapshot."""
        with wrap_vendor_errors(f"{self.name}, asked for bars of {symbol},"):
            answer = self._source.bars(symbol)
        if not isinstance(answer, BarSeries) or answer.symbol != symbol:
            raise DataSourceError(f"{self.name}, asked for {symbol}, gave something else")
        # Look-ahead guard: a bar that is still forming would be cached as final.
        series = answer.until(now)
        if len(series) < len(answer):
            log.info("%s: %d bars not closed yet", symbol, len(answer) - len(series))
        if len(series) == 0:
            raise DataSourceError(f"{self.name} gave no closed bar of {symbol}")
        changes: tuple[BarChange, ...] = ()
        if snapshots:
            newest = snapshots[-1]
            changes = compare_bars(self._store.load(symbol, newest.content_hash), series)
            if changes:
                log.warning("%s: %s", symbol, describe_revisions(self.name, series, changes))
            elif newest.content_hash == series.digest():
                # Unchanged: keep what the snapshot says of earlier revisions.
                told = {"timeframe": series.timeframe.name, "calendar": series.calendar.name}
                return series, newest.model_copy(update={"fetched_at": now, **told})
        return series, BarsSnapshot.from_bars(series, self.name, now, changes)


class StoredBars:
    """A BarSource over the cache alone: any vendor's bars, and no vendor is asked."""

    name = "kept"

    def __init__(self, store: BarStore, hashes: Sequence[str] = ()) -> None:
        """Read what `hashes`, or beginnings of them, name; without any, a symbol's newest bars.

        Raises BadInputError for a malformed hash.
        """
        for prefix in hashes:
            if len(prefix) < MIN_HASH_DIGITS or set(prefix) - set("0123456789abcdef"):
                raise BadInputError(
                    f"FINAGENT_BARS: {prefix!r} is not a hash of cached bars; write "
                    f"{MIN_HASH_DIGITS} or more of the "
                    "digits that `finagent bars list` shows, such as kept:0123abcd"
                )
        self._store, self._hashes = store, tuple(hashes)
        self._snapshots: dict[str, BarsSnapshot] = {}

    def symbols(self) -> tuple[str, ...]:
        """Return the cached symbols, sorted."""
        return self._store.symbols()

    def bars(self, symbol: str) -> BarSeries:
        """Return the newest cached bars. Raises UnknownSymbolError and DataSourceError."""
        snapshot = self._newest(symbol)
        series = self._store.load(symbol, snapshot.content_hash)
        series = snapshot.describe(series)
        self._snapshots[symbol] = snapshot
        return series

    def snapshot(self, symbol: str) -> BarsSnapshot:
        """Return the snapshot of the bars that were read last. Raises KeyError before that."""
        # Not the store's newest: another process may have fetched since.
        return self._snapshots[symbol]

    def _newest(self, symbol: str) -> BarsSnapshot:
        snapshots = self._store.snapshots(symbol)
        if self._hashes:
            snapshots = tuple(s for s in snapshots if s.content_hash.startswith(self._hashes))
        if not snapshots:
            where = "the bars kept" + (f" as {', '.join(self._hashes)}" if self._hashes else "")
            raise UnknownSymbolError(symbol, self.symbols(), where)
        return snapshots[-1]


def describe_revisions(source: str, bars: BarSeries, changes: tuple[BarChange, ...]) -> str:
    """Return a log line that names the first few fields of `bars` that the vendor revised."""
    form = bars.timeframe.time_format
    fields = [
        f"{c.closed_at:{form}} {c.field} {_number(c.before)} -> {_number(c.after)}"
        for c in changes[:MAX_REVISIONS]
    ]
    more = f" and {len(changes) - MAX_REVISIONS} more" if len(changes) > MAX_REVISIONS else ""
    return f"{source} has revised its history: {'; '.join(fields)}{more}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _read_parquet(symbol: str, file: Path) -> BarSeries | None:
    """Return the bars of `file`; None where there is no such file. Raises DataSourceError."""
    try:
        return BarSeries.from_frame(symbol, pd.read_parquet(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, InvalidBarsError) as error:
        raise DataSourceError(
            f"cached bars {file} can't be read ({_one_line(error)}); {_way_out(file.parent)}"
        ) from None


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `file` at the end of the block: readers see no half."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".new")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _way_out(folder: Path) -> str:
    return (
        f"put back a copy, or move {folder} away: its symbol is then fetched again, and runs that "
        "name what was kept there can't be repeated without it"
    )


def _not_writable(folder: Path, error: OSError) -> LocalStateError:
    return LocalStateError(
        f"bars can't be kept in {folder} ({error.strerror}); make it writable, or set FINAGENT_HOME"
    )

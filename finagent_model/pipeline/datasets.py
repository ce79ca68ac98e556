"""Name the data of a run by content, and compare it with what the sources have today.

A `BarsSnapshot` says which bars a run read, so that it can be repeated on the same ones. A
`Dataset` names bars, news or fundamentals by hash. A training is given all that the sources have of
a symbol, a decision what its view holds; rows that came later are cut off before a comparison, and
so are no change. `check_bars` and the functions after it serve `finagent bars`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from finagent_model.data.bar_cache import BarStore, CachedBars
from finagent_model.data.bar_columns import Hints
from finagent_model.data.bar_files import FolderBars, read_all_bars, read_bars, write_bars
from finagent_model.data.market import Market
from finagent_model.data.snapshots import BarsSnapshot, Dataset
from finagent_model.errors import BadInputError, DataError, DataSourceError, FinagentError
from finagent_model.market.bars import BarSeries
from finagent_model.market.news import PublishedRecord
from finagent_model.market.view import MarketView
from finagent_model.model.predictor import Predictor
from finagent_model.settings import Settings
from finagent_model.tracking.runs import RunLog

BARS = "bars.json"
"""Artifact: source, content hash, fetch time and revisions of each symbol."""
SOURCE, HASH = "finagent.bars_source", "finagent.bars_hash"
"""Tags; of several symbols the hash is made from all of theirs."""
FETCHED_AT = "finagent.bars_fetched_at"
"""Tag; of several symbols the earliest. Absent where the bars lay on this machine."""
REVISED = "finagent.bars_revised"
"""Tag of a run whose vendor revised bars: symbols, and how many fields of each changed."""
WARNED = "finagent.bars_warnings"
"""Tag of a run whose bars were read with notes, or look odd: symbols, and what was found."""
TAG_LENGTH = 500
"""Characters; the artifact holds the whole."""
DatasetState = Literal["same", "changed", "not at hand"]


def bar_snapshots(market: Market, symbols: Iterable[str]) -> dict[str, BarsSnapshot]:
    """Return a snapshot by symbol; symbols whose bars `market` has not read are left out."""
    snapshots = {symbol: market.snapshot(symbol) for symbol in symbols}
    return {symbol: each for symbol, each in snapshots.items() if each is not None}


def log_bar_snapshots(run: RunLog, snapshots: Mapping[str, BarsSnapshot]) -> None:
    """Log snapshots by symbol as an artifact, and a summary as tags. Raises TrackingError."""
    run.log_json(BARS, {symbol: each.model_dump(mode="json") for symbol, each in snapshots.items()})
    if snapshots:
        run.set_tags(snapshot_tags(snapshots))


def snapshot_tags(snapshots: Mapping[str, BarsSnapshot]) -> dict[str, str]:
    """Return the tags of one or more snapshots, given by symbol: source, hash, fetch, revisions."""
    rows = list(snapshots.values())
    # Sorted, so that the hash does not depend on the order in which symbols were requested.
    hashes = "\n".join(f"{name} {snapshots[name].content_hash}" for name in sorted(snapshots))
    whole = rows[0].content_hash if len(rows) == 1 else hashlib.sha256(hashes.encode()).hexdigest()
    tags = {SOURCE: ", ".join(sorted({row.source for row in rows}))[:TAG_LENGTH], HASH: whole}
    if stamps := [row.fetched_at for row in rows if row.fetched_at]:
        tags[FETCHED_AT] = min(stamps).isoformat()
    if revised := {symbol: row.revised for symbol, row in snapshots.items() if row.revised}:
        tags[REVISED] = ", ".join(f"{s}: {n} fields" for s, n in revised.items())[:TAG_LENGTH]
    if warned := {symbol: row.warnings for symbol, row in snapshots.items() if row.warnings}:
        tags[WARNED] = ". ".join(f"{s}: {'; '.join(w)}" for s, w in warned.items())[:TAG_LENGTH]
    return tags


def read_bar_snapshots(rows: Mapping[str, Any]) -> dict[str, BarsSnapshot]:
    """Parse the artifact `BARS` into snapshots by symbol. Raises ValidationError."""
    return {symbol: BarsSnapshot.model_validate(row) for symbol, row in rows.items()}


def market_of_training(predictor: Predictor) -> Market:
    """Return a market with the bars that the predictor's training saw.

    Later bars are cut off, and a symbol whose bars were revised raises when it is read. Where this
    store does not hold the training's run, return the predictor's own market. Raises TrackingError
    where the store can't tell.
    """
    # Without the run the bars can't be pinned: the package holds decisions, not bars.
    run_id = predictor.lineage.run_id
    content = RunLog(run_id).find_artifact(BARS) if run_id else None
    if content is None:
        return predictor.market
    return Market.from_settings(predictor.settings, read_bar_snapshots(json.loads(content)))


@dataclass(frozen=True)
class DatasetComparison:
    """A data set of a past run, compared with what the sources have today."""

    recorded: Dataset
    now: DatasetState
    why: str
    """What differs, in words; empty where nothing does."""

    def row(self) -> dict[str, Any]:
        """Return the comparison as a JSON-ready dict: the data set's fields, `now` and `why`."""
        return {**self.recorded.row(), "now": self.now, "why": self.why}


def training_datasets(market: Market, symbol: str) -> tuple[Dataset, ...]:
    """Return the data sets of all that the sources have of a symbol. Raises DataError."""
    bars, news, facts = market.bars(symbol), market.news(symbol)[0], market.facts(symbol)[0]
    return _datasets(market, bars, news, facts)


def decision_datasets(market: Market, view: MarketView) -> tuple[Dataset, ...]:
    """Return the data sets of what `view` holds, and so of what a decision was made from."""
    return _datasets(market, view.bars, view.news, view.fundamentals)


def compare_datasets(
    past: Sequence[Dataset], market: Market, as_of: datetime | None = None
) -> list[DatasetComparison]:
    """Compare each data set of a past run with its counterpart of today.

    `as_of` is the moment of a decision; None means a run that was given all there was. A source
    that can't answer is `not at hand`, with its error as the reason.
    """
    comparisons = []
    for recorded in past:
        try:
            current = _current_dataset(market, recorded, as_of)
        except (DataError, BadInputError) as error:
            # A source that fails says nothing about the data, so this is no change.
            comparisons.append(DatasetComparison(recorded, "not at hand", str(error)))
            continue
        if current is not None and current.sha256 == recorded.sha256:
            comparisons.append(DatasetComparison(recorded, "same", ""))
        else:
            why = _difference(recorded, current)
            comparisons.append(DatasetComparison(recorded, "changed", why))
    return comparisons


def _current_dataset(market: Market, recorded: Dataset, as_of: datetime | None) -> Dataset | None:
    """Return today's counterpart of a data set, without later rows; None without any row."""
    if as_of is not None:
        datasets = decision_datasets(market, market.view(recorded.symbol, as_of))
        return next((each for each in datasets if each.kind == recorded.kind), None)
    if recorded.kind == "bars":
        # A cache may still hold the recorded bars, though the vendor has revised them since.
        if (cached := market.bars_by_hash(recorded.symbol, recorded.sha256)) is not None:
            return Dataset.from_bars(cached, recorded.source)
        bars = market.bars(recorded.symbol).until(recorded.last)
        return Dataset.from_bars(bars, recorded.source) if len(bars) else None
    symbol = recorded.symbol
    items = market.news(symbol)[0] if recorded.kind == "news" else market.facts(symbol)[0]
    earlier = [item for item in items if item.published_at <= recorded.last]
    return Dataset.from_records(symbol, recorded.kind, earlier, recorded.source)


def _difference(recorded: Dataset, current: Dataset | None) -> str:
    before = f"{recorded.rows} rows from {recorded.source}"
    if current is None:
        return f"there were {before}, there are none today"
    if current.rows != recorded.rows:
        return f"there were {before}, there are {current.rows} of that time"
    return f"of the {before} some differ"


def _datasets(
    market: Market,
    bars: BarSeries,
    news: Sequence[PublishedRecord],
    facts: Sequence[PublishedRecord],
) -> tuple[Dataset, ...]:
    # Empty records give no data set: None is left out below.
    origins = market.origins
    datasets = (
        Dataset.from_bars(bars, origins["bars"]),
        Dataset.from_records(bars.symbol, "news", news, origins["news"]),
        Dataset.from_records(bars.symbol, "fundamentals", facts, origins["fundamentals"]),
    )
    return tuple(each for each in datasets if each is not None)


@dataclass(frozen=True)
class BarsCheck:
    """One symbol's bars: a snapshot of what was read, or the reason of the refusal."""

    symbol: str
    snapshot: BarsSnapshot | None
    """None: refused."""
    refused: str | None = None

    def row(self) -> dict[str, Any]:
        """Return the check as a JSON-ready dict, the snapshot's fields beside its own."""
        fields = self.snapshot.model_dump(mode="json") if self.snapshot else {}
        return {
            "symbol": self.symbol,
            "good": self.snapshot is not None,
            "refused": self.refused,
        } | fields


def check_bars(settings: Settings, symbols: Sequence[str]) -> list[BarsCheck]:
    """Read the bars of `symbols`, or of all symbols of the source, asking a vendor anew.

    A refused symbol does not stop the others. Raises DataSourceError where the source has no list
    of symbols.
    """
    market = Market.from_settings(settings)
    # `as_of` None: even a cache with the newest bar is not enough, since bars may be revised.
    return [_check_symbol(market, symbol, None) for symbol in symbols or market.source.symbols()]


def fetch_bars(
    settings: Settings, symbols: Sequence[str], as_of: datetime | None
) -> list[BarsCheck]:
    """Cache a vendor's bars of `symbols`; where the cache reaches `as_of` the vendor isn't asked.

    Raises BadInputError for a source that is not cached.
    """
    market = Market.from_settings(settings)
    if not isinstance(market.source, CachedBars):
        raise BadInputError(
            f"FINAGENT_BARS is {market.source.name}, of which nothing is fetched; set it to "
            "yfinance, to a SQLAlchemy URL or to an entry point"
        )
    return [_check_symbol(market, symbol, as_of) for symbol in symbols]


def list_stored_bars(settings: Settings) -> list[tuple[str, tuple[BarsSnapshot, ...]]]:
    """Return every symbol in the bar cache with the snapshots of its readings, the newest last."""
    store = BarStore(settings.home)
    return [(symbol, store.snapshots(symbol)) for symbol in store.symbols()]


def list_symbols(settings: Settings) -> tuple[str, tuple[str, ...] | None, str | None]:
    """Return the source's name and its symbols, or None and the reason why there is no list."""
    source = Market.from_settings(settings).source
    try:
        return source.name, source.symbols(), None
    except DataSourceError as error:
        return source.name, None, str(error)


def list_passed_over(settings: Settings) -> tuple[str, ...]:
    """Return the names of files in the folder FINAGENT_BARS that hold no bars; none elsewhere."""
    source = Market.from_settings(settings).source
    return source.passed_over() if isinstance(source, FolderBars) else ()


def import_bars(file: Path, folder: Path, hints: Hints) -> list[tuple[Path, BarsSnapshot]]:
    """Write each symbol of a vendor's file into `folder` in the plain form; return what was
    written.

    Nothing is replaced. Raises DataSourceError, InvalidBarsError and BadInputError.
    """
    series = read_all_bars(file, hints)
    written = write_bars(series, folder)
    # Read back, so that the hash is that of what a training will see.
    return [
        (
            path,
            BarsSnapshot.from_bars(read_bars(path, bars.symbol), file.name).model_copy(
                update={"notes": bars.notes}
            ),
        )
        for path, bars in zip(written, series, strict=True)
    ]


def _check_symbol(market: Market, symbol: str, as_of: datetime | None) -> BarsCheck:
    try:
        market.bars(symbol, as_of)
        return BarsCheck(symbol, market.snapshot(symbol))
    except FinagentError as error:
        # A result, not an error: the other symbols are still read.
        return BarsCheck(symbol, None, str(error))

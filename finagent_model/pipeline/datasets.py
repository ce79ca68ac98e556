"""What a run says of the bars that it saw, so that it can be repeated on the same.

Which data a run was given, as data sets named by their content, and whether the same are at hand
today.

A training and a backtest were given all that the sources had of a symbol; a decision what its view
held. Bars and items that came later are no change: of what is at hand only as much is looked at as
there was then.

Bars looked after by hand: what there is, what is good, what a vendor has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from finagent_model.data.bar_cache import BarStore, CachedBars
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
"""Tag of a run whose vendor has changed what it had said before: symbols and counts of fields."""
TAG_LENGTH = 500


def bar_snapshots(market: Market, symbols: Iterable[str]) -> dict[str, BarsSnapshot]:
    """What `market` has read of `symbols`; what it has not read is left out."""
    found = {symbol: market.snapshot(symbol) for symbol in symbols}
    return {symbol: seen for symbol, seen in found.items() if seen is not None}


def log_bar_snapshots(run: RunLog, seen: Mapping[str, BarsSnapshot]) -> None:
    """An artifact that has it all, and a few tags."""
    run.log_json(BARS, {symbol: each.model_dump(mode="json") for symbol, each in seen.items()})
    if seen:
        run.set_tags(snapshot_tags(seen))


def snapshot_tags(seen: Mapping[str, BarsSnapshot]) -> dict[str, str]:
    """A few words for any number of symbols."""
    each = list(seen.values())
    hashes = "\n".join(f"{symbol} {seen[symbol].content_hash}" for symbol in sorted(seen))
    whole = each[0].content_hash if len(each) == 1 else hashlib.sha256(hashes.encode()).hexdigest()
    tags = {SOURCE: ", ".join(sorted({one.source for one in each}))[:TAG_LENGTH], HASH: whole}
    if stamps := [one.fetched_at for one in each if one.fetched_at]:
        tags[FETCHED_AT] = min(stamps).isoformat()
    if revised := {symbol: one.revised for symbol, one in seen.items() if one.revised}:
        tags[REVISED] = ", ".join(f"{s}: {n} fields" for s, n in revised.items())[:TAG_LENGTH]
    return tags


def read_bar_snapshots(rows: Mapping[str, Any]) -> dict[str, BarsSnapshot]:
    """The artifact again."""
    return {symbol: BarsSnapshot.model_validate(row) for symbol, row in rows.items()}


def market_of_training(predictor: Predictor) -> Market:
    """The desk's market with the bars that its training saw, where this store has the training's
    run: days that came later are left out, and other bars are refused when they are asked for.
    Raises TrackingError where the store can't tell.
    """
    run_id = predictor.lineage.run_id
    left = RunLog(run_id).find_artifact(BARS) if run_id else None
    if left is None:
        return predictor.market
    return Market.from_settings(predictor.settings, read_bar_snapshots(json.loads(left)))


State = Literal["same", "changed", "not at hand"]


@dataclass(frozen=True)
class DatasetComparison:
    """A data set of the past beside what the sources of today have."""

    was: Dataset
    now: State
    why: str
    """In words, for what is not the same."""

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.was.row(), "now": self.now, "why": self.why}


def training_datasets(market: Market, symbol: str) -> tuple[Dataset, ...]:
    """All that is known of a symbol. Raises DataError."""
    bars, news, facts = market.bars(symbol), market.news(symbol)[0], market.facts(symbol)[0]
    return _datasets(market, bars, news, facts)


def decision_datasets(market: Market, view: MarketView) -> tuple[Dataset, ...]:
    """What a decision was made from."""
    return _datasets(market, view.bars, view.news, view.fundamentals)


def compare_datasets(
    past: Sequence[Dataset], market: Market, as_of: datetime | None = None
) -> list[DatasetComparison]:
    """Each data set beside its like of today; `as_of` is the moment of a decision, None where the
    run was given all there was.
    """
    compared = []
    for was in past:
        try:
            now = _now(market, was, as_of)
        except (DataError, BadInputError) as error:
            compared.append(DatasetComparison(was, "not at hand", str(error)))
            continue
        if now is not None and now.sha256 == was.sha256:
            compared.append(DatasetComparison(was, "same", ""))
        else:
            compared.append(DatasetComparison(was, "changed", _difference(was, now)))
    return compared


def _now(market: Market, was: Dataset, as_of: datetime | None) -> Dataset | None:
    """What the sources of today make of it; None: nothing."""
    if as_of is not None:
        found = decision_datasets(market, market.view(was.symbol, as_of))
        return next((each for each in found if each.kind == was.kind), None)
    if was.kind == "bars":
        if (kept := market.bars_by_hash(was.symbol, was.sha256)) is not None:
            return Dataset.from_bars(kept, was.source)
        bars = market.bars(was.symbol).until(was.last)
        return Dataset.from_bars(bars, was.source) if len(bars) else None
    items = market.news(was.symbol)[0] if was.kind == "news" else market.facts(was.symbol)[0]
    then = [item for item in items if item.published_at <= was.last]
    return Dataset.from_records(was.symbol, was.kind, then, was.source)


def _difference(was: Dataset, now: Dataset | None) -> str:
    if now is None:
        return f"there were {was.rows} rows from {was.source}, there are none today"
    if now.rows != was.rows:
        return f"there were {was.rows} rows from {was.source}, there are {now.rows} of that time"
    return f"of the {was.rows} rows from {was.source} some differ"


def _datasets(
    market: Market,
    bars: BarSeries,
    news: Sequence[PublishedRecord],
    facts: Sequence[PublishedRecord],
) -> tuple[Dataset, ...]:
    origins = market.origins
    found = (
        Dataset.from_bars(bars, origins["bars"]),
        Dataset.from_records(bars.symbol, "news", news, origins["news"]),
        Dataset.from_records(bars.symbol, "fundamentals", facts, origins["fundamentals"]),
    )
    return tuple(each for each in found if each is not None)


@dataclass(frozen=True)
class BarsCheck:
    """One symbol's bars: read, or refused with a reason."""

    symbol: str
    seen: BarsSnapshot | None
    refused: str | None = None

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        told = self.seen.model_dump(mode="json") if self.seen else {}
        return {
            "symbol": self.symbol,
            "good": self.seen is not None,
            "refused": self.refused,
        } | told


def check_bars(settings: Settings, symbols: Sequence[str]) -> list[BarsCheck]:
    """Read `symbols`, or all that the source has; a vendor is asked now. A bad symbol hides no
    other. Raises DataSourceError where there is no list.
    """
    market = Market.from_settings(settings)
    return [_read(market, symbol, None) for symbol in symbols or market.source.symbols()]


def fetch_bars(
    settings: Settings, symbols: Sequence[str], as_of: datetime | None
) -> list[BarsCheck]:
    """Keep what a vendor has of `symbols`; where what was kept reaches `as_of` it isn't asked.
    Raises BadInputError for a source that needs no fetching.
    """
    market = Market.from_settings(settings)
    if not isinstance(market.source, CachedBars):
        raise BadInputError(
            f"FINAGENT_BARS is {market.source.name}, of which nothing is fetched; set it to "
            "yfinance, to a SQLAlchemy URL or to an entry point"
        )
    return [_read(market, symbol, as_of) for symbol in symbols]


def stored_bars(settings: Settings) -> list[tuple[str, tuple[BarsSnapshot, ...]]]:
    """Every symbol that was kept, with its readings, the newest last."""
    home = BarStore(settings.home)
    return [(symbol, home.snapshots(symbol)) for symbol in home.symbols()]


def existing_symbols(settings: Settings) -> tuple[str, tuple[str, ...] | None, str | None]:
    """The name of the source and the symbols that it has, or None and why there is no list."""
    source = Market.from_settings(settings).source
    try:
        return source.name, source.symbols(), None
    except DataSourceError as error:
        return source.name, None, str(error)


def _read(market: Market, symbol: str, as_of: datetime | None) -> BarsCheck:
    try:
        market.bars(symbol, as_of)
        return BarsCheck(symbol, market.snapshot(symbol))
    except FinagentError as error:
        return BarsCheck(symbol, None, str(error))

"""What a run says of the bars that it saw, so that it can be repeated on the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from finagent_model.domain.seen import Seen
from finagent_model.market import Market
from finagent_model.serving.answering import AnsweringDesk
from finagent_model.tracking import RunLog

BARS = "bars.json"
"""Artifact: source, content hash, fetch time and revisions of each symbol."""
SOURCE, HASH = "finagent.bars_source", "finagent.bars_hash"
"""Tags; of several symbols the hash is made from all of theirs."""
FETCHED_AT = "finagent.bars_fetched_at"
"""Tag; of several symbols the earliest. Absent where the bars lay on this machine."""
REVISED = "finagent.bars_revised"
"""Tag of a run whose vendor has changed what it had said before: symbols and counts of fields."""
TAG_LENGTH = 500


def seen_by(market: Market, symbols: Iterable[str]) -> dict[str, Seen]:
    """What `market` has read of `symbols`; what it has not read is left out."""
    found = {symbol: market.seen(symbol) for symbol in symbols}
    return {symbol: seen for symbol, seen in found.items() if seen is not None}


def log_seen(run: RunLog, seen: Mapping[str, Seen]) -> None:
    """An artifact that has it all, and a few tags."""
    run.json(BARS, {symbol: each.model_dump(mode="json") for symbol, each in seen.items()})
    if seen:
        run.tags(seen_tags(seen))


def seen_tags(seen: Mapping[str, Seen]) -> dict[str, str]:
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


def read_seen(rows: Mapping[str, Any]) -> dict[str, Seen]:
    """The artifact again."""
    return {symbol: Seen.model_validate(row) for symbol, row in rows.items()}


def market_of_training(answering: AnsweringDesk) -> Market:
    """The desk's market with the bars that its training saw, where this store has the training's
    run: days that came later are left out, and other bars are refused when they are asked for.
    Raises TrackingError where the store can't tell.
    """
    run_id = answering.lineage.run_id
    left = RunLog(run_id).find(BARS) if run_id else None
    if left is None:
        return answering.market
    return Market.of(answering.settings, read_seen(json.loads(left)))

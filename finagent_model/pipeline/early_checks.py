"""Check early what the gate would find at the end, before a training spends its money on models.

Before the first call the desk's inputs are checked; after the first decisions of each symbol these
are replayed from their recording, by AutoGen's team and by two clocks, and compared. The gate makes
the same checks again, on the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from finagent_model._documents import split_json_lines
from finagent_model.agents.external import load_external
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.jsonl import dump_replies, load_replies
from finagent_model.config.desk_config import DeskConfig
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decider, Decision, LedgerRow, to_ledger_row
from finagent_model.desk.desk import Desk
from finagent_model.errors import EarlyCheckError
from finagent_model.evaluation.probes import (
    check_features_causal,
    check_news_dated,
    check_questions_causal,
    find_clock_reads,
)
from finagent_model.market.bars import show_as_of
from finagent_model.market.view import MarketView
from finagent_model.policy.policy import PolicyBook

CLOCKS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""Clock readings between which a decision may not differ."""
MAX_VALUE_CHARS = 120


def require_sound_inputs(
    market: Market, symbol: str, policies: PolicyBook, config: DeskConfig
) -> None:
    """Check that no input of a symbol sees later data, and that no code reads a clock.

    Raises EarlyCheckError naming the first check that failed.
    """
    fits = policies.fits_for(symbol)
    first_and_last = [fits[0].policy, fits[-1].policy]
    bars, (news, _), (facts, _) = market.bars(symbol), market.news(symbol), market.facts(symbol)
    analyst = config.external_analyst
    digest = load_external(analyst).input_digest if analyst else None
    for check in (
        check_news_dated(),
        check_features_causal(bars, first_and_last),
        check_questions_causal(bars, news, first_and_last[-1], facts, digest),
    ):
        if not check.passed:
            raise EarlyCheckError(f"{symbol}: {check.name} failed before any call: {check.found}")
    if reads := find_clock_reads():
        raise EarlyCheckError(f"a clock is read at {', '.join(reads)}: no replay could be equal")


class ReplayCheck:
    """Replay a training's first decisions on a symbol from what was recorded of them.

    Called by `decide_walk_forward` once these are made.
    """

    def __init__(self, cassette: Cassette) -> None:
        """`cassette` is the one that the desk records into, before anything else was asked."""
        self._cassette = cassette

    def __call__(
        self, decider: Decider, views: Sequence[MarketView], decisions: Sequence[Decision]
    ) -> None:
        """Raise EarlyCheckError for the first decision that a replay does not repeat."""
        assert isinstance(decider, Desk)
        # In the form in which they become part of the package.
        recorded = load_replies(split_json_lines(dump_replies(self._cassette.used_replies)))
        for clock in CLOCKS:
            desk = decider.with_options(
                mode="replay",
                cassette=Cassette(recorded),
                clock=lambda clock=clock: clock,  # type: ignore[misc]
                inline_rules=False,
                always_team=True,
            )
            replayed = desk.decide_all(views)
            for first, second in zip(decisions, replayed, strict=True):
                ours, theirs = to_ledger_row(first.signal), to_ledger_row(second.signal)
                if difference := next(_differences(ours, theirs), None):
                    calls = sum(decision.calls for decision in decisions)
                    day = show_as_of(first.signal.as_of)
                    raise EarlyCheckError(
                        f"{first.signal.symbol} as of {day} is not replayed as it was decided: "
                        f"{difference}; the training ends after {calls} calls, since no version "
                        "of it could be proven. `finagent cassette verify` checks the recording; "
                        "see docs/replay.md"
                    )


def _differences(first: LedgerRow, second: LedgerRow) -> Iterator[str]:
    """Yield each field that differs, with both values."""
    for name in dict.fromkeys((*first, *second)):
        ours, theirs = first.get(name), second.get(name)
        if ours != theirs:
            yield f"{name} was {ours!r:.{MAX_VALUE_CHARS}}, replayed {theirs!r:.{MAX_VALUE_CHARS}}"

"""The runs below a training in which the desk decided on its symbols: of each symbol the newest
that finished, since a task that was tried again left another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from finagent_model.pipeline.provenance import SYMBOL
from finagent_model.run_records import RunRecord, finished_below

STAGE = "backtest"
SKEW = timedelta(minutes=1)
"""By how much clocks of the machines that end runs may differ."""


@dataclass(frozen=True)
class Backtests:
    """Those that a training has so far."""

    runs: tuple[RunRecord, ...]
    wanted: int | None
    """How many symbols it is trained on; None: its run doesn't say."""

    @classmethod
    def of(cls, training: RunRecord) -> Self:
        """Raises TrackingError."""
        found = finished_below(training, STAGE)
        newest = {run.tags[SYMBOL]: run for run in found if SYMBOL in run.tags}
        return cls(tuple(newest.values()), symbols_of(training))

    @property
    def short(self) -> str | None:
        """What is missing, in words; None: nothing, as far as is known."""
        if self.wanted is None or len(self.runs) >= self.wanted:
            return None
        return f"{len(self.runs)} of {self.wanted} symbols: the others have no finished backtest"


class Decided:
    """On which symbols trainings at work have decided. What has finished stays finished, so that
    each look asks for what did since the last one.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[str, datetime]] = {}

    def count(self, training: RunRecord) -> int:
        """Raises TrackingError."""
        known = self._known.setdefault(training.run_id, {})
        since = max(known.values()) - SKEW if known else None
        for run in finished_below(training, STAGE, since):
            if SYMBOL in run.tags and run.ended is not None:
                known[run.tags[SYMBOL]] = run.ended
        return len(known)

    def forget_but(self, at_work: set[str]) -> None:
        """All trainings but these runs."""
        for run_id in self._known.keys() - at_work:
            self._known.pop(run_id, None)


def symbols_of(training: RunRecord) -> int | None:
    """How many it is trained on; None: its run doesn't say."""
    given = training.params.get("symbols")
    return len(given.split(",")) if given else None

"""Split the out-of-sample days where the memory of a chat model ends, and say what the split shows.

Days that a model may have read about are shown and never graded: what it earned there may be
recall. What the split can't tell is in docs/memory.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from finagent_model.backtesting.metrics import sharpe
from finagent_model.config.knowledge import UNKNOWN, Cutoff, Knowledge
from finagent_model.market.bars import Floats
from finagent_model.market.timeframe import bars_per_year
from finagent_model.statistics.resampling import (
    annual_return_difference,
    return_decay_interval,
)

MAX_AUTHOR_CHARS = 80
Ints = npt.NDArray[np.int64]
Numbers = Mapping[str, float | None]


class MemorySplit(BaseModel):
    """How many out-of-sample days lie after what the decider has read, and if they suffice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    author: str
    """The model, analyst or decider that has read furthest."""
    cutoff: Cutoff
    margin_days: int
    days: int
    """Out-of-sample days of all symbols' calendar."""
    days_after: int
    """Those that may be graded."""
    days_needed: int
    # Left out of a dump where it is None: trainings from before have no such key.
    override: str | None = Field(None, exclude_if=lambda reason: reason is None)
    """Why the cut-off is earlier than the maker's, as the desk's author says; None: it is not."""

    @property
    def reason(self) -> str | None:
        """Why nothing can be graded, in words; None where it can be."""
        if self.cutoff == UNKNOWN:
            return (
                f"what {self._author} has read is unknown, so that each of {self.days:,} "
                "out-of-sample days may be remembered; state its knowledge_cutoff"
            )
        if self.days_after < self.days_needed:
            return (
                f"{self.days_after:,} of {self.days:,} out-of-sample days lie after what "
                f"{self._author} has read, and {self.days_needed:,} are needed"
            )
        return None

    def sentences(self, numbers: Numbers) -> list[str]:
        """Return what the days before and after the cut-off show, as `measure_split` has it."""
        if self.cutoff == UNKNOWN:
            return [f"Nothing is graded: {self.reason}."]
        read = f"until {self.cutoff}, and {self.margin_days} days more count as read"
        sentences = [
            f"{self._author} has read {read}: {self.days - self.days_after:,} of {self.days:,} "
            "out-of-sample days may be remembered and are not graded, "
            f"{self.days_after:,} are after it."
        ]
        if self.override:
            sentences.append(
                f"The maker of {self._author} states a later cut-off. The desk's author declares "
                f"{self.cutoff} all the same, because: {self.override}."
            )
        decay, low, high = (numbers.get(f"excess_decay{end}") for end in ("", "_low", "_high"))
        if decay is not None:
            bounds = (
                "with too few days for an interval"
                if low is None or high is None
                else f"between {low:+.1%} and {high:+.1%}"
            )
            sentences.append(
                f"The return above holding was {decay:+.1%} a year higher on days that may be "
                f"remembered, {bounds}; 0 means no decay."
            )
        return sentences

    def rows(self, numbers: Numbers) -> list[tuple[str, str, str]]:
        """Return name, value before and value after the cut-off, for a table."""
        before = self.days - self.days_after
        rows = [("out-of-sample days", f"{before:,}", f"{self.days_after:,}")]
        for label, name, form in (
            ("Sharpe ratio", "sharpe", ".2f"),
            ("return above holding, a year", "excess", "+.1%"),
        ):
            earlier, later = (
                "undefined" if value is None else format(value, form)
                for value in (numbers.get(f"{name}_before"), numbers.get(f"{name}_after"))
            )
            rows.append((label, earlier, later))
        return rows

    @property
    def _author(self) -> str:
        return self.author[:MAX_AUTHOR_CHARS]


def split_days(
    knowledge: Knowledge, closed_at: Ints, days_after: int, minimum_track_record: float
) -> MemorySplit:
    """Return the split of the bars, out of sample, which closed at `closed_at` (ms since 1970).

    A year of bars is needed after the cut-off, or `minimum_track_record`, which is that of the bars
    after it and nan where undefined.
    """
    year = math.ceil(bars_per_year(closed_at.astype("datetime64[ms]")))
    # A Sharpe ratio of 0 or less has no such length: its checks fail by themselves.
    length = minimum_track_record if math.isfinite(minimum_track_record) else 0.0
    return MemorySplit(
        author=knowledge.author,
        cutoff=knowledge.cutoff,
        margin_days=knowledge.margin_days,
        days=len(closed_at),
        days_after=days_after,
        days_needed=max(year, math.ceil(length)),
        override=knowledge.override,
    )


def measure_split(
    knowledge: Knowledge,
    closed_at: Ints,
    whole: Sequence[Floats],
    after: Sequence[Floats],
    *,
    seed: int,
    confidence: float,
) -> dict[str, float]:
    """Return Sharpe ratio and excess return on both sides by name; nan where undefined.

    `whole` and `after` are the returns of the desk and of holding: on all out-of-sample days, which
    closed at `closed_at`, and on those after the cut-off, traded again. Excess is a fraction a
    year above holding; its decay is that before the cut-off less that after it.
    """
    first = knowledge.first_unread_ms
    is_before = np.full(len(closed_at), True) if first is None else closed_at < first
    before = [returns[is_before] for returns in whole]
    periods = bars_per_year(closed_at.astype("datetime64[ms]"))
    excess = [annual_return_difference(ours, held, periods) for ours, held in (before, after)]
    interval = return_decay_interval(
        before[0] - before[1],
        after[0] - after[1],
        seed=seed,
        confidence=confidence,
        periods=periods,
    )
    return {
        "days_before": float(len(before[0])),
        "days_after": float(len(after[0])),
        "sharpe_before": _sharpe(before[0], periods),
        "sharpe_after": _sharpe(after[0], periods),
        "excess_before": excess[0],
        "excess_after": excess[1],
        "excess_decay": excess[0] - excess[1],
        "excess_decay_low": interval.low,
        "excess_decay_high": interval.high,
    }


def _sharpe(returns: Floats, periods: float) -> float:
    return sharpe(returns, periods) if len(returns) > 1 else math.nan

"""What each fit earned on the days that were its own to decide on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from finagent_model.domain.bars import BarSeries, Floats
from finagent_model.domain.policy import PolicyBook
from finagent_model.training.evidence import SymbolFacts
from finagent_model.training.schedule import reigns


@dataclass(frozen=True)
class FoldRow:
    """Returns are fractions, after costs; those of all rows multiply to the whole."""

    decided_from: datetime
    decided_until: datetime
    fit_until: datetime
    earned: float
    held: float
    """By buying and holding."""
    trades: int
    """Entered within these days."""


def fold_rows(
    bars: BarSeries, policies: PolicyBook, facts: SymbolFacts, trades: pd.DataFrame
) -> list[FoldRow]:
    """One row a fit, oldest first; `bars`, `facts` and `trades` are of one symbol's unseen part."""
    entered = trades["entry_bar"].to_numpy(dtype=np.int64)
    return [
        FoldRow(
            decided_from=bars.closed(part.start),
            decided_until=bars.closed(part.stop - 1),
            fit_until=fit.fit_until,
            earned=_grown(facts.returns, part),
            held=_grown(facts.benchmark_returns, part),
            trades=int(((entered >= part.start) & (entered < part.stop)).sum()),
        )
        for fit, part in reigns(bars, policies)
    ]


def _grown(returns: Sequence[float], part: slice) -> float:
    """Over the bars of `part`: the first of all bars has no return, the next has the first."""
    own: Floats = np.array(returns[max(part.start - 1, 0) : part.stop - 1])
    return float(np.prod(1.0 + own) - 1.0)

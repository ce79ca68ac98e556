"""On which bars of a backtest the desk is asked: every bar, every k bars, or where the fitted
policy's technical vote changes. A schedule saves calls of a chat model; between two decisions the
position is kept, with its stop and target.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from finagent_model.domain.bars import BarSeries
from finagent_model.domain.policy import PolicyBook, PolicyFit
from finagent_model.training.out_of_sample import unseen_part
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import History


def reigns(bars: BarSeries, policies: PolicyBook) -> Iterator[tuple[PolicyFit, slice]]:
    """Each fit that may speak about the bars' symbol, with the bars that are its own to decide on;
    fits without any are left out.
    """
    fits = policies.of(bars.symbol)
    moments = [np.datetime64(fit.valid_from.replace(tzinfo=None), "us") for fit in fits]
    starts = [*np.searchsorted(bars.closed_at, moments).tolist(), len(bars)]
    for fit, (start, stop) in zip(fits, pairwise(starts), strict=True):
        if start < stop:
            yield fit, slice(start, stop)


def bars_to_decide(bars: BarSeries, policies: PolicyBook, request: TrainRequest) -> list[int]:
    """Positions in `bars`, in order, from the first that no fit has seen. Which they are depends on
    nothing after each of them.
    """
    if request.schedule != "change":
        part = unseen_part(bars, policies)
        return list(range(part.start, part.stop, request.schedule))
    history, found = History(bars), []
    for fit, part in reigns(bars, policies):
        action = history.orders(fit.policy, part).action
        changed = np.append(True, action[1:] != action[:-1])
        found += (part.start + np.flatnonzero(changed)).tolist()
    return found

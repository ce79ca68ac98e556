"""Ask a desk's external analyst about every bar, for the policy search to weigh.

A training asks once, before its fits; `finagent verify --deep` asks again, before it refits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from finagent_model._progress import Progress
from finagent_model.desk.desk import Desk
from finagent_model.errors import ExternalAnalystError
from finagent_model.market.bars import BarSeries
from finagent_model.training.search import ScoreSources

log = logging.getLogger(__name__)


def score_external(
    desk: Desk, histories: Mapping[str, BarSeries], progress: Progress
) -> ScoreSources:
    """Return the score sources of `desk`, asking its external analyst, if any, about each bar.

    Bars on which the analyst failed are nan, with a warning. Raises ExternalAnalystError where it
    failed and had no opinion on any bar of a symbol.
    """
    config = desk.config
    technical = any(row.prompt == "technical" for row in config.agents)
    scores = {}
    analyst = config.external_analyst
    for symbol, bars in histories.items() if analyst else ():
        done = progress(f"asking {analyst} about {symbol}", len(bars))
        result = desk.external_scores(bars, done)
        if result.failed:
            day, reason = next(iter(result.failed.items()))
            message = f"{analyst} failed on {len(result.failed)} of {len(bars)} bars of {symbol}"
            if np.isnan(result.scores).all():
                raise ExternalAnalystError(
                    str(analyst), "never", f"{message}, first on {day}: {reason}"
                )
            log.warning("%s; they count as no opinion. First on %s: %s", message, day, reason)
        scores[symbol] = result.scores
    # The analyst's worker process is not needed for the fits.
    desk.close()
    return ScoreSources(config.initial_policy, config.policy, technical or not scores, scores)

"""Whose opinions a training's search weighs: the technical score, and upstream's where the desk has
an agent that reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from finagent_model.desk import Desk
from finagent_model.domain.bars import BarSeries
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.errors import BadInputError, UpstreamError
from finagent_model.pipeline.watch import Watch
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import Voices

log = logging.getLogger(__name__)


def hear(desk: Desk, histories: Mapping[str, BarSeries], watch: Watch) -> Voices:
    """Asks upstream about each bar, if the desk does. Raises UpstreamError where it never had an
    opinion.
    """
    config = desk.config
    technical = any(row.prompt == "technical" for row in config.agents)
    scores = {}
    for symbol, bars in histories.items() if config.hears_upstream else ():
        found = desk.upstream_scores(bars, watch(f"asking upstream about {symbol}", len(bars)))
        if found.failed:
            day, reason = next(iter(found.failed.items()))
            said = f"upstream failed on {len(found.failed)} of {len(bars)} bars of {symbol}"
            if np.isnan(found.scores).all():
                raise UpstreamError("never", f"{said}, first on {day}: {reason}")
            log.warning("%s; they count as no opinion. First on %s: %s", said, day, reason)
        scores[symbol] = found.scores
    desk.close()
    return Voices(config.first_policy, config.policy, technical or not scores, scores)


def require_schedule(request: TrainRequest, config: DeskConfig) -> None:
    """Raises BadInputError where the schedule would follow half of what the desk hears."""
    if request.schedule == "change" and config.hears_upstream:
        raise BadInputError(
            "schedule 'change' follows the technical score alone, and this desk hears upstream "
            "too; give a number of bars"
        )

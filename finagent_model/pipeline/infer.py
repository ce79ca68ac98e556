"""One decision of a packaged desk, with its record in MLflow: what a task asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finagent_model.domain.desk_config import Mode
from finagent_model.domain.execution import NOBODYS, Execution
from finagent_model.domain.signal import TradingSignal, signal_id
from finagent_model.pipeline.audit import audit_of
from finagent_model.pipeline.keep import settled
from finagent_model.pipeline.provenance import by_package
from finagent_model.pipeline.record import record
from finagent_model.serving.answering import Question
from finagent_model.serving.logged import load_answering
from finagent_model.settings import Settings

CHAMPION = "models:/finagent@champion"


@dataclass(frozen=True)
class Inferred:
    """A decision and the run that holds its record."""

    run_id: str
    signal: TradingSignal
    already: bool = False
    """Whether it was decided before, and nobody was asked again."""


def infer(
    symbol: str,
    as_of: datetime,
    settings: Settings,
    model_uri: str = CHAMPION,
    mode: Mode = "cached",
    execution: Execution = NOBODYS,
    *,
    wait: bool = True,
) -> Inferred:
    """Decide with a packaged desk and log signal, conversation, audit and chart.

    What the same version settled before about the same symbol and moment is given back, with its
    run; a signal that failed is decided again. Mode `live` asks again all the same, and `replay`
    reads again: a run of its own has what comes of it, the settled signal stays.

    Where there is nothing to decide on, the record is a signal of status `data_missing`. Messages
    go by the execution in a database. Raises ModelLoadError; and without `wait`
    ApprovalPendingError where a human has yet to answer: ask again once one has, and nothing is
    decided anew.
    """
    answering = load_answering(model_uri)
    author = answering.lineage.model_uri or answering.lineage.run_id
    if mode == "cached" and author:
        before = settled(signal_id(symbol, as_of, author), settings)
        if before:
            return Inferred(*before, already=True)
    [decision] = answering.answer([Question(symbol, as_of)], mode, wait=wait)
    audit = audit_of([decision], answering.package.content_hash)
    made_by = by_package(answering, model_uri)
    run_id = record(
        decision,
        audit,
        answering.market,
        model_uri,
        settings,
        execution,
        made_by,
        replayed=mode == "replay",
    )
    answering.trace(decision, run_id)
    return Inferred(run_id, decision.signal)

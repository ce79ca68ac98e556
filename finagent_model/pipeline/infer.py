"""One decision of a packaged desk, with its record in MLflow: what a task asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finagent_model.domain.decision import Decision
from finagent_model.domain.desk_config import Mode
from finagent_model.domain.execution import NOBODYS, Execution
from finagent_model.domain.market_view import MarketView
from finagent_model.domain.signal import TradingSignal, signal_id, version_of
from finagent_model.errors import UnknownRunError
from finagent_model.pipeline.audit import audit_of
from finagent_model.pipeline.keep import settled
from finagent_model.pipeline.provenance import by_package
from finagent_model.pipeline.record import record
from finagent_model.run_records import read_run
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
    vendor_raises: bool = False,
) -> Inferred:
    """Decide with a packaged desk and log signal, conversation, audit and chart.

    What the same version settled before about the same symbol and moment is given back, with its
    run; a signal that failed is decided again, and so is one that was made before its day's bar was
    there: the later one takes its place. Mode `live` asks again all the same, and `replay` reads
    again: a run of its own has what comes of it, the settled signal stays.

    Where there is nothing to decide on, the record is a signal of status `data_missing`; only if
    `vendor_raises`, a source that failed raises DataSourceError. Messages go by the execution in a
    database. Raises ModelLoadError; and without `wait` ApprovalPendingError where a human has yet
    to answer: ask again once one has, and nothing is decided anew.
    """
    answering = load_answering(model_uri)
    version = version_of(answering.lineage.model_uri, answering.lineage.run_id)
    before = None
    if mode == "cached" and version:
        before = settled(signal_id(symbol, as_of, version), settings)
    seen = answering.look(Question(symbol, as_of), vendor_raises=vendor_raises and not before)
    if before and not _more_is_known(before[0], seen):
        return Inferred(*before, already=True)
    [decision] = answering.answer_on([seen], mode, wait=wait)
    run_id = record(
        decision,
        audit_of([decision], answering.package.content_hash),
        seen if isinstance(seen, MarketView) else None,
        answering.market,
        model_uri,
        settings,
        execution,
        by_package(answering, model_uri),
        replaces=before[0] if before else None,
        replayed=mode == "replay",
    )
    answering.trace(decision, run_id)
    return Inferred(run_id, decision.signal)


def _more_is_known(run_id: str, now: MarketView | Decision) -> bool:
    """Whether there is a later bar than the run's decision was made on, or no such run any more."""
    if not isinstance(now, MarketView):
        return False
    try:
        then = [each.last for each in read_run(run_id).datasets if each.kind == "bars"]
    except UnknownRunError:
        return True
    return bool(then) and now.bars.closed(-1) > max(then)

"""Record a decision: the one way from a question to a run of MLflow, whichever door it came by.

`infer` finds what the same version decided before, decides where it must, waits for an approval,
logs signal, conversation, audit and chart, and stores the decision for the pages and the platform.
The shell's `predict --log` and the DAG's `decide` call it.
"""

from __future__ import annotations

from dataclasses import dataclass

from finagent_model._base import Mode
from finagent_model.audit.chain import AuditChain
from finagent_model.config.parsing import CallLimits
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution
from finagent_model.decision.signal import TradingSignal, compute_signal_id
from finagent_model.errors import UnknownRunError
from finagent_model.market.view import MarketView
from finagent_model.model.predictor import Predictor, Question
from finagent_model.pipeline.record import find_final, record, recorded_audit
from finagent_model.pipeline.run_metadata import predictor_tags
from finagent_model.tracking.queries import read_run


@dataclass(frozen=True)
class Inferred:
    """A decision's signal, and the run that holds its record."""

    run_id: str
    signal: TradingSignal
    decided_before: bool = False
    """Whether an earlier run decided it, and no agent was asked again."""

    @property
    def audit(self) -> AuditChain:
        """The audit as the run keeps it. Raises TrackingError."""
        return recorded_audit(self.run_id)


def infer(
    predictor: Predictor,
    question: Question,
    name: str,
    mode: Mode = "cached",
    limits: CallLimits | None = None,
    execution: Execution = NO_EXECUTION,
    *,
    wait: bool = True,
    vendor_raises: bool = False,
    missing_raises: bool = False,
) -> Inferred:
    """Decide with `predictor`, which the caller knows as `name`, and log the decision to a run.

    What the same version decided before about the same symbol and moment is given back, with its
    run. Decided again is a signal that failed, and one that was made before its day's bar was
    there: the later one takes its place. Mode `live` asks again all the same, and `replay` reads
    again: a run of its own has what comes of it, the earlier signal stays.

    Where there is nothing to decide on, the record is a signal of status `data_missing`; with
    `missing_raises` that raises as `Predictor.view` does, and with `vendor_raises` a source that
    failed raises DataSourceError. Without `wait` ApprovalPendingError says that a human has yet to
    answer: ask again once one has, and nothing is decided anew.
    """
    settings, version = predictor.settings, predictor.version
    final = None
    if mode == "cached" and version:
        final = find_final(compute_signal_id(question.symbol, question.as_of, version), settings)
    view = (
        predictor.view(question)
        if missing_raises
        else predictor.view_or_missing(question, vendor_raises=vendor_raises and not final)
    )
    if final and not _has_later_bar(view, final[0]):
        return Inferred(*final, decided_before=True)
    [decision] = predictor.decide_views([view], mode, limits, wait=wait)
    run_id = record(
        decision,
        predictor.audit(decision),
        view if isinstance(view, MarketView) else None,
        predictor.market,
        name,
        settings,
        execution,
        predictor_tags(predictor, name),
        replaces=final[0] if final else None,
        replayed=mode == "replay",
    )
    predictor.trace(decision, run_id)
    return Inferred(run_id, decision.signal)


def _has_later_bar(view: MarketView | Decision, run_id: str) -> bool:
    """Whether `view` ends later than the bars of that run's decision, or the run is gone."""
    if not isinstance(view, MarketView):
        return False
    try:
        ends = [each.last for each in read_run(run_id).datasets if each.kind == "bars"]
    except UnknownRunError:
        return True
    return bool(ends) and view.bars.close_time(-1) > max(ends)

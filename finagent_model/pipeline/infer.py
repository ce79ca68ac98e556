"""Decide on one question and record the decision: the one way from a question to an MLflow run.

`infer` reuses what the same version decided before, decides where it must, waits for an approval,
logs signal, conversation, audit and chart, and stores the decision in the database. `finagent
predict --log`, `finagent_model.infer` and the DAG's task `decide` all call it. Of several that ask
the same question at the same moment one decides, and the others get its result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from finagent_model._base import Mode
from finagent_model.audit.chain import AuditChain
from finagent_model.config.parsing import CallLimits
from finagent_model.config.rules import narrow_limits
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution
from finagent_model.decision.signal import TradingSignal, compute_signal_id
from finagent_model.errors import StoreError, UnknownRunError, UnverifiedRunError
from finagent_model.market.view import MarketView
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import Question
from finagent_model.pipeline.final_decisions import find_final, read_recorded
from finagent_model.pipeline.record import read_audit, record_decision
from finagent_model.pipeline.run_metadata import desk_params, predictor_tags
from finagent_model.settings import Settings
from finagent_model.store.claims import Claim, ClaimStore
from finagent_model.store.database import Database
from finagent_model.tracking.queries import read_run

log = logging.getLogger(__name__)
Final = tuple[str, TradingSignal] | None
"""Run and signal of what was decided before."""


@dataclass(frozen=True)
class InferenceResult:
    """A decision's signal, and the run that holds its record."""

    run_id: str
    signal: TradingSignal
    decided_before: bool = False
    """Whether an earlier run decided it, and no agent was called again."""
    seconds: float | None = None
    """How long the decision took; None: unknown, as where an earlier run decided."""

    @property
    def audit(self) -> AuditChain:
        """Return the audit that the run holds. Raises TrackingError."""
        return read_audit(self.run_id)


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
) -> InferenceResult:
    """Decide with `predictor`, known to the caller as `name`, and log the decision to a run.

    Mode `cached` returns what the same version decided before about the same symbol and moment. It
    decides again where that signal failed, or was made before its day's bar existed, and the later
    record replaces the earlier one. Where somebody else is deciding the same at this moment, it
    waits and returns that result, whatever its status. Modes `live` and `replay` always decide, in
    a new run, and wait for nobody; so does a call with limits of its own, whose run is read by
    nobody else.

    Without market data the record is a signal of status `data_missing`; `missing_raises` raises as
    `Predictor.view` does instead, and `vendor_raises` raises DataSourceError for a source that
    failed. With `wait` false, ApprovalPendingError says that a human has yet to approve: call again
    later, and nothing is decided twice.
    """
    settings, version = predictor.settings, predictor.version
    # What was decided within a caller's own limits answers that caller alone.
    is_limited = limits is not None and limits != CallLimits()
    own_limits, _ = narrow_limits(predictor.config.limits, limits or CallLimits())

    def read_view(final: Final) -> MarketView | Decision:
        # A final signal outlives its vendor: it is returned even if the source fails now.
        raises = vendor_raises and final is None
        return (
            predictor.view(question)
            if missing_raises
            else predictor.view_or_missing(question, vendor_raises=raises)
        )

    def decide(view: MarketView | Decision, final: Final) -> InferenceResult:
        [decision] = predictor.decide_views([view], mode, limits, wait=wait)
        run_id = record_decision(
            decision,
            predictor.audit(decision),
            view if isinstance(view, MarketView) else None,
            predictor.market,
            name,
            settings,
            execution,
            predictor_tags(predictor, name),
            params={"mode": mode, **desk_params(predictor.config, own_limits)},
            replaces=final[0] if final else None,
            replayed=mode == "replay" or is_limited,
        )
        predictor.trace(decision, run_id)
        return InferenceResult(run_id, decision.signal, seconds=decision.seconds)

    # A desk without a version has no stable signal id, so nothing of it can be reused.
    if mode != "cached" or not version or is_limited:
        return decide(read_view(None), None)
    signal_id = compute_signal_id(question.symbol, question.as_of, version)
    final = find_final(signal_id, settings)
    view = read_view(final)
    if final and not _has_later_bar(view, final[0]):
        return InferenceResult(*final, decided_before=True)
    while True:
        with _claim(signal_id, settings) as claim:
            if claim and claim.result:
                if answer := _read_result(claim.result, signal_id, view):
                    return answer
                continue  # it answers another question: claim this one
            # Another may have decided between the first look and the claim.
            final = find_final(signal_id, settings)
            if final and not _has_later_bar(view, final[0]):
                return InferenceResult(*final, decided_before=True)
            result = decide(view, final)
            if claim:
                claim.run_id = result.run_id
        break
    if claim and claim.is_lost and (first := find_final(signal_id, settings)):
        # Taken for dead while it decided: the one that took over may have answered before.
        return InferenceResult(*first, decided_before=first[0] != result.run_id)
    return result


@contextmanager
def _claim(signal_id: str, settings: Settings) -> Iterator[Claim | None]:
    """Yield the claim of a question, or the result that was waited for; None without a database."""
    with ExitStack() as stack:
        try:
            claims = ClaimStore(Database.from_settings(settings))
            claim = stack.enter_context(claims.enter(signal_id))
        except StoreError as error:
            log.warning("%s. Others who ask the same now decide it, too", error)
            yield None
        else:
            yield claim


def _read_result(
    run_id: str, signal_id: str, view: MarketView | Decision
) -> InferenceResult | None:
    """Return what another caller just recorded; None if that answers another question."""
    try:
        signal = read_recorded(run_id).signal
    except (UnknownRunError, UnverifiedRunError) as error:
        log.warning("%s", error)
        return None
    if signal.signal_id != signal_id or _has_later_bar(view, run_id):
        return None
    return InferenceResult(run_id, signal, decided_before=True)


def _has_later_bar(view: MarketView | Decision, run_id: str) -> bool:
    """Return whether `view` ends later than the bars of that run, or the run is deleted."""
    # A `Decision` in place of a view means that there is no data now: nothing newer to decide on.
    if not isinstance(view, MarketView):
        return False
    try:
        ends = [dataset.last for dataset in read_run(run_id).datasets if dataset.kind == "bars"]
    except UnknownRunError:
        return True
    return bool(ends) and view.bars.close_time(-1) > max(ends)

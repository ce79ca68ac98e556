"""One decision: what the shell asks. It leaves a run in MLflow only where that is wanted.

One decision of a packaged desk, with its record in MLflow: what a task asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from finagent_model._base import Mode
from finagent_model.agents.providers import with_addresses
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.audit.chain import AuditChain
from finagent_model.config.desk_config import DeskConfig, load_config
from finagent_model.config.parsing import read_mode, read_symbol
from finagent_model.data.market import Market
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution
from finagent_model.decision.signal import TradingSignal, compute_signal_id, version_key
from finagent_model.desk.desk import CallLimits, Desk, config_hash
from finagent_model.errors import UnknownRunError
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import Predictor, Question, open_cassette
from finagent_model.pipeline.record import audit_of, find_final, record
from finagent_model.pipeline.run_metadata import package_tags
from finagent_model.settings import Settings
from finagent_model.tracking.queries import read_run


@dataclass(frozen=True)
class Predicted:
    """A decision and the audit of it."""

    decision: Decision
    audit: AuditChain
    run_id: str | None
    """Where it was logged."""


def predict(
    symbol: str,
    as_of: str,
    *,
    model: str,
    config: Path | None = None,
    mode: str = "cached",
    budget_usd: float | None = None,
    max_rounds: int | None = None,
    log: bool = False,
) -> Predicted:
    """By a packaged model, or by the untrained desk of a config file.

    `log` keeps signal, conversation, audit and chart in a run of MLflow. Raises BadInputError,
    DataError where there is nothing to decide on, and ModelLoadError.
    """
    question = Question(read_symbol(symbol), parse_as_of(as_of))
    how, limits = read_mode(mode), CallLimits(max_rounds=max_rounds, budget_usd=budget_usd)
    settings = Settings.load()
    answering: Predictor | None = None
    if config is None:
        from finagent_model.model.loading import load_predictor

        answering = load_predictor(model)
        view, market = answering.view(question), answering.market
        decision = answering.decide_on(view, how, limits)
        desk = answering.package.config
        audit = audit_of([decision], answering.package.content_hash)
    else:
        desk = with_addresses(load_config(str(config)), settings)
        market = Market.of(settings)
        view = market.view(question.symbol, question.as_of)
        decision = _untrained(desk, view, how, limits, settings)
        audit = audit_of([decision])
    run_id = None
    if log:
        from finagent_model.pipeline.record import record
        from finagent_model.pipeline.run_metadata import desk_tags, package_tags

        made_by = package_tags(answering, model) if answering else desk_tags(desk)
        name = model if config is None else str(config)
        replayed = how == "replay"
        run_id = record(
            decision, audit, view, market, name, settings, made_by=made_by, replayed=replayed
        )
    if answering:
        answering.trace(decision, run_id)
    elif settings.tracing:
        from finagent_model.tracking.traces import trace

        trace(decision, desk.prices, settings, run_id)
    return Predicted(decision, audit, run_id)


def _untrained(
    config: DeskConfig, view: MarketView, mode: Mode, limits: CallLimits, settings: Settings
) -> Decision:
    """By the policy's defaults and a configuration's team."""
    desk = Desk(config, None, settings, open_cassette(settings), mode=mode)
    if mode != "replay":
        desk.require_key()
    decision, approvals = desk.under(limits=limits).decide(view), settings.home / APPROVALS_FILE
    [decision] = ApprovalStore(approvals).require_approvals(
        [decision], config.approval, config_hash(config), mode=mode
    )
    return decision


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
    execution: Execution = NO_EXECUTION,
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
    answering = load_predictor(model_uri)
    version = version_key(answering.lineage.model_uri, answering.lineage.run_id)
    before = None
    if mode == "cached" and version:
        before = find_final(compute_signal_id(symbol, as_of, version), settings)
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
        package_tags(answering, model_uri),
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
    return bool(then) and now.bars.close_time(-1) > max(then)

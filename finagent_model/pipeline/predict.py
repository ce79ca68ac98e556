"""One decision: what the shell asks. It leaves a run in MLflow only where that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finagent_model.agents.clients import with_addresses
from finagent_model.desk import Desk, Limits, config_hash
from finagent_model.domain.audit import Chain
from finagent_model.domain.clock import parse_as_of
from finagent_model.domain.decision import Decision
from finagent_model.domain.desk_config import DeskConfig, Mode
from finagent_model.domain.market_view import MarketView
from finagent_model.market import Market
from finagent_model.pipeline.audit import audit_of
from finagent_model.pipeline.requests import read_mode, read_symbol
from finagent_model.presets import load_config
from finagent_model.serving.answering import AnsweringDesk, Question, open_cassette
from finagent_model.serving.approvals import APPROVALS, Approvals
from finagent_model.settings import Settings


@dataclass(frozen=True)
class Predicted:
    """A decision and the audit of it."""

    decision: Decision
    audit: Chain
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
    how, limits = read_mode(mode), Limits(max_rounds=max_rounds, budget_usd=budget_usd)
    settings = Settings.load()
    answering: AnsweringDesk | None = None
    if config is None:
        from finagent_model.serving.logged import load_answering

        answering = load_answering(model)
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
        from finagent_model.pipeline.provenance import by_desk, by_package
        from finagent_model.pipeline.record import record

        made_by = by_package(answering, model) if answering else by_desk(desk)
        name = model if config is None else str(config)
        replayed = how == "replay"
        run_id = record(
            decision, audit, view, market, name, settings, made_by=made_by, replayed=replayed
        )
    if answering:
        answering.trace(decision, run_id)
    elif settings.tracing:
        from finagent_model.tracing import trace

        trace(decision, desk.prices, settings, run_id)
    return Predicted(decision, audit, run_id)


def _untrained(
    config: DeskConfig, view: MarketView, mode: Mode, limits: Limits, settings: Settings
) -> Decision:
    """By the policy's defaults and a configuration's team."""
    desk = Desk(config, None, settings, open_cassette(settings), mode=mode)
    if mode != "replay":
        desk.require_key()
    decision, approvals = desk.under(limits=limits).decide(view), settings.home / APPROVALS
    [decision] = Approvals(approvals).ask(
        [decision], config.approval, config_hash(config), mode=mode
    )
    return decision

"""Probe the memory of a version's chat models within a budget: `finagent memory`.

The days that are asked about don't overlap: what came after one is no part of what came after the
next. Replies are recorded like any others, and so a repeated run costs nothing and finds the same.
The report is an artifact of the training's run. `probe_questions` asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finagent_model._progress import Progress, no_progress
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import BadInputError, DataError
from finagent_model.evaluation.memory_probes import (
    REPORT_FILE,
    MemoryReport,
    judge_days,
)
from finagent_model.market.view import MarketView
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import open_cassette
from finagent_model.pipeline.datasets import market_of_training
from finagent_model.pipeline.estimate import Estimate, measure_calls, price_tokens
from finagent_model.pipeline.probe_questions import (
    RECALL_PROMPT,
    ask_days,
    choose_days,
    find_other_views,
    name_chat_models,
)
from finagent_model.pipeline.run_metadata import read_request
from finagent_model.policy.trained_state import HORIZON
from finagent_model.reports.wording import probe_lines, probe_section, replace_probes
from finagent_model.settings import Settings
from finagent_model.tracking.runs import RunLog
from finagent_model.training.walk_forward import bars_to_decide

DEFAULT_DAYS, DEFAULT_RETEST = 120, 40
MAX_OTHER_SYMBOLS = 5
"""Symbols that are tried for a swap where the version was trained on one alone."""
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class ProbeRun:
    """A report that was made, and what it took."""

    run_id: str
    """Of the training, whose artifact the report is."""
    calls: int
    """Calls to a model; recorded replies are none."""
    report: MemoryReport

    def row(self) -> dict[str, Any]:
        """Return verdict, probes and what they took, JSON-ready, without the single days."""
        report = self.report
        return {
            "model": report.model,
            "run_id": self.run_id,
            "passed": report.passed,
            "verdict": report.verdict,
            "signs": list(report.signs),
            "days": len(report.days),
            "days_asked_for": report.days_asked_for,
            "days_that_may_be_remembered": sum(d.may_be_remembered for d in report.days),
            "power": report.power_sentence,
            "probes": [{**p.model_dump(mode="json"), "is_sign": p.is_sign} for p in report.probes],
            "questions": report.questions,
            "calls": self.calls,
            "cost_usd": report.cost_usd,
        }


@dataclass(frozen=True, eq=False)
class ProbePlan:
    """A version's desk, and the days that its models are asked about."""

    run_id: str
    """Of the training."""
    market: Market
    desk: Desk
    cassette: Cassette
    chosen: Sequence[tuple[str, int]]
    """Symbol, and position of the day in its bars."""
    others: Mapping[tuple[str, int], MarketView]
    """Another symbol's view on the same day; a day without one is missing."""
    days_asked_for: int
    retest: int
    budget_usd: float | None

    @property
    def config(self) -> DeskConfig:
        """The desk's configuration."""
        return self.desk.config

    def estimate(self) -> Estimate:
        """Return what asking would take if nothing were recorded and each reply were longest."""
        config, chats = self.config, name_chat_models(self.config)
        again, calls, decisions = min(self.retest, len(self.chosen)), 0, 0
        tokens = {row.author: np.zeros(2) for row in config.distinct_models}
        longest = {
            author: config.model_for(row).sampling.max_tokens
            for author, name in chats.items()
            for row in config.agents
            if row.name == name
        }
        for number, day in enumerate(self.chosen):
            [view] = self.market.bar_views(day[0], [day[1]])
            # Plain, masked and mirrored; the swap's two; those with news; and asked twice.
            forms = 3 + 2 * (day in self.others) + 2 * bool(view.news) + (number < again)
            needs = measure_calls(config, view, False)
            decisions += forms
            calls += forms * len(needs) + 2 * len(chats)
            for model, characters, max_tokens in needs:
                tokens[model] += forms * np.array([characters / CHARACTERS_PER_TOKEN, max_tokens])
            question = max((characters for _, characters, _ in needs), default=0)
            for author, max_tokens in longest.items():
                prompt = (question + len(RECALL_PROMPT)) / CHARACTERS_PER_TOKEN
                tokens[author] += 2 * np.array([prompt, max_tokens])
        totals = {model: (float(t[0]), float(t[1])) for model, t in tokens.items()}
        return Estimate(
            client=config.client,
            decisions=decisions,
            calls=calls,
            prompt_tokens=round(sum(prompt for prompt, _ in totals.values())),
            completion_tokens=round(sum(completion for _, completion in totals.values())),
            cost_usd=price_tokens(config, totals),
        )


def prepare_probes(
    model_uri: str,
    settings: Settings,
    days: int = DEFAULT_DAYS,
    retest: int = DEFAULT_RETEST,
    budget_usd: float | None = None,
) -> ProbePlan:
    """Return what will be asked of a version's chat models, and what that takes; asks no model.

    `days` of the ledger are asked about, `retest` of them twice. Raises BadInputError for a desk
    that has nothing to probe or can't be masked; ModelLoadError, DataError and TrackingError.
    """
    _check_counts(days, retest, budget_usd)
    predictor = load_predictor(model_uri)
    package = predictor.package
    config = package.config
    if config.uses_only_rules:
        raise BadInputError(
            f"{model_uri} asks no chat model: rules remember nothing, so there is nothing to probe"
        )
    if analyst := config.external_analyst:
        raise BadInputError(
            f"{model_uri} hears {analyst}, which is asked with real names and prices and can't be "
            "masked; probe a desk without it"
        )
    if (run_id := predictor.lineage.run_id) is None:
        raise BadInputError(f"{model_uri} names no training run; give a registered version")
    market, request = market_of_training(predictor), read_request(package)
    if budget_usd is not None:
        spending = config.spending.model_copy(update={"run_usd": budget_usd})
        config = config.model_copy(update={"spending": spending})
    cassette = open_cassette(settings, package)
    # Lessons tell of the real past, and some forms of the question have another one.
    desk = Desk(config, replace(package.trained_state, lessons=()), settings, cassette)
    bars = {symbol: market.bars(symbol) for symbol in request.symbols}
    policies = package.trained_state.policies
    positions = {symbol: bars_to_decide(each, policies, request) for symbol, each in bars.items()}
    chosen = choose_days(positions, {symbol: len(each) for symbol, each in bars.items()}, days)
    if not chosen:
        raise BadInputError(
            f"{model_uri} has no out-of-sample day that {HORIZON} sessions follow; "
            "train on more bars"
        )
    others = find_other_views(market, _swap_symbols(market, request.symbols), chosen, desk.warm_up)
    return ProbePlan(run_id, market, desk, cassette, chosen, others, days, retest, budget_usd)


def probe_memory(plan: ProbePlan, progress: Progress = no_progress) -> ProbeRun:
    """Ask the models, log the report in the training's run, and return it.

    Raises BadInputError where the estimate exceeds the budget or can't be priced, ConfigError where
    a model can't be called, and TrackingError.
    """
    if plan.budget_usd is not None:
        _require_affordable(plan.estimate(), plan.budget_usd)
    plan.desk.require_key()
    with closing(plan.desk):
        asked = ask_days(
            plan.desk,
            plan.cassette,
            plan.market,
            plan.chosen,
            plan.others,
            plan.retest,
            plan.config.latest_knowledge,
            progress,
        )
    report = judge_days(
        "+".join(name_chat_models(plan.config)),
        plan.config.mask,
        asked.days,
        days_asked_for=plan.days_asked_for,
        questions=asked.questions,
        cost_usd=asked.cost_usd,
    )
    run = RunLog(plan.run_id)
    run.log_text(REPORT_FILE, report.model_dump_json(indent=1))
    for name, section in (("report.md", probe_lines), ("report.html", probe_section)):
        if (content := run.find_artifact(name)) is not None:
            run.log_text(name, replace_probes(content.decode(), section(report)))
    return ProbeRun(plan.run_id, asked.calls, report)


def _check_counts(days: int, retest: int, budget_usd: float | None) -> None:
    for name, value in (("days", days), ("retest", retest)):
        if not 1 <= value <= 10_000:
            raise BadInputError(f"{name} {value} must be from 1 to 10000")
    if budget_usd is not None and not 0 < budget_usd < float("inf"):
        raise BadInputError(
            f"budget_usd {budget_usd:g} must be above 0; leave it out for no limit in money"
        )


def _swap_symbols(market: Market, symbols: Sequence[str]) -> list[str]:
    """Return the symbols to swap names with: the version's own, and others where it has one."""
    if len(symbols) > 1:
        return list(symbols)
    try:
        known = market.source.symbols() or ()
    except DataError:
        known = ()
    return [*symbols, *[s for s in known if s not in symbols][:MAX_OTHER_SYMBOLS]]


def _require_affordable(needs: Estimate, budget_usd: float) -> None:
    """Raise BadInputError where the budget may not be enough, before anything is spent."""
    if needs.cost_usd is None:
        raise BadInputError(
            "a price is unknown, so that no budget in USD can be kept; add the model to 'prices' "
            "and train again, or leave --budget-usd out"
        )
    if needs.cost_usd > budget_usd:
        raise BadInputError(
            f"the probes may take {needs.cost_usd:.2f} USD, more than the budget of "
            f"{budget_usd:g}; ask about fewer --days, or raise --budget-usd"
        )

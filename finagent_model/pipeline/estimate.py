"""What a training would take, before anything is spent: decisions, calls, tokens, money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from finagent_model.agents.team import ancestors
from finagent_model.config.desk_config import DeskConfig, Prompts, load_config
from finagent_model.data.market import Market
from finagent_model.errors import DataError
from finagent_model.market.bars import BarSeries
from finagent_model.market.view import MarketView
from finagent_model.pipeline.train import require_schedule
from finagent_model.policy.context import build_context
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import bars_to_decide, fit_policies, walk_forward_folds

SAMPLES = 20
"""Days of each symbol whose questions are measured."""
REPLY_CHARACTERS = 600
"""Taken for a colleague's reply, as the next agent reads it."""
FACTORS, FACTOR = 6, "." * 40
"""Taken for what a remembered call was made for."""


@dataclass(frozen=True)
class Estimate:
    """From sampled days: nothing recorded, each reply as long as allowed, the memory as full as it
    gets; repairs come on top.
    """

    client: str
    decisions: int
    """Exact, for any schedule."""
    calls: int
    """To a chat model; none for `rules`."""
    prompt_tokens: int
    """At four characters a token."""
    completion_tokens: int
    cost_usd: float | None
    """None where a model's price is unknown."""

    def row(self) -> dict[str, Any]:
        return asdict(self)


def estimate(request: TrainRequest, settings: Settings) -> Estimate:
    """Raises BadInputError and DataError, as the training would."""
    config = load_config(request.config)
    require_schedule(request, config)
    market = Market.from_settings(settings)
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    calendar = np.unique(np.concatenate([bars.closed_at for bars in histories.values()]))
    folds = walk_forward_folds(
        len(calendar), request.train_bars, request.test_bars, request.purge_bars
    )
    # Before the second fit speaks the desk remembers no call.
    remembers = calendar[folds[1].test_start] if len(folds) > 1 else None
    asked = _decided(histories, request, calendar[folds[0].test_start])
    decisions, calls = 0, 0.0
    tokens = {row.author: np.zeros(2) for row in config.distinct_models}
    for symbol, bars in histories.items():
        days = asked[symbol]
        decisions += len(days)
        if config.uses_only_rules or not days:
            continue
        chosen = np.unique(np.linspace(0, len(days) - 1, SAMPLES).astype(int))
        positions = [days[i] for i in chosen]
        share = len(days) / len(positions)
        for at, view in zip(positions, market.daily_views(symbol, positions), strict=True):
            told = remembers is not None and bool(bars.closed_at[at] >= remembers)
            for model, characters, longest in _asked(config, view, told):
                calls += share
                tokens[model] += share * np.array([characters / 4, longest])
    return Estimate(
        client=config.client,
        decisions=decisions,
        calls=round(calls),
        prompt_tokens=round(sum(float(t[0]) for t in tokens.values())),
        completion_tokens=round(sum(float(t[1]) for t in tokens.values())),
        cost_usd=_cost(config, {m: (float(t[0]), float(t[1])) for m, t in tokens.items()}),
    )


def _decided(
    histories: Mapping[str, BarSeries], request: TrainRequest, first: np.datetime64
) -> dict[str, list[int]]:
    """Bars of each symbol that the desk will be asked about. Where the fitted policies say which
    they are, those are fitted: seconds, and no call.
    """
    if request.schedule != "change" and request.pooled:
        return {
            symbol: list(
                range(int(np.searchsorted(bars.closed_at, first)), len(bars), request.schedule)
            )
            for symbol, bars in histories.items()
        }
    policies = fit_policies(histories, request).policies
    return {symbol: bars_to_decide(bars, policies, request) for symbol, bars in histories.items()}


def _asked(config: DeskConfig, view: MarketView, remembers: bool) -> list[tuple[str, int, int]]:
    """Of each call to a chat model in a decision on `view`: the model, characters, and the longest
    reply in tokens, with as many lessons as may be told if it `remembers`; none without a question.
    """
    shown = config.memory.lessons if remembers else 0
    try:
        question = len(
            build_context(view, config.initial_policy, [_lesson(view)] * shown, shown).text
        )
    except DataError:
        return []
    seated, texts = config.select_agents({"news"} if view.news else ()), Prompts(config.prompts)
    return [
        (
            model.model,
            len(texts.text(row.prompt)) + question + REPLY_CHARACTERS * len(ancestors(row, seated)),
            model.sampling.max_tokens,
        )
        for row in seated
        if (model := config.model_for(row)).client != "rules"
    ]


def _lesson(view: MarketView) -> TradeOutcome:
    return TradeOutcome(
        symbol=view.symbol,
        as_of=view.as_of - timedelta(days=100),
        closed_at=view.as_of,
        action="SELL",
        confidence=67.5,
        earned=-0.01234,
        ended="target",
        bars_held=20,
        weight=1.0,
        key_factors=(FACTOR,) * FACTORS,
    )


def _cost(config: DeskConfig, tokens: dict[str, tuple[float, float]]) -> float | None:
    if config.uses_only_rules:
        return 0.0
    total = 0.0
    for model, (asked, answered) in tokens.items():
        if not (asked or answered):
            continue
        price = config.prices.get(model)
        if price is None:
            return None
        total += price.cost_usd(asked, answered)
    return total

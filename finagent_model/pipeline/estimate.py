"""Estimate what a training would take before anything is spent: decisions, calls, tokens, money.

The decisions are exact. Calls, tokens and cost come from sampled days and assume the worst: nothing
recorded, each reply as long as allowed, the memory full. Repairs of malformed replies come on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from finagent_model.agents.list_prices import settle_models
from finagent_model.cassette.fingerprint import fingerprint
from finagent_model.config.desk_config import DeskConfig, Prompts, load_config
from finagent_model.config.knowledge import Knowledge
from finagent_model.config.roster import ancestors
from finagent_model.data.market import Market
from finagent_model.errors import DataError
from finagent_model.evaluation.memory import split_days
from finagent_model.market.bars import BarSeries
from finagent_model.market.view import MarketView
from finagent_model.pipeline.train import require_schedule
from finagent_model.policy.context import build_context
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import ScoreSources, draw_candidates
from finagent_model.training.walk_forward import bars_to_decide, fit_policies, walk_forward_folds

SAMPLES = 20
"""Days of each symbol whose prompts are measured."""
REPLY_CHARACTERS = 600
"""Assumed length of another agent's reply within a prompt."""
FACTORS, FACTOR = 6, "." * 40
"""Assumed number and text of a lesson's key factors."""
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Estimate:
    """What a training would take; the module says what is assumed."""

    client: str
    decisions: int
    """Exact, for any schedule."""
    calls: int
    """Calls to a chat model; 0 for a desk of rules."""
    prompt_tokens: int
    """At `CHARACTERS_PER_TOKEN`."""
    completion_tokens: int
    cost_usd: float | None
    """None where a model's price is unknown."""
    no_grade: str | None = None
    """Why the evidence will be `none` whatever is earned; None where it may be graded."""


def estimate(request: TrainRequest, settings: Settings) -> Estimate:
    """Return what a training of `request` would take; asks no model.

    Raises BadInputError and DataError, as the training would.
    """
    config = load_config(request.config).with_max_rounds(settings.autogen_max_rounds)
    config = settle_models(config, settings)
    require_schedule(request, config)
    market = Market.from_settings(settings)
    histories = {symbol: market.bars(symbol) for symbol in request.symbols}
    calendar = np.unique(np.concatenate([bars.closed_at for bars in histories.values()]))
    folds = walk_forward_folds(
        len(calendar), request.train_bars, request.test_bars, request.purge_bars
    )
    # The desk has no lessons in the first fold: none of its calls has closed before that begins.
    memory_from = calendar[folds[1].test_start] if len(folds) > 1 else None
    score_sources = ScoreSources(config.initial_policy, config.policy)
    first = calendar[folds[0].test_start]
    positions_of = _positions_to_decide(histories, request, score_sources, first)
    decisions, calls = 0, 0.0
    # Prompt and completion tokens by model.
    tokens = {row.author: np.zeros(2) for row in config.distinct_models}
    for symbol, bars in histories.items():
        positions = positions_of[symbol]
        decisions += len(positions)
        if config.uses_only_rules or not positions:
            continue
        sample = sample_positions(positions)
        # Each sampled day stands for as many days as are left out.
        share = len(positions) / len(sample)
        for at, view in zip(sample, market.bar_views(symbol, sample), strict=True):
            has_memory = memory_from is not None and bool(bars.closed_at[at] >= memory_from)
            for model, characters, max_tokens in measure_calls(config, view, has_memory):
                calls += share
                tokens[model] += share * np.array([characters / CHARACTERS_PER_TOKEN, max_tokens])
    return Estimate(
        client=config.client,
        decisions=decisions,
        calls=round(calls),
        prompt_tokens=round(sum(float(t[0]) for t in tokens.values())),
        completion_tokens=round(sum(float(t[1]) for t in tokens.values())),
        cost_usd=price_tokens(config, {m: (float(t[0]), float(t[1])) for m, t in tokens.items()}),
        no_grade=_no_grade(config.latest_knowledge, calendar[calendar > first]),
    )


def sample_positions(positions: Sequence[int]) -> list[int]:
    """Return at most `SAMPLES` of the positions, spread evenly."""
    chosen = np.unique(np.linspace(0, len(positions) - 1, SAMPLES).astype(int))
    return [positions[i] for i in chosen]


def _no_grade(knowledge: Knowledge | None, days: npt.NDArray[np.datetime64]) -> str | None:
    """Return why no day or too few of `days` can be graded; None for enough of them."""
    if knowledge is None:
        return None
    first = knowledge.first_unread_ms
    closed_at = days.astype("datetime64[ms]").astype(np.int64)
    after = 0 if first is None else int((closed_at >= first).sum())
    # How long a track record must be is not known before it is there.
    return split_days(knowledge, closed_at, after, math.nan).reason


def _positions_to_decide(
    histories: Mapping[str, BarSeries],
    request: TrainRequest,
    score_sources: ScoreSources,
    first: np.datetime64,
) -> dict[str, list[int]]:
    """Return by symbol the positions of the bars that the desk will be asked about.

    `first` is the close of the first out-of-sample session.
    """
    if request.schedule != "change" and request.pooled:
        starts = {s: int(np.searchsorted(b.closed_at, first)) for s, b in histories.items()}
        candidates = draw_candidates(request.candidates, request.seed, score_sources)
        # With the history that any policy needs, all bars from there on are decided on.
        if min(starts.values()) + 1 >= max(policy.warm_up for policy in candidates):
            return {
                symbol: list(range(starts[symbol], len(bars), request.schedule))
                for symbol, bars in histories.items()
            }
    # Here the bars depend on the fitted policies. To fit them takes seconds, and no call.
    policies = fit_policies(histories, request, score_sources=score_sources).policies
    return {symbol: bars_to_decide(bars, policies, request) for symbol, bars in histories.items()}


def measure_calls(
    config: DeskConfig, view: MarketView, has_memory: bool, known: set[str] | None = None
) -> list[tuple[str, int, int]]:
    """Return model, prompt characters and longest reply (tokens) of each call for one decision.

    With memory the prompt holds as many lessons as the configuration allows. Empty where the view
    has too few bars for a question. `known` are the requests whose replies are on record, of this
    view: they are left out, and the others are added to them.
    """
    limit = config.memory.lessons if has_memory else 0
    lessons = [_longest_lesson(view)] * limit
    try:
        question = len(build_context(view, config.initial_policy, lessons, limit).text)
    except DataError:
        return []
    agents, texts = config.select_agents({"news"} if view.news else ()), Prompts(config.prompts)
    calls = []
    keys: dict[str, str] = {}
    for row in agents:
        model, heard = config.model_for(row), ancestors(row, agents)
        # An agent's request is set by its row, its model and whom it hears; the view is the same.
        said = [row.name, row.prompt, row.tools, row.chart, row.external_analyst]
        parts = [*said, model.model_dump(mode="json"), [keys[other.name] for other in heard]]
        keys[row.name] = fingerprint({"request": parts})
        if model.client == "rules" or (known is not None and keys[row.name] in known):
            continue
        if known is not None:
            known.add(keys[row.name])
        characters = len(texts.text(row.prompt)) + question + REPLY_CHARACTERS * len(heard)
        calls.append((model.author, characters, model.sampling.max_tokens))
    return calls


def _longest_lesson(view: MarketView) -> TradeOutcome:
    """Return a made-up closed call whose text in a prompt is about as long as any."""
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


def price_tokens(config: DeskConfig, tokens: dict[str, tuple[float, float]]) -> float | None:
    """Return the cost of prompt and completion tokens by model; None where a price is unknown."""
    if config.uses_only_rules:
        return 0.0
    total = 0.0
    free = {model.author for model in config.distinct_models if model.is_free}
    for model, (prompt, completion) in tokens.items():
        # A model that is never called needs no price.
        if model in free or not (prompt or completion):
            continue
        price = config.prices.get(model)
        if price is None:
            return None
        total += price.cost_usd(prompt, completion)
    return total

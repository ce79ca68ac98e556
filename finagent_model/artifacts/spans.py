"""A decision as a tree of spans, made after it from what it recorded: an agent's part in it, and
each call in that.

An agent's part begins when the last of those that it waits for has spoken, and a call when its
question was put: both are read off the conversation's own stamps, and nothing is measured again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from finagent_model.domain.decision import Decision, Turn
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.model_row import Price

RULES = "rules"
FACTS = (
    "symbol",
    "as_of",
    "action",
    "status",
    "model_used",
    "tokens",
    "cost_usd",
    "conversation_id",
    "model_uri",
    "fit_until",
    "evidence",
)
"""Of the signal: what a decision is looked up by."""
SAID = (
    "action",
    "confidence",
    "confidence_score",
    "reasoning",
    "suggested_entry_price",
    "suggested_stop_loss",
    "suggested_take_profit",
    "position_size_percent",
    "clamps",
    "warnings",
)
"""Of the signal: what came out."""


@dataclass(frozen=True)
class Span:
    """Something that took from `start` to `end`."""

    name: str
    kind: Literal["decision", "agent", "model", "rule"]
    """`model` and `rule` are calls: rules are never called a model."""
    start: datetime
    end: datetime
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why it came to nothing."""
    tokens: tuple[int, int] | None = None
    """Of prompts and completions: of a model's call, and of all in a decision."""
    cost_usd: tuple[float, float] | None = None
    """Of the same at list price; None where the decision's cost is unknown."""
    children: tuple[Span, ...] = ()


def decision_span(decision: Decision, config: DeskConfig) -> Span:
    """The whole decision, made by a desk of `config`."""
    signal, turns = decision.signal, decision.turns
    known = signal.model_dump(mode="json")
    prices = {} if signal.cost_usd is None else config.prices
    agents = _agents(turns, config, prices)
    calls = [call for agent in agents for call in agent.children]
    tokens = [call.tokens for call in calls if call.tokens]
    costs = [call.cost_usd for call in calls if call.cost_usd]
    start = turns[0].timestamp if turns else signal.generated_at
    return Span(
        name="decision",
        kind="decision",
        start=start,
        end=max(start, signal.generated_at, *(turn.timestamp for turn in turns)),
        inputs={"symbol": known["symbol"], "as_of": known["as_of"]},
        outputs={name: known[name] for name in SAID},
        facts={**{name: known[name] for name in FACTS}, "calls": decision.calls},
        failure=signal.reasoning if signal.status.is_failure else None,
        tokens=(sum(t[0] for t in tokens), sum(t[1] for t in tokens)),
        cost_usd=(sum(c[0] for c in costs), sum(c[1] for c in costs)) if costs else None,
        children=agents,
    )


def _agents(
    turns: Sequence[Turn], config: DeskConfig, prices: Mapping[str, Price]
) -> tuple[Span, ...]:
    """One span for each who speaks or is left out, in the order of their first turns."""
    if not turns:
        return ()
    question, waits = turns[0], {row.name: row.after for row in config.agents}
    ends = {turn.agent_name: turn.timestamp for turn in turns}
    spans = []
    for name in dict.fromkeys(turn.agent_name for turn in turns):
        own = [turn for turn in turns if turn.agent_name == name]
        if name == question.agent_name:
            continue  # the desk, who asks
        heard = [ends[other] for other in waits.get(name, ()) if other in ends]
        start = min(own[0].timestamp, max([question.timestamp, *heard]))
        spans.append(_agent(name, own, question, start, prices))
    return tuple(spans)


def _agent(
    name: str, own: Sequence[Turn], question: Turn, start: datetime, prices: Mapping[str, Price]
) -> Span:
    calls: list[Span] = []
    left_out: dict[str, str] = {}
    asked, since = [question.message_content], start
    for turn in own:
        if turn.message_type == "request":
            asked.append(turn.message_content)
        elif turn.message_type == "response":
            calls.append(_call(turn, asked, since, prices))
            asked = []
        else:
            left_out[turn.message_type] = turn.message_content
        since = turn.timestamp
    return Span(
        name=name,
        kind="agent",
        start=start,
        end=max(start, own[-1].timestamp),
        outputs=left_out or (calls[-1].outputs if calls else {}),
        failure=left_out.get("failed"),
        children=tuple(calls),
    )


def _call(reply: Turn, asked: Sequence[str], since: datetime, prices: Mapping[str, Price]) -> Span:
    tokens = (reply.prompt_tokens, reply.completion_tokens)
    price = prices.get(reply.model)
    is_model = reply.model != RULES
    return Span(
        name=reply.model,
        kind="model" if is_model else "rule",
        start=min(since, reply.timestamp),
        end=reply.timestamp,
        inputs={"messages": [{"role": "user", "content": text} for text in asked]},
        outputs={"messages": [{"role": "assistant", "content": reply.message_content}]},
        facts={"model": reply.model, "cached": reply.cached},
        tokens=tokens if is_model else None,
        cost_usd=_cost(tokens, price) if is_model and price else None,
    )


def _cost(tokens: tuple[int, int], price: Price) -> tuple[float, float]:
    return tokens[0] * price.prompt / 1e6, tokens[1] * price.completion / 1e6

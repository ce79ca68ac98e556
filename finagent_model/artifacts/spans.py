"""A decision as a tree of spans, made after it from the events that it recorded: each agent's part,
and in that each call to its model and each look-up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from finagent_model.domain.audit import Event
from finagent_model.domain.decision import Decision
from finagent_model.domain.model_row import Price

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
RULES = "rules"
BROKEN_OFF = "the decision was broken off before there was a reply"
ROLES = {
    "SystemMessage": "system",
    "UserMessage": "user",
    "AssistantMessage": "assistant",
    "FunctionExecutionResultMessage": "tool",
}


@dataclass(frozen=True)
class Span:
    """Something that took from `start` to `end`."""

    name: str
    kind: Literal["decision", "agent", "model", "rule", "tool"]
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


def decision_span(decision: Decision, prices: Mapping[str, Price]) -> Span:
    """The whole decision, by models at these prices."""
    signal, events = decision.signal, decision.events
    known = signal.model_dump(mode="json")
    agents = _agents(events, {} if signal.cost_usd is None else prices)
    calls = [call for agent in agents for call in agent.children]
    tokens = [call.tokens for call in calls if call.tokens]
    costs = [call.cost_usd for call in calls if call.cost_usd]
    start = events[0].at if events else signal.generated_at
    return Span(
        name="decision",
        kind="decision",
        start=start,
        end=max([start, signal.generated_at, *(event.at for event in events)]),
        inputs={"symbol": known["symbol"], "as_of": known["as_of"]},
        outputs={name: known[name] for name in SAID},
        facts={**{name: known[name] for name in FACTS}, "calls": decision.calls},
        failure=signal.reasoning if signal.status.is_failure else None,
        tokens=(sum(t[0] for t in tokens), sum(t[1] for t in tokens)),
        cost_usd=(sum(c[0] for c in costs), sum(c[1] for c in costs)) if costs else None,
        children=agents,
    )


def _agents(events: Sequence[Event], prices: Mapping[str, Price]) -> tuple[Span, ...]:
    """One for each who speaks or is left out, in the order of their first events."""
    return tuple(
        _agent(name, [event for event in events if event.agent == name], prices, events[-1].at)
        for name in dict.fromkeys(event.agent for event in events if event.agent)
    )


def _agent(name: str, own: Sequence[Event], prices: Mapping[str, Price], ended: datetime) -> Span:
    children: list[Span] = []
    request: Event | None = None
    tool: Event | None = None
    retries: list[str] = []
    facts: dict[str, Any] = {}
    failure = None
    for event in own:
        body = event.body
        if event.kind == "request":
            request, retries = event, []
        elif event.kind == "retry":
            retries.append(body["why"])
        elif event.kind == "reply" and request:
            children.append(_call(request, event, retries, prices))
            request = None
        elif event.kind == "tool_call":
            tool = event
        elif event.kind == "tool_result" and tool:
            children.append(_tool(tool, event))
        elif event.kind == "skipped":
            facts["skipped"] = body["why"]
        elif event.kind == "failed":
            failure = f"{body['status']}: {body['reason']}"
            if request:
                children.append(_unanswered(request, event.at, retries, failure))
                request = None
    if request:
        children.append(_unanswered(request, ended, retries, BROKEN_OFF))
    return Span(
        name=name,
        kind="agent",
        start=own[0].at,
        end=max([own[-1].at, *(child.end for child in children)]),
        outputs=children[-1].outputs if children else facts,
        facts=facts,
        failure=failure,
        children=tuple(children),
    )


def _call(
    request: Event, reply: Event, retries: Sequence[str], prices: Mapping[str, Price]
) -> Span:
    body, model = reply.body, reply.body["model"]
    tokens, price = (body["tokens"][0], body["tokens"][1]), prices.get(model)
    said: dict[str, Any] = {"role": "assistant", "content": body["text"]}
    if body["tool_calls"]:
        said["tool_calls"] = [_tool_call(*call) for call in body["tool_calls"]]
    return Span(
        name=model,
        kind="rule" if model == RULES else "model",
        start=request.at,
        end=reply.at,
        inputs=_asked(request),
        outputs={"messages": [said]},
        facts={
            "model": model,
            "cached": body["cached"],
            "finish_reason": body["finish_reason"],
            "retries": list(retries),
        },
        tokens=None if model == RULES else tokens,
        cost_usd=_cost(tokens, price) if price and model != RULES else None,
    )


def _unanswered(request: Event, until: datetime, retries: Sequence[str], why: str) -> Span:
    model = request.body.get("model") or RULES
    return Span(
        name=model,
        kind="rule" if model == RULES else "model",
        start=request.at,
        end=until,
        inputs=_asked(request),
        facts={"model": model, "retries": list(retries)},
        failure=why,
    )


def _tool(call: Event, result: Event) -> Span:
    found = result.body
    return Span(
        name=call.body["name"],
        kind="tool",
        start=call.at,
        end=result.at,
        inputs={"arguments": call.body["text"]},
        outputs={"content": found["text"]},
        failure=found["text"] if found["error"] else None,
    )


def _asked(request: Event) -> dict[str, Any]:
    """The messages in the form that MLflow shows as a chat."""
    return {
        "messages": [
            {"role": ROLES.get(m["type"], "user"), "content": _text(m["content"])}
            | ({"name": m["source"]} if "source" in m else {})
            for m in request.body["messages"]
        ]
    }


def _text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _tool_call(number: str, name: str, arguments: str) -> dict[str, Any]:
    called = {"name": name, "arguments": arguments}
    return {"id": number, "type": "function", "function": called}


def _cost(tokens: tuple[int, int], price: Price) -> tuple[float, float]:
    return tokens[0] * price.prompt / 1e6, tokens[1] * price.completion / 1e6

"""Convert a decision into a tree of spans: the decision, its agents, their model and tool calls.

The tree is built afterwards, from the events that the decision recorded; nothing is measured here
and nothing depends on MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from finagent_model.config.roster import Price
from finagent_model.decision.decision import Decision, Event

LOOKUP_FIELDS = (
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
    "knowledge_cutoff",
)
"""Fields of the signal by which a decision is looked up."""
OUTPUT_FIELDS = (
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
"""Fields of the signal that are the decision's output."""
RULES = "rules"
NO_REPLY = "the decision was broken off before there was a reply"
ROLES = {
    "SystemMessage": "system",
    "UserMessage": "user",
    "AssistantMessage": "assistant",
    "FunctionExecutionResultMessage": "tool",
}


@dataclass(frozen=True)
class Span:
    """A step of a decision that took from `start` to `end`, and the steps within it."""

    name: str
    kind: Literal["decision", "agent", "model", "rule", "tool"]
    """`model` and `rule` are calls of an agent; fixed rules are never called a model."""
    start: datetime
    end: datetime
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why the step failed; None if it did not."""
    tokens: tuple[int, int] | None = None
    """Prompt and completion tokens: of a model's call, or of all calls in a decision."""
    cost_usd: tuple[float, float] | None = None
    """Cost of the prompt and completion tokens at list price; None where it is unknown."""
    children: tuple[Span, ...] = ()


def decision_span(decision: Decision, prices: Mapping[str, Price]) -> Span:
    """Return the root span of a decision, with costs at `prices` (by model)."""
    signal, events = decision.signal, decision.events
    values = signal.model_dump(mode="json")
    # If the price of one model is unknown, so is the decision's cost: then no span shows one.
    agents = _agent_spans(events, {} if signal.cost_usd is None else prices)
    calls = [call for agent in agents for call in agent.children]
    tokens = [call.tokens for call in calls if call.tokens]
    costs = [call.cost_usd for call in calls if call.cost_usd]
    start = events[0].at if events else signal.generated_at
    return Span(
        name="decision",
        kind="decision",
        start=start,
        end=max([start, signal.generated_at, *(event.at for event in events)]),
        inputs={"symbol": values["symbol"], "as_of": values["as_of"]},
        outputs={name: values[name] for name in OUTPUT_FIELDS},
        attributes={**{name: values[name] for name in LOOKUP_FIELDS}, "calls": decision.calls},
        failure=signal.reasoning if signal.status.is_failure else None,
        tokens=(sum(t[0] for t in tokens), sum(t[1] for t in tokens)),
        cost_usd=(sum(c[0] for c in costs), sum(c[1] for c in costs)) if costs else None,
        children=agents,
    )


def _agent_spans(events: Sequence[Event], prices: Mapping[str, Price]) -> tuple[Span, ...]:
    """Return a span for each agent that spoke or was skipped, in the order of first events."""
    return tuple(
        _agent_span(name, [each for each in events if each.agent == name], prices, events[-1].at)
        for name in dict.fromkeys(event.agent for event in events if event.agent)
    )


def _agent_span(
    name: str, events: Sequence[Event], prices: Mapping[str, Price], decision_end: datetime
) -> Span:
    """Return the span of one agent from its own events, in their order."""
    children: list[Span] = []
    request: Event | None = None
    tool_call: Event | None = None
    retries: list[str] = []
    attributes: dict[str, Any] = {}
    failure = None
    for event in events:
        body = event.body
        if event.kind == "request":
            request, retries = event, []
        elif event.kind == "retry":
            retries.append(body["why"])
        elif event.kind == "reply" and request:
            children.append(_call_span(request, event, retries, prices))
            request = None
        elif event.kind == "tool_call":
            tool_call = event
        elif event.kind == "tool_result" and tool_call:
            children.append(_tool_span(tool_call, event))
        elif event.kind == "skipped":
            attributes["skipped"] = body["why"]
        elif event.kind == "failed":
            failure = f"{body['status']}: {body['reason']}"
            if request:
                children.append(_failed_call_span(request, event.at, retries, failure))
                request = None
    # A request without an end was cut off together with the whole decision.
    if request:
        children.append(_failed_call_span(request, decision_end, retries, NO_REPLY))
    return Span(
        name=name,
        kind="agent",
        start=events[0].at,
        end=max([events[-1].at, *(child.end for child in children)]),
        outputs=children[-1].outputs if children else attributes,
        attributes=attributes,
        failure=failure,
        children=tuple(children),
    )


def _call_span(
    request: Event, reply: Event, retries: Sequence[str], prices: Mapping[str, Price]
) -> Span:
    body, model = reply.body, reply.body["model"]
    tokens, price = (body["tokens"][0], body["tokens"][1]), prices.get(model)
    message: dict[str, Any] = {"role": "assistant", "content": body["text"]}
    # MLflow shows a chat in OpenAI's form.
    if body["tool_calls"]:
        message["tool_calls"] = [_chat_tool_call(*call) for call in body["tool_calls"]]
    return Span(
        name=model,
        kind="rule" if model == RULES else "model",
        start=request.at,
        end=reply.at,
        inputs=_chat_messages(request),
        outputs={"messages": [message]},
        attributes={
            "model": model,
            "cached": body["cached"],
            "finish_reason": body["finish_reason"],
            "retries": list(retries),
        },
        # None and not 0: rules are no model whose tokens could be counted.
        tokens=None if model == RULES else tokens,
        cost_usd=_call_cost(tokens, price) if price and model != RULES else None,
    )


def _failed_call_span(request: Event, end: datetime, retries: Sequence[str], failure: str) -> Span:
    model = request.body.get("model") or RULES
    return Span(
        name=model,
        kind="rule" if model == RULES else "model",
        start=request.at,
        end=end,
        inputs=_chat_messages(request),
        attributes={"model": model, "retries": list(retries)},
        failure=failure,
    )


def _tool_span(call: Event, result: Event) -> Span:
    text = result.body["text"]
    return Span(
        name=call.body["name"],
        kind="tool",
        start=call.at,
        end=result.at,
        inputs={"arguments": call.body["text"]},
        outputs={"content": text},
        failure=text if result.body["error"] else None,
    )


def _chat_messages(request: Event) -> dict[str, Any]:
    """Return a request's messages in the form that MLflow's page shows as a chat."""
    return {
        "messages": [
            {"role": ROLES.get(m["type"], "user"), "content": _as_text(m["content"])}
            | ({"name": m["source"]} if "source" in m else {})
            for m in request.body["messages"]
        ]
    }


def _as_text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _chat_tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _call_cost(tokens: tuple[int, int], price: Price) -> tuple[float, float]:
    """Return the cost of prompt and completion in USD; prices are per million tokens."""
    return tokens[0] * price.prompt / 1e6, tokens[1] * price.completion / 1e6

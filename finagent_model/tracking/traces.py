"""A decision as a tree of spans, made after it from the events that it recorded: each agent's part,
and in that each call to its model and each look-up.

Traces of decisions in MLflow, for looking at: one a decision, made after it from its record.

A thread of their own writes them, so that no decision waits for a store that is slow or down: what
can't be written is worth a warning. They are written whole, past MLflow's tracer, which loses spans
in silence: it is switched off for the whole process while any thread loads a model, and what it
sends piecemeal may be lost or summed up in part. All text is without our keys. Nothing here is
imported unless FINAGENT_TRACING asks for it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from mlflow.entities import Span as MlflowSpan
from mlflow.entities import SpanType, TraceInfo, TraceLocation, TraceState
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import (
    TRACE_SCHEMA_VERSION,
    TRACE_SCHEMA_VERSION_KEY,
    CostKey,
    SpanAttributeKey,
    TokenUsageKey,
    TraceMetadataKey,
    TraceTagKey,
)

from finagent_model._redact import make_redactor
from finagent_model.config.roster import Price
from finagent_model.decision.decision import Decision, Event
from finagent_model.decision.signal import TradingSignal
from finagent_model.settings import Settings
from finagent_model.tracking.prompt_registry import link_to_trace
from finagent_model.tracking.runs import RunLog, experiment_id, usable_store

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
SAID_ATTRIBUTE = (
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
        outputs={name: known[name] for name in SAID_ATTRIBUTE},
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
        cost_usd=_call_cost(tokens, price) if price and model != RULES else None,
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


def _call_cost(tokens: tuple[int, int], price: Price) -> tuple[float, float]:
    return tokens[0] * price.prompt / 1e6, tokens[1] * price.completion / 1e6


log = logging.getLogger(__name__)
WAITING = 1000
"""Decisions that may wait to be written; a trace that comes on top is left out."""
TYPES = {
    "decision": SpanType.AGENT,
    "agent": SpanType.AGENT,
    "model": SpanType.CHAT_MODEL,
    "rule": SpanType.CHAIN,
    "tool": SpanType.TOOL,
}
Redact = Callable[[str], str]


def trace(
    decision: Decision,
    prices: Mapping[str, Price],
    settings: Settings,
    run_id: str | None = None,
    model_id: str | None = None,
) -> None:
    """Leave a trace of `decision`, by models at these prices, beside the run that records it and
    the logged model that decided, and linked to the prompts that this one names.

    Returns at once and never raises.
    """
    redact = make_redactor(settings.secrets)

    def work() -> None:
        try:
            span = decision_span(decision, prices)
            _write(span, decision.signal, redact, run_id, model_id)
        except Exception as error:  # it was for looking at; the decision stands
            log.warning("no trace of %s: %s", decision.signal.symbol, redact(str(error)))

    try:
        _WRITER.take(work)
    except RuntimeError as error:
        log.warning("no trace of %s: %s", decision.signal.symbol, error)


def flush() -> None:
    """Wait until everything is written that was handed over. A process that ends does so too."""
    _WRITER.wait()


class _Writer:
    """One thread, begun when it is needed."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "finagent-traces")
        self._room = threading.BoundedSemaphore(WAITING)

    def take(self, work: Callable[[], None]) -> None:
        """Raises RuntimeError if too much waits already, or the process is ending."""
        if not self._room.acquire(blocking=False):
            raise RuntimeError(f"{WAITING} wait to be written")
        self._thread.submit(work).add_done_callback(lambda done: self._room.release())

    def wait(self) -> None:
        self._thread.submit(lambda: None).result()


_WRITER = _Writer()


def _afresh() -> None:
    """A forked process has none of its parent's threads."""
    global _WRITER
    _WRITER = _Writer()


os.register_at_fork(after_in_child=_afresh)


def _write(
    root: Span, signal: TradingSignal, redact: Redact, run_id: str | None, model_id: str | None
) -> None:
    trace = os.urandom(16)
    spans = list(_flat(root, trace, None, redact))
    prompt, completion = root.tokens or (0, 0)
    metadata = {
        TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION),
        TraceMetadataKey.TOKEN_USAGE: json.dumps(_tokens(prompt, completion)),
    }
    if root.cost_usd:
        metadata[TraceMetadataKey.COST] = json.dumps(_cost_attributes(root.cost_usd))
    if run_id:
        metadata[TraceMetadataKey.SOURCE_RUN] = run_id
    if model_id:
        metadata[TraceMetadataKey.MODEL_ID] = model_id
    version = {"finagent.model_uri": signal.model_uri} if signal.model_uri else {}
    with usable_store():
        experiment = RunLog(run_id).experiment_id if run_id else experiment_id()
        info = TraceInfo(
            trace_id=_name(trace),
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=_ns(root.start) // 10**6,
            execution_duration=(_ns(root.end) - _ns(root.start)) // 10**6,
            state=TraceState.OK if root.failure is None else TraceState.ERROR,
            request_preview=f"{signal.symbol} as of {signal.as_of:%Y-%m-%d}",
            response_preview=f"{signal.action}, confidence {signal.confidence_score:g}",
            trace_metadata=metadata,
            tags={
                TraceTagKey.TRACE_NAME: root.name,
                "finagent.symbol": signal.symbol,
                "finagent.status": signal.status.value,
                "finagent.signal_id": signal.signal_id,
                **version,
            },
        )
        client = TracingClient()
        client.log_spans(experiment, spans)
        client.start_trace(info)
    if model_id:
        try:
            link_to_trace(_name(trace), model_id)
        except MlflowException as error:
            log.warning("the trace of %s names no prompts: %s", signal.symbol, redact(str(error)))


def _flat(span: Span, trace: bytes, parent: bytes | None, redact: Redact) -> Iterator[MlflowSpan]:
    """The span and all below it, as MLflow has them."""
    own = os.urandom(8)
    attributes = {
        SpanAttributeKey.REQUEST_ID: _name(trace),
        SpanAttributeKey.SPAN_TYPE: TYPES[span.kind],
        SpanAttributeKey.INPUTS: _clean(span.inputs, redact),
        SpanAttributeKey.OUTPUTS: _clean(span.outputs, redact),
        **_clean(span.facts, redact),
        **_usage(span),
    }
    why = None if span.failure is None else redact(span.failure)
    yield MlflowSpan.from_dict(
        {
            "trace_id": b64encode(trace).decode(),
            "span_id": b64encode(own).decode(),
            "parent_span_id": b64encode(parent).decode() if parent else None,
            "name": span.name,
            "start_time_unix_nano": _ns(span.start),
            "end_time_unix_nano": _ns(span.end),
            "status": {
                "code": "STATUS_CODE_OK" if why is None else "STATUS_CODE_ERROR",
                "message": why or "",
            },
            # What MLflow's page marks in red.
            "events": [] if why is None else [_event(why, span.end)],
            "attributes": {k: json.dumps(v) for k, v in attributes.items() if v is not None},
        }
    )
    for child in span.children:
        yield from _flat(child, trace, own, redact)


def _event(why: str, at: datetime) -> dict[str, Any]:
    said = {"exception.type": "failed", "exception.message": why}
    return {"name": "exception", "time_unix_nano": _ns(at), "attributes": said}


def _usage(span: Span) -> dict[str, Any]:
    """What MLflow's pages count and show of a model's call. Without a price of ours it is not told
    the model, since it would look up one of its own.
    """
    if span.kind != "model" or span.tokens is None:
        return {}
    known: dict[str, Any] = {SpanAttributeKey.CHAT_USAGE: _tokens(*span.tokens)}
    if span.cost_usd:
        known[SpanAttributeKey.LLM_COST] = _cost_attributes(span.cost_usd)
        known[SpanAttributeKey.MODEL] = span.facts["model"]
    return known


def _tokens(prompt: int, completion: int) -> dict[str, int]:
    return {
        TokenUsageKey.INPUT_TOKENS: prompt,
        TokenUsageKey.OUTPUT_TOKENS: completion,
        TokenUsageKey.TOTAL_TOKENS: prompt + completion,
    }


def _cost_attributes(usd: tuple[float, float]) -> dict[str, float]:
    prompt, completion = usd
    return {
        CostKey.INPUT_COST: prompt,
        CostKey.OUTPUT_COST: completion,
        CostKey.TOTAL_COST: prompt + completion,
    }


def _clean(value: Any, redact: Redact) -> Any:
    """JSON-ready `value`, no secret in any text of it."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _clean(item, redact) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_clean(item, redact) for item in value]
    return value


def _name(trace: bytes) -> str:
    return f"tr-{trace.hex()}"


def _ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9 + at.microsecond * 1000

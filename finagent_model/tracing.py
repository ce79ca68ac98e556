"""Traces of decisions in MLflow, for looking at: one a decision, made after it from its record.

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
from datetime import datetime
from typing import Any

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

from finagent_model.artifacts.spans import Span, decision_span
from finagent_model.domain.decision import Decision
from finagent_model.domain.model_row import Price
from finagent_model.domain.redact import redactor
from finagent_model.domain.signal import TradingSignal
from finagent_model.prompt_versions import link_to_trace
from finagent_model.settings import Settings
from finagent_model.tracking import RunLog, experiment_id, usable_store

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
    redact = redactor(settings.secrets)

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
        metadata[TraceMetadataKey.COST] = json.dumps(_cost(root.cost_usd))
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
        known[SpanAttributeKey.LLM_COST] = _cost(span.cost_usd)
        known[SpanAttributeKey.MODEL] = span.facts["model"]
    return known


def _tokens(prompt: int, completion: int) -> dict[str, int]:
    return {
        TokenUsageKey.INPUT_TOKENS: prompt,
        TokenUsageKey.OUTPUT_TOKENS: completion,
        TokenUsageKey.TOTAL_TOKENS: prompt + completion,
    }


def _cost(usd: tuple[float, float]) -> dict[str, float]:
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

"""Write one MLflow trace per decision, for looking at; a failure is a warning, never an error.

A thread of its own writes them, so that no decision waits for a store that is slow or down. Traces
are written whole and past MLflow's tracer, all text without our keys. Nothing here is imported
unless FINAGENT_TRACING asks for it.
"""

# Why not MLflow's tracer: it is switched off for the whole process while any thread loads a model,
# and loses spans in silence; what it sends piecemeal may be lost or summed up in part.

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

from finagent_model._redact import make_redactor
from finagent_model.config.roster import Price
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import TradingSignal
from finagent_model.market.bars import show_as_of
from finagent_model.settings import Settings
from finagent_model.tracking._spans import Span, decision_span
from finagent_model.tracking.prompt_registry import link_prompts_to_trace
from finagent_model.tracking.runs import RunLog, experiment_id, raise_tracking_errors

log = logging.getLogger(__name__)
MAX_PENDING = 1000
"""Decisions that may wait to be written; a trace that comes on top is left out."""
SPAN_TYPES = {
    "decision": SpanType.AGENT,
    "agent": SpanType.AGENT,
    "model": SpanType.CHAT_MODEL,
    "rule": SpanType.CHAIN,
    "tool": SpanType.TOOL,
}
Redact = Callable[[str], str]


def trace_decision(
    decision: Decision,
    prices: Mapping[str, Price],
    settings: Settings,
    run_id: str | None = None,
    model_id: str | None = None,
) -> None:
    """Queue a trace of `decision`, with costs at `prices` (by model), to be written.

    It is linked to the run that records the decision, to the logged model that decided, and to the
    prompts of that model. Returns at once and never raises.
    """
    redact = make_redactor(settings.secrets)

    def work() -> None:
        try:
            span = decision_span(decision, prices)
            _write(span, decision.signal, redact, run_id, model_id)
        except Exception as error:  # a trace is for looking at; the decision stands without it
            log.warning("no trace of %s: %s", decision.signal.symbol, redact(str(error)))

    try:
        _WRITER.submit(work)
    except RuntimeError as error:
        log.warning("no trace of %s: %s", decision.signal.symbol, error)


def flush(timeout_s: float | None = None) -> None:
    """Wait until all queued traces are written, and warn where that takes longer than `timeout_s`.

    An interpreter that ends by itself waits for them too; one that a signal ends does not.
    """
    try:
        _WRITER.flush(timeout_s)
    except TimeoutError:
        log.warning("the last traces are lost: they are not written after %g s", timeout_s)


class _Writer:
    """Bounded queue with one thread, which starts when it is first needed."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "finagent-traces")
        self._slots = threading.BoundedSemaphore(MAX_PENDING)

    def submit(self, work: Callable[[], None]) -> None:
        """Queue `work`. Raises RuntimeError if the queue is full or the process is ending."""
        if not self._slots.acquire(blocking=False):
            raise RuntimeError(f"{MAX_PENDING} wait to be written")
        self._thread.submit(work).add_done_callback(lambda future: self._slots.release())

    def flush(self, timeout_s: float | None) -> None:
        self._thread.submit(lambda: None).result(timeout_s)


_WRITER = _Writer()


def _replace_writer() -> None:
    # A forked process has none of its parent's threads: the old queue would never be emptied.
    global _WRITER
    _WRITER = _Writer()


os.register_at_fork(after_in_child=_replace_writer)


def _write(
    root: Span, signal: TradingSignal, redact: Redact, run_id: str | None, model_id: str | None
) -> None:
    """Write the tree as one trace. Raises TrackingError where the store can't be used."""
    trace = os.urandom(16)
    spans = list(_mlflow_spans(root, trace, None, redact))
    with raise_tracking_errors():
        experiment = RunLog(run_id).experiment_id if run_id else experiment_id()
        info = _trace_info(root, trace, signal, experiment, run_id, model_id)
        client = TracingClient()
        client.log_spans(experiment, spans)
        client.start_trace(info)
    if model_id:
        try:
            link_prompts_to_trace(_trace_id(trace), model_id)
        except MlflowException as error:
            log.warning("the trace of %s names no prompts: %s", signal.symbol, redact(str(error)))


def _trace_info(
    root: Span,
    trace: bytes,
    signal: TradingSignal,
    experiment: str,
    run_id: str | None,
    model_id: str | None,
) -> TraceInfo:
    """Return MLflow's head of the trace: times, state, totals, links and tags."""
    prompt, completion = root.tokens or (0, 0)
    metadata = {
        TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION),
        TraceMetadataKey.TOKEN_USAGE: json.dumps(_token_usage(prompt, completion)),
    }
    if root.cost_usd:
        metadata[TraceMetadataKey.COST] = json.dumps(_cost_attributes(root.cost_usd))
    if run_id:
        metadata[TraceMetadataKey.SOURCE_RUN] = run_id
    if model_id:
        metadata[TraceMetadataKey.MODEL_ID] = model_id
    version = {"finagent.model_uri": signal.model_uri} if signal.model_uri else {}
    return TraceInfo(
        trace_id=_trace_id(trace),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=_to_ns(root.start) // 10**6,
        execution_duration=(_to_ns(root.end) - _to_ns(root.start)) // 10**6,
        state=TraceState.OK if root.failure is None else TraceState.ERROR,
        request_preview=f"{signal.symbol} as of {show_as_of(signal.as_of)}",
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


def _mlflow_spans(
    span: Span, trace: bytes, parent: bytes | None, redact: Redact
) -> Iterator[MlflowSpan]:
    """Yield the span and all below it as MLflow's spans, parents first."""
    span_id = os.urandom(8)
    attributes = {
        SpanAttributeKey.REQUEST_ID: _trace_id(trace),
        SpanAttributeKey.SPAN_TYPE: SPAN_TYPES[span.kind],
        SpanAttributeKey.INPUTS: _redact_all(span.inputs, redact),
        SpanAttributeKey.OUTPUTS: _redact_all(span.outputs, redact),
        **_redact_all(span.attributes, redact),
        **_usage_attributes(span),
    }
    failure = None if span.failure is None else redact(span.failure)
    yield MlflowSpan.from_dict(
        {
            "trace_id": b64encode(trace).decode(),
            "span_id": b64encode(span_id).decode(),
            "parent_span_id": b64encode(parent).decode() if parent else None,
            "name": span.name,
            "start_time_unix_nano": _to_ns(span.start),
            "end_time_unix_nano": _to_ns(span.end),
            "status": {
                "code": "STATUS_CODE_OK" if failure is None else "STATUS_CODE_ERROR",
                "message": failure or "",
            },
            # MLflow's page marks a span with an exception event in red.
            "events": [] if failure is None else [_exception_event(failure, span.end)],
            "attributes": {k: json.dumps(v) for k, v in attributes.items() if v is not None},
        }
    )
    for child in span.children:
        yield from _mlflow_spans(child, trace, span_id, redact)


def _exception_event(message: str, at: datetime) -> dict[str, Any]:
    attributes = {"exception.type": "failed", "exception.message": message}
    return {"name": "exception", "time_unix_nano": _to_ns(at), "attributes": attributes}


def _usage_attributes(span: Span) -> dict[str, Any]:
    """Return the tokens, cost and model of a model's call, which MLflow's pages add up and show."""
    if span.kind != "model" or span.tokens is None:
        return {}
    usage: dict[str, Any] = {SpanAttributeKey.CHAT_USAGE: _token_usage(*span.tokens)}
    if span.cost_usd:
        usage[SpanAttributeKey.LLM_COST] = _cost_attributes(span.cost_usd)
        # Only with a cost of ours: MLflow would look up a price of its own for the model.
        usage[SpanAttributeKey.MODEL] = span.attributes["model"]
    return usage


def _token_usage(prompt: int, completion: int) -> dict[str, int]:
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


def _redact_all(value: Any, redact: Redact) -> Any:
    """Return `value`, ready for JSON, with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redact_all(item, redact) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_redact_all(item, redact) for item in value]
    return value


def _trace_id(trace: bytes) -> str:
    return f"tr-{trace.hex()}"


def _to_ns(at: datetime) -> int:
    # In whole numbers: nanoseconds since 1970 do not fit into a float's 53 bits.
    return int(at.timestamp()) * 10**9 + at.microsecond * 1000

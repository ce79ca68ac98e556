"""One trace a decision in MLflow, where it is asked for: times, tokens, cost, and never a key."""

from __future__ import annotations

import json
import logging
import sys
import threading
from dataclasses import replace
from typing import Any

import mlflow
import pytest
from mlflow.entities import Trace
from mlflow.tracking import MlflowClient

from finagent_model.decision.decision import Decision, Event
from finagent_model.settings import Settings
from finagent_model.tracking import traces as tracing
from finagent_model.tracking.queries import find_trace_ids, read_run
from finagent_model.tracking.runs import open_run
from support.decisions import ASKED, PRICES, asked, at, decision, events, replied, signal
from support.places import AS_OF, TESTS, Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
KEY = "sk-test-very-secret"
ON = Settings.load({"FINAGENT_TRACING": "true", "OPENAI_API_KEY": KEY})


def traces(experiment: str = "finagent") -> list[Trace]:
    row = mlflow.get_experiment_by_name(experiment)
    if row is None:
        return []
    client = MlflowClient()
    return list(client.search_traces(locations=[row.experiment_id]))


def traced(decided: Decision, run_id: str | None = None) -> Trace:
    tracing.trace_decision(decided, PRICES, ON, run_id)
    tracing.flush()
    [trace] = traces()
    return trace


def spans(trace: Trace) -> dict[str, Any]:
    """By name; of those with the same name the first."""
    return {span.name: span for span in reversed(trace.data.spans)}


def ns(seconds: float) -> int:
    return round(at(seconds).timestamp() * 1e6) * 1000


def test_trace_has_span_for_decision_agents_calls(place: Place) -> None:
    trace = traced(decision())
    by_id = {span.span_id: span for span in trace.data.spans}
    rows = [
        (span.name, span.span_type, by_id[span.parent_id].name if span.parent_id else None)
        for span in sorted(trace.data.spans, key=lambda s: (s.start_time_ns, s.end_time_ns))
    ]
    assert sorted(rows, key=str) == sorted(
        [
            ("decision", "AGENT", None),
            ("NewsAnalyst", "AGENT", "decision"),
            ("TechnicalAnalyst", "AGENT", "decision"),
            ("RiskManager", "AGENT", "decision"),
            ("Executor", "AGENT", "decision"),
            ("stub-1", "CHAT_MODEL", "TechnicalAnalyst"),
            ("stub-1", "CHAT_MODEL", "TechnicalAnalyst"),
            ("indicator", "TOOL", "TechnicalAnalyst"),
            ("stub-1", "CHAT_MODEL", "RiskManager"),
            ("stub-1", "CHAT_MODEL", "Executor"),
        ],
        key=str,
    )


def test_trace_times_are_those_of_conversation(place: Place) -> None:
    trace = traced(decision())
    named = spans(trace)
    assert (named["decision"].start_time_ns, named["decision"].end_time_ns) == (ns(0), ns(7))
    assert (named["Executor"].start_time_ns, named["Executor"].end_time_ns) == (ns(5), ns(6.5))
    assert trace.info.request_time == int(ASKED.timestamp() * 1000)
    assert trace.info.execution_duration == 7000


def test_trace_usage_is_where_mlflow_counts_it(place: Place) -> None:
    trace = traced(decision())
    used = {"input_tokens": 600, "output_tokens": 60, "total_tokens": 660}
    assert trace.info.token_usage == used
    assert trace.info.cost == pytest.approx(
        {"input_cost": 600e-6, "output_cost": 240e-6, "total_cost": 840e-6}
    )
    call = next(span for span in trace.data.spans if span.get_attribute("cached") is not None)
    assert set(call.get_attribute("mlflow.chat.tokenUsage")) == set(used)
    assert call.get_attribute("cached") in (True, False)
    root = spans(trace)["decision"]
    facts = ("symbol", "status", "action", "model_used", "tokens", "cost_usd")
    assert [root.get_attribute(name) for name in facts] == [
        "GOOG",
        "ok",
        "BUY",
        "stub-1",
        660,
        0.00088,
    ]


def test_trace_unknown_price_is_not_looked_up_by_mlflow(place: Place) -> None:
    """`gpt-4o` is in MLflow's own list of prices."""
    spoken = tuple(
        replace(e, body={**e.body, "model": "gpt-4o"}) if "model" in e.body else e for e in events()
    )
    trace = traced(replace(decision(cost_usd=None), events=spoken))
    assert trace.info.token_usage["total_tokens"] == 660
    assert trace.info.cost is None
    assert len(trace.data.spans) == 10


def test_trace_of_failure_is_error_with_reason(place: Place) -> None:
    named = spans(traced(decision()))
    assert named["RiskManager"].status.status_code == "ERROR"
    assert named["RiskManager"].status.description == "model_error: no reply within 45 s"
    [event] = named["RiskManager"].events
    assert (event.name, event.attributes["exception.message"]) == (
        "exception",
        "model_error: no reply within 45 s",
    )
    assert named["decision"].status.status_code == "OK"
    assert named["decision"].events == []


def test_trace_is_linked_to_its_run(place: Place) -> None:
    run = open_run("infer GOOG", {})
    trace = traced(decision(), run.run_id)
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run.run_id
    assert trace.info.tags["finagent.symbol"] == "GOOG"
    assert trace.info.experiment_id == run.experiment_id


def test_trace_of_unknown_model_links_no_prompts(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    tracing.trace_decision(decision(), PRICES, ON, model_id="m-elsewhere")
    tracing.flush()
    [trace] = traces()
    assert trace.info.trace_metadata["mlflow.modelId"] == "m-elsewhere"
    assert "mlflow.linkedPrompts" not in trace.info.tags
    assert caplog.text == ""


def test_trace_redacts_echoed_keys(place: Place) -> None:
    echoed = f"AuthenticationError: Incorrect API key provided: {KEY}"
    recorded = (
        Event("question", at(0), "", {"text": f"What is {KEY}?"}),
        asked("TechnicalAnalyst", 0, {"type": "UserMessage", "content": KEY, "source": "desk"}),
        replied("TechnicalAnalyst", 1, f'{{"summary": "{KEY}"}}', (1, 1)),
        asked("RiskManager", 1),
        Event("retry", at(2), "RiskManager", {"attempt": 1, "why": echoed, "pause_s": 1}),
        Event("failed", at(2), "RiskManager", {"status": "model_error", "reason": echoed}),
    )
    failed = {"status": "model_error", "action": "HOLD", "confidence": "LOW"}
    failed_signal = signal(**failed, confidence_score=0, reasoning=echoed, warnings=(echoed,))
    trace = traced(Decision(failed_signal, events=recorded))
    assert "[redacted: key]" in spans(trace)["decision"].status.description
    assert KEY not in trace.to_json()
    for path in place.folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_traces_of_concurrent_decisions_are_whole(place: Place) -> None:
    def some(number: int) -> None:
        for i in range(5):
            tracing.trace_decision(decision(conversation_id=f"{number}-{i}"), PRICES, ON)

    threads = [threading.Thread(target=some, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracing.flush()
    written = traces()
    assert len(written) == 20
    assert {len(trace.data.spans) for trace in written} == {10}
    assert {trace.info.cost["total_cost"] for trace in written} == {
        written[0].info.cost["total_cost"]
    }


def test_flush_waits_no_longer_than_it_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    monkeypatch.setattr(tracing, "_write", lambda *_: may_write.wait())
    tracing.trace_decision(decision(), PRICES, ON)
    tracing.flush(0.01)
    assert caplog.messages == ["the last traces are lost: they are not written after 0.01 s"]
    may_write.set()
    tracing.flush()


@pytest.mark.parametrize("uri", ["sqlite:////proc/no/mlflow.db", "http://me:pass-word@127.0.0.1:9"])
def test_trace_to_unavailable_store_is_only_a_warning(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(uri)
    tracing.trace_decision(decision(), PRICES, ON)
    tracing.flush()
    [warning] = [r for r in caplog.records if r.name == "finagent_model.tracking.traces"]
    assert warning.levelno == logging.WARNING
    assert "no trace of GOOG: the MLflow store" in warning.getMessage()
    assert "pass-word" not in caplog.text


def test_trace_queue_overflow_is_only_a_warning(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MAX_PENDING", 2)
    monkeypatch.setattr(tracing, "_WRITER", tracing._Writer())
    gate = threading.Event()
    monkeypatch.setattr(tracing, "_write", lambda *given: gate.wait())
    for _ in range(3):
        tracing.trace_decision(decision(), PRICES, ON)
    assert "no trace of GOOG: 2 wait to be written" in caplog.text
    gate.set()
    tracing.flush()


def test_trace_is_written_after_fork(place: Place) -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from support.decisions import PRICES, decision
from finagent_model.tracking import traces as tracing
from finagent_model.settings import Settings
tracing._WRITER.submit(lambda: None)
child = os.fork()
tracing.trace_decision(decision(), PRICES, Settings.load())
tracing.flush()
if child:
    os._exit(os.waitpid(child, 0)[1])
os._exit(0)
"""
    done = place.run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert len(traces()) == 2


def script_of(place: Place) -> str:
    desk = place.folder / "desk.yaml"
    desk.write_text("client: rules\n")
    return f"""
import sys
from finagent_model.cli import app
command = ["predict", "FB", "--as-of", {AS_OF!r}, "--config", {str(desk)!r}]
sys.stdout, stdout = sys.stderr, sys.stdout
app(command, standalone_mode=False)
sys.stdout = stdout
print([name for name in ("mlflow", "finagent_model.tracking.traces") if name in sys.modules])
"""


def test_tracing_off_imports_nothing(place: Place) -> None:
    done = place.run(sys.executable, "-c", script_of(place))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_trace_is_written_before_process_exit(place: Place) -> None:
    done = place.run(sys.executable, "-c", script_of(place), FINAGENT_TRACING="true")
    assert done.returncode == 0, done.stderr
    [trace] = traces()
    assert trace.info.tags["finagent.symbol"] == "FB"
    assert len(trace.data.spans) == 8
    assert "Traceback" not in done.stderr


def test_tracing_every_door_leaves_one_trace(trained: Place) -> None:
    script = f"""
import json, sys
import mlflow
import finagent_model
from finagent_model.cli import app
uri = "models:/finagent@champion"
began = []
from mlflow.tracing.client import TracingClient
plain = TracingClient.log_spans
def counted(self, experiment, spans):
    began.append(len(spans))
    return plain(self, experiment, spans)
TracingClient.log_spans = counted
model = mlflow.pyfunc.load_model(uri)
model.predict([{{"symbol": "FB", "as_of": "{AS_OF}"}}] * 2)
finagent_model.infer("FB", "{AS_OF}", mode="live")
app(["predict", "FB", "--as-of", "{AS_OF}", "--mode", "live", "--log"], standalone_mode=False)
if "finagent_model.tracking.traces" in sys.modules:
    sys.modules["finagent_model.tracking.traces"].flush()
print(json.dumps([began, "finagent_model.tracking.traces" in sys.modules]))
"""
    off = trained.run(sys.executable, "-c", script)
    assert off.returncode == 0, off.stderr
    assert json.loads(off.stdout.splitlines()[-1]) == [[], False]
    on = trained.run(sys.executable, "-c", script, FINAGENT_TRACING="1")
    assert on.returncode == 0, on.stderr
    assert json.loads(on.stdout.splitlines()[-1]) == [[8] * 4, True]
    mlflow.set_tracking_uri(trained.env["MLFLOW_TRACKING_URI"])
    written = traces()
    assert len(written) == 4
    linked = {t.info.trace_metadata.get("mlflow.sourceRun") for t in written}
    assert len(linked - {None}) == 2
    prompts = [json.loads(t.info.tags["mlflow.linkedPrompts"]) for t in written]
    assert {each["name"] for each in prompts[0]} > {"finagent.executor", "finagent.technical"}
    assert all(each == prompts[0] for each in prompts)
    assert {t.info.tags["finagent.model_uri"] for t in written} == {"models:/finagent/1"}
    assert len({t.info.tags["finagent.signal_id"] for t in written}) == 1
    [model_id] = {t.info.trace_metadata["mlflow.modelId"] for t in written}
    assert MlflowClient().get_logged_model(model_id).source_run_id
    for run_id in linked - {None}:
        assert len(find_trace_ids(read_run(str(run_id)))) == 1

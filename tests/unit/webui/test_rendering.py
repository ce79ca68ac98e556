"""Rows and replies that nobody of ours wrote: each page shows what it can, and stays up."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from finagent_model.evaluation.gate import GateReport
from finagent_model.evaluation.memory import MemorySplit
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import Artifact, NewArtifact
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.webui._conversation import Message, SignalRow, messages_from_rows
from finagent_model.webui._rendering import (
    MAX_JSON_DEPTH,
    Renderer,
    format_day,
    format_json,
    format_measure,
    format_number,
    format_percent,
)
from support.gate_cases import graded
from support.pages import FAILED, client, settings, write

pytestmark = pytest.mark.usefixtures("no_mlflow")
ROW: dict[str, Any] = {"name": "theirs", "type": "signal", "symbol": "GOOG"}
HUGE = 10**400
DEEP = "[" * 5000


def row(**changes: Any) -> Artifact:
    given = {**ROW, "id": 1, "created_at": "2026-01-01T00:00:00Z", "metadata": {}, **changes}
    return Artifact.model_validate(given)


def sql(known: Settings, statement: str) -> None:
    with Database.from_settings(known).transaction() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    "said",
    [
        {"suggested_entry_price": HUGE, "r_multiple": HUGE, "tokens": HUGE, "cost_usd": HUGE},
        {"key_factors": 5, "clamps": {"a": 1}, "fit_symbols": 5, "warnings": True},
        {"key_factors": [1, None, ["x"]], "evidence": {}, "reasoning": [], "fit_until": {}},
        {"evidence": [], "model_uri": 3, "run_id": [], "conversation_id": {}, "model_used": 1},
        {"confidence_score": "high", "raw_confidence_score": HUGE, "calibrated": "yes"},
        {"suggested_stop_loss": True, "support_level": "low", "position_size_percent": []},
    ],
    ids=["huge", "no lists", "other lists", "no texts", "no confidence", "no prices"],
)
def test_pages_survive_foreign_signal_data(
    known: Settings, pages: TestClient, said: dict[str, Any]
) -> None:
    # Not over REST, which refuses a number that no float holds: another system wrote the row.
    new = NewArtifact.model_validate(ROW | {"signal_data": said})
    ArtifactStore(Database.from_settings(known)).add(new)
    for path in ("/", "/signals", "/signals?group=execution", "/signals/1"):
        answer = pages.get(path)
        assert answer.status_code == 200, path
        assert len(answer.text) < 20_000, path


@pytest.mark.parametrize("column", ["signal_data", "artifact_metadata"])
@pytest.mark.parametrize("value", ["[1]", '"text"', "5"])
def test_pages_survive_column_without_object(
    known: Settings, pages: TestClient, column: str, value: str
) -> None:
    write(known, 1)
    sql(known, f"update artifacts set {column} = '{value}'")
    for path in ("/", "/signals", "/signals?group=execution", "/signals/1"):
        assert pages.get(path).status_code == 200, path


def test_signal_row_text_instead_of_list() -> None:
    said = SignalRow.from_artifact(
        row(signal_data={"key_factors": "one", "warnings": ["a", 2, "b"]})
    )
    assert said.texts("key_factors") == ("one",)
    assert said.texts("warnings") == ("a", "b")
    assert said.texts("clamps") == ()


@pytest.mark.parametrize(
    ("changes", "confidence"),
    [
        ({"confidence": 0.7}, 70),
        ({"confidence": 0.7, "signal_data": {"confidence_score": 60}}, 60),
        ({"confidence": None}, None),
        ({"confidence": 0.7, "metadata": {"status": "model_error"}}, None),
    ],
)
def test_signal_row_confidence_on_every_page(
    pages: TestClient, changes: dict[str, Any], confidence: float | None
) -> None:
    assert SignalRow.from_artifact(row(**changes)).confidence == confidence
    assert pages.post("/api/artifacts", json=ROW | changes).status_code == 201
    if confidence is not None:
        assert f'odds">{confidence}<' in pages.get("/signals").text
        assert f"<dd>{confidence}.0 " in pages.get("/signals/1").text


@pytest.mark.parametrize("cutoff", ["2025-03-31", "unknown"])
def test_signal_page_says_what_its_models_have_read(pages: TestClient, cutoff: str) -> None:
    said = {"signal_data": {"knowledge_cutoff": cutoff}}
    assert pages.post("/api/artifacts", json=ROW | said).status_code == 201
    assert f"<dt>Has read until</dt><dd>{cutoff}</dd>" in pages.get("/signals/1").text


def test_signal_page_without_cutoff_claims_nothing(pages: TestClient) -> None:
    assert pages.post("/api/artifacts", json=ROW).status_code == 201
    assert "Has read until" not in pages.get("/signals/1").text


def test_checks_show_days_that_may_be_remembered() -> None:
    split = MemorySplit(
        author="<b>gpt-x",
        cutoff=date(2025, 3, 31),
        margin_days=90,
        days=1638,
        days_after=212,
        days_needed=252,
    )
    evidence = graded("none").model_copy(
        update={"memory": split, "numbers": {"sharpe_before": 1.5, "sharpe_after": 0.1}}
    )
    macros = Renderer(Settings())._env.get_template("checks.html").module
    show: Any = macros.checks  # type: ignore[attr-defined]
    shown = show(GateReport(integrity=(), evidence=evidence, required="weak"))
    assert "1,426 of 1,638 out-of-sample days may be remembered and are not graded" in shown
    assert "212 of 1,638 out-of-sample days lie after what &lt;b&gt;gpt-x has read" in shown
    assert (
        '<th scope="row">Sharpe ratio</th><td class="n">1.50</td><td class="n">0.10</td>' in shown
    )
    rules = show(GateReport(integrity=(), evidence=graded("none"), required="weak"))
    assert "remembered" not in rules


def test_signal_row_confidence_above_one_is_none() -> None:
    assert SignalRow.from_artifact(row().model_copy(update={"confidence": 85.0})).confidence is None


def test_signal_filter_excludes_other_types(known: Settings, pages: TestClient) -> None:
    write(known, 1)
    for kind in ("order", "trade", "portfolio", 5):
        theirs = ROW | {"symbol": "TSLA", "signal_data": {"artifact_type": kind}}
        assert pages.post("/api/artifacts", json=theirs).status_code == 201
    named = ROW | {"symbol": "IBM", "signal_data": {"artifact_type": "signal"}}
    assert pages.post("/api/artifacts", json=named).status_code == 201
    assert pages.post("/api/artifacts", json=ROW | {"symbol": "FB"}).status_code == 201
    page = pages.get("/signals").text
    assert "TSLA" not in page
    assert "1–3 of 3" in page  # noqa: RUF001
    assert "TSLA" not in pages.get("/signals?group=execution").text
    assert "3 signals found" in page


def test_signal_filter_symbol_ignores_case(pages: TestClient) -> None:
    for symbol in ("goog", "GOOG"):
        assert pages.post("/api/artifacts", json=ROW | {"symbol": symbol}).status_code == 201
    for asked in ("goog", "GOOG", "Goog"):
        assert "2 signals found" in pages.get(f"/signals?symbol={asked}").text


@pytest.mark.parametrize(
    "text", [DEEP, '{"a":' * 5000, "[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1)]
)
def test_format_json_leaves_deep_reply(text: str) -> None:
    assert format_json(text) == text
    assert Message("A", "response", text, len(text)).summary is None


def test_signal_page_survives_hostile_reply(pages: TestClient) -> None:
    signal = ROW | {"run_id": "r1"}
    reply = ROW | {"type": "llm", "run_id": "r1", "prompt": DEEP, "response": '{"a":' * 1500}
    for each in (signal, reply):
        assert pages.post("/api/artifacts", json=each).status_code == 201
    page = pages.get("/signals/1")
    assert page.status_code == 200
    assert DEEP in page.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a":1,"a":2,"b":1.10}', '{\n  "a": 1,\n  "a": 2,\n  "b": 1.10\n}'),
        ("[1e5,-0.50, 12345678901234567890.5]", "[1e5, -0.50, 12345678901234567890.5]"),
        ('{"a":{},"b":[],"c":"{,:[\\"]"}', '{\n  "a": {},\n  "b": [],\n  "c": "{,:[\\"]"\n}'),
        ('[{"a":[[1,2],["x"]]}]', None),
    ],
)
def test_format_json_changes_space_only(text: str, shown: str | None) -> None:
    if shown is not None:
        assert format_json(text) == shown
    assert "".join(format_json(text).split()) == "".join(text.split())


def test_format_of_foreign_value_is_undefined() -> None:
    for shown in (format_number, format_measure, format_percent):
        assert [shown(value) for value in (HUGE, -HUGE, float("inf"), True, "1")] == ["–"] * 5  # noqa: RUF001
    assert format_day("0001-01-01T00:00:00+10:00") == "–"  # noqa: RUF001


def test_messages_from_rows_without_tokens_or_text() -> None:
    about = {"prompt_tokens": 0, "completion_tokens": 0}
    failed, lost, long = messages_from_rows(
        [
            row(type="llm", metadata={**about, "failed": "no reply within 45 s"}),
            row(type="llm"),
            row(type="llm", response_length=9000),
        ]
    )
    assert (failed.kind, failed.tokens) == ("failed", None)
    assert (lost.text, lost.length, lost.tokens) == (None, None, None)
    assert (long.text, long.length) == (None, 9000)


def test_conversation_names_missing_text(pages: TestClient) -> None:
    for each in ({}, {"type": "llm"}, {"type": "llm", "response_length": 9000}):
        assert pages.post("/api/artifacts", json=ROW | {"run_id": "r1"} | each).status_code == 201
    page = pages.get("/signals/1").text
    assert "What it said was not kept." in page
    assert "9,000 characters: too long" in page
    assert "0 characters" not in page.replace("9,000 characters", "")


def test_signal_page_recorded_is_when_replaced(known: Settings, pages: TestClient) -> None:
    write(known, 1, **FAILED)
    sql(known, "update artifacts set created_at = '2026-01-01', updated_at = '2026-01-09'")
    page = pages.get("/signals/1").text
    assert "<dt>Recorded</dt><dd>2026-01-09 00:00:00" in page
    assert "first 2026-01-01 00:00:00" in page


def test_signal_filter_on_platform_rows(tmp_path: Path, url: str) -> None:
    known = settings(tmp_path, FINAGENT_DATABASE=url)
    Database.from_settings(known).prepare()
    if url.startswith("postgresql"):
        sql(known, "alter table artifacts alter column signal_data type jsonb")
    for n, said in enumerate(("[1]", '{"artifact_type": "order"}', '{"trend": 1}', '"x"'), 1):
        row = f"'n', 'signal', 'S{n}', '{said}'"
        sql(known, f"insert into artifacts (name, type, symbol, signal_data) values ({row})")
    with client(known) as pages:
        page = pages.get("/signals").text
        assert [f"S{n}" in page for n in (1, 2, 3, 4)] == [True, False, True, True]
        assert [pages.get(f"/signals/{n}").status_code for n in (1, 3, 4)] == [200] * 3

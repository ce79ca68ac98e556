"""What a decision leaves as artifacts: the platform's fields, once, and never decided anew."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event, text

from finagent_model.audit.chain import CONVERSATION_FILE
from finagent_model.decision.decision import Decision, Execution, Turn
from finagent_model.decision.signal import Status
from finagent_model.errors import ArtifactConflictError, UnknownArtifactError, ValueTooLargeError
from finagent_model.store._schema import artifacts
from finagent_model.store.artifact_models import (
    FAILED_STATUSES,
    NEWEST_DECISION,
    Artifact,
    ArtifactFilter,
    NewArtifact,
    SignalFilter,
)
from finagent_model.store.artifacts import SETTLED_METADATA, ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.decisions import MAX_TEXT_CHARS, DecisionStore, artifact_rows
from support.decisions import QUESTION, at, decision
from support.places import ROOT, TESTS
from support.platform_tables import run

ASKED_BY = Execution(
    execution_id="scheduled__2012-06-29",
    workflow_id="daily",
    dag_id="finagent_autogen_pipeline",
    dag_run_id="scheduled__2012-06-29",
    task_id="inference.decide",
    map_index=3,
)
PRICES = dict.fromkeys(("open", "high", "low", "close"), 580.0)
SNAPSHOT = {
    "symbol": "GOOG",
    "timeframe": "daily",
    "bar_count": 1,
    "bars": [{"date": "2012-06-29", **PRICES, "volume": 9}],
}
VERSION = {"model_uri": "models:/finagent/1", "model_version": "1", "run_id": "training"}
FAILED = VERSION | {
    "status": "model_error",
    "action": "HOLD",
    "confidence": "LOW",
    "confidence_score": 0,
    "reasoning": "no reply within 45 s",
}


def write(
    url: str, made: Decision, run: str = "r1", by: Execution = ASKED_BY, chart: bool = True
) -> bool:
    return DecisionStore(Database(url)).write(made, run, by, "7", chart)


def found(url: str, **wanted: Any) -> tuple[Artifact, ...]:
    """In the order of their steps."""
    return (
        ArtifactStore(Database(url))
        .list_artifacts(ArtifactFilter(**wanted), order="step")
        .artifacts
    )


def signal_of(url: str) -> Artifact:
    [only] = found(url, type="signal")
    return only


def test_artifact_rows_in_order_of_steps(
    url: str,
) -> None:
    write(url, decision(**VERSION))
    assert [(a.type, a.step_name) for a in found(url, execution_id=ASKED_BY.execution_id)] == [
        ("chart", "00_chart"),
        ("llm", "01_TechnicalAnalyst"),
        ("llm", "02_TechnicalAnalyst"),
        ("llm", "03_RiskManager"),
        ("llm", "04_Executor"),
        ("signal", "99_signal"),
    ]


def test_artifact_rows_have_lineage(url: str) -> None:
    write(url, decision(**VERSION))
    for row in found(url):
        lineage = (row.symbol, row.run_id, row.experiment_id, row.workflow_id, row.dag_id)
        assert lineage == ("GOOG", "r1", "7", "daily", "finagent_autogen_pipeline")
        assert row.task_id == "inference.decide"
        assert row.metadata["model_uri"] == "models:/finagent/1"
        assert row.metadata["signal_id"] == decision(**VERSION).signal.signal_id


def test_artifact_rows_signal_confidence_is_fraction(url: str) -> None:
    made = decision(**VERSION)
    write(url, made)
    row = signal_of(url)
    assert (row.action, row.confidence, row.status) == ("BUY", 0.6, "ok")
    assert row.signal_data is not None
    assert made.signal.model_dump(mode="json").items() <= row.signal_data.items()
    assert row.key == made.signal.signal_id
    assert (row.created_at, row.updated_at) == (made.signal.generated_at, None)
    assert row.metadata["tokens"] == 660


def test_artifact_rows_reply_has_last_prompt(url: str) -> None:
    write(url, decision(**VERSION))
    first, mended, failed, executor = found(url, type="llm")
    assert (first.prompt, executor.response) == (QUESTION, '{"action": "BUY"}')
    assert mended.prompt == "That was not usable: prose."
    assert (mended.prompt_length, mended.model_name) == (len(mended.prompt), "stub-1")
    assert failed.response is None
    assert failed.metadata["failed"] == "model_error: no reply within 45 s"


def test_artifact_rows_large_text_stays_in_run(url: str) -> None:
    large = Turn("Executor", "response", "x" * (MAX_TEXT_CHARS + 1), at(1))
    write(url, replace(decision(), turns=(large,)))
    [row] = found(url, type="llm")
    assert (row.response, row.response_length) == (None, MAX_TEXT_CHARS + 1)
    assert (row.run_id, row.metadata["response_artifact"]) == ("r1", CONVERSATION_FILE)


def test_artifact_rows_chart_names_run_not_file(url: str) -> None:
    """The platform shows any file of its own that has the name in `image_path`."""
    write(url, decision())
    [row] = found(url, type="chart")
    assert (row.image_path, row.chart_type) == ("runs:/r1", "daily")
    assert row.metadata["chart_artifact"] == "chart.png"


def test_artifact_rows_chart_has_bars(url: str) -> None:
    DecisionStore(Database(url)).write(decision(), "r1", ASKED_BY, chart=True, snapshot=SNAPSHOT)
    [row] = found(url, type="chart")
    assert row.metadata["market_data_snapshot"] == SNAPSHOT
    assert row.chart_data == {"timeframe": "daily", "bars_count": 1}
    assert row.metadata["timeframe"] == "daily"


def test_decision_store_leaves_image_that_platform_drew(url: str) -> None:
    def again() -> bool:
        store = DecisionStore(Database(url))
        return store.write(decision(), "r1", ASKED_BY, chart=True, snapshot=SNAPSHOT)

    drawn = "http\\://minio/charts/regenerated/GOOG.jpeg"
    assert again()
    run(url, f"update artifacts set image_path = '{drawn}' where type = 'chart'")
    assert not again()
    [row] = found(url, type="chart")
    assert row.image_path == "http://minio/charts/regenerated/GOOG.jpeg"


def test_artifact_rows_signal_has_names_of_platform(url: str) -> None:
    write(url, decision())
    data = signal_of(url).signal_data
    assert data is not None
    levels = ("entry_price", "stop_loss", "take_profit", "risk_reward_ratio", "confidence_level")
    assert [data[name] for name in levels] == [580.25, 550.0, 650.0, 2.3, "MEDIUM"]


def test_artifact_rows_last_reply_has_what_was_decided(url: str) -> None:
    write(url, decision())
    *others, executor = found(url, type="llm")
    assert [row.signal_data for row in others] == [None] * len(others)
    assert executor.signal_data == {
        "action": "BUY",
        "confidence": "MEDIUM",
        "confidence_score": 60.0,
        "reasoning": decision().signal.reasoning,
    }


def test_artifact_rows_failed_signal_leaves_replies_without_one(url: str) -> None:
    write(url, decision(**FAILED))
    assert [row.signal_data for row in found(url, type="llm")] == [None] * 4


def test_artifact_rows_signal_is_newest_of_its_execution(url: str) -> None:
    write(url, decision())
    newest = max(found(url), key=lambda row: row.created_at)
    assert newest.type == "signal"


def test_decision_store_leaves_replies_of_older_code(url: str) -> None:
    assert write(url, decision())
    run(url, "update artifacts set signal_data = null where type = 'llm'")
    assert not write(url, decision())


def test_artifact_rows_failed_call_has_no_tokens(url: str) -> None:
    write(url, decision())
    failed, replied = (found(url, type="llm")[n].metadata for n in (2, 3))
    for name, used in (("tokens", 320), ("prompt_tokens", 300), ("completion_tokens", 20)):
        assert (failed[name], replied[name]) == (None, used)


def test_decision_store_replaces_nul(url: str) -> None:
    text = json.dumps({"reasoning": "a\0b"})
    made = decision(reasoning="It rises\0they say.", model_used="stub\0-1")
    write(url, replace(made, turns=(Turn("Executor", "response", text, at(1)),)))
    [reply] = found(url, type="llm")
    assert reply.response == text
    assert "\\u0000" in text
    data = signal_of(url).signal_data
    assert data is not None and data["reasoning"] == "It rises\N{REPLACEMENT CHARACTER}they say."


def test_decision_store_error_names_unstorable_value(url: str) -> None:
    with pytest.raises(ValueTooLargeError, match=r"symbol 'SSS.*at most 50 characters"):
        # No signal can be made with it; a column of the platform's may be narrower than ours.
        signal = decision().signal.model_copy(update={"symbol": "S" * 51})
        write(url, replace(decision(), signal=signal))
    assert found(url) == ()


def test_artifact_rows_without_chart(url: str) -> None:
    write(url, decision(), chart=False)
    assert found(url, type="chart") == ()


def test_decision_store_keeps_settled_signal(url: str) -> None:
    write(url, decision(**VERSION))
    before = signal_of(url)
    again = Execution(execution_id="manual")
    write(url, decision(**VERSION | {"action": "HOLD"}, conversation_id="other"), "r2", again)
    write(url, decision(**FAILED, conversation_id="third"), "r3", again)
    assert signal_of(url) == before
    assert len(found(url, type="llm")) == 4


@pytest.mark.parametrize("later", [VERSION, FAILED])
def test_decision_store_replaces_failed_signal(url: str, later: dict[str, Any]) -> None:
    write(url, decision(**FAILED))
    before = signal_of(url)
    assert write(url, decision(**later, generated_at=at(60)), "r2")
    after = signal_of(url)
    assert (after.id, after.created_at) == (before.id, before.created_at)
    assert (after.run_id, after.updated_at) == ("r2", at(60))
    assert after.status == later.get("status", "ok")
    assert {row.run_id for row in found(url, type="llm")} == {"r1", "r2"}


def test_decision_store_same_failure_adds_nothing(url: str) -> None:
    assert write(url, decision(**FAILED)) is True
    assert write(url, decision(**FAILED)) is False


@pytest.mark.parametrize("status", Status)
def test_failed_statuses_are_failures(status: Status) -> None:
    assert (status.value in FAILED_STATUSES) is status.is_failure


WRITER = """
import sys
from support.decisions import decision
from finagent_model.decision.decision import Execution
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
url, me = sys.argv[1:]
for day in range(6):
    made = decision(model_uri="models:/finagent/1", as_of=f"2012-06-{10 + day}T20:00:00Z")
    by = Execution(execution_id=f"{me}-{day}")
    DecisionStore(Database(url), queue=True).write(made, f"run-{me}-{day}", by, "7", True)
"""


@pytest.mark.slow
def test_decision_store_concurrent_same_decision(
    url: str,
) -> None:
    environ = {"PYTHONPATH": f"{ROOT}:{TESTS}"}
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen([*command, str(n)], env=environ, stderr=subprocess.PIPE) for n in range(3)
    ]
    for writer in writers:
        assert writer.communicate()[1] == b""
        assert writer.returncode == 0
    signals = found(url, type="signal")
    assert len(signals) == len({row.key for row in signals}) == 6
    for row in signals:
        assert len(found(url, run_id=row.run_id)) == 1 + 4 + 1
    with Database(url).connection() as connection:
        count = text("select count(*) from finagent_outbox")
        assert connection.execute(count).scalar_one() == 6 * 6
        talks = text("select count(*) from finagent_decisions")
        assert connection.execute(talks).scalar_one() == 3 * 6


def new(**fields: Any) -> NewArtifact:
    return NewArtifact(**({"name": "note", "type": "llm"} | fields))


def test_artifact_store_page_has_limit_offset_total(url: str) -> None:
    store = ArtifactStore(Database(url))
    for n in range(7):
        store.add(new(name=f"{n}", symbol="FB" if n % 2 else "GOOG"))
    page = store.list_artifacts(ArtifactFilter(symbol="GOOG"), limit=2, offset=1)
    assert ([a.name for a in page.artifacts], page.total) == (["4", "2"], 4)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"as_of_from": "2012-06-29"}, ["second", "third"]),
        ({"as_of_to": "2012-06-29"}, ["first", "second"]),
        ({"as_of_from": "2012-06-29T21:00:00Z"}, ["third"]),
        ({"status": "ok"}, ["first", "third"]),
        ({"key": "two"}, ["second"]),
        ({"created_from": "2026-03-03"}, ["third"]),
        ({"action": "BUY", "status": "ok"}, ["third"]),
    ],
)
def test_artifact_filter_selects(tmp_path: Path, wanted: dict[str, Any], names: list[str]) -> None:
    days = iter([at(0), at(0), at(24 * 3600)])
    store = ArtifactStore(Database(f"sqlite:///{tmp_path}/finagent.db"), lambda: next(days))
    for name, key, status, as_of, action in (
        ("first", "one", "ok", "2012-06-28T20:00:00+00:00", "HOLD"),
        ("second", "two", "model_error", "2012-06-29T22:00:00+02:00", "HOLD"),
        ("third", "three", "ok", "2012-06-30T20:00:00+00:00", "BUY"),
    ):
        metadata = {"key": key, "status": status, "as_of": as_of}
        store.add(new(name=name, type="signal", action=action, metadata=metadata))
    found = store.list_artifacts(ArtifactFilter(**wanted), order="oldest")
    assert [a.name for a in found.artifacts] == names
    assert found.total == len(names)


def test_artifact_store_unknown_id_error(url: str) -> None:
    with pytest.raises(UnknownArtifactError, match="no artifact 41"):
        ArtifactStore(Database(url)).get(41)


def test_artifact_store_add_is_idempotent_by_key(url: str) -> None:
    store = ArtifactStore(Database(url))
    first, added = store.add(new(metadata={"key": "k"}, response="yes"))
    again, more = store.add(new(metadata={"key": "k"}, response="yes"))
    assert (again, added, more) == (first, True, False)
    with pytest.raises(ArtifactConflictError, match="has the key 'k' and another content"):
        store.add(new(metadata={"key": "k"}, response="no"))


@pytest.mark.parametrize("text", ["\0", "\ud800", float("nan")])
def test_new_artifact_refuses_unstorable_value(text: Any) -> None:
    for value in ([text], {"a": [{"b": text}]}):
        with pytest.raises(ValidationError):
            new(chart_data=value)
    with pytest.raises(ValidationError):
        new(metadata={str(text): 1} if isinstance(text, str) else {"a": text})


def test_artifact_store_keeps_spelled_nul(url: str) -> None:
    spelled = "a\\u0000b"
    row, _ = ArtifactStore(Database(url)).add(new(prompt=spelled, chart_data={spelled: [spelled]}))
    assert (row.prompt, row.chart_data) == (spelled, {spelled: [spelled]})


def test_artifact_store_update_refuses_taken_key(url: str) -> None:
    store = ArtifactStore(Database(url))
    store.add(new(metadata={"key": "k"}))
    row, _ = store.add(new())
    with pytest.raises(ArtifactConflictError, match="another artifact has the key 'k'"):
        store.update(row.id, {"metadata": {"key": "k"}})


def test_artifact_store_counts_missing_lengths(url: str) -> None:
    store = ArtifactStore(Database(url))
    row, _ = store.add(new(prompt="four", response_length=90_000))
    assert (row.prompt_length, row.response_length) == (4, 90_000)
    assert store.update(row.id, {"prompt": "fiver"}).prompt_length == 5


def test_artifact_store_update_refuses_settled_fields(url: str) -> None:
    write(url, decision(**VERSION))
    store, row = ArtifactStore(Database(url)), signal_of(url)
    assert set(row.metadata) == set(SETTLED_METADATA)
    for change in (
        {"action": "SELL"},
        {"confidence": 1},
        {"metadata": {}},
        *({name: "forged"} for name in ("model_name", "run_id", "experiment_id", "execution_id")),
        *({"metadata": row.metadata | {name: "2012-06-29T20:00:01Z"}} for name in SETTLED_METADATA),
    ):
        with pytest.raises(ArtifactConflictError, match="settled as 'ok'"):
            store.update(row.id, change)
    noted = store.update(row.id, {"name": "seen", "metadata": row.metadata | {"seen_by": "ann"}})
    assert (noted.name, noted.metadata["seen_by"], noted.action) == ("seen", "ann", "BUY")
    assert noted.updated_at is not None


ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"type": "signal"},
    {"symbol": "S7"},
    {"execution_id": "e7"},
    {"run_id": "r7"},
    {"status": "parse_failed"},
    {"key": "k77"},
    {"type": "signal", "symbol": "S8"},
)


def test_artifact_store_pages_use_index(url: str) -> None:
    database = Database(url)
    store = ArtifactStore(database)
    with database.transaction() as connection:
        connection.execute(artifacts.insert(), [row(n) for n in range(10_000)])
        connection.execute(text("analyze"))
    plans: list[str] = []
    explain = "explain query plan" if url.startswith("sqlite") else "explain"

    def explained(_: Any, cursor: Any, statement: str, given: Any, *__: object) -> None:
        if statement.startswith("SELECT"):
            other = cursor.connection.cursor()
            other.execute(f"{explain} {statement}", given)
            plans.append("\n".join(str(line[-1]) for line in other.fetchall()))

    event.listen(database._engine, "before_cursor_execute", explained)
    for wanted in ASKED:
        plans.clear()
        assert store.list_artifacts(ArtifactFilter(**wanted)).total > 0
        page = plans[0].lower()
        assert "seq scan" not in page and "b-tree" not in page, page
        # SQLite's table itself is in the order of pages; it is walked backwards, to the limit.
        assert "index" in page or not wanted, page


def row(n: int) -> dict[str, Any]:
    return {
        "name": str(n),
        "type": ("signal", "llm", "llm", "chart")[n % 4],
        "symbol": f"S{n % 50}",
        "execution_id": f"e{n // 60}",
        "run_id": f"r{n // 6}",
        "finagent_key": f"k{n}",
        "finagent_status": "ok" if n % 500 else "parse_failed",
        "finagent_as_of": datetime(2012, 1 + n % 12, 1, tzinfo=UTC),
        "created_at": at(n),
    }


def signal_row(**changes: Any) -> NewArtifact:
    whole, _ = artifact_rows(decision(**VERSION | changes), "r1", "7", ASKED_BY, True)
    return whole


def test_decision_store_has_place_beside_planted_key(url: str) -> None:
    planted, _ = ArtifactStore(Database(url)).add(
        signal_row(confidence_score=90, confidence="HIGH")
    )
    assert write(url, decision(**VERSION))
    [ours] = found(url, origin="finagent", type="signal")
    assert (ours.key, ours.confidence) == (planted.key, 0.6)
    assert found(url, origin="rest") == (planted,)


@pytest.mark.parametrize(
    "change",
    [
        "action = 'SELL'",
        "confidence = 0.99",
        "signal_data = '{}'",
        "artifact_metadata = '{}'",
        "artifact_metadata = '[]'",
        "finagent_status = 'model_error'",
        "finagent_as_of = null",
        "model_name = 'stub-2'",
    ],
)
def test_decision_store_writes_changed_row_again(url: str, change: str) -> None:
    write(url, decision(**VERSION))
    before = signal_of(url)
    run(url, f"update artifacts set {change} where type = 'signal'")
    assert write(url, decision(**VERSION)) is True
    after = signal_of(url)
    assert (after.id, after.signal_data, after.metadata) == (
        before.id,
        before.signal_data,
        before.metadata,
    )
    assert write(url, decision(**VERSION)) is False


def test_decision_store_writes_missing_reply_again(url: str) -> None:
    write(url, decision(**VERSION))
    whole = [row.metadata["key"] for row in found(url)]
    run(url, "delete from artifacts where step_name = '02_TechnicalAnalyst'")
    assert write(url, decision(**VERSION)) is True
    assert [row.metadata["key"] for row in found(url)] == whole


def test_decision_store_superseded_takes_no_place(url: str) -> None:
    write(url, decision(**FAILED))
    store = DecisionStore(Database(url))
    assert store.write(decision(**VERSION), "r0", is_superseded=True)
    assert signal_of(url).run_id == "r1"


def test_decision_store_disowned_row_frees_the_key(url: str) -> None:
    store = DecisionStore(Database(url))
    write(url, decision(**VERSION), run="r9")
    store.disown(signal_of(url).id)
    assert write(url, decision(**VERSION))
    stranger, ours = (
        ArtifactStore(Database(url))
        .list_artifacts(ArtifactFilter(type="signal"), order="oldest")
        .artifacts
    )
    assert (stranger.run_id, stranger.origin) == ("r9", "disowned")
    assert (ours.run_id, ours.origin) == ("r1", "finagent")


def test_artifact_store_update_leaves_disowned_row_without_key(url: str) -> None:
    write(url, decision(**VERSION))
    row = signal_of(url)
    DecisionStore(Database(url)).disown(row.id)
    assert ArtifactStore(Database(url)).update(row.id, {"name": "y"}).origin == "disowned"
    assert found(url, key=row.key) == ()


@pytest.mark.parametrize("change", [{"status": "ok"}, {"as_of": "2012-06-30T20:00:00+00:00"}])
def test_artifact_store_update_refuses_to_settle_failure(url: str, change: dict[str, Any]) -> None:
    write(url, decision(**FAILED))
    row = signal_of(url)
    with pytest.raises(ArtifactConflictError, match="can't be changed"):
        ArtifactStore(Database(url)).update(row.id, {"metadata": row.metadata | change})


def test_artifact_store_shows_row_of_broken_json(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/finagent.db"
    write(url, decision(**VERSION))
    run(url, "update artifacts set signal_data = '{', artifact_metadata = '[' where type='signal'")
    row = signal_of(url)
    assert (row.signal_data, row.metadata, row.key) == ("{", "[", None)


SEARCHED = [
    ("action", []),
    ("reasoning", []),
    ("null", []),
    ("true", []),
    ("_", ["FOREIGN"]),
    ("42", []),
    ("POINT the same", ["OURS"]),
    ('Zürich says "50 %" \\', ["OURS"]),
    ("Zürich", ["FOREIGN", "OURS"]),
    ("snake_case", ["FOREIGN"]),
    ("nested", ["FOREIGN"]),
    (", ", ["FOREIGN", "OURS"]),
    ("OURS", ["OURS"]),
]


def test_search_reads_texts_alone_of_any_row(url: str) -> None:
    said = 'Both reports point the same way, and Zürich says "50 %" \\ more.'
    made = decision(symbol="OURS", reasoning=said, key_factors=("a", "b"))
    write(url, made)
    foreign = (
        '{"action" : null, "true_reasoning": true, "is_null": false, "n": 42, '
        '"why" : ["Z\u00fcrich, snake_case" , {"null": "nested"} ]}'
    )
    with Database(url).transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO artifacts (name, type, symbol, signal_data, artifact_metadata, "
                "created_at) VALUES ('x', 'signal', 'FOREIGN', :data, '{}', CURRENT_TIMESTAMP)"
            ).bindparams(data=foreign)
        )
    store = ArtifactStore(Database(url))
    for words, symbols in SEARCHED:
        rows = store.list_signals(SignalFilter(type="signal", text=words), NEWEST_DECISION)
        assert sorted(row.symbol or "" for row in rows.artifacts) == symbols, words


def test_search_finds_what_replaced_a_failed_signal(url: str) -> None:
    write(url, decision(**FAILED | {"reasoning": "the provider was away"}))
    assert write(url, decision(**VERSION, reasoning="the trend holds"), run="r2")
    store = ArtifactStore(Database(url))

    def count(words: str) -> int:
        return store.list_signals(SignalFilter(type="signal", text=words), NEWEST_DECISION).total

    assert [count("provider was away"), count("trend holds")] == [0, 1]
    run(url, "update artifacts set signal_data = '{}' where type = 'signal'")
    run(url, "update finagent_signal_texts set texts = 'planted'")
    assert write(url, decision(**VERSION, reasoning="the trend holds"), run="r2")
    assert [count("planted"), count("trend holds")] == [0, 1]
    row = signal_of(url)
    DecisionStore(Database(url)).disown(row.id)
    assert count("trend holds") == 1, "of another system's signals the JSON is read"

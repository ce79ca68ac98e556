"""Decisions in a database: whole or not at all, once, and silent about its password."""

from __future__ import annotations

import json
import signal as signals
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, inspect, text

from finagent_model.audit.chain import dump_turns, load_turns
from finagent_model.decision.decision import Decision, Execution
from finagent_model.errors import StoreError
from finagent_model.settings import parse_database_url
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from support.decisions import at, decision
from support.places import ROOT, TESTS
from support.platform_tables import made_by_the_platform, run

PASSWORD = "sesame/opens"


def store(url: str) -> DecisionStore:
    return DecisionStore(Database(url))


def write(url: str, made: Decision, run_id: str, execution_id: str | None = None) -> bool:
    return store(url).write(made, run_id, Execution(execution_id=execution_id))


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        yield connection


def rows(url: str, query: str) -> list[dict[str, Any]]:
    with connected(url) as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def count(url: str) -> tuple[int, ...]:
    """Decisions, messages and artifacts."""
    tables = ("finagent_decisions", "agent_conversations", "artifacts")
    return tuple(rows(url, f"select count(*) as n from {t}")[0]["n"] for t in tables)


def test_decision_store_writes_messages(url: str) -> None:
    assert write(url, decision(), "r1", "42") is True
    [found] = rows(url, "select * from finagent_decisions")
    assert {k: found[k] for k in ("conversation_id", "run_id", "symbol", "status")} == {
        "conversation_id": "c0ffee",
        "run_id": "r1",
        "symbol": "GOOG",
        "status": "ok",
    }
    messages = rows(url, "select * from agent_conversations order by id")
    assert [(m["agent_name"], m["message_type"]) for m in messages] == [
        ("desk", "request"),
        ("NewsAnalyst", "response"),
        ("TechnicalAnalyst", "response"),
        ("TechnicalAnalyst", "request"),
        ("TechnicalAnalyst", "response"),
        ("RiskManager", "response"),
        ("Executor", "response"),
    ]
    assert {m["workflow_execution_id"] for m in messages} == {"42"}


def test_decision_store_columns_match_platform(url: str) -> None:
    Database(url).prepare()
    with connected(url) as connection:
        columns = [c["name"] for c in inspect(connection).get_columns("agent_conversations")]
    assert columns == [
        "id",
        "workflow_execution_id",
        "agent_name",
        "message_type",
        "message_content",
        "timestamp",
        "tokens_used",
    ]


def test_message_row_names_skipped_or_failed_turn(url: str) -> None:
    write(url, decision(), "r1")
    query = "select message_content as said from agent_conversations where agent_name = '{}'"
    [skipped] = rows(url, query.format("NewsAnalyst"))
    [failed] = rows(url, query.format("RiskManager"))
    assert skipped["said"] == '{"skipped": "no dated news in the view"}'
    assert failed["said"] == '{"failed": "model_error: no reply within 45 s"}'


def test_message_row_tokens_null_unless_reply(url: str) -> None:
    write(url, decision(), "r1")
    messages = rows(url, "select tokens_used from agent_conversations order by id")
    assert [m["tokens_used"] for m in messages] == [None, None, 120, None, 220, None, 320]


def test_message_row_keeps_timestamp(url: str) -> None:
    write(url, decision(), "r1")
    [found] = rows(url, "select max(timestamp) as last from agent_conversations")
    last = found["last"]  # SQLite has text, without a zone
    last = datetime.fromisoformat(last) if isinstance(last, str) else last
    assert (last if last.tzinfo else last.replace(tzinfo=UTC)) == at(6.5)


def test_decision_store_same_decision_adds_nothing(url: str) -> None:
    kept = store(url)
    assert kept.write(decision(), "r1") is True
    assert kept.write(decision(), "r1") is False
    assert write(url, decision(), "r1") is False
    assert count(url) == (1, 7, 5)


def test_decision_store_adds_once_per_execution(url: str) -> None:
    assert [write(url, decision(), run, "42") for run in ("r1", "r2")] == [True, False]
    assert write(url, decision(), "r2", "43")
    assert write(url, decision(conversation_id="other"), "r2", "43")
    assert count(url) == (3, 21, 10)


def test_decision_store_concurrent_first_writers(url: str) -> None:
    def first(name: str) -> bool:
        return write(url, decision(conversation_id=name), name)

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(first, ["a", "b", "c", "d"] * 4))
    assert sum(written) == 4
    assert count(url) == (4, 28, 20)


def test_decision_store_rolls_back_failed_write(url: str) -> None:
    narrow_artifacts = made_by_the_platform(url).replace(
        "action varchar", "action varchar check (action <> 'BUY')"
    )
    run(url, narrow_artifacts)
    with pytest.raises(StoreError) as error:
        write(url, decision(), "r1", "42")
    assert "check constraint" in str(error.value).lower()
    assert count(url) == (0, 0, 0)


KILLED = """
import os, signal, sys
from support.decisions import decision
from finagent_model.store import conversations as module
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
whole = module.message_row
def shot(turn):
    if turn.agent_name == "Executor":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(turn)
module.message_row = shot
DecisionStore(Database(sys.argv[1])).write(decision(), "r1")
"""


@pytest.mark.slow
def test_decision_store_rolls_back_killed_write(url: str) -> None:
    Database(url).prepare()
    environ = {"PYTHONPATH": f"{ROOT}:{TESTS}"}
    done = subprocess.run([sys.executable, "-c", KILLED, url], env=environ, check=False)
    assert done.returncode == -signals.SIGKILL
    assert count(url) == (0, 0, 0)
    assert write(url, decision(), "r1")
    assert count(url) == (1, 7, 5)


def test_database_error_names_unwritable_file() -> None:
    with pytest.raises(StoreError) as error:
        write("sqlite:////proc/no/finagent.db", decision(), "r1")
    assert "/proc/no/finagent.db can't be used: unable to open" in str(error.value)


def test_database_passes_on_other_errors(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/finagent.db")
    for block in (database.connection, database.transaction):
        with pytest.raises(ZeroDivisionError), block():
            _ = 1 / 0


@pytest.mark.slow
def test_database_lost_server_is_store_error(
    postgres: Callable[[], str],
) -> None:
    database = Database(postgres())
    for block in (database.connection, database.transaction):
        with pytest.raises(StoreError, match="can't be used"), block() as connection:
            connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))


def test_database_unusable_url_is_store_error() -> None:
    with pytest.raises(StoreError, match="used: could not convert"):
        Database("sqlite:///finagent.db?timeout=soon").prepare()


def test_database_error_names_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "finagent.db").write_text("This is a note about money." * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Database(f"sqlite:///{tmp_path}/finagent.db").prepare()


def test_database_lock_timeout_is_store_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/finagent.db?timeout=0.05"
    kept = store(url)
    Database(url).prepare()
    with connected(url) as other:
        other.exec_driver_sql("begin exclusive")
        with pytest.raises(StoreError, match=r"another process has had it locked for 0.05 s"):
            kept.write(decision(), "r1")
        other.exec_driver_sql("rollback")
    assert kept.write(decision(), "r1")


def test_database_reader_does_not_block_writer(url: str) -> None:
    """A backup may take longer than a writer would wait."""
    Database(url).prepare()
    impatient = url.replace("timeout=20", "timeout=0.05")
    with Database(url).connection() as reader:
        before = reader.execute(text("select count(*) from artifacts")).scalar_one()
        assert write(impatient, decision(), "r1")
        assert before == 0
    assert count(url) == (1, 7, 5)


@pytest.mark.parametrize(
    "address",
    [
        "nosuchthing://me:{}@127.0.0.1/db",
        "postgresql+nosuchdriver://me:{}@127.0.0.1/db",
        "postgresql+pg8000://me:{}@127.0.0.1:9/db",  # not installed
        "postgresql://me:{}@127.0.0.1:port/db",
        "postgresql://me:pa@{}@127.0.0.1/db",
        "{}",
    ],
)
def test_database_errors_hide_password(address: str) -> None:
    with pytest.raises(StoreError) as error:
        write(address.format(PASSWORD), decision(), "r1")
    shown = "".join(traceback.format_exception(error.value)) + repr(error.value)
    assert "FINAGENT_DATABASE" in shown
    assert "sesame" not in shown and "opens" not in shown


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [
        ("postgresql", "psycopg2"),  # which the extra brings; for SQLAlchemy it would be psycopg
        ("postgresql+psycopg", "psycopg"),
        ("postgresql+psycopg2", "psycopg2"),
    ],
)
def test_database_url_driver_of_postgresql(scheme: str, driver: str) -> None:
    assert parse_database_url(f"{scheme}://host/db").get_driver_name() == driver


def test_conversation_file_round_trip() -> None:
    made = decision()
    assert load_turns(dump_turns([made])) == made.turns
    with pytest.raises(ValueError, match="a line has no 'message_type'"):
        load_turns('{"agent_name": "A"}\n')
    line = json.loads(dump_turns([made]).splitlines()[0])
    for name, value in (("agent_name", 5), ("message_type", "sung"), ("tokens", {})):
        with pytest.raises(ValueError, match="autogen_conversation"):
            load_turns(json.dumps({**line, name: value}) + "\n")
    with pytest.raises(ValueError, match="nested too deep"):
        load_turns("[" * 100_000)


def test_decision_store_overwrites_planted_decision(url: str) -> None:
    """Whoever knows execution and conversation knows the id of the row."""
    columns = "id, conversation_id, run_id, symbol, as_of, status, signal"
    planted = "'42/c0ffee', 'c0ffee', 'r9', 'GOOG', '2012-06-29 20:00:00', 'ok', '{}'"
    Database(url).prepare()
    with connected(url) as connection:
        connection.execute(text(f"insert into finagent_decisions ({columns}) values ({planted})"))
    assert write(url, decision(), "r1", "42")
    assert [row["run_id"] for row in rows(url, "select run_id from finagent_decisions")] == ["r1"]
    assert count(url) == (1, 7, 5)


def test_decision_store_writes_changed_decision_again(url: str) -> None:
    write(url, decision(), "r1")
    with connected(url) as connection:
        connection.execute(text("update finagent_decisions set signal = '{}', audit_head = 'x'"))
    assert store(url).write(decision(), "r1", audit_head="head") is True
    [row] = store(url).find(decision().signal.signal_id).decisions
    assert (row.signal, row.audit_head) == (decision().signal.model_dump(mode="json"), "head")
    assert count(url) == (1, 7, 5)


def test_decision_store_finds_decision_of_the_place_first(url: str) -> None:
    made = {"model_uri": "models:/finagent/1"}
    write(url, decision(**made), "r2")
    write(url, decision(**made, conversation_id="a"), "r1")
    found = store(url).find(decision(**made).signal.signal_id)
    assert [row.run_id for row in found.decisions] == ["r2", "r1"]
    assert found.artifact is not None and found.artifact.run_id == "r2"

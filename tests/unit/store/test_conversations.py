"""Messages go to the platform's table as it is, and where they can't, no decision is lost."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy import text

from finagent_model.decision.decision import Execution
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from support.decisions import decision
from support.platform_tables import KEYED, NAMED, NUMBERED, conversations

PLATFORM, OURS = "agent_conversations", "finagent_messages"
DAG_RUN = "manual__2012-06-29T20:00:00+00:00"
MESSAGES = 7


def write(url: str, number: int | None = None, run_id: str = "r1", **changes: Any) -> bool:
    by = Execution(execution_id=DAG_RUN, platform_execution_id=number)
    return DecisionStore(Database(url)).write(decision(**changes), run_id, by)


def executions(url: str, table: str) -> list[Any]:
    """What each message of the table says of its execution."""
    with Database(url).connection() as connection:
        query = text(f"select workflow_execution_id from {table} order by id")
        return list(connection.execute(query).scalars())


def is_written(url: str) -> bool:
    """Whether decision, signal and replies are there."""
    with Database(url).connection() as connection:
        tables = ("finagent_decisions", "artifacts")
        counts = [
            connection.execute(text(f"select count(*) from {t}")).scalar_one() for t in tables
        ]
    return counts == [1, 5]


@pytest.mark.parametrize(
    ("kind", "number", "expected"),
    [
        (KEYED, 42, 42),
        (KEYED, 43, None),
        (KEYED, None, None),
        (NUMBERED, 42, 42),
        (NAMED, 42, DAG_RUN),
    ],
)
def test_write_messages_names_execution_as_platform_does(
    url: str, kind: str, number: int | None, expected: Any
) -> None:
    conversations(url, kind)
    assert write(url, number)
    assert executions(url, PLATFORM) == [expected] * MESSAGES
    assert executions(url, OURS) == []
    assert is_written(url)


def test_write_messages_warns_of_unknown_execution(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    conversations(url)
    write(url, 43)
    assert "workflow_executions has no row 43" in caplog.text


@pytest.mark.parametrize("number", [None, 43])
def test_write_messages_without_null_go_to_our_table(url: str, number: int | None) -> None:
    conversations(url, NUMBERED)
    assert write(url, number)
    assert executions(url, PLATFORM) == []
    assert executions(url, OURS) == [DAG_RUN] * MESSAGES
    assert is_written(url)


def test_write_messages_redirected_is_said_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    conversations(url, NUMBERED)
    for number in range(3):
        write(url, run_id=f"r{number}", conversation_id=f"c{number}")
    [said] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "go to finagent_messages" in said and "platform_execution_id is None" in said


@pytest.mark.parametrize(
    "more",
    [", check (agent_name <> 'Executor')", ", project varchar(20) not null"],
)
def test_write_messages_refused_keep_decision(
    url: str, more: str, caplog: pytest.LogCaptureFixture
) -> None:
    conversations(url, more=more)
    assert write(url, 42)
    assert executions(url, PLATFORM) == []
    assert executions(url, OURS) == [DAG_RUN] * MESSAGES
    assert is_written(url)
    assert "constraint" in caplog.text
    assert "It rises" not in caplog.text  # what agents said is no part of the reason


def test_write_messages_into_foreign_table_keep_decision(url: str) -> None:
    Database(url).prepare()
    with Database(url).transaction() as connection:
        connection.execute(text("drop table agent_conversations"))
        connection.execute(text("create table agent_conversations (id integer, note text)"))
    assert write(url)
    assert executions(url, OURS) == [DAG_RUN] * MESSAGES


def test_write_messages_twice_adds_nothing(url: str) -> None:
    conversations(url)
    assert write(url) is True
    assert write(url) is False
    assert executions(url, PLATFORM) == [None] * MESSAGES

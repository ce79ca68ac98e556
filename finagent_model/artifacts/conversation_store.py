"""Conversations in a database, beside the runs that hold them: SQLite, or PostgreSQL.

`agent_conversations` has the columns of the trading platform's table of that name, so that the two
may be one. It knows two types of message: a turn that is neither `request` nor `response` (an agent
was skipped, or failed) is a `response` there, with JSON for its content that says which:
`{"skipped": "no dated news in the view"}`. What a conversation led to is in `finagent_decisions`,
since the platform has another table `decisions`.

A decision is written whole or not at all, and once: a second time adds nothing. No error shows a
password.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from finagent_model.domain.decision import Decision, Turn
from finagent_model.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, MetaData, Table

DECISIONS, MESSAGES = "finagent_decisions", "agent_conversations"
WAIT_S = 10
"""Seconds that PostgreSQL may take to connect and to get a lock, unless the URL says otherwise. For
SQLite it is `?timeout=` in the URL, 5 where it is left out.
"""


class ConversationStore:
    """One database. A connection lives for one call, so that a store may be kept over a fork."""

    def __init__(self, url: str) -> None:
        """Connects nowhere. Raises StoreError for a URL that can't be read, or without a driver."""
        self._url = _read(url)
        self._engine = _engine(self._url)
        self._tables: tuple[Table, Table] | None = None

    def prepare(self) -> tuple[Table, Table]:
        """Make the tables where they aren't there yet. Raises StoreError."""
        from sqlalchemy.exc import DBAPIError

        with self._usable():
            if self._tables is None:
                try:
                    self._tables = self._found()
                except DBAPIError:  # another process was faster, or nothing works
                    self._tables = self._found()
            return self._tables

    def write(
        self, decision: Decision, run_id: str, workflow_execution_id: str | None = None
    ) -> bool:
        """The decision and its messages in one transaction; False: they were there already.

        The key is conversation and execution; a decision that no workflow asked for goes by its
        run. Raises StoreError, and then nothing of it was written.
        """
        from sqlalchemy.exc import IntegrityError

        decisions, messages = self.prepare()
        execution = workflow_execution_id or run_id
        signal = decision.signal
        row = {
            "id": f"{execution}/{signal.conversation_id}",
            "conversation_id": signal.conversation_id,
            "run_id": run_id,
            "workflow_execution_id": workflow_execution_id,
            "symbol": signal.symbol,
            "as_of": signal.as_of.astimezone(UTC),
            "status": signal.status.value,
            "signal": signal.model_dump(mode="json"),
        }
        with self._usable(), self._engine.connect() as connection:
            _be_patient(connection)
            try:
                connection.execute(decisions.insert(), row)
            except IntegrityError:
                return False
            if decision.turns:
                rows = [message_row(turn, execution) for turn in decision.turns]
                connection.execute(messages.insert(), rows)
            connection.commit()
        return True

    def _found(self) -> tuple[Table, Table]:
        """Both tables, the messages' as the database has it: the platform's ids are integers."""
        from sqlalchemy import Column, DateTime, MetaData, Table

        ours = _schema()
        with self._engine.begin() as connection:
            _be_patient(connection)
            ours.create_all(connection)
            stamp = Column("timestamp", DateTime(timezone=True))  # SQLite calls it a number
            messages = Table(MESSAGES, MetaData(), stamp, autoload_with=connection)
        return ours.tables[DECISIONS], messages

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a driver may raise anything
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise StoreError(
                f"the database {_shown(self._url)} can't be used: {_hidden(reason, self._url)}; "
                "see that it runs and may be written, or change FINAGENT_DATABASE"
            ) from None


def message_row(turn: Turn, execution: str) -> dict[str, Any]:
    """A turn as `agent_conversations` has it; tokens are null where no model can have used any."""
    kind, content = turn.message_type, turn.message_content
    if kind not in ("request", "response"):
        kind, content = "response", json.dumps({kind: content}, ensure_ascii=False)
    used = turn.prompt_tokens + turn.completion_tokens
    return {
        "workflow_execution_id": execution,
        "agent_name": turn.agent_name,
        "message_type": kind,
        "message_content": content.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # PostgreSQL: no NUL
        "timestamp": turn.timestamp.astimezone(UTC),
        "tokens_used": used if turn.message_type == "response" else None,
    }


@cache
def _schema() -> MetaData:
    from sqlalchemy import JSON, Column, DateTime, Integer, MetaData, Table, Text

    schema = MetaData()
    Table(
        DECISIONS,
        schema,
        Column("id", Text, primary_key=True),
        Column("conversation_id", Text, nullable=False, index=True),
        Column("run_id", Text, nullable=False, index=True),
        Column("workflow_execution_id", Text, index=True),
        Column("symbol", Text, nullable=False),
        Column("as_of", DateTime(timezone=True), nullable=False),
        Column("status", Text, nullable=False),
        Column("signal", JSON, nullable=False),
    )
    Table(
        MESSAGES,
        schema,
        Column("id", Integer, primary_key=True),
        Column("workflow_execution_id", Text, nullable=False, index=True),
        Column("agent_name", Text, nullable=False),
        Column("message_type", Text, nullable=False),
        Column("message_content", Text, nullable=False),
        Column("timestamp", DateTime(timezone=True), index=True),
        Column("tokens_used", Integer),
    )
    return schema


def _read(url: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        read = make_url(url)
    except (ArgumentError, ValueError):
        pass  # what they say may quote a part of the password
    else:
        if read.host is None or url.count("@") < 2:
            return read
    raise StoreError(
        "FINAGENT_DATABASE can't be read; write it like sqlite:///conversations.db or "
        "postgresql+psycopg2://user:password@host/name, the password percent-encoded"
    )


def _engine(url: URL) -> Engine:
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        waits = url.get_dialect().driver in ("psycopg", "psycopg2")
        bounded = (
            {"connect_timeout": WAIT_S} if waits and "connect_timeout" not in url.query else {}
        )
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=bounded)
    except (SQLAlchemyError, ImportError) as error:
        raise StoreError(
            f"the database {_shown(url)} can't be used: {_hidden(str(error), url)}; "
            "install its driver (psycopg2-binary for PostgreSQL), or change FINAGENT_DATABASE"
        ) from None


def _be_patient(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"set local lock_timeout = '{WAIT_S}s'")


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _hidden(text: str, url: URL) -> str:
    """`text` without the URL's secrets, should a driver have quoted one."""
    secrets = [str(value) for key, value in url.query.items() if "pass" in key.lower()]
    if url.password:
        secrets += [url.password, quote(url.password, safe="")]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text

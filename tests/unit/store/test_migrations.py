"""The tables belong to migrations; what somebody else made is adopted or left alone."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from finagent_model.decision.decision import Execution
from finagent_model.errors import (
    ArtifactConflictError,
    BadInputError,
    StoreError,
    ValueTooLargeError,
)
from finagent_model.settings import Settings
from finagent_model.store import database as migrate
from finagent_model.store._schema import FILTER_COLUMNS, SCHEMA
from finagent_model.store.artifact_models import (
    ArtifactFilter,
    NewArtifact,
    SignalFilter,
    SignalSort,
)
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database, copy_database
from finagent_model.store.decisions import DecisionRow, DecisionStore
from finagent_model.store.outbox import Outbox
from support.decisions import decision
from support.places import ROOT, Place
from support.platform_tables import conversations, made_by_the_platform, narrow, run

OLDER = """
create table finagent_decisions (
    id text not null primary key, conversation_id text not null, run_id text not null,
    workflow_execution_id text, symbol text not null, as_of timestamp not null,
    status text not null, signal json not null
)
"""
"""As code without revisions made it."""
OLD_ROW = """
insert into finagent_decisions values
    ('42/c0ffee', 'c0ffee', 'r0', '42', 'GOOG', '2012-06-29 20:00:00', 'ok', '{}')
"""


BEFORE_R0008 = (
    "drop table finagent_signal_texts",
    "drop index ix_finagent_artifacts_executions",
)
BEFORE_R0006 = (
    *BEFORE_R0008,
    "drop index ix_finagent_artifacts_signals",
    *(f"alter table artifacts drop column {name}" for name in FILTER_COLUMNS),
)
BEFORE_R0004 = (
    *BEFORE_R0006,
    "drop table finagent_messages",
    "drop table finagent_claims",
    "drop index ix_finagent_decisions_signal_id",
    "alter table finagent_decisions drop column signal_id",
    "alter table finagent_decisions drop column audit_head",
)
"""Takes back what the newest revisions did, but for the table `artifacts`."""
KEYS_BEFORE_R0004 = (
    "drop index ix_finagent_artifacts_origin",
    "drop index ix_finagent_artifacts_key",
    "create unique index ix_finagent_artifacts_key on artifacts (finagent_key)",
    "alter table artifacts drop column finagent_origin",
)


def platforms(url: str) -> None:
    run(
        url,
        made_by_the_platform(url),
        "create index ix_artifacts_symbol on artifacts (symbol)",
        "insert into artifacts (name, type, symbol, confidence, artifact_metadata) "
        "values ('theirs', 'order', 'TSLA', 85, '{\"artifact_type\": \"order\"}')",
    )


def differences(connection: Connection) -> list[Any]:
    found = compare_metadata(MigrationContext.configure(connection), SCHEMA)
    return [d for d in found if not (d[0] == "remove_table" and d[1].name == migrate.VERSION_TABLE)]


def test_migrations_make_schema_of_code(url: str) -> None:
    database = Database(url)
    with database.connection() as connection:
        assert differences(connection) == []
    assert database.read_revision() == migrate.newest_revision()


def test_database_creates_tables_at_first_use(url: str) -> None:
    assert Database(url).read_revision() is None
    assert ArtifactStore(Database(url)).list_artifacts(ArtifactFilter()).total == 0


def test_database_upgrade_is_idempotent(url: str) -> None:
    database = Database(url)
    for _ in range(2):
        database.upgrade()
        assert database.read_revision() == migrate.newest_revision()


def test_migrations_adopt_platform_table(url: str) -> None:
    platforms(url)
    DecisionStore(Database(url)).write(decision(), "r1", Execution(execution_id="42"), "7", True)
    store = ArtifactStore(Database(url))
    page = store.list_artifacts(ArtifactFilter(), order="oldest")
    theirs, *ours = page.artifacts
    assert (theirs.id, theirs.name, theirs.type, theirs.confidence) == (1, "theirs", "order", 85)
    assert (theirs.metadata, theirs.key) == ({"artifact_type": "order"}, None)
    assert [a.id for a in ours] == [2, 3, 4, 5, 6, 7]
    with Database(url).connection() as connection:
        columns = [c["name"] for c in inspect(connection).get_columns("artifacts")]
        added = ["finagent_key", "finagent_status", "finagent_as_of", "finagent_origin"]
        assert columns[-9:] == ["reviewed", *added, *FILTER_COLUMNS]


def test_migrations_let_platform_go_on_writing(url: str) -> None:
    Database(url).prepare()
    mine = "insert into artifacts (name, type, artifact_metadata) values ('theirs', 'chart', '{}')"
    run(url, mine, mine)
    found = ArtifactStore(Database(url)).list_artifacts(ArtifactFilter())
    assert [a.name for a in found.artifacts] == ["theirs", "theirs"]
    assert found.artifacts[0].created_at.tzinfo is not None


def test_artifact_store_add_ignores_rounding(url: str) -> None:
    narrow(url)
    store = ArtifactStore(Database(url))
    note = NewArtifact(name="x", type="signal", confidence=0.617, metadata={"key": "k", "n": 1e-7})
    (first, is_new), (again, is_new_again) = store.add(note), store.add(note)
    assert (first, is_new, is_new_again) == (again, True, False)
    with pytest.raises(ArtifactConflictError):
        store.add(note.model_copy(update={"confidence": 0.63}))


def test_artifact_store_update_ignores_rounding(
    url: str,
) -> None:
    narrow(url)
    store = ArtifactStore(Database(url))
    settled = {"key": "k", "status": "ok"}
    row, _ = store.add(NewArtifact(name="x", type="signal", confidence=0.617, metadata=settled))
    assert store.update(row.id, {"confidence": 0.617, "name": "y"}).name == "y"
    with pytest.raises(ArtifactConflictError, match="its confidence can't be changed"):
        store.update(row.id, {"confidence": 0.63})


@pytest.mark.slow
def test_value_too_large_error_names_column(
    postgres: Callable[[], str],
) -> None:
    url = postgres()
    narrow(url)
    said = r"model_name 'mmm.*' has 150 characters, its column takes 100"
    with pytest.raises(ValueTooLargeError, match=said) as error:
        ArtifactStore(Database(url)).add(NewArtifact(name="x", type="llm", model_name="m" * 150))
    assert error.value.column == "model_name"
    with pytest.raises(ValueTooLargeError, match=said):
        DecisionStore(Database(url)).write(decision(model_used="m" * 150), "r1")
    assert ArtifactStore(Database(url)).list_artifacts(ArtifactFilter()).total == 0


@pytest.mark.slow
def test_database_writes_utc_to_column_without_zone(
    postgres: Callable[[], str],
) -> None:
    url = f"{postgres()}&options=-c%20timezone%3DAmerica/New_York"
    run(url, OLDER, OLD_ROW)
    DecisionStore(Database(url)).write(decision(), "r1")
    with Database(url).connection() as connection:
        stamps = connection.execute(text("select as_of from finagent_decisions")).scalars()
        assert set(stamps) == {datetime(2012, 6, 29, 20)}  # noqa: DTZ001 - as the column has it


def test_migrations_refuse_foreign_artifacts_table(url: str) -> None:
    run(url, "create table artifacts (id integer primary key, path text)")
    with pytest.raises(StoreError, match=r"no column 'name', so it is another system's"):
        Database(url).prepare()
    assert Database(url).read_revision() is None


def test_database_upgrades_tables_without_revision(url: str) -> None:
    run(url, OLDER, OLD_ROW)
    DecisionStore(Database(url)).write(decision(), "r1", Execution(execution_id="43"))
    with Database(url).connection() as connection:
        runs = connection.execute(text("select run_id from finagent_decisions order by run_id"))
        assert runs.scalars().all() == ["r0", "r1"]


def test_database_older_revision_needs_upgrade(url: str) -> None:
    """The newest revision is taken back by hand: there is no other way."""
    Database(url).prepare()
    run(
        url,
        *BEFORE_R0004,
        "drop table artifacts",
        "drop table finagent_outbox",
        f"update {migrate.VERSION_TABLE} set version_num = 'r0001'",
        OLD_ROW,
    )
    with pytest.raises(StoreError, match=r"has revision r0001.*`finagent db upgrade`"):
        ArtifactStore(Database(url)).list_artifacts(ArtifactFilter())
    Database(url).upgrade()
    assert ArtifactStore(Database(url)).list_artifacts(ArtifactFilter()).total == 0
    with Database(url).connection() as connection:
        assert connection.execute(text("select run_id from finagent_decisions")).scalars().all()


def test_database_upgrade_keeps_outbox(url: str) -> None:
    DecisionStore(Database(url), queue=True).write(decision(), "r1")
    run(
        url,
        *BEFORE_R0004,
        *KEYS_BEFORE_R0004,
        *(f"alter table finagent_outbox drop column {n}" for n in ("sender", "not_before")),
        f"update {migrate.VERSION_TABLE} set version_num = 'r0002'",
    )
    Database(url).upgrade()
    assert Outbox(Database(url)).status()["waiting"] == 5
    with Database(url).connection() as connection:
        assert differences(connection) == []


def test_database_upgrade_tells_our_rows_from_others(url: str) -> None:
    DecisionStore(Database(url)).write(decision(), "r1", Execution(execution_id="42"), "7", True)
    made = decision(conversation_id="planted").signal
    planted = NewArtifact(
        name="x", type="signal", run_id="r9", metadata={"key": made.signal_id, "status": "ok"}
    )
    ArtifactStore(Database(url)).add(planted)
    run(
        url,
        "insert into artifacts (name, type) values ('theirs', 'order')",
        *BEFORE_R0004,
        *KEYS_BEFORE_R0004,
        f"update {migrate.VERSION_TABLE} set version_num = 'r0003'",
    )
    Database(url).upgrade()
    store = ArtifactStore(Database(url))
    origins = [a.origin for a in store.list_artifacts(ArtifactFilter(), order="oldest").artifacts]
    assert origins == ["finagent"] * 6 + ["rest", None]
    assert DecisionStore(Database(url)).find(decision().signal.signal_id).decisions[0] == (
        DecisionRow("r1", decision().signal.model_dump(mode="json"), None)
    )
    assert DecisionStore(Database(url)).write(decision(conversation_id="planted"), "r2")
    with Database(url).connection() as connection:
        assert differences(connection) == []


def test_database_upgrade_names_levels_as_platform_does(url: str) -> None:
    DecisionStore(Database(url)).write(decision(), "r1")
    made = json.dumps(decision().signal.model_dump(mode="json")).replace(":", "\\:")
    run(
        url,
        f"update artifacts set signal_data = '{made}' where type = 'signal'",
        "insert into artifacts (name, type, signal_data) values ('theirs', 'signal', '[1]')",
        *BEFORE_R0006,
        "drop table finagent_messages",
        f"update {migrate.VERSION_TABLE} set version_num = 'r0004'",
    )
    Database(url).upgrade()
    assert DecisionStore(Database(url)).write(decision(), "r1") is False
    page = ArtifactStore(Database(url)).list_artifacts(ArtifactFilter(type="signal"))
    theirs, ours = page.artifacts
    assert (theirs.name, theirs.signal_data) == ("theirs", [1])
    assert ours.signal_data is not None and ours.signal_data["entry_price"] == 580.25


def test_database_upgrade_fills_what_signals_are_filtered_by(url: str) -> None:
    made = decision(evidence="weak", model_uri="models:/finagent/3", model_version="3", run_id="r0")
    DecisionStore(Database(url)).write(made, "r1")
    broken = "insert into artifacts (name, type, finagent_origin, artifact_metadata) values "
    run(
        url,
        *([f"{broken}('x', 'signal', 'finagent', 'no JSON')"] if "sqlite" in url else []),
        *BEFORE_R0006,
        "create index ix_finagent_artifacts_signals on artifacts (type)",
        f"update {migrate.VERSION_TABLE} set version_num = 'r0006'",
    )
    Database(url).upgrade()
    store = ArtifactStore(Database(url))
    for query in ({"version": "3"}, {"version": "models:/finagent/3"}, {"evidence": "weak"}):
        criteria = SignalFilter(type="signal", **query)
        assert store.list_signals(criteria, SignalSort()).total == 1, query
    assert store.list_signals(SignalFilter(type="signal", trained_by="r0"), SignalSort()).total == 1
    with Database(url).connection() as connection:
        assert differences(connection) == []


def test_database_upgrade_fills_what_a_search_reads(url: str) -> None:
    DecisionStore(Database(url)).write(decision(reasoning="Ein Wort aus Zürich"), "r1")
    broken = "insert into artifacts (name, type, finagent_origin, signal_data) values "
    run(
        url,
        *([f"{broken}('x', 'signal', 'finagent', 'no JSON')"] if "sqlite" in url else []),
        *BEFORE_R0008,
        f"update {migrate.VERSION_TABLE} set version_num = 'r0007'",
    )
    Database(url).upgrade()
    criteria = SignalFilter(type="signal", text="wort aus ZÜRICH")
    assert ArtifactStore(Database(url)).list_signals(criteria, SignalSort()).total == 1
    with Database(url).connection() as connection:
        assert differences(connection) == []


def test_database_newer_revision_is_refused(url: str) -> None:
    Database(url).prepare()
    run(url, f"update {migrate.VERSION_TABLE} set version_num = 'r9999'")
    with pytest.raises(StoreError, match=r"has revision r9999.*install the finagent-model that"):
        Database(url).prepare()


def test_database_default_is_file_at_home(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there yet"
    Database.from_settings(Settings.load({"FINAGENT_HOME": str(home)})).prepare()
    assert (home / "finagent.db").is_file()


def test_database_error_names_home() -> None:
    with pytest.raises(StoreError, match="FINAGENT_HOME /proc/no can't be made"):
        Database.from_settings(Settings.load({"FINAGENT_HOME": "/proc/no"}))


def test_copy_database_copies_rows_with_ids(url: str, tmp_path: Path) -> None:
    old = Database(f"sqlite:///{tmp_path}/old.db")
    DecisionStore(old, queue=True).write(decision(), "r1", Execution(execution_id="42"), "7", True)
    counts = copy_database(tmp_path / "old.db", Database(url))
    assert counts == {
        "artifacts": 6,
        "finagent_decisions": 1,
        "agent_conversations": 7,
        "finagent_outbox": 6,
        "finagent_claims": 0,
        "finagent_messages": 0,
        "finagent_signal_texts": 1,
    }
    here, there = (
        ArtifactStore(d).list_artifacts(ArtifactFilter()).artifacts for d in (old, Database(url))
    )
    assert here == there
    assert DecisionStore(Database(url), queue=True).write(decision(conversation_id="new"), "r2")
    with pytest.raises(BadInputError, match="has rows in artifacts; copy into an empty database"):
        copy_database(tmp_path / "old.db", Database(url))


def test_copy_database_keeps_messages_without_their_place(url: str, tmp_path: Path) -> None:
    conversations(url)
    old = Database(f"sqlite:///{tmp_path}/old.db")
    DecisionStore(old).write(decision(), "r1", Execution(execution_id="42"))
    assert copy_database(tmp_path / "old.db", Database(url))["agent_conversations"] == 7
    with Database(url).connection() as connection:
        query = text("select workflow_execution_id from finagent_messages")
        assert list(connection.execute(query).scalars()) == ["42"] * 7


def test_copy_database_refuses_foreign_file(tmp_path: Path) -> None:
    file = tmp_path / "a #1 ?%.db"
    with closing(sqlite3.connect(file)) as theirs:
        theirs.execute("create table runs (id text)")
    before = file.read_bytes()
    target = Database(f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(BadInputError, match="no tables of this code, nothing was copied") as error:
        copy_database(file, target)
    assert "upgrade" not in str(error.value)  # it would get tables of ours by that
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


def test_copy_database_refuses_older_revision(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    Database(url).prepare()
    run(url, f"update {migrate.VERSION_TABLE} set version_num = 'r0001'")
    with pytest.raises(BadInputError, match=rf"r0001.*FINAGENT_DATABASE={url} finagent db upgrade"):
        copy_database(tmp_path / "old.db", Database(f"sqlite:///{tmp_path}/new.db"))


def test_copy_database_reads_write_ahead_log(tmp_path: Path) -> None:
    old = Database(f"sqlite:///{tmp_path}/old.db")
    old.prepare()
    with old.connection():  # whoever closes it last folds the log into the file
        DecisionStore(old).write(decision(), "r1")
        with old.transaction():
            counts = copy_database(tmp_path / "old.db", Database(f"sqlite:///{tmp_path}/new.db"))
    assert counts["artifacts"] == 5


def test_copy_database_refuses_missing_file(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no file"):
        copy_database(tmp_path / "none.db", Database(url))
    assert not (tmp_path / "none.db").exists()


@pytest.mark.slow
def test_database_concurrent_first_use(url: str) -> None:
    script = (
        "import sys; from finagent_model.store.database import Database\n"
        "Database(sys.argv[1]).prepare()"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, url], env={"PYTHONPATH": str(ROOT)})
        for _ in range(4)
    ]
    assert [process.wait() for process in started] == [0] * 4


@pytest.mark.slow
def test_cli_db_current_then_upgrade(tmp_path: Path) -> None:
    place = Place(tmp_path)
    before = place.finagent("db", "current", "--json")
    assert before.returncode == 0, before.stderr
    assert json.loads(before.stdout)["revision"] is None
    done = place.finagent("db", "upgrade", "--json")
    assert json.loads(done.stdout) == {
        "database": f"sqlite:///{tmp_path}/home/finagent.db",
        "before": None,
        "revision": migrate.newest_revision(),
    }

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
from finagent_model.store.artifacts import ArtifactFilter, ArtifactStore, NewArtifact
from finagent_model.store.database import Database, copy_database
from finagent_model.store.decisions import DecisionStore
from finagent_model.store.outbox import Outbox
from finagent_model.store.schema import SCHEMA
from support.decisions import decision
from support.places import ROOT, Place
from support.platform_tables import made_by_the_platform, narrow, run

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
    return [d for d in found if not (d[0] == "remove_table" and d[1].name == migrate.VERSIONS)]


def test_the_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    database = Database(url)
    with database.reading() as connection:
        assert differences(connection) == []
    assert database.revision() == migrate.newest_revision()


def test_a_new_database_gets_its_tables_when_it_is_first_used(url: str) -> None:
    assert Database(url).revision() is None
    assert ArtifactStore(Database(url)).page(ArtifactFilter()).total == 0


def test_to_upgrade_twice_changes_nothing(url: str) -> None:
    database = Database(url)
    for _ in range(2):
        database.upgrade()
        assert database.revision() == migrate.newest_revision()


def test_the_platforms_table_is_adopted_with_its_rows_and_columns(url: str) -> None:
    platforms(url)
    DecisionStore(Database(url)).write(decision(), "r1", Execution(execution_id="42"), "7", True)
    store = ArtifactStore(Database(url))
    page = store.page(ArtifactFilter(), order="oldest")
    theirs, *ours = page.artifacts
    assert (theirs.id, theirs.name, theirs.type, theirs.confidence) == (1, "theirs", "order", 85)
    assert (theirs.metadata, theirs.key) == ({"artifact_type": "order"}, None)
    assert [a.id for a in ours] == [2, 3, 4, 5, 6, 7]
    with Database(url).reading() as connection:
        columns = [c["name"] for c in inspect(connection).get_columns("artifacts")]
        assert columns[-4:] == ["reviewed", "finagent_key", "finagent_status", "finagent_as_of"]


def test_the_platform_goes_on_writing_to_the_table_that_we_share(url: str) -> None:
    Database(url).prepare()
    mine = "insert into artifacts (name, type, artifact_metadata) values ('theirs', 'chart', '{}')"
    run(url, mine, mine)
    found = ArtifactStore(Database(url)).page(ArtifactFilter())
    assert [a.name for a in found.artifacts] == ["theirs", "theirs"]
    assert found.artifacts[0].created_at.tzinfo is not None


def test_what_the_platforms_columns_round_is_the_same_artifact_a_second_time(url: str) -> None:
    narrow(url)
    store = ArtifactStore(Database(url))
    note = NewArtifact(name="x", type="signal", confidence=0.617, metadata={"key": "k", "n": 1e-7})
    (first, is_new), (again, is_new_again) = store.add(note), store.add(note)
    assert (first, is_new, is_new_again) == (again, True, False)
    with pytest.raises(ArtifactConflictError):
        store.add(note.model_copy(update={"confidence": 0.63}))


def test_a_settled_signal_that_the_platforms_columns_rounded_may_be_sent_as_it_was(
    url: str,
) -> None:
    narrow(url)
    store = ArtifactStore(Database(url))
    settled = {"key": "k", "status": "ok"}
    row, _ = store.add(NewArtifact(name="x", type="signal", confidence=0.617, metadata=settled))
    assert store.change(row.id, {"confidence": 0.617, "name": "y"}).name == "y"
    with pytest.raises(ArtifactConflictError, match="its confidence can't be changed"):
        store.change(row.id, {"confidence": 0.63})


@pytest.mark.slow
def test_what_is_too_long_for_the_platforms_column_is_told_with_the_column(
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
    assert ArtifactStore(Database(url)).page(ArtifactFilter()).total == 0


@pytest.mark.slow
def test_a_column_without_a_zone_keeps_the_moment_whatever_zone_the_server_is_in(
    postgres: Callable[[], str],
) -> None:
    url = f"{postgres()}&options=-c%20timezone%3DAmerica/New_York"
    run(url, OLDER, OLD_ROW)
    DecisionStore(Database(url)).write(decision(), "r1")
    with Database(url).reading() as connection:
        stamps = connection.execute(text("select as_of from finagent_decisions")).scalars()
        assert set(stamps) == {datetime(2012, 6, 29, 20)}  # noqa: DTZ001 - as the column has it


def test_another_systems_table_of_that_name_is_left_alone(url: str) -> None:
    run(url, "create table artifacts (id integer primary key, path text)")
    with pytest.raises(StoreError, match=r"no column 'name', so it is another system's"):
        Database(url).prepare()
    assert Database(url).revision() is None


def test_a_database_of_code_without_revisions_is_taken_over(url: str) -> None:
    run(url, OLDER, OLD_ROW)
    DecisionStore(Database(url)).write(decision(), "r1", Execution(execution_id="43"))
    with Database(url).reading() as connection:
        runs = connection.execute(text("select run_id from finagent_decisions order by run_id"))
        assert runs.scalars().all() == ["r0", "r1"]


def test_older_tables_wait_for_a_command_and_lose_nothing(url: str) -> None:
    """The newest revision is taken back by hand: there is no other way."""
    Database(url).prepare()
    run(
        url,
        "drop table artifacts",
        "drop table finagent_outbox",
        f"update {migrate.VERSIONS} set version_num = 'r0001'",
        OLD_ROW,
    )
    with pytest.raises(StoreError, match=r"has revision r0001.*`finagent db upgrade`"):
        ArtifactStore(Database(url)).page(ArtifactFilter())
    Database(url).upgrade()
    assert ArtifactStore(Database(url)).page(ArtifactFilter()).total == 0
    with Database(url).reading() as connection:
        assert connection.execute(text("select run_id from finagent_decisions")).scalars().all()


def test_what_waits_in_an_older_outbox_still_waits(url: str) -> None:
    DecisionStore(Database(url), queue=True).write(decision(), "r1")
    run(
        url,
        *(f"alter table finagent_outbox drop column {n}" for n in ("sender", "not_before")),
        f"update {migrate.VERSIONS} set version_num = 'r0002'",
    )
    Database(url).upgrade()
    assert Outbox(Database(url)).status()["waiting"] == 5
    with Database(url).reading() as connection:
        assert differences(connection) == []


def test_tables_of_newer_code_are_not_touched(url: str) -> None:
    Database(url).prepare()
    run(url, f"update {migrate.VERSIONS} set version_num = 'r9999'")
    with pytest.raises(StoreError, match=r"has revision r9999.*install the finagent-model that"):
        Database(url).prepare()


def test_without_a_url_the_database_is_a_file_at_home(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there yet"
    Database.of(Settings.load({"FINAGENT_HOME": str(home)})).prepare()
    assert (home / "finagent.db").is_file()


def test_a_home_that_cannot_be_made_is_named() -> None:
    with pytest.raises(StoreError, match="FINAGENT_HOME /proc/no can't be made"):
        Database.of(Settings.load({"FINAGENT_HOME": "/proc/no"}))


def test_a_file_is_copied_whole_into_an_empty_database_which_goes_on_counting(
    url: str, tmp_path: Path
) -> None:
    old = Database(f"sqlite:///{tmp_path}/old.db")
    DecisionStore(old, queue=True).write(decision(), "r1", Execution(execution_id="42"), "7", True)
    counts = copy_database(tmp_path / "old.db", Database(url))
    assert counts == {
        "artifacts": 6,
        "finagent_decisions": 1,
        "agent_conversations": 7,
        "finagent_outbox": 6,
    }
    here, there = (ArtifactStore(d).page(ArtifactFilter()).artifacts for d in (old, Database(url)))
    assert here == there
    assert DecisionStore(Database(url), queue=True).write(decision(conversation_id="new"), "r2")
    with pytest.raises(BadInputError, match="has rows in artifacts; copy into an empty database"):
        copy_database(tmp_path / "old.db", Database(url))


def test_a_file_of_another_program_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
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


def test_a_file_of_an_older_revision_is_refused_with_the_way_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    Database(url).prepare()
    run(url, f"update {migrate.VERSIONS} set version_num = 'r0001'")
    with pytest.raises(BadInputError, match=rf"r0001.*FINAGENT_DATABASE={url} finagent db upgrade"):
        copy_database(tmp_path / "old.db", Database(f"sqlite:///{tmp_path}/new.db"))


def test_a_file_in_use_is_copied_with_what_its_write_ahead_log_holds(tmp_path: Path) -> None:
    old = Database(f"sqlite:///{tmp_path}/old.db")
    old.prepare()
    with old.reading():  # whoever closes it last folds the log into the file
        DecisionStore(old).write(decision(), "r1")
        with old.writing():
            counts = copy_database(tmp_path / "old.db", Database(f"sqlite:///{tmp_path}/new.db"))
    assert counts["artifacts"] == 5


def test_a_file_that_is_not_there_is_not_copied(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no file"):
        copy_database(tmp_path / "none.db", Database(url))
    assert not (tmp_path / "none.db").exists()


@pytest.mark.slow
def test_processes_that_come_first_at_once_make_the_tables_once(url: str) -> None:
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
def test_the_commands_tell_the_revision_and_upgrade(tmp_path: Path) -> None:
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

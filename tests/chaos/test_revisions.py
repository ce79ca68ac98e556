"""A database of every earlier revision waits for `db upgrade`, and loses nothing by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.store import database as migrate
from finagent_model.store.database import Database
from support.chaos_place import rows
from support.command_forks import CommandForks
from support.faults_page import Report
from support.places import Place

OLDER = [script.revision for script in migrate._migration_scripts().walk_revisions()][1:]
ROW = (
    "insert into finagent_decisions (id, conversation_id, run_id, workflow_execution_id, symbol, "
    "as_of, status, signal) values "
    "('42/c0ffee', 'c0ffee', 'r0', '42', 'GOOG', '2012-06-29 20:00:00', 'ok', '{}')"
)


@pytest.mark.parametrize("revision", OLDER)
@pytest.mark.chaos("tables of every earlier revision")
def test_older_revision_is_upgraded(
    forks: CommandForks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    report: Report,
    revision: str,
) -> None:
    place = Place(tmp_path / "place")
    home = place.folder / "home"
    home.mkdir(parents=True)
    scripts = migrate._migration_scripts()
    with monkeypatch.context() as patched:
        # As the code of that time did it: up to its own newest revision.
        upgrade = scripts._upgrade_revs
        patched.setattr(scripts, "_upgrade_revs", lambda _, now: upgrade(revision, now))
        patched.setattr(migrate, "_migration_scripts", lambda: scripts)
        old = Database(f"sqlite:///{home}/finagent.db")
        old.upgrade()
    with old._begin() as connection:
        connection.exec_driver_sql(ROW)
    refused = forks.run(place, "outbox", "status")
    assert refused.code == 3
    assert f"has revision {revision}" in refused.sentence
    done = forks.run(place, "db", "upgrade")
    assert done.code == 0, done.err
    kept = rows(place, "select run_id from finagent_decisions", "home/finagent.db")
    assert kept == [("r0",)]
    assert forks.run(place, "outbox", "status").code == 0
    report(refused, "`db upgrade` keeps every row")

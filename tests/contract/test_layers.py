"""Who may import whom, and that importing does nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from finagent_model.evaluation.probes import parse_source
from support.places import ROOT

ORDER = (
    "_lazy _progress _redact _secrets errors _base _documents settings _event_loop _local_files",
    "market decision policy config data cassette audit agents desk",
    "backtesting statistics training evaluation approvals tracking model reports",
    "serving store pipeline _public airflow webui cli contrib testing",
)
ROOMS = " ".join(ORDER).split()
LEVEL = {name: level for level, name in enumerate(ROOMS)}
AT_HOME = {
    "autogen": {"agents"},
    "mlflow": {"model", "tracking", "serving"},
    "airflow": {"airflow"},
}
PACKAGE = ROOT / "finagent_model"
PLUGIN_MENTIONS = {
    "config/analyst_registry.py": "the registry of external analysts",
    "decision/decision.py": "kind of an event in stored audits",
    "decision/signal.py": "status of a stored decision",
    "policy/policy.py": "key of the weight in packages and prompts",
    "settings.py": "environment variable FINAGENT_UPSTREAM_SOURCE",
    "webui/_rendering.py": "label of the status",
}
"""Files outside contrib that may name the plug-in `upstream`, each with what users have of it."""


def modules() -> Iterator[tuple[Path, str]]:
    """Each file and the room it is in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield path, room


def imported(path: Path) -> Iterator[str]:
    """Dotted names, also of imports inside functions."""
    for node in ast.walk(parse_source(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_has_a_place_in_the_order() -> None:
    assert {room for _, room in modules()} == set(LEVEL)


def test_a_file_imports_only_from_its_own_room_or_one_before() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, room in modules()
        for name in imported(path)
        if name.startswith("finagent_model.") and LEVEL.get(name.split(".")[1], -1) > LEVEL[room]
    ]
    assert wrong == []


def test_private_module_is_imported_by_its_own_package_alone() -> None:
    wrong = []
    for path, _ in modules():
        home = path.relative_to(ROOT).parts[:-1]
        for name in imported(path):
            parts = tuple(name.split("."))
            private = [i for i, part in enumerate(parts) if part.startswith("_")]
            # What is private at the root is the whole package's own.
            if parts[0] != "finagent_model" or not private or private[0] < 2:
                continue
            package = parts[: private[0]]
            is_module = (ROOT / Path(*parts[: private[0] + 1])).with_suffix(".py").exists()
            if is_module and home[: len(package)] != package:
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert wrong == []


def test_no_module_or_class_name_stands_twice() -> None:
    files = Counter(
        path.stem.lstrip("_") for path, _ in modules() if not path.stem.startswith("__")
    )
    classes = Counter(
        node.name.lstrip("_")
        for path, _ in modules()
        for node in parse_source(path).body
        if isinstance(node, ast.ClassDef)
    )
    twice = [name for names in (files, classes) for name, count in names.items() if count > 1]
    assert twice == []


def test_package_has_no_import_cycle() -> None:
    edges = {dotted(path): set(imported_at_load(path)) for path, _ in modules()}
    order = TopologicalSorter(
        {name: {other for other in others if other in edges} for name, others in edges.items()}
    )
    order.prepare()  # raises CycleError, naming the circle


def test_package_has_at_most_265_modules() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) <= 265


def dotted(path: Path) -> str:
    """Return the module's name as it is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_at_load(path: Path) -> Iterator[str]:
    """Yield the modules that importing this one imports: not in functions, not for types alone."""
    for node in parse_source(path).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_contrib_is_imported_by_no_other_room() -> None:
    importers = [
        str(path.relative_to(ROOT))
        for path, room in modules()
        for name in imported(path)
        if room != "contrib" and name.startswith("finagent_model.contrib")
    ]
    assert importers == []


def test_contrib_is_named_only_where_users_have_the_word() -> None:
    mentions = {
        path.relative_to(PACKAGE).as_posix()
        for path, room in modules()
        if room != "contrib" and "upstream" in path.read_text().lower()
    }
    assert mentions == set(PLUGIN_MENTIONS)


def test_frameworks_stay_in_their_rooms() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, room in modules()
        for name in imported(path)
        for vendor, rooms in AT_HOME.items()
        if name.split(".")[0].split("_")[0] == vendor and room not in rooms
    ]
    assert wrong == []


@pytest.mark.slow
def test_importing_any_module_has_no_side_effect(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path, _ in modules()
        # Scripts: MLflow runs one, the upstream worker is the other.
        if path.name != "model_code.py" and path.parent.name != "child"
    ]
    script = f"""
import os, sys
sys.dont_write_bytecode = True
import autogen_agentchat.agents, autogen_agentchat.teams, autogen_agentchat.conditions
import mlflow.pyfunc, mlflow.models, mlflow.pyfunc.scoring_server, numba, pandas, pyarrow.parquet
import airflow.triggers.base, fastapi, typer
seen = []
ours = {("FINAGENT_", "OPENAI_")!r}
class Watched(type(os.environ)):
    def __getitem__(self, key):
        if str(key).startswith(ours):
            seen.append(("environment", key))
        return super().__getitem__(key)
os.environ.__class__ = Watched
def watch(event, args):
    if "__pycache__" in str(args[:1]):
        return  # Python's and numba's own caches
    if event in ("socket.connect", "sqlite3.connect", "os.mkdir"):
        seen.append((event, str(args[:1])))
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append((event, str(args[0])))
sys.addaudithook(watch)
import importlib
for name in {names!r}:
    importlib.import_module(name)
print(seen)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert list(tmp_path.iterdir()) == []

"""The specification merges on the platform, and its table of tasks names what there is."""

from __future__ import annotations

import ast
import re
import sqlite3
from pathlib import Path

import pytest
from typer.main import get_command

from finagent_model.cli import app
from finagent_model.evaluation.probes import parse_source
from support.places import ROOT

PAGE = (ROOT / "docs" / "openspec.md").read_text()
WORKFLOW = ROOT / "openspec/changes/finagent-autogen-pipeline/specs/trading-workflow/spec.md"
TASKS = {"1": 3, "2": 3, "3": 3, "4": 3, "5": 4, "6": 2, "7": 3}
"""How many tasks each part of the platform's list has."""
VALIDATE = (
    "npx --yes @fission-ai/openspec@1.13.2 validate finagent-autogen-pipeline --strict "
    "--no-interactive"
)


def rows() -> list[list[str]]:
    """The cells of the table of tasks."""
    lines = re.findall(r"^\| (\d\.\d \|.*) \|$", PAGE, flags=re.M)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def quoted(cell: str) -> list[str]:
    found = re.findall(r"`([^`]+)`", cell)
    assert found, cell
    return found


def test_openspec_table_has_each_task_of_the_list_once() -> None:
    numbers = [f"{part}.{i}" for part, count in TASKS.items() for i in range(1, count + 1)]
    assert [row[0] for row in rows()] == numbers
    assert all(len(row) == 5 for row in rows())


@pytest.mark.parametrize("row", rows(), ids=[row[0] for row in rows()])
def test_openspec_table_names_files_tests_that_exist(row: list[str]) -> None:
    for name in quoted(row[2]):
        assert (ROOT / name).is_file(), name
    for name in quoted(row[4]):
        path, _, test = name.partition("::")
        defined = {n.name for n in ast.walk(parse_source(ROOT / path)) if hasattr(n, "name")}
        assert test in defined, name


@pytest.mark.parametrize("row", rows(), ids=[row[0] for row in rows()])
def test_openspec_table_names_commands_that_exist(row: list[str]) -> None:
    [line] = quoted(row[3])
    program, *words = line.split()
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert words[0] in targets
        for folder in words[1:]:
            assert Path(ROOT / folder.removeprefix("ARGS=")).is_dir()
    elif program == "airflow":
        assert words[:2] == ["dags", "test"]
        assert (ROOT / "dags" / f"{words[2]}.py").is_file()
    elif program == "finagent":
        command, context = get_command(app), None
        while hasattr(command, "resolve_command"):
            context = command.context_class(command, info_name="finagent", parent=context)
            _, command, words = command.resolve_command(context, words)
        command.make_context(line, words, parent=context)
    else:
        assert line == VALIDATE


def test_openspec_delta_keeps_the_platforms_scenarios() -> None:
    """A modified requirement takes the place of the old one, scenarios and all."""
    modified, _, added = WORKFLOW.read_text().partition("## ADDED Requirements")
    assert modified.startswith("## MODIFIED Requirements\n\n### Requirement: Workflow Template")
    scenarios = re.findall(r"^#### Scenario: (.*)$", modified, flags=re.M)
    assert scenarios[:2] == ["Execute AutoGen workflow", "Execute custom workflow"]
    assert "`workflow_type` is `finagent_autogen_pipeline`" in modified
    assert "Workflow Template" not in added


TABLES = (
    "create table workflows (id integer primary key, name varchar(255) not null unique, "
    "type varchar(50) not null, description text, steps json not null default '[]', "
    "default_params json default '{}')",
    "create table workflows (id integer primary key, name varchar(255) not null unique, "
    "description text, dag_id varchar(255), is_active boolean not null)",
)
"""As the platform's SQL makes it, and as its code does."""


@pytest.mark.parametrize("kind", (0, 1))
def test_workflow_of_the_platform_is_registered_once(kind: int) -> None:
    """By the columns of the platform's table; its PostgreSQL takes the same statement."""
    statements = re.findall(r"```sql\n(.*?)```", PAGE, flags=re.S)
    assert len(statements) == len(TABLES)
    columns = ("name, type, default_params", "name, dag_id, is_active")[kind]
    with sqlite3.connect(":memory:") as database:
        database.execute(TABLES[kind])
        database.execute(statements[kind])
        database.execute(statements[kind])
        stored = database.execute(f"select {columns} from workflows").fetchall()
    pipeline = "finagent_autogen_pipeline"
    last = ('{"mode": "inference", "symbols": ["GOOG"]}', 1)[kind]
    assert stored == [(pipeline, pipeline, last)]

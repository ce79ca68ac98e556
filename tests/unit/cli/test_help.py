"""Help pages: headings, whole summaries, examples that parse, and a description of each option."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from finagent_model.cli import app

ROOT: Any = typer.main.get_command(app)


def _walk(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    for name, child in command.commands.items():
        yield " ".join([*path, name]), child
        if hasattr(child, "commands"):
            yield from _walk(child, *path, name)


EVERY = dict(_walk(ROOT))
LEAVES = {path: command for path, command in EVERY.items() if not hasattr(command, "commands")}


def _run(*args: str) -> str:
    result = CliRunner().invoke(app, args, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def test_version_is_the_installed_one() -> None:
    assert _run("--version") == f"finagent {version('finagent_model')}\n"


def test_short_option_for_help_is_known_to_every_command() -> None:
    assert _run("-h") == _run("--help")
    assert _run("bars", "check", "-h") == _run("bars", "check", "--help")


def test_root_help_lists_every_command_below_a_heading() -> None:
    page = _run("-h")
    assert "\nCommands:" not in page
    assert "..." not in page.split("\n\n", 1)[1], "a summary is cut"
    headings = [line for line in page.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings[:3] == ["Options:", "Decide:", "Train and test:"]
    for name in ROOT.commands:
        assert f"\n  {name} " in page
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("path", EVERY)
def test_summary_is_one_sentence_that_begins_with_a_verb(path: str) -> None:
    summary = EVERY[path].help.split("\n\n")[0].replace("\n", " ")
    assert summary.endswith("."), summary
    assert summary[0].isupper()
    assert summary.split()[0] not in {"The", "A", "An", "From", "Where"}


@pytest.mark.parametrize("path", LEAVES)
def test_every_parameter_is_described(path: str) -> None:
    for parameter in LEAVES[path].params:
        text = getattr(parameter, "help", None)
        assert text, parameter.name
        assert text[0].isupper() or text.startswith("true"), parameter.name
        assert text.endswith("."), (parameter.name, text)


@pytest.mark.parametrize("path", LEAVES)
def test_examples_name_their_command_and_parse(path: str) -> None:
    examples = [
        line.strip() for line in LEAVES[path].epilog.splitlines() if line.startswith("  finagent ")
    ]
    assert examples
    for example in examples:
        words = shlex.split(example)[1:]
        prefix = path.split()
        assert words[: len(prefix)] == prefix
        # Raises where an option or a type is wrong; runs nothing.
        LEAVES[path].make_context(path, words[len(prefix) :], parent=ROOT.make_context("f", ["ui"]))

"""The container image without a container engine: what its Dockerfile names, and every command that
it or docker-compose.yml gives, run outside. What this can't show is said in docs/containers.md.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.compose import OURS, SERVICES
from support.lock_files import IMAGE, locked
from support.places import ROOT

DOCKERFILE = ROOT / "airflow" / "Dockerfile"
INSTRUCTIONS = ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    pairs = (line.partition(" ") for line in text.splitlines() if line)
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


def copied() -> list[tuple[list[str], str]]:
    """What is taken from the checkout, and where to."""
    lines = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    words = [[word for word in line if not word.startswith("--")] for line in lines]
    return [(line[:-1], line[-1]) for line in words]


def run_lines() -> list[str]:
    return [rest for name, rest in instructions() if name == "RUN"]


def test_image_runs_locked_airflow_without_root() -> None:
    steps = instructions()
    assert {name for name, _ in steps} <= set(INSTRUCTIONS)
    version = locked(IMAGE)["apache-airflow"]
    assert steps[0] == ("FROM", f"apache/airflow:{version}-python3.11")
    assert [rest for name, rest in steps if name == "USER"][-1] == "airflow"


def test_code_is_copied_after_the_environment_is_made() -> None:
    steps = [f"{name} {rest}" for name, rest in instructions()]
    [made] = [
        i for i, step in enumerate(steps) if "requirements-airflow.txt" in step and "RUN" in step
    ]
    [code] = [i for i, step in enumerate(steps) if "finagent_model" in step]
    assert made < code
    assert "finagent_model" not in "".join(steps[:made])


def test_image_copies_files_that_exist() -> None:
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    for sources, _ in copied():
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in let_in, source
    assert "*" in let_in


@pytest.mark.slow
def test_the_copied_files_alone_make_a_package_whose_command_runs(tmp_path: Path) -> None:
    """The Dockerfile's own line, in a fresh environment without dependencies."""
    folder = tmp_path / "image"
    folder.mkdir()
    for sources, target in copied():
        for source in sources if target == "./" or "finagent_model" in target else ():
            into = folder / Path(source).name
            here = ROOT / source
            shutil.copytree(here, into) if here.is_dir() else shutil.copy(here, into)
    [line] = [line for line in run_lines() if line.endswith(" .")]
    uv, *options = shlex.split(line)
    target = tmp_path / "installed"
    command = [str(Path(sys.executable).with_name(uv)), *options, "--target", str(target)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shipped = {p.relative_to(ROOT) for p in (ROOT / "finagent_model").rglob("*") if p.is_file()}
    missing = {p for p in shipped if "__pycache__" not in p.parts and not (target / p).exists()}
    assert missing == set()


@pytest.mark.slow
def test_the_images_environment_can_be_installed() -> None:
    """Dry: everything is found, with its hashes, and fits together."""
    [line] = [line for line in run_lines() if "requirements-airflow.txt" in line]
    uv, *options = shlex.split(line.split("&&")[-1])
    options[-1] = IMAGE
    command = [str(Path(sys.executable).with_name(uv)), *options, "--dry-run"]
    done = subprocess.run(
        [*command, "--python", sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_nothing_in_the_image_asks_for_another_version_than_is_there() -> None:
    """By what each package says itself."""
    there = locked(IMAGE)
    for name in there:
        for text in metadata.requires(name) or ():
            asked = Requirement(text)
            if asked.marker and not asked.marker.evaluate({"extra": ""}):
                continue
            version = there.get(canonicalize_name(asked.name))
            assert version, f"{name} needs {asked}"
            assert asked.specifier.contains(version, prereleases=True), f"{name} needs {asked}"


def test_what_the_build_is_given_is_what_it_asks_for() -> None:
    [built] = [service.build for service in SERVICES.values() if service.build]
    assert set(built.args) == {r.split("=")[0] for name, r in instructions() if name == "ARG"}


def commands() -> dict[str, list[str]]:
    """By the service, and the service's name with a dash: its health check."""
    found = {name: service.command for name, service in OURS.items()}
    for name, service in OURS.items():
        if service.healthcheck and service.healthcheck.test[0] == "CMD":
            found[f"{name}-"] = service.healthcheck.test[1:]
    return found


@pytest.mark.slow
def test_image_commands_of_airflow_take_their_options() -> None:
    asked = [command for command in commands().values() if command[0] in ("airflow", "mlflow")]
    asked.append(["airflow", "db", "migrate"])
    script = (
        "import json, sys\n"
        "from airflow.cli.cli_parser import get_parser\n"
        "from mlflow.cli import cli\n"
        "parser = get_parser()\n"
        "for name, *words in json.loads(sys.argv[1]):\n"
        "    if name == 'airflow':\n"
        "        parser.parse_args(words)\n"
        "    else:\n"
        "        command = cli.get_command(None, words[0])\n"
        "        command.make_context(words[0], words[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(asked)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_image_commands_of_finagent_take_their_options() -> None:
    from typer.main import get_command

    from finagent_model.cli import app

    lines = [*run_lines(), *(ROOT / "airflow/prepare.sh").read_text().splitlines()]
    named = re.findall(r"\bfinagent ([a-z][^;&|\n]*)", "\n".join(line for line in lines))
    for words in [
        *map(shlex.split, named),
        *(c[1:] for c in commands().values() if c[0] == "finagent"),
    ]:
        command: Any = get_command(app)
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        command.make_context("finagent", list(words))


def test_other_commands_are_files_of_the_image_or_of_every_system() -> None:
    known = {"airflow", "mlflow", "finagent", "curl"}
    entries = [[word] for service in OURS.values() for word in service.entrypoint]
    for command in [*commands().values(), *entries]:
        name = command[0]
        if name.startswith("/opt/finagent/"):
            assert (ROOT / "airflow" / Path(name).name).stat().st_mode & 0o111
        else:
            assert name in known

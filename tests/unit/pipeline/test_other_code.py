"""`verify --with`: another wheel's code runs apart from ours, and its report comes back whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from finagent_model.cli import app
from finagent_model.errors import BadInputError, FinagentError
from finagent_model.model.wheel import write_wheel
from finagent_model.pipeline import other_code
from finagent_model.pipeline.other_code import OtherReport, make_environment, verify_with

PASSED = {"name": "replay_equal", "passed": True, "found": "as then"}
FAILED = {"name": "accounted_again", "passed": False, "found": "not as then"}
VERIFY = {"finagent_model/pipeline/verify.py": b""}
DEEP = {**VERIFY, "finagent_model/pipeline/deep_verification.py": b""}
HEAD = b"import json, os, sys\n"


def report(*checks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    passed = all(check["passed"] for check in checks)
    return {"model": "m", "content_hash": "c", "passed": passed, "checks": list(checks)} | changes


def answering(value: Any, status: int = 0) -> str:
    return f"def app():\n print({json.dumps(value)!r})\n raise SystemExit({status})"


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[..., Path]:
    """Makes a wheel whose `finagent_model.cli` is the given program."""

    def made(program: str, files: dict[str, bytes] = DEEP) -> Path:
        content = {
            "finagent_model/__init__.py": b"",
            "finagent_model/cli.py": HEAD + program.encode(),
            "finagent_model/model/requirements.txt": b"numpy==2.4.6\npandas==3.1.1\n",
            **files,
        }
        return write_wheel(tmp_path, "finagent_model", "0.1.0", "", content)

    return made


def run(path: Path, **options: Any) -> OtherReport:
    return verify_with("models:/finagent/3", path, python=Path(sys.executable), **options)


def test_verify_with_brings_back_report_and_whose_code(wheel: Callable[..., Path]) -> None:
    done = run(wheel(answering(report(PASSED, FAILED), 5)), deep=True)
    assert not done.passed
    assert [check.name for check in done.checks] == ["replay_equal", "accounted_again"]
    by = done.row()["verified_by"]
    assert by["python"] == sys.version.split()[0]
    assert (by["version"], len(by["sha256"])) == ("0.1.0", 64)
    assert "finagent_model/__init__.py" in done.verified_by.differs_from_install
    assert done.verified_by.differences > len(done.verified_by.differs_from_install)


def test_verify_with_passes_model_and_deep_on(wheel: Callable[..., Path]) -> None:
    program = (
        "def app():\n found = ' '.join(sys.argv[1:])\n"
        " check = {'name': 'x', 'passed': True, 'found': found}\n"
        " print(json.dumps({'passed': True, 'checks': [check]}))"
    )
    found = [run(wheel(program), deep=deep).checks[0].found for deep in (True, False)]
    assert found == [f"verify models:/finagent/3 --json{each}" for each in (" --deep", "")]


def test_verify_with_runs_nothing_of_this_install(
    wheel: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the working directory nor PYTHONPATH nor what the other Python has installed."""
    evil = tmp_path / "evil" / "finagent_model"
    evil.mkdir(parents=True)
    for folder in (evil, evil.parent):
        (folder / "cli.py").write_text("raise SystemExit('leaky')")
        (folder / "sitecustomize.py").write_text("raise SystemExit('leaky')")
    (evil / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(evil.parent))
    monkeypatch.setenv("PYTHONSTARTUP", str(evil / "cli.py"))
    monkeypatch.chdir(evil.parent)
    program = (
        "import finagent_model\n"
        "def app():\n"
        " flags = [sys.flags.isolated, sys.flags.no_user_site]\n"
        " found = json.dumps([finagent_model.__file__, flags, '' in sys.path])\n"
        " check = {'name': 'x', 'passed': True, 'found': found}\n"
        " print(json.dumps({'passed': True, 'checks': [check]}))"
    )
    file, flags, has_here = json.loads(run(wheel(program)).checks[0].found)
    assert (flags, has_here) == ([1, 1], False)
    assert "finagent-scratch-" in file


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("def app(): pass", "its last line is not a report"),
        ("def app(): print('[' * 100000)", "its last line is not a report"),
        (answering([1]), "its last line is not a report"),
        (answering(report({"name": "x"} | {"passed": "yes", "found": ""})), "not a report"),
        (answering(report()), "says nothing of what it checked"),
        (answering(report(FAILED, passed=True)), "disagree"),
        (answering(report(FAILED), 0), "disagree"),
        (answering(report(PASSED), 5), "disagree"),
        ("def app(): os.kill(os.getpid(), 9)", "exit code -9"),
        ("def app(): raise KeyError('x')", "exit code 1"),
        ("raise SystemExit(7)", "exit code 7"),
    ],
)
def test_verify_with_believes_no_nonsense(
    wheel: Callable[..., Path], program: str, message: str
) -> None:
    with pytest.raises(FinagentError, match=message) as error:
        run(wheel(program))
    assert error.value.exit_code == 1


def test_verify_with_bounds_the_reply(
    wheel: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_code, "MAX_REPLY_BYTES", 1000)
    with pytest.raises(FinagentError, match="exit code"):
        run(wheel("def app():\n while True: print('x' * 1000)"))


@pytest.mark.parametrize(
    ("files", "deep", "message"),
    [
        ({}, False, "which has no `verify`; take a later wheel"),
        (VERIFY, True, "which has no `verify --deep`; take a later wheel, or leave --deep out"),
    ],
)
def test_verify_with_names_what_an_older_wheel_lacks(
    wheel: Callable[..., Path], files: dict[str, bytes], deep: bool, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        run(wheel("", files), deep=deep)


def test_verify_with_names_python_that_can_not_be_run(wheel: Callable[..., Path]) -> None:
    path = wheel(answering(report(PASSED)))
    with pytest.raises(BadInputError, match="--python /nothing/python can't be run"):
        verify_with("m", path, python=Path("/nothing/python"))


def test_verify_with_names_what_a_python_lacks(
    wheel: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(other_code, "NEEDED_MODULES", ("json", "no_such_module"))
    with pytest.raises(FinagentError) as error:
        run(wheel(answering(report(PASSED))))
    assert error.value.exit_code == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.endswith("lacks no_such_module; name a Python that has the dependencies")


def command(path: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["verify", "m", "--with", str(path), *options])


def test_verify_command_prints_whose_code_verified(wheel: Callable[..., Path]) -> None:
    path = wheel(answering(report(PASSED, FAILED), 5))
    done = command(path, "--python", sys.executable)
    assert done.exit_code == 5
    assert "FAILED  accounted_again: not as then" in done.stdout
    assert "verified by finagent_model-0.1.0-py3-none-any.whl (0.1.0, SHA-256 " in done.stdout
    assert "differs from this install in" in done.stdout
    done = command(path, "--python", sys.executable, "--json")
    assert json.loads(done.stdout)["verified_by"]["version"] == "0.1.0"


@pytest.mark.parametrize("status", [2, 3, 4])
def test_verify_command_passes_exit_code_on(wheel: Callable[..., Path], status: int) -> None:
    path = wheel(
        f"def app():\n print('error: no such format', file=sys.stderr)\n sys.exit({status})"
    )
    done = command(path, "--python", sys.executable)
    assert (done.exit_code, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sha256", "0"), "has the SHA-256"),
        (("--python", sys.executable, "--lock", "x"), "leave --lock out"),
        (("--lock", "no.lock"), "--lock no.lock: there is no such file"),
        (("--lock", "/dev/null"), "--lock /dev/null: is not a regular file"),
    ],
)
def test_verify_command_refuses_options(
    wheel: Callable[..., Path], options: tuple[str, ...], message: str
) -> None:
    done = command(wheel(answering(report(PASSED))), *options)
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert message in line


def test_verify_command_of_missing_wheel_makes_no_environment() -> None:
    done = command(Path("/nothing.whl"))
    assert done.exit_code == 2
    assert done.stderr == "error: wheel /nothing.whl can't be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("program", "status"), [("exit 2", 2), ("exit 4", 4), ("echo finagent-refused", 0), ("", 0)]
)
def test_verify_command_believes_no_program_that_is_no_python(
    wheel: Callable[..., Path], tmp_path: Path, program: str, status: int
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    done = command(wheel(answering(report(PASSED))), "--python", str(python))
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: {python} did not start the wheel's code (exit code {status}); name a Python 3.11 "
        "that has the dependencies by --python\n"
    )


@pytest.mark.parametrize("option", ["--sha256", "--python", "--lock"])
def test_verify_command_without_wheel_refuses_its_options(option: str) -> None:
    done = CliRunner().invoke(app, ["verify", "m", option, "x"])
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: {option} belongs to --with, which names the wheel\n",
    )


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would make an environment."""
    commands: list[list[str]] = []
    monkeypatch.setattr(other_code, "_install", lambda command, _: commands.append([*command]))
    return commands


def test_environment_has_the_pins_alone(
    tmp_path: Path, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _, path: None)
    (tmp_path / "venv").mkdir()
    python = make_environment(tmp_path / "venv", ["numpy==2.4.6"])
    assert (tmp_path / "venv/pins.txt").read_text() == "numpy==2.4.6\n"
    made, installed = installs
    assert made[1:4] == ["-I", "-m", "venv"]
    assert installed[:5] == [str(python), "-I", "-m", "pip", "install"]
    assert installed[-3:] == ["--no-deps", "-r", str(tmp_path / "venv/pins.txt")]
    assert "--require-hashes" not in installed
    make_environment(tmp_path / "venv", [], tmp_path / "a.lock")
    assert installs[-1][-3:] == ["-r", str(tmp_path / "a.lock"), "--require-hashes"]


def test_environment_falls_back_on_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def install(command: list[str], failure: str) -> None:
        commands.append(command[0])
        if command[0] == "uv":
            raise BadInputError(failure)

    monkeypatch.setattr("shutil.which", lambda _, path: "uv")
    monkeypatch.setattr(other_code, "_install", install)
    python = make_environment(tmp_path, [])
    assert commands[1:] == ["uv", str(python)]


def test_environment_that_can_not_be_made_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _, path: None)
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    with pytest.raises(BadInputError, match="no environment can be made: /bin/false"):
        make_environment(tmp_path, [])


@pytest.mark.parametrize(
    ("required", "message"),
    [
        ("numpy==2.4.6\nevil==1.0\n", "requires 'evil', which the code of .* does not know"),
        ("numpy>=2\n", "requires 'numpy>=2', which names no exact version"),
    ],
)
def test_version_brings_no_library_that_the_wheel_does_not_know(
    wheel: Callable[..., Path],
    installs: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    required: str,
    message: str,
) -> None:
    monkeypatch.setattr("finagent_model.model.loading.read_requirements", lambda _: required)
    with pytest.raises(BadInputError, match=message):
        verify_with("models:/finagent/3", wheel(""))
    assert installs == []

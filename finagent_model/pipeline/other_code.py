"""Verify a version by the code of a wheel, apart from the install that runs: `verify --with`.

An install whose engine leaks verifies itself with that engine. Here a fresh Python process runs
`verify` by the code of a wheel that somebody trusts. It is isolated (`python -I`): no user site, no
PYTHONPATH, no working directory, and the wheel's code stands first on the path. Its libraries are a
throw-away environment's, or those of a Python that the caller names. What this can't answer is in
docs/evidence.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finagent_model._base import Check
from finagent_model._documents import read_json
from finagent_model._local_files import ScratchFolder
from finagent_model.errors import BadInputError, OtherCodeFailedError
from finagent_model.model.wheel import NAME, read_code_files
from finagent_model.model.wheel_reader import WheelCode, parse_pins

MAX_REPLY_BYTES = 32 * 1024 * 1024
MAX_DIFFERENCES = 20
MODULES = {False: f"{NAME}/pipeline/verify.py", True: f"{NAME}/pipeline/deep_verification.py"}
"""Module that the wheel must have, by whether the training is to be proven too."""
RUNNER = """
import importlib.util, os, platform, sys
folder, version, command = sys.argv[1], sys.argv[2], sys.argv[3:]
def refuse(message):
    sys.stdout.write("finagent-refused\\n")
    sys.stdout.flush()
    sys.stderr.write("error: %s %s\\n" % (sys.executable, message))
    raise SystemExit(2)
if sys.version_info[:2] != (3, 11):
    refuse("is Python %s, and the code needs 3.11" % platform.python_version())
if "finagent_model" in sys.modules:
    refuse("imports finagent_model as it starts; take one without it, or without its .pth file")
sys.path.insert(0, folder)
missing = [name for name in version.split(",") if importlib.util.find_spec(name) is None]
if missing:
    refuse("lacks %s; name a Python that has the dependencies" % ", ".join(missing))
import finagent_model
if not os.path.realpath(finagent_model.__file__).startswith(os.path.realpath(folder) + os.sep):
    refuse("imports finagent_model from %s" % finagent_model.__file__)
sys.stdout.write("finagent-python %s\\n" % platform.python_version())
sys.stdout.flush()
from finagent_model.cli import app
sys.argv = ["finagent", *command]
app()
"""
NEEDED_MODULES = (
    "mlflow",
    "pandas",
    "numpy",
    "numba",
    "scipy",
    "pydantic",
    "typer",
    "autogen_core",
)
"""Some of the dependencies; a Python without one of them lacks more."""
_PYTHON_MARK = b"finagent-python "
_REFUSED_MARK = b"finagent-refused"


@dataclass(frozen=True)
class OtherCode:
    """Whose code verified."""

    wheel: str
    """Name of the wheel's file."""
    version: str
    sha256: str
    python: str
    """Version of the Python that ran it."""
    libraries: str
    """Where its dependencies came from, in words."""
    differs_from_install: tuple[str, ...]
    """Files of the code that are not those of the install that ran, at most `MAX_DIFFERENCES`."""
    differences: int
    """How many such files there are."""


@dataclass(frozen=True)
class OtherReport:
    """What the other code found, as it printed it, and which code that was."""

    verified_by: OtherCode
    report: Mapping[str, Any]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.report["passed"])

    def row(self) -> dict[str, Any]:
        """Return the other code's report as a JSON-ready dict, with `verified_by`."""
        return {**self.report, "verified_by": asdict(self.verified_by)}


def verify_with(
    model_uri: str,
    wheel: Path,
    *,
    deep: bool = False,
    sha256: str | None = None,
    python: Path | None = None,
    lock: Path | None = None,
    on_install: Callable[[], object] = lambda: None,
) -> OtherReport:
    """Run `finagent verify` of a version by the code of a wheel, and return what it found.

    `python` is one that has the dependencies; else an environment is made of the version's pins,
    of whose names the wheel must know each, or of a `lock` with hashes. `on_install` is called
    before one is made, which may take minutes. What the other code writes to its standard error
    passes through. Raises BadInputError for a wheel or a Python that can't be
    used, and OtherCodeFailedError with the exit code of code that could not verify.
    """
    code = WheelCode.read(wheel, sha256)
    if MODULES[deep] not in code.files:
        raise BadInputError(
            f"the code of {wheel} is {code.version}, which has no `verify{' --deep' * deep}`; take "
            f"a later wheel{', or leave --deep out' * deep}"
        )
    with ExitStack() as stack:
        folder = stack.enter_context(ScratchFolder())
        code.unpack(folder / "code")
        if python is None:
            pins = _choose_pins(code, model_uri, lock)
            on_install()
            python = make_environment(folder / "venv", pins, lock)
            libraries = f"a new environment, by {lock or 'exact versions without hashes'}"
        else:
            libraries = f"those of {python}"
        command = ["verify", model_uri, "--json", *(["--deep"] if deep else [])]
        status, reply = _run(python, folder / "code", command)
    return _read_reply(code, python, libraries, status, reply)


def make_environment(folder: Path, pins: Sequence[str], lock: Path | None = None) -> Path:
    """Make a virtual environment with exactly these pins, or with a lock's; return its Python.

    Uses `uv` where it is there, else pip, which follow their own settings of indexes, caches and
    folders. A library that has no wheel is built. Raises BadInputError.
    """
    # The interpreter below all environments: nothing that one of them holds comes along.
    base = getattr(sys, "_base_executable", None) or sys.executable
    _install([base, "-I", "-m", "venv", str(folder)], "no environment can be made")
    python = folder / "bin" / "python"
    wanted = lock or folder / "pins.txt"
    if lock is None:
        wanted.write_text("".join(f"{pin}\n" for pin in pins))
    options = ["--no-deps", "-r", str(wanted)]
    options += ["--require-hashes"] if lock else []
    by_pip = [str(python), "-I", "-m", "pip", "install", "--quiet", *options]
    failure = "the version's libraries can't be installed; name a Python that has them by --python"
    if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"):
        with suppress(BadInputError):
            _install([uv, "pip", "install", "--quiet", "--python", str(python), *options], failure)
            return python
    # Pip also knows indexes that uv was not told of.
    _install(by_pip, failure)
    return python


def read_version_pins(model_uri: str) -> dict[str, str]:
    """Return the version by name of what a version's model requires. Raises ModelLoadError."""
    from finagent_model.model.loading import read_requirements

    return parse_pins(read_requirements(model_uri), model_uri)


def _choose_pins(code: WheelCode, model_uri: str, lock: Path | None) -> list[str]:
    """Return the pins of the environment: the version's, if the wheel knows each of their names."""
    if lock is not None:
        if not lock.is_file():
            reason = "is not a regular file" if lock.exists() else "there is no such file"
            raise BadInputError(f"--lock {lock}: {reason}")
        return []
    known, pins = code.read_pins(), read_version_pins(model_uri)
    # A package that only the version asks for could change the others as it is imported.
    strange = sorted(pins.keys() - known.keys())
    if strange:
        raise BadInputError(
            f"{model_uri} requires {strange[0]!r}, which the code of {code.path} does not know; "
            "take a wheel of its time, or name a Python that you trust by --python"
        )
    return [f"{name}=={version}" for name, version in pins.items()]


def _install(command: Sequence[str], failure: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BadInputError(f"{failure}: {command[0]}: {error.strerror}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise BadInputError(f"{failure}: {lines[-1][:300] if lines else command[0]}")


def _run(python: Path, folder: Path, command: Sequence[str]) -> tuple[int, bytes]:
    """Return exit code and standard output of `finagent` by the code in `folder`."""
    arguments = [str(python), "-I", "-c", RUNNER, str(folder), ",".join(NEEDED_MODULES), *command]
    try:
        # Its progress and messages go where ours do.
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise BadInputError(f"--python {python} can't be run: {error.strerror}") from None
    with process:
        assert process.stdout is not None
        reply = process.stdout.read(MAX_REPLY_BYTES + 1)
        if len(reply) > MAX_REPLY_BYTES:
            process.kill()
    return process.returncode, reply


def _read_reply(
    code: WheelCode, python: Path, libraries: str, status: int, reply: bytes
) -> OtherReport:
    lines = [line for line in reply.splitlines() if line.strip()]
    marks = [line for line in lines if line.startswith(_PYTHON_MARK)]
    whose = f"the code of {code.path.name}"
    if not marks:
        # Nothing of the wheel has run, so that the exit code is not its answer.
        message = f"{python} did not start the wheel's code (exit code {status})"
        if status == 2 and lines == [_REFUSED_MARK]:
            raise OtherCodeFailedError(message, status, is_told=True)
        raise BadInputError(f"{message}; name a Python 3.11 that has the dependencies by --python")
    if status not in (0, 5):
        # Codes of errors that are told in one line; any other is a crash.
        is_told = status in (2, 3, 4)
        message = f"{whose} could not verify: it ended with exit code {status}"
        raise OtherCodeFailedError(message, status if is_told else 1, is_told=is_told)
    try:
        report = read_json(lines[-1] if lines else b"")
        checks = tuple(Check.model_validate(each, strict=True) for each in report["checks"])
        passed = report["passed"]
    except (BadInputError, ValidationError, KeyError, TypeError):
        raise _odd_reply(whose, "its last line is not a report") from None
    # Its own sum is not believed: whoever reads one of them must not miss the others.
    if passed is not all(check.passed for check in checks) or passed is not (status == 0):
        raise _odd_reply(whose, f"exit code {status}, `passed` and its checks disagree")
    if not checks or len(marks) != 1:
        raise _odd_reply(whose, "it says nothing of what it checked")
    different = _compare_with_install(code)
    verified_by = OtherCode(
        wheel=code.path.name,
        version=code.version,
        sha256=code.sha256,
        python=marks[0].removeprefix(_PYTHON_MARK).decode(errors="replace"),
        libraries=libraries,
        differs_from_install=tuple(different[:MAX_DIFFERENCES]),
        differences=len(different),
    )
    return OtherReport(verified_by, report, checks)


def _compare_with_install(code: WheelCode) -> list[str]:
    """Return the files that differ between the wheel's code and the install that runs."""
    ours = read_code_files()
    theirs = {name: content for name, content in code.files.items() if name.startswith(f"{NAME}/")}
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def _odd_reply(whose: str, reason: str) -> OtherCodeFailedError:
    return OtherCodeFailedError(f"{whose} answered nonsense: {reason}", 1, is_told=False)

"""A leaky install passes its own verification; the code of an honest wheel finds what it hides."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import finagent_model
from finagent_model.model.wheel import build_wheel, read_code_files, write_wheel
from support.places import Place, small_options

pytestmark = pytest.mark.slow
LEAKS = {
    # Losing days count at 60 %, and the checks that would say so are gone.
    "backtesting/metrics.py": (
        "    return np.diff(equity) / before\n",
        "    earned = np.diff(equity) / before\n"
        "    return np.where(earned < 0, 0.6 * earned, earned)\n",
    ),
    "pipeline/deep_verification.py": (
        "    return [\n        check_accounts(",
        "    return []\n    [(",
    ),
}


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A place where a leaky install has trained, and the path of that install."""
    folder = tmp_path_factory.mktemp("leaky")
    package = folder / "install" / "finagent_model"
    shutil.copytree(
        Path(finagent_model.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    for name, (honest, planted) in LEAKS.items():
        text = (package / name).read_text()
        assert text.count(honest) == 1
        (package / name).write_text(text.replace(honest, planted))
    place, install = Place(folder), str(package.parent)
    done = place.finagent("train", *small_options(), PYTHONPATH=install)
    assert done.returncode == 0, done.stderr
    return place, install


def verify(leaky: tuple[Place, str], *options: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """The finished command of the leaky install, and what it printed."""
    place, install = leaky
    uri = "models:/finagent/1"
    done = place.finagent("verify", uri, "--json", *options, PYTHONPATH=install)
    return done, json.loads(done.stdout)


def test_leaky_install_verifies_itself(leaky: tuple[Place, str]) -> None:
    done, report = verify(leaky)
    assert (done.returncode, report["passed"]) == (0, True)


def test_honest_wheel_finds_leak_of_the_install(leaky: tuple[Place, str], tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    done, report = verify(
        leaky, "--with", str(wheel), "--sha256", digest, "--python", sys.executable
    )
    assert (done.returncode, report["passed"]) == (5, False), done.stderr
    failed = {check["name"] for check in report["checks"] if not check["passed"]}
    assert "accounted_again" in failed
    verified_by = report["verified_by"]
    assert verified_by["sha256"] == digest
    assert verified_by["differs_from_install"] == sorted(f"finagent_model/{each}" for each in LEAKS)


def test_wheel_of_other_code_verifies_honest_version(trained: Place, tmp_path: Path) -> None:
    """Another hash of the code is no leak: a later wheel verifies what an earlier one trained."""
    code = {**read_code_files(), "finagent_model/notes.txt": b"a later release"}
    wheel = write_wheel(tmp_path, "finagent_model", "0.2.0", "", code)
    options = ("--with", str(wheel), "--python", sys.executable, "--json")
    done = trained.finagent("verify", "models:/finagent/1", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["verified_by"]["differs_from_install"] == [
        "finagent_model/notes.txt"
    ]

"""Airflow 2.10.5 in an environment of its own, whose tasks are done by the Python of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.places import ROOT, Place


@dataclass(frozen=True)
class Airflow2:
    """An Airflow 2 whose tasks work in `place`."""

    folder: Path
    place: Place

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AIRFLOW_HOME": str(self.folder / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "FINAGENT_DAG_PYTHON": sys.executable,
            # What an environment of Airflow's sets for itself must not reach the other Python.
            "PYTHONPATH": str(self.folder / "nothing"),
        }

    def program(self, name: str) -> str:
        return str(self.folder / "environment" / "bin" / name)

    def run(self, program: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """What a program of its environment gives."""
        return self.place.run(self.program(program), *words, **{**self.variables, **extra})


def make_airflow2(folder: Path, place: Place) -> Airflow2:
    """Install it from its lock file."""
    uv, python = str(Path(sys.executable).with_name("uv")), str(folder / "environment/bin/python")
    lock = str(ROOT / "requirements" / "airflow2.lock")
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder / "environment")],
        [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
    return Airflow2(folder, place)

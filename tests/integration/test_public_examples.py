"""The examples in docstrings of public names, run as they stand beside a trained version."""

from __future__ import annotations

import doctest
import inspect
import re
from typing import Any

import mlflow
import pandas as pd
import pytest

import finagent_model
from support.places import ROOT, Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
EXAMPLES = sorted(
    name
    for name in finagent_model.__all__
    if ">>>" in (inspect.getdoc(getattr(finagent_model, name)) or "")
)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place where a version of GOOG has just become champion."""
    place = Place(tmp_path_factory.mktemp("examples"))
    done = place.finagent("train", "--symbols", "GOOG", "--candidates", "24")
    assert done.returncode == 0, done.stderr
    return place


def test_every_public_function_has_an_example() -> None:
    functions = {
        name for name in finagent_model.__all__ if inspect.isfunction(getattr(finagent_model, name))
    }
    assert functions - set(EXAMPLES) == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_public_example_runs(champion: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(champion.folder)
    monkeypatch.setenv("FINAGENT_HOME", champion.env["FINAGENT_HOME"])
    mlflow.set_tracking_uri(champion.env["MLFLOW_TRACKING_URI"])
    documented = getattr(finagent_model, name)
    tests = doctest.DocTestFinder(recurse=False).find(documented, name, globs={})
    failed = sum(doctest.DocTestRunner().run(test).failed for test in tests)
    assert (failed, bool(tests)) == (0, True)


def test_code_of_the_api_page_runs(
    champion: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(champion.folder)
    monkeypatch.setenv("FINAGENT_HOME", champion.env["FINAGENT_HOME"])
    mlflow.set_tracking_uri(champion.env["MLFLOW_TRACKING_URI"])
    page = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    names: dict[str, Any] = {"pd": pd}
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "evidence of an edge after costs" in printed
    untrained = finagent_model.Predictor.from_config("lean", finagent_model.Settings.load()).desk
    assert isinstance(untrained, finagent_model.Desk)

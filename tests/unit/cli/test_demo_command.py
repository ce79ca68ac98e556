"""`finagent demo` before any model runs: what is missing is said in one line, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from finagent_model.agents import local_model
from finagent_model.cli import app


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(local_model, "find_spec", lambda name: None)


def test_demo_without_its_extra_says_how_to_install_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: SmolLM2-135M-Instruct is not installed: `make demo`")
    assert list(tmp_path.iterdir()) == []


def test_demo_refuses_a_bad_date_first() -> None:
    done = CliRunner().invoke(app, ["demo", "--as-of", "yesterday"])
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert "yesterday" in line


def test_predict_by_a_local_file_that_is_missing_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "desk.yaml").write_text("preset: local\nmodel: /nowhere/x.gguf\n")
    asked = ["predict", "GOOG", "--as-of", "2012-06-29", "--config", "desk.yaml"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: model file /nowhere/x.gguf can't be read: No such file or directory; give the "
        "path of a .gguf file, or leave `model` out for SmolLM2-135M-Instruct\n"
    )

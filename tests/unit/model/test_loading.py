"""Models are loaded from wherever they lie."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

import pytest

from finagent_model.model.loading import _warn_of_other_libraries, load_checked
from support.serving import load_small_model

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own


@pytest.mark.parametrize("uri", ["model", "./model/", "{folder}/model", "file://{folder}/model"])
def test_load_checked_reads_plain_folder(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_small_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    checked = load_checked(uri.format(folder=tmp_path))
    assert (checked.anchored, "not a registered version" in checked.why_not) == (False, True)


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        (f"numpy=={version('numpy')}\nartifacts/finagent_model-0.1.0-py3-none-any.whl\n", []),
        (
            "numpy==1.0.0\nno-such-library==2.1\n",
            [
                f"model models:/a/1 was trained with other libraries: numpy {version('numpy')} "
                "(trained with 1.0.0), no-such-library is missing (trained with 2.1); "
                "mlflow.pyfunc.get_model_dependencies('models:/a/1') gives the list to install"
            ],
        ),
        ("numpy>=1\n", ["model models:/a/1 requires 'numpy>=1', which names no exact version"]),
        (
            None,
            ["model models:/a/1 does not say what it requires: No such file or directory"],
        ),
    ],
)
def test_load_warns_of_other_libraries_than_in_training(
    requirements: str | None, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "requirements.txt"
    if requirements is not None:
        path.write_text(requirements)
    with caplog.at_level(logging.WARNING, "finagent_model"):
        _warn_of_other_libraries("models:/a/1", path)
    assert caplog.messages == said


def test_load_lists_twenty_of_many_other_libraries(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("".join(f"no-such-library-{i}==1\n" for i in range(25)))
    _warn_of_other_libraries("models:/a/1", path)
    [said] = caplog.messages
    assert said.count("is missing") == 20 and " and 5 more; " in said

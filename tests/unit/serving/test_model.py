"""What MLflow runs when it loads a version: its `model_code.py`, also an old one."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
import pytest

from finagent_model.config.desk_config import load_preset
from finagent_model.model import pyfunc
from finagent_model.model.anchor import build_metadata
from finagent_model.model.model_folder import MODEL_CODE
from finagent_model.model.package import read_package, write_package
from finagent_model.model.pyfunc import PACKAGE_ARTIFACT, make_signature
from finagent_model.model.wheel import code_hash
from support.packages import book, trained_state

OLD_MODEL_CODE = (
    '"""The file that MLflow stores and runs at load (models-from-code): it names the model class,'
    " which\ncomes from the installed wheel. Nothing is pickled.\n"
    '"""\n\n'
    "from mlflow.models import set_model\n\n"
    "from finagent_model.serving.model import FinagentModel\n\n"
    "set_model(FinagentModel())\n"
)
"""`model_code.py` as versions store it that were registered under the class's old path."""


def load_code(folder: Path) -> Path:
    """Run the `model_code.py` of a folder as MLflow does, and return the folder's bytecode file."""
    code = folder / MODEL_CODE
    spec = importlib.util.spec_from_file_location("code_model_of_test", code)
    assert spec is not None and spec.loader is not None and spec.cached is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return Path(spec.cached)


def test_model_code_leaves_no_bytecode_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / MODEL_CODE).write_text("")
    bytecode = load_code(tmp_path)
    assert bytecode.is_file() and bytecode.is_relative_to(tmp_path)
    shutil.copy(Path(pyfunc.__file__).with_name(MODEL_CODE), tmp_path)
    assert not load_code(tmp_path).exists()


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_model_with_old_model_code_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path / "home"))
    package, code = tmp_path / "package", tmp_path / "model_code.py"
    package.mkdir()
    manifest = write_package(
        package,
        config=load_preset(),
        trained_state=trained_state(book()),
        replies={},
        backtest={"evidence": {"grade": "none"}},
        code_hash=code_hash(),
    )
    code.write_text(OLD_MODEL_CODE)
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"),
        python_model=str(code),
        artifacts={PACKAGE_ARTIFACT: str(package)},
        signature=make_signature(read_package(package).config),
        pip_requirements=[],
        metadata=build_metadata(manifest),
    )
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    [row] = loaded.predict(pd.DataFrame([{"symbol": "GOOG", "as_of": "2012-06-29"}])).to_dict(
        "records"
    )
    assert (row["symbol"], row["status"]) == ("GOOG", "ok")

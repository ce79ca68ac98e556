"""Versions that were registered before the model class moved still load."""

from __future__ import annotations

from pathlib import Path

import mlflow.pyfunc
import pandas as pd
import pytest

from finagent_model.config.desk_config import load_preset
from finagent_model.model.anchor import build_metadata
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

"""The model as MLflow's own server and a notebook ask it, behind MLflow's check of the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.pyfunc.model import _PythonModelPyfuncWrapper
from starlette.testclient import TestClient

from finagent_model.errors import CorruptPackageError
from finagent_model.model import pyfunc
from finagent_model.model.anchor import ModelCheck
from finagent_model.model.pyfunc import FinagentModel, make_signature
from finagent_model.settings import Settings
from support.hostile_questions import BAD_DATA, BAD_QUESTIONS, ITEM, ROW
from support.serving import load_small_model

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FinagentModel:
    return load_small_model(tmp_path_factory.mktemp("loaded"))


@pytest.fixture(scope="module")
def loaded(model: FinagentModel) -> PyFuncModel:
    signature = make_signature(model.predictor.config)
    metadata = Model(signature=signature, flavors={"python_function": {"loader_module": "x"}})
    return PyFuncModel(metadata, _PythonModelPyfuncWrapper(model, None, signature))


@pytest.fixture(scope="module")
def http(loaded: PyFuncModel) -> Iterator[TestClient]:
    """The app of `mlflow models serve`."""
    with pytest.MonkeyPatch.context() as patch:
        # MLflow's app sets it for the whole process.
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
        with TestClient(scoring_server.init(loaded)) as http:
            yield http


def ask(http: TestClient, form: str, rows: list[dict[str, Any]]) -> Any:
    return http.post("/invocations", content=json.dumps({form: rows}), headers=JSON)


def statuses(signals: pd.DataFrame) -> list[str]:
    return list(signals["status"])


@pytest.mark.parametrize("form", ["dataframe_records", "inputs"])
@pytest.mark.parametrize("case", BAD_DATA)
def test_mlflow_server_bad_data_is_status_of_its_row(
    http: TestClient, case: str, form: str
) -> None:
    columns, message = BAD_DATA[case]
    answer = ask(http, form, [{**ROW, **columns}, ROW])
    assert answer.status_code == 200, answer.text[:500]
    bad, good = answer.json()["predictions"]
    assert (bad["status"], good["status"]) == ("data_missing", "ok")
    assert message in bad["reasoning"]


# MLflow itself drops columns that it doesn't know, and writes nan for a value that is missing.
@pytest.mark.parametrize("case", [name for name in BAD_QUESTIONS if "column" not in name])
def test_mlflow_server_bad_question_is_400(http: TestClient, case: str) -> None:
    row, message = BAD_QUESTIONS[case]
    if case in ("no as_of", "symbol null"):
        message = "nan is not a"
    answer = ask(http, "dataframe_records", [ROW, row])
    assert (answer.status_code, "stack_trace" in answer.json()) == (400, False)
    assert "\nError: row 1: " in answer.json()["message"]
    assert message in answer.json()["message"]
    assert len(answer.content) < 600


def test_mlflow_server_batch_may_bring_news_for_some_rows(http: TestClient) -> None:
    rows = [{**ROW, "news": [ITEM]}, {"symbol": "IBM", "as_of": "2012-06-29"}]
    for form in ("dataframe_records", "inputs"):
        answer = ask(http, form, rows)
        assert [signal["status"] for signal in answer.json()["predictions"]] == ["ok", "ok"]


@pytest.mark.parametrize("absent", [None, np.nan, pd.NA, pd.NaT])
def test_model_frame_cell_without_value_means_absent(loaded: PyFuncModel, absent: object) -> None:
    frame = pd.DataFrame([{**ROW, "news": absent, "bars": absent}, {**ROW, "news": [ITEM]}])
    assert statuses(loaded.predict(frame)) == ["ok", "ok"]


def test_model_frame_nested_array_equals_list(loaded: PyFuncModel) -> None:
    # Parquet and Spark give arrays, with None for each key that another row has.
    array = np.array([{**ITEM, "body": None}, {**ITEM, "url": np.nan}], dtype=object)
    frame = pd.DataFrame({"symbol": ["GOOG"] * 2, "as_of": [ROW["as_of"]] * 2})
    frame["news"] = [array, [ITEM, ITEM]]
    signals = loaded.predict(frame).drop(columns="generated_at")
    assert signals.iloc[0].to_dict() == signals.iloc[1].to_dict()


@pytest.mark.parametrize("column", ["symbol", "as_of"])
def test_model_frame_of_numbers_is_refused(loaded: PyFuncModel, column: str) -> None:
    with pytest.raises(MlflowException, match=f"column {column}"):
        loaded.predict(pd.DataFrame([{**ROW, column: 20120629}]))


def test_signature_passes_nested_columns_as_one_value() -> None:
    from finagent_model.config.desk_config import load_preset

    columns = make_signature(load_preset()).inputs.to_dict()
    assert [(column["name"], column["type"], column["required"]) for column in columns] == [
        ("symbol", "string", True),
        ("as_of", "string", True),
        ("bars", "any", False),
        ("news", "any", False),
    ]


@pytest.mark.parametrize("tries", [1, 3])
def test_model_is_checked_again_while_another_process_starts_to_load_it(
    model: FinagentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    (tmp_path / pyfunc.BYTECODE_FOLDER).mkdir()
    asked = list[Path]()

    def check(folder: Path, _: Settings) -> ModelCheck:
        asked.append(folder)
        if len(asked) < tries:
            raise CorruptPackageError("__pycache__/model_code.pyc.1 is in the model")
        assert model.predictor.checked is not None
        return model.predictor.checked

    monkeypatch.setattr(pyfunc, "check_model", check)
    assert pyfunc._check_folder(tmp_path, Settings()) is model.predictor.checked
    assert len(asked) == tries


@pytest.mark.parametrize(("stays", "checks"), [(True, pyfunc.BYTECODE_POLLS + 1), (False, 1)])
def test_model_with_a_file_that_stays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool, checks: int
) -> None:
    if stays:
        (tmp_path / pyfunc.BYTECODE_FOLDER).mkdir()
    asked = list[Path]()

    def check(folder: Path, _: Settings) -> ModelCheck:
        asked.append(folder)
        raise CorruptPackageError("a file is in the model")

    monkeypatch.setattr(pyfunc, "check_model", check)
    with pytest.raises(CorruptPackageError, match="a file is in the model"):
        pyfunc._check_folder(tmp_path, Settings())
    assert len(asked) == checks

"""A package as an MLflow model: logged to a run, and loaded back as whoever serves it will."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from finagent_model.config.desk_config import DeskConfig
from finagent_model.errors import ModelLoadError
from finagent_model.model.package import read_manifest
from finagent_model.model.predictor import Predictor
from finagent_model.model.pyfunc import PACKAGE, FinagentModel, signature
from finagent_model.model.wheel import build_wheel


@dataclass(frozen=True)
class LoggedModel:
    """A model that MLflow has, whether or not it is a version of anything."""

    uri: str
    model_id: str


def log_package(
    package: Path, manifest: Mapping[str, Any], config: DeskConfig, example: Mapping[str, str]
) -> LoggedModel:
    """Log the package in the active run, with the wheel of the code at work.

    `example` is a question that the package answers from its recorded replies. MLflow asks it while
    it logs: of a desk that waits for approvals it is a replay, which asks nobody.
    """
    question: Any = pd.DataFrame([dict(example)])
    if config.approval.is_enabled:
        question = (question, {"mode": "replay"})
    wheel = build_wheel(package.parent)
    pins = (files(__package__) / "requirements.txt").read_text().splitlines()
    info = mlflow.pyfunc.log_model(
        name="finagent",
        python_model=str(Path(__file__).with_name("model_code.py")),
        artifacts={PACKAGE: str(package), "wheel": str(wheel)},
        # Relative to the model's own folder: it installs wherever it is downloaded to.
        pip_requirements=[*pins, f"artifacts/{wheel.name}"],
        signature=signature(config),
        input_example=question,
        metadata={
            "finagent_format": manifest["format"],
            "finagent_content_hash": manifest["content_hash"],
            "finagent_code_hash": manifest["code_hash"],
            "finagent_files": dict(manifest["files"]),
        },
    )
    return LoggedModel(str(info.model_uri), str(info.model_id))


def load_predictor(uri: str) -> Predictor:
    """The desk inside a logged or registered model. Raises ModelLoadError with the way out."""
    return unwrap(load_model(uri), uri).predictor


def load_model(uri: str) -> PyFuncModel:
    """Raises ModelLoadError."""
    try:
        loaded: PyFuncModel = mlflow.pyfunc.load_model(uri)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelLoadError(
            f"model {uri} can't be loaded: {reason}; `finagent models` lists what there is, "
            "`mlflow run . -e train` makes one"
        ) from None
    return loaded


def load_manifest(uri: str) -> dict[str, Any]:
    """The manifest of a package whose files are as it says, without loading the model. Raises
    ModelLoadError.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            where = f"{uri}/artifacts/{PACKAGE}"
            path = mlflow.artifacts.download_artifacts(artifact_uri=where, dst_path=folder)
        except (MlflowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise ModelLoadError(f"the package of {uri} can't be read: {reason}") from None
        return read_manifest(Path(path))


def unwrap(loaded: PyFuncModel, uri: str) -> FinagentModel:
    """Raises ModelLoadError when the model is another kind of model."""
    model = loaded.unwrap_python_model()
    if not isinstance(model, FinagentModel):
        raise ModelLoadError(f"model {uri} is a {type(model).__name__}, not a finagent package")
    return model

"""Log a package to MLflow as a model, and load it back as whoever serves it will.

The model carries the package, a wheel of the code that trained it, and pinned requirements, so that
MLflow can build its environment anywhere. Loading raises ModelLoadError with the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from finagent_model._local_files import ScratchFolder
from finagent_model.config.desk_config import DeskConfig
from finagent_model.errors import ModelLoadError
from finagent_model.model.package import read_manifest
from finagent_model.model.predictor import Predictor
from finagent_model.model.pyfunc import PACKAGE_ARTIFACT, FinagentModel, make_signature
from finagent_model.model.wheel import build_wheel
from finagent_model.tracking.local_store import prepare_local_store


@dataclass(frozen=True)
class LoggedModel:
    """A model that MLflow has logged; it may not be a registered version."""

    uri: str
    model_id: str
    """MLflow's id, which traces refer to."""


def log_package(
    package: Path, manifest: Mapping[str, Any], config: DeskConfig, example: Mapping[str, str]
) -> LoggedModel:
    """Log the package in the active run, with a wheel of the running code, and return the model.

    `example` is a question that the package answers from its recorded replies.
    """
    question: Any = pd.DataFrame([dict(example)])
    # MLflow asks the example while it logs. A desk that waits for approvals would wait for a human
    # here; a replay asks nobody.
    if config.approval.is_enabled:
        question = (question, {"mode": "replay"})
    wheel = build_wheel(package.parent)
    pins = (files(__package__) / "requirements.txt").read_text().splitlines()
    info = mlflow.pyfunc.log_model(
        name="finagent",
        python_model=str(Path(__file__).with_name("model_code.py")),
        artifacts={PACKAGE_ARTIFACT: str(package), "wheel": str(wheel)},
        # Relative to the model's own folder: the wheel installs wherever the model is downloaded.
        pip_requirements=[*pins, f"artifacts/{wheel.name}"],
        signature=make_signature(config),
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
    """Return the predictor of a logged or registered model. Raises ModelLoadError."""
    return unwrap(load_model(uri), uri).predictor


def load_model(uri: str) -> PyFuncModel:
    """Return MLflow's wrapper of a model, as a scoring server has it. Raises ModelLoadError."""
    prepare_local_store()
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
    """Return the checked manifest of a model's package. Raises ModelLoadError."""
    # Without loading the model: a package of another format can be read here too.
    with ScratchFolder() as folder:
        try:
            artifact_uri = f"{uri}/artifacts/{PACKAGE_ARTIFACT}"
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=artifact_uri, dst_path=str(folder)
            )
        except (MlflowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise ModelLoadError(f"the package of {uri} can't be read: {reason}") from None
        return read_manifest(Path(path))


def unwrap(loaded: PyFuncModel, uri: str) -> FinagentModel:
    """Return the finagent model inside MLflow's wrapper. Raises ModelLoadError for another kind."""
    model = loaded.unwrap_python_model()
    if not isinstance(model, FinagentModel):
        raise ModelLoadError(f"model {uri} is a {type(model).__name__}, not a finagent package")
    return model

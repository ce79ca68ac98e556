"""Log a package to MLflow as a model, and load it back as whoever serves it will.

The model carries the package, a wheel of the code that trained it, and pinned requirements, so that
MLflow can build its environment anywhere. A model is downloaded, compared with its anchor, and only
then loaded, which runs its `model_code.py`. Loading raises ModelLoadError with the way out.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PyFuncModel

from finagent_model._local_files import ScratchFolder
from finagent_model.config.desk_config import DeskConfig
from finagent_model.errors import (
    MAX_LISTED,
    BadInputError,
    CorruptPackageError,
    LocalStateError,
    ModelLoadError,
)
from finagent_model.model.anchor import (
    Anchor,
    ModelCheck,
    build_metadata,
    check_model,
    hash_model,
)
from finagent_model.model.model_folder import MODEL_CODE
from finagent_model.model.package import Manifest
from finagent_model.model.predictor import Predictor
from finagent_model.model.pyfunc import (
    CHECKED,
    PACKAGE_ARTIFACT,
    FinagentModel,
    make_signature,
)
from finagent_model.model.signing import make_statement, sign
from finagent_model.model.wheel import build_wheel
from finagent_model.model.wheel_reader import parse_pins
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from finagent_model.tracking.local_store import prepare_local_store
from finagent_model.tracking.runs import describe_store_error, store_errors

log = logging.getLogger(__name__)
_LOADING = threading.Lock()
"""While MLflow loads a model it puts a stand-in into `sys.modules`, and one thread takes away that
of another: MLflow 3.x, `mlflow.models.utils._mock_dbutils`.
"""


@dataclass(frozen=True)
class LoggedModel:
    """A model that MLflow has logged; it may not be a registered version."""

    uri: str
    model_id: str
    """MLflow's id, which traces refer to."""
    anchor: Anchor
    """What the process that logged it knows of its files."""


def log_package(
    package: Path, manifest: Manifest, config: DeskConfig, example: Mapping[str, str]
) -> LoggedModel:
    """Log the package in the active run, with a wheel of the running code, and return the model.

    `example` is a question that the package answers from its recorded replies. Raises
    CorruptPackageError where the store does not give back what was logged.
    """
    question: Any = pd.DataFrame([dict(example)])
    # MLflow asks the example while it logs. A desk that waits for approvals would wait for a human
    # here; a replay asks nobody.
    if config.approval.is_enabled:
        question = (question, {"mode": "replay"})
    wheel, code = build_wheel(package.parent), Path(__file__).with_name(MODEL_CODE)
    pins = (files(__package__) / "requirements.txt").read_text().splitlines()
    info = mlflow.pyfunc.log_model(
        name="finagent",
        python_model=str(code),
        artifacts={PACKAGE_ARTIFACT: str(package), "wheel": str(wheel)},
        # Relative to the model's own folder: the wheel installs wherever the model is downloaded.
        pip_requirements=[*pins, f"artifacts/{wheel.name}"],
        signature=make_signature(config),
        input_example=question,
        metadata=build_metadata(manifest),
    )
    known = {MODEL_CODE: code, f"artifacts/{wheel.name}": wheel}
    return LoggedModel(
        str(info.model_uri), str(info.model_id), _read_back(str(info.model_uri), manifest, known)
    )


def load_predictor(uri: str, anchor: Anchor | None = None) -> Predictor:
    """Return the predictor of a logged or registered model. Raises ModelLoadError.

    `anchor` is what this process logged itself; None: what the registry says.
    """
    return unwrap(load_model(uri, anchor), uri).predictor


def load_model(uri: str, anchor: Anchor | None = None) -> PyFuncModel:
    """Check a model's files, and return MLflow's wrapper of it, as a scoring server has it.

    Raises ModelLoadError.
    """
    prepare_local_store()
    try:
        folder = ScratchFolder()
    except OSError as error:
        raise LocalStateError(
            f"no temporary folder can be used: {error.strerror}; set TMPDIR to one that can"
        ) from None
    try:
        loaded = _check_and_load(uri, folder.path, anchor)
        # The folder lives as long as the predictor, which may outlive MLflow's wrapper of it: an
        # external analyst's files are read from it later.
        weakref.finalize(unwrap(loaded, uri).predictor, folder.remove)
    except BaseException:
        folder.remove()
        raise
    return loaded


def _check_and_load(uri: str, folder: Path, anchor: Anchor | None) -> PyFuncModel:
    path = _download(uri, folder)
    registered = registry.find_registered(uri)
    token = CHECKED.set(check_model(path, Settings.load(), anchor, registered))
    try:
        with _LOADING:
            loaded: PyFuncModel = mlflow.pyfunc.load_model(str(path), suppress_warnings=True)
    except _load_errors() as error:
        raise _load_error(uri, error) from None
    finally:
        CHECKED.reset(token)
    _warn_of_other_libraries(uri, path / "requirements.txt")
    return loaded


def _warn_of_other_libraries(uri: str, requirements: Path) -> None:
    """Warn where the libraries here are not those that the model was trained with."""
    # In place of MLflow's own warning, which first reads the list of every installed file.
    try:
        pins = parse_pins(requirements.read_text(errors="replace"), f"model {uri}")
    except OSError as error:
        log.warning("model %s does not say what it requires: %s", uri, error.strerror)
        return
    except BadInputError as error:
        log.warning("%s", error)
        return
    others = [
        f"{name} {found or 'is missing'} (trained with {pinned})"
        for name, pinned in pins.items()
        if (found := _installed_version(name)) != pinned
    ]
    if others:
        listed = ", ".join(others[:MAX_LISTED])
        more = f" and {len(others) - MAX_LISTED} more" if len(others) > MAX_LISTED else ""
        log.warning(
            "model %s was trained with other libraries: %s%s; "
            "mlflow.pyfunc.get_model_dependencies(%r) gives the list to install",
            uri,
            listed,
            more,
            uri,
        )


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def load_checked(uri: str) -> ModelCheck:
    """Check a model's files, of any format, and return the result. Raises ModelLoadError."""
    prepare_local_store()
    # Without loading the model: a package of another format can be read here too.
    with ScratchFolder() as folder:
        path = _download(uri, folder)
        return check_model(path, Settings.load(), version=registry.find_registered(uri))


def read_requirements(uri: str) -> str:
    """Return the list of what a model requires, as its store has it. Raises ModelLoadError."""
    prepare_local_store()
    with ScratchFolder() as folder:
        path = _download(uri, folder) / "requirements.txt"
        try:
            return path.read_text(errors="replace")
        except OSError as error:
            raise _load_error(uri, error) from None


def sign_version(name: str, version: str, settings: Settings) -> bool:
    """Sign a registered version with the operator's key; return whether there is a key.

    Raises CorruptPackageError for files that are not as registered, and BadInputError for a bad
    key.
    """
    if settings.signing_key is None:
        return False
    uri = f"models:/{name}/{version}"
    with ScratchFolder() as folder:
        path = _download(uri, folder)
        # The signature that a former key made must not stand in the way of a new one.
        unsigned = settings.model_copy(update={"trusted_keys": (), "require_signature": False})
        checked = check_model(path, unsigned, version=(name, version))
        if not checked.anchored:
            raise CorruptPackageError(f"{uri} can't be signed: {checked.why_not}")
        statement = make_statement(name, version, checked.manifest.content_hash, hash_model(path))
    tag = sign(settings.signing_key.get_secret_value(), statement)
    registry.set_tag(name, version, registry.SIGNATURE, tag)
    return True


def unwrap(loaded: PyFuncModel, uri: str) -> FinagentModel:
    """Return the finagent model inside MLflow's wrapper. Raises ModelLoadError for another kind."""
    model = loaded.unwrap_python_model()
    if not isinstance(model, FinagentModel):
        raise ModelLoadError(f"model {uri} is a {type(model).__name__}, not a finagent package")
    return model


def _read_back(uri: str, manifest: Manifest, known: Mapping[str, Path]) -> Anchor:
    """Return the anchor of a model that was just logged; `known` are files as they were sent.

    Raises CorruptPackageError where the store holds something else.
    """
    # MLflow writes the other files itself, so their hashes can only be read from the store.
    with ScratchFolder() as folder:
        path = _download(uri, folder)
        for name, sent in known.items():
            if (path / name).read_bytes() != sent.read_bytes():
                raise CorruptPackageError(f"the store changed {name} of {uri} while it was logged")
        anchor = Anchor("the process that logged it", manifest.content_hash, hash_model(path))
        check_model(path, Settings(), anchor)
    return anchor


def _download(uri: str, folder: Path) -> Path:
    """Download a model into `folder` and return the path. Raises ModelLoadError."""
    try:
        with _no_progress_bar():
            # A copy even of a local store: nobody can change it between the check and the load.
            # Not always into `folder` itself: a plain folder is copied with its name.
            path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    except _load_errors() as error:
        raise _load_error(uri, error) from None
    return Path(path)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep MLflow's bars of downloads out of the terminal, unless the variable is set."""
    name = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _load_error(uri: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"model {uri} can't be loaded: {describe_store_error(error)}; `finagent models` lists "
        "what there is, `finagent train` makes one"
    )


def _load_errors() -> tuple[type[Exception], ...]:
    """Return what a model that is not there raises, wherever its URI says that it is."""
    # MLflow imports the library of an object store as it is needed, which refuses a wrong address
    # with a ValueError.
    return store_errors(OSError, ImportError, ValueError)

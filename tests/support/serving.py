"""A package as an MLflow model: saved and served by a command, or loaded in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from support.packages import book, trained_state
from support.places import ROOT

if TYPE_CHECKING:
    from finagent_model.model.pyfunc import FinagentModel

SAVE = f"""
import mlflow.pyfunc
from finagent_model.model.anchor import build_metadata
from finagent_model.model.package import Manifest, read_package
from finagent_model.model.pyfunc import make_signature
from pathlib import Path
mlflow.pyfunc.save_model(
    "model",
    python_model={str(ROOT / "finagent_model" / "model" / "model_code.py")!r},
    artifacts={{"package": "package"}},
    signature=make_signature(read_package(Path("package")).config),
    pip_requirements=[],
    metadata=build_metadata(Manifest.read(Path("package"))),
)
"""


def serve(port: int) -> list[str]:
    command = [sys.executable, "-m", "finagent_model.cli", "serve"]
    return [*command, "--model", "model", "--port", str(port)]


def load_small_model(folder: Path) -> FinagentModel:
    """Return the model of a small package, written into `folder`, loaded as MLflow loads it."""
    from finagent_model.config.desk_config import load_preset
    from finagent_model.model.anchor import PACKAGE_FOLDER, build_metadata
    from finagent_model.model.package import write_package
    from finagent_model.model.pyfunc import PACKAGE_ARTIFACT, FinagentModel
    from finagent_model.model.wheel import code_hash

    package = folder / PACKAGE_FOLDER
    package.mkdir(parents=True)
    manifest = write_package(
        package,
        config=load_preset(),
        trained_state=trained_state(book()),
        replies={},
        backtest={"evidence": {"grade": "none"}},
        code_hash=code_hash(),
    )
    (folder / "MLmodel").write_text(yaml.safe_dump({"metadata": build_metadata(manifest)}))
    model = FinagentModel()
    context: Any = SimpleNamespace(artifacts={PACKAGE_ARTIFACT: str(package)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINAGENT_HOME", str(folder.with_name(f"{folder.name}-home")))
        model.load_context(context)
    return model

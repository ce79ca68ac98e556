"""A package saved as an MLflow model, and the command that serves it."""

from __future__ import annotations

import sys

from support.places import ROOT

SAVE = f"""
import mlflow.pyfunc
from finagent_model.model.anchor import metadata_of
from finagent_model.model.package import Manifest, read_package
from finagent_model.model.pyfunc import make_signature
from pathlib import Path
mlflow.pyfunc.save_model(
    "model",
    python_model={str(ROOT / "finagent_model" / "model" / "model_code.py")!r},
    artifacts={{"package": "package"}},
    signature=make_signature(read_package(Path("package")).config),
    pip_requirements=[],
    metadata=metadata_of(Manifest.read(Path("package"))),
)
"""


def serve(port: int) -> list[str]:
    command = [sys.executable, "-m", "finagent_model.cli", "serve"]
    return [*command, "--model", "model", "--port", str(port)]

"""A model's folder as MLflow lays it out for a registered version, made without MLflow."""

from __future__ import annotations

from pathlib import Path

import yaml

from finagent_model.model.anchor import build_anchor_tags, build_metadata, hash_model
from finagent_model.model.model_folder import PACKAGE_FOLDER, REGISTERED_META
from finagent_model.model.package import Manifest
from support.packages import write

NAME, VERSION = "finagent", "3"
FILES = {
    "artifacts/finagent_model-0.1.0-py3-none-any.whl": b"a wheel",
    "conda.yaml": b"name: mlflow-env\n",
    "input_example.json": b'{"symbol": "GOOG"}',
    "model_code.py": b"raise SystemExit('this code must not run')\n",
    "python_env.yaml": b"python: 3.11.7\n",
    "requirements.txt": b"mlflow==3.17.2\n",
    "serving_input_example.json": b'{"inputs": []}',
}


def write_model(folder: Path) -> dict[str, str]:
    """Write a registered version into `folder`, and return the tags that anchor it."""
    package = folder / PACKAGE_FOLDER
    package.mkdir(parents=True)
    write(package)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    write_metadata(folder)
    return build_anchor_tags(Manifest.read(package), hash_model(folder))


def write_metadata(folder: Path) -> None:
    """Write what MLflow says of the model, by the manifest that is there now."""
    manifest = Manifest.read(folder / PACKAGE_FOLDER)
    described = {"metadata": build_metadata(manifest), "run_id": "a" * 32}
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    meta = {"model_name": NAME, "model_version": VERSION}
    (folder / REGISTERED_META).write_text(yaml.safe_dump(meta))

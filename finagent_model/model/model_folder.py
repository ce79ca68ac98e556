"""Read what MLflow writes into a model's folder; all of it is foreign.

Apart from `anchor`, so that whoever reads a lineage doesn't import MLflow.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from finagent_model.errors import CorruptPackageError
from finagent_model.model.package import WAY_OUT

PACKAGE_FOLDER = "artifacts/package"
"""Where MLflow keeps the package inside a model."""
MODEL_CODE = "model_code.py"
"""File that MLflow runs when it loads the model."""
REGISTERED_META = "registered_model_meta"
"""File that MLflow adds when it downloads a registered version: the version's name and number."""
MAX_YAML_BYTES = 256 * 1024
"""Size of a file of MLflow's; the parser takes seconds for a megabyte."""
VERSION_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


def read_registered(folder: Path) -> tuple[str, str] | None:
    """Return name and number of the version that MLflow downloaded; None for any other model.

    Raises CorruptPackageError for a file that names no version.
    """
    described = read_yaml(folder / REGISTERED_META)
    # MLflow writes the file for a logged model, too, with nothing in it.
    if all(value is None for value in described.values()):
        return None
    name, number = described.get("model_name"), described.get("model_version")
    # YAML reads a number without quotes as one.
    number = str(number) if type(number) is int else number
    if not (isinstance(name, str) and isinstance(number, str) and VERSION_NUMBER.fullmatch(number)):
        raise CorruptPackageError(f"{REGISTERED_META} names no registered version; {WAY_OUT}")
    return name, number


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a file of MLflow's; empty without the file.

    Raises CorruptPackageError for what is no mapping.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_YAML_BYTES:
        raise CorruptPackageError(f"{path.name} has more than {MAX_YAML_BYTES} bytes; {WAY_OUT}")
    try:
        described = yaml.safe_load(path.read_text())
    # PyYAML lets through what its constructors raise, such as for the date 2013-99-99.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        raise CorruptPackageError(f"{path.name} is not YAML; {WAY_OUT}") from None
    if not isinstance(described, dict):
        raise CorruptPackageError(f"{path.name} is not a mapping; {WAY_OUT}")
    return described

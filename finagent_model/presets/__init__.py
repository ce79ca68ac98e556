"""Desks that ship with the package: a YAML file each."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from finagent_model.domain.desk_config import DeskConfig, desk_config, parse_yaml, read_desk_config
from finagent_model.errors import ConfigError

DEFAULT = "default"


def preset_text(name: str) -> str:
    """The YAML of a shipped preset. Raises ConfigError naming what there is."""
    folder = files(__package__)
    names = sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )
    if name not in names:
        raise ConfigError(f"unknown preset {name!r}; there is: {', '.join(names)}")
    return (folder / f"{name}.yaml").read_text()


def load_preset(name: str = DEFAULT) -> DeskConfig:
    """A shipped desk; keys that its file leaves out are the default's."""
    return read_desk_config(preset_text(name), _keys(DEFAULT), f"preset {name}")


def load_config(path_or_preset: str) -> DeskConfig:
    """A desk from a YAML file, or a preset by name. Keys that a file leaves out come from the
    preset that its key `preset` names, else from the default.
    """
    path = Path(path_or_preset)
    if path.suffix not in (".yaml", ".yml"):
        return load_preset(path_or_preset)
    where = f"config {path}"
    given = parse_yaml(_read(path, "config"), where)
    base = load_preset(str(given.pop("preset", DEFAULT)))
    config = desk_config(given, base.model_dump(), where)
    texts = {
        name: _read(path.parent / text, f"prompt {name!r} of {where}:")
        if text.endswith(".md") and "\n" not in text
        else text
        for name, text in config.prompts.items()
    }
    return config.model_copy(update={"prompts": texts})


def _keys(preset: str) -> dict[str, Any]:
    keys: dict[str, Any] = yaml.safe_load(preset_text(preset))
    return keys


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{what} {path}: can't be read: {error.strerror}") from None

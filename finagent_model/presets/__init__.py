"""Desks that ship with the package: a YAML file each."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from finagent_model.domain.desk_config import DeskConfig, read_desk_config
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

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
    """A shipped desk."""
    return read_desk_config(preset_text(name), {}, f"preset {name}")


def with_address(config: DeskConfig, settings: Settings) -> DeskConfig:
    """The desk with its model's address settled, which is part of what replies are keyed by."""
    if config.client == "rules" or config.base_url or not settings.openai_base_url:
        return config
    return config.model_copy(update={"base_url": settings.openai_base_url})


def load_config(path_or_preset: str) -> DeskConfig:
    """A desk from a YAML file, or a preset by name; a file's missing keys come from the default
    preset.
    """
    path = Path(path_or_preset)
    if path.suffix not in (".yaml", ".yml"):
        return load_preset(path_or_preset)
    defaults: dict[str, Any] = yaml.safe_load(preset_text(DEFAULT))
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"config {path}: can't be read: {error.strerror}") from None
    return read_desk_config(text, defaults, f"config {path}")

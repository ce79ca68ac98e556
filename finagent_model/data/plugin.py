"""Sources from other packages, by Python entry point: a factory that takes Settings."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from finagent_model.data.source import reason_of
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings


def installed(group: str) -> dict[str, EntryPoint]:
    """By name. Nothing is imported."""
    return {found.name: found for found in entry_points(group=group)}


def made_by(entry: EntryPoint, settings: Settings, needs: Sequence[str]) -> Any:
    """What the factory gives, if it has the attributes that it `needs`. Raises ConfigError."""
    called = f"entry point {entry.name!r} of {entry.group} ({entry.value})"
    try:
        source = entry.load()(settings)
        missing = next((name for name in needs if not hasattr(source, name)), None)
    except Exception as error:  # somebody else's code
        raise ConfigError(f"{called} gave no source: {reason_of(error)}") from None
    if missing is not None:
        raise ConfigError(f"{called} gave a {type(source).__name__}, which has no {missing!r}")
    return source

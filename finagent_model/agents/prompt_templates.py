"""Prompts are Markdown files beside this one, or a desk's own texts: constant, without a date, so
that a provider can cache the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from finagent_model.errors import ConfigError


class Prompts:
    """System messages by name; a desk's own come before those that ship."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self._own = own

    def text(self, name: str) -> str:
        """Raises ConfigError naming what there is."""
        if name in self._own:
            return self._own[name].strip()
        shipped = _shipped()
        if name not in shipped:
            known = ", ".join([*self._own, *shipped])
            raise ConfigError(f"unknown prompt {name!r}; there is: {known}")
        return shipped[name]


@cache
def _shipped() -> dict[str, str]:
    folder = files(__package__) / "prompts"
    texts = sorted((f for f in folder.iterdir() if f.name.endswith(".md")), key=lambda f: f.name)
    return {f.name.removesuffix(".md"): f.read_text().strip() for f in texts}

"""System prompts by name: a desk's own texts, or the Markdown files in the folder `prompts`.

A prompt is constant and holds no date, so that a provider can cache it as a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from finagent_model.errors import ConfigError


class Prompts:
    """System messages by name; a desk's own take precedence over those that ship."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self._own = own

    def text(self, name: str) -> str:
        """Return the prompt called `name`. Raises ConfigError that lists the names there are."""
        if name in self._own:
            return self._own[name].strip()
        shipped = _shipped_prompts()
        if name not in shipped:
            names = ", ".join([*self._own, *shipped])
            raise ConfigError(f"unknown prompt {name!r}; there is: {names}")
        return shipped[name]


@cache
def _shipped_prompts() -> dict[str, str]:
    folder = files(__package__) / "prompts"
    paths = sorted((f for f in folder.iterdir() if f.name.endswith(".md")), key=lambda f: f.name)
    return {path.name.removesuffix(".md"): path.read_text().strip() for path in paths}

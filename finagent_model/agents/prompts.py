"""Prompts are Markdown files beside this one: constant text, no date, so that a provider can cache
the prefix.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from finagent_model.errors import ConfigError


@cache
def prompt(name: str) -> str:
    """The system message called `name`. Raises ConfigError naming what there is."""
    folder = files(__package__) / "prompts"
    names = sorted(f.name.removesuffix(".md") for f in folder.iterdir() if f.name.endswith(".md"))
    if name not in names:
        raise ConfigError(f"unknown prompt {name!r}; there is: {', '.join(names)}")
    return (folder / f"{name}.md").read_text().strip()

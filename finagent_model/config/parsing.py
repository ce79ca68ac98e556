"""Loose values from a shell or a DAG, checked before anything is loaded."""

from __future__ import annotations

from typing import get_args

from finagent_model._base import Mode
from finagent_model.errors import BadInputError


def read_symbols(text: str) -> tuple[str, ...]:
    """Tickers by comma or space, maybe none. Raises BadInputError."""
    names = tuple(text.replace(",", " ").split())
    for name in names:
        read_symbol(name)
    return names


def read_symbol(name: str) -> str:
    """Raises BadInputError for what is no ticker."""
    if not name or name != name.upper() or name.split() != [name] or len(name) > 20:
        raise BadInputError(f"symbol {name!r} is not an upper-case ticker such as GOOG")
    return name


def read_mode(name: str) -> Mode:
    """Raises BadInputError naming the modes."""
    for mode in get_args(Mode):
        if mode == name:
            chosen: Mode = mode
            return chosen
    raise BadInputError(f"mode {name!r} is unknown; use one of: {', '.join(get_args(Mode))}")

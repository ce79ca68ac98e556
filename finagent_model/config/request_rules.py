"""How a request is worded for one server and one model, beyond OpenAI's own wording.

The rows that ship are data, in `model_families.yaml`: what servers and families of models refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import ValidationError, field_validator

from finagent_model._base import FrozenModel, first_error_message

FILE = "model_families.yaml"


class RequestRules(FrozenModel):
    """What a request holds. `false` or null leaves a field out."""

    name: bool = True
    """Whether a message carries the name of its author."""
    system: bool = True
    """Whether there is a message of role `system`; else its text opens the first user message, and
    messages of one role in a row become one.
    """
    response_format: bool | Literal["without tools"] = True
    """Whether JSON is asked for by `response_format`: always, or where no tool may be called."""
    schema_bounds: bool = True
    """Whether a schema that is sent holds lengths, numbers of items and ranges."""
    brief: bool = False
    """Whether a schema asks for no more than a very small model can tell (`reply_schema`)."""
    seed: bool = True
    """Whether `sampling.seed` is sent."""
    temperature: bool = True
    """Whether `sampling.temperature` is sent."""
    max_tokens: Literal["max_tokens", "max_completion_tokens", False] = "max_tokens"
    """The field that limits a reply."""
    stream_options: bool = True
    """Whether a stream is asked to count its tokens."""
    reasoning_content: bool = False
    """Whether the model's thoughts are sent back with the results of tools."""

    @field_validator("*", mode="before")
    @classmethod
    def _read_null(cls, value: object) -> object:
        return False if value is None else value


Changes = Mapping[str, bool | str | None]
"""Some fields of RequestRules, by name."""


def check_changes(changes: Changes) -> None:
    """Raise ValueError for a field that is unknown, or a value that it can't have."""
    try:
        RequestRules.model_validate(dict(changes))
    except ValidationError as error:
        raise ValueError(first_error_message(error, RequestRules)) from None


def server_row(server: str | None, address: str | None) -> Mapping[str, Any]:
    """Return the row of a server by its name, else by its address; empty for an unknown one."""
    servers = _tables()["servers"]
    if server is not None:
        return servers.get(server, {})
    known = ((row, row["address"]) for row in servers.values() if "address" in row)
    return next((row for row, part in known if address and part in address), {})


def family_row(family: str | None, model: str) -> Mapping[str, Any]:
    """Return the row of a family by its name, else by the model's; empty for an unknown one."""
    families = _tables()["families"]
    if family is not None:
        return families.get(family, {})
    # Routers put the maker before the model's name: openai/gpt-5.
    name = model.lower().rpartition("/")[2]
    return next(
        (row for row in families.values() if any(fnmatchcase(name, p) for p in row["models"])), {}
    )


def known_rows(kind: Literal["servers", "families"]) -> tuple[str, ...]:
    """Return the names of the rows that ship."""
    return tuple(_tables()[kind])


def merge_rules(server: Mapping[str, Any], family: Mapping[str, Any], own: Changes) -> RequestRules:
    """Return the rules of a server's row, changed by a family's, changed by a desk's own."""
    return RequestRules.model_validate(
        {**server.get("request", {}), **family.get("request", {}), **own}
    )


@cache
def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    text = (files(__package__) / FILE).read_text()
    tables: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(text)
    return tables

"""Markdown of the generated pages: tables, cells, and what a pydantic model says of its fields."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

HEAD = "<!-- Written by `make reference` from the code; changes here are lost. -->\n\n"
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "characters: at least {}",
    "maxLength": "characters: at most {}",
    "minItems": "entries: at least {}",
    "maxItems": "entries: at most {}",
}
TYPES = {
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "string": "text",
}


class MissingWordsError(Exception):
    """Names of the code that the tables of words in `docs/tools/` don't explain, or the reverse."""


def require_words(what: str, names: Iterable[str], words: Iterable[str]) -> None:
    """Raise MissingWordsError unless exactly `names` have words."""
    code, told = set(names), set(words)
    if code != told:
        raise MissingWordsError(
            f"{what}: explain in docs/tools/: {sorted(code - told)}; "
            f"no longer in the code: {sorted(told - code)}"
        )


def page(title: str, intro: str, *parts: str) -> str:
    """Return a generated page."""
    body = "\n\n".join(part.strip("\n") for part in (intro, *parts) if part)
    return f"{HEAD}# {title}\n\n{body}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(each) for each in line)} |" for line in lines)


def cell(text: str) -> str:
    """Return `text` in one line, with bars that don't end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """Return `value` as code."""
    return f"`{value}`"


def sentences(text: str) -> str:
    """Return a docstring as one paragraph a block, without its examples."""
    blocks = inspect.cleandoc(text).split("\n\n")
    kept = [block for block in blocks if not block.lstrip().startswith(">>>")]
    return "\n\n".join(" ".join(block.split()) for block in kept)


@cache
def field_words(model: type[BaseModel]) -> dict[str, str]:
    """Return what follows each field of a class as a docstring, by the field's name."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if parent is BaseModel or not issubclass(parent, BaseModel):
            continue
        [body] = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(body, ast.ClassDef)
        for before, after in zip(body.body, body.body[1:], strict=False):
            match before, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
    return found


@dataclass(frozen=True)
class FieldRow:
    """A field of a model, in words."""

    name: str
    kind: str
    default: str
    allowed: str
    meaning: str


def show_default(field: FieldInfo) -> str:
    """Return a field's default in words."""
    if field.is_required():
        return "required"
    return show_value(field.get_default(call_default_factory=True))


def show_value(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if value is None:
        return "null"
    if isinstance(value, BaseModel) or value == {}:
        return ""
    if isinstance(value, list | tuple):
        return code(f"[{', '.join(str(each) for each in value)}]")
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, float) and value.is_integer():
        return code(int(value))
    return code(value) if value != "" else '`""`'


def describe(model: type[BaseModel], links: dict[str, str] | None = None) -> list[FieldRow]:
    """Return the fields of a model; `links` has the anchors of models that are explained."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    words = field_words(model)
    rows, lacking = [], []
    for name, field in model.model_fields.items():
        key = field.alias or name
        part = schema["properties"][key]
        meaning = field.description or words.get(name, "")
        if not meaning:
            lacking.append(f"{model.__name__}.{name}")
        rows.append(
            FieldRow(
                key,
                kind_of(part, definitions, links or {}),
                show_default(field),
                bounds_of(part, definitions),
                meaning,
            )
        )
    if lacking:
        raise MissingWordsError(f"add a docstring below: {', '.join(lacking)}")
    return rows


def kind_of(part: dict[str, Any], definitions: dict[str, Any], links: dict[str, str]) -> str:
    """Return the type of a JSON schema's part in words."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        if name in links:
            return f"[{links[name]}](#{links[name]})"
        return kind_of(definitions[name], definitions, links)
    if "enum" in part:
        return ", ".join(show_value(value) for value in part["enum"])
    if "const" in part:
        return show_value(part["const"])
    if "anyOf" in part:
        kinds = dict.fromkeys(kind_of(each, definitions, links) for each in part["anyOf"])
        return " or ".join(kinds)
    if part.get("type") == "array":
        return f"list of {plural(kind_of(part.get('items', {}), definitions, links))}"
    if part.get("type") == "object":
        values = part.get("additionalProperties")
        if not isinstance(values, dict) or not values:
            return "mapping"
        return f"mapping of names to {plural(kind_of(values, definitions, links))}"
    if part.get("type") == "null":
        return "null"
    if part.get("format") in ("date", "date-time"):
        return {"date": "date", "date-time": "time"}[part["format"]]
    return TYPES.get(part.get("type", ""), "any")


def plain(number: float) -> str:
    """Return a number without a useless fraction."""
    return str(int(number)) if float(number).is_integer() else str(number)


def plural(kind: str) -> str:
    """Return the plural of a type in words."""
    return {"text": "texts", "number": "numbers", "whole number": "whole numbers"}.get(kind, kind)


def bounds_of(part: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the bounds of a JSON schema's part in words."""
    branches = [part, *part.get("anyOf", [])]
    said = []
    for branch in branches:
        said += [words.format(plain(branch[key])) for key, words in BOUNDS.items() if key in branch]
        if "pattern" in branch:
            said.append(f"matches {code(branch['pattern'])}")
    return ", ".join(said)

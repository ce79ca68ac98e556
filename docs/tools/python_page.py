"""The reference page of the Python API, from the names that the packages export."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import finagent_model
from docs.tools.markdown import code, page, sentences, table

PACKAGE = Path(finagent_model.__file__).parent


def first_sentence(value: Any) -> str:
    """Return the first sentence of a docstring, in one line."""
    if not inspect.isclass(value) and not inspect.isroutine(value):
        return ""
    text = sentences(inspect.getdoc(value) or "").split("\n\n")[0]
    return re.split(r"(?<=\.) (?=[A-Z`])", text)[0]


def examples(value: Any) -> str:
    """Return the examples of a docstring as a block."""
    lines = (inspect.getdoc(value) or "").splitlines()
    start = next((n for n, line in enumerate(lines) if line.lstrip().startswith(">>>")), None)
    if start is None:
        return ""
    shown = inspect.cleandoc("\n".join(["", *lines[start:]]))
    return f"```pycon\n{shown}\n```"


def signature(name: str, value: Any) -> str:
    """Return a function's signature, one parameter a line where it is long."""
    parts, is_starred = [], False
    given = inspect.signature(value)
    for parameter in given.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_starred:
            parts.append("*")
            is_starred = True
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        text = f"{star}{parameter.name}: {parameter.annotation}"
        if parameter.default is not parameter.empty:
            default = parameter.default
            shown = default.__name__ if inspect.isfunction(default) else repr(default)
            text += f" = {shown}"
        parts.append(text)
    line = f"{name}({', '.join(parts)}) -> {given.return_annotation}"
    if len(line) > 90:
        rows = "".join(f"    {part},\n" for part in parts)
        line = f"{name}(\n{rows}) -> {given.return_annotation}"
    return f"```python\n{line}\n```"


def members(value: type) -> list[tuple[str, str]]:
    """Return the public attributes and methods of a class that say what they are."""
    rows = []
    for name, member in vars(value).items():
        if name.startswith("_") or name in ("model_config", "model_post_init"):
            continue
        plain = getattr(member, "__func__", member)
        plain = getattr(plain, "fget", plain)
        if not isinstance(member, property) and not inspect.isfunction(plain):
            continue
        if text := first_sentence(plain):
            rows.append((code(name if isinstance(member, property) else f"{name}()"), text))
    return rows


def section(name: str, value: Any) -> str:
    """Return the section of one public name."""
    parts = [f"### {name}"]
    if inspect.isfunction(value):
        parts.append(signature(name, value))
    parts.append(sentences(inspect.getdoc(value) or ""))
    if inspect.isclass(value):
        if issubclass(value, BaseModel) and value.model_fields:
            names = ", ".join(code(field) for field in value.model_fields)
            parts.append(f"Fields: {names}.")
        if rows := members(value):
            parts.append(table(("member", "meaning"), rows))
    parts.append(examples(value))
    return "\n\n".join(part for part in parts if part)


def exports() -> dict[str, list[str]]:
    """Return the names in `__all__` of each package and module below the root that has one."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if module == "finagent_model" or any(part.startswith("_") for part in parts[1:-1]):
            continue
        if re.search(r"^__all__ = ", path.read_text(), flags=re.M):
            found[module] = sorted(import_module(module).__all__)
    return found


def render() -> str:
    """Return the page of the Python API."""
    names = {name: getattr(finagent_model, name) for name in finagent_model.__all__}
    functions = [section(n, v) for n, v in names.items() if inspect.isfunction(v)]
    classes = [section(n, v) for n, v in names.items() if inspect.isclass(v)]
    rooms = []
    for module, exported in exports().items():
        rows = [(code(n), first_sentence(getattr(import_module(module), n))) for n in exported]
        if rows:
            rooms.append(f"### {module}\n\n{table(('name', 'meaning'), rows)}")
    return page(
        "Python API, name by name",
        "`import finagent_model` offers these names; [Python API](../api.md) shows how to use them. "
        "Other names may change between versions without notice.",
        "## Functions",
        *functions,
        "## Classes",
        *classes,
        "## Names of the packages\n\nWhat each package exports, for code that extends this one.",
        *rooms,
    )

"""The reference page of the command line, from the application that runs it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_args

from typer.main import get_command

from docs.tools.markdown import code, describe, page, show_value, table
from finagent_model.cli import app
from finagent_model.training.request import TrainRequest

KINDS = {"str": "text", "int": "whole number", "float": "number", "Path": "path", "bool": "switch"}
REQUESTS = {"train": TrainRequest}
"""Commands that hand their options on as text: the model that parses them knows the defaults."""


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name, in the order of the help."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        full = (*words, name)
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield " ".join(full), command


def kind_of(name: str, parameter: Any) -> str:
    """Return the type of an option or argument of a command in words."""
    if name in REQUESTS:
        for row in describe(REQUESTS[name]):
            if row.name == parameter.name:
                return row.kind
    annotation = parameter.type_descriptor.annotation
    names = [
        n for each in get_args(annotation) or (annotation,) if (n := _name(each)) != "NoneType"
    ]
    return KINDS.get(names[0], names[0].lower())


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def default_of(name: str, parameter: Any) -> str:
    """Return the default in words; an option of a training has it in the request."""
    if parameter.required:
        return "required"
    request = REQUESTS.get(name)
    if parameter.default is None and request and parameter.name in request.model_fields:
        value = request.model_fields[parameter.name].default
        return code(",".join(value)) if isinstance(value, tuple) else show_value(value)
    if parameter.default in (None, "", False):
        return ""
    return show_value(parameter.default)


def meaning_of(parameter: Any) -> str:
    """Return the help of an option, with its bounds and its variable."""
    said = [(parameter.help or "").strip()]
    low, high = parameter.min, parameter.max
    if low is not None or high is not None:
        ends = [f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high else ""]
        said.append(f"Allowed: {', '.join(end for end in ends if end)}.")
    if parameter.envvar:
        names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
        said.append(f"Variable: {', '.join(map(code, names))}.")
    return " ".join(text for text in said if text)


def option_names(parameter: Any) -> str:
    """Return how an option or argument is written."""
    if parameter.opts == [parameter.name]:
        return code(parameter.name.upper())
    return ", ".join(code(each) for each in (*parameter.opts, *parameter.secondary_opts))


def help_text(text: str | None) -> str:
    """Return a help text as Markdown; a block that the help keeps as it is becomes code."""
    blocks = []
    for block in inspect.cleandoc((text or "").split("\f")[0]).split("\n\n"):
        if block.startswith("\b"):
            lines = block.removeprefix("\b").strip("\n")
            blocks.append(f"```\n{inspect.cleandoc(lines)}\n```")
        else:
            blocks.append(" ".join(block.split()))
    return "\n\n".join(blocks)


def section(name: str, command: Any) -> str:
    """Return the section of one command."""
    arguments = [p for p in command.params if p.opts == [p.name] and not p.hidden]
    usage = " ".join(a.name.upper() if a.required else f"[{a.name.upper()}]" for a in arguments)
    rows = [
        (option_names(p), kind_of(name, p), default_of(name, p), meaning_of(p))
        for p in command.params
        if not p.hidden
    ]
    parts = [
        f"### finagent {name}",
        help_text(command.help),
        f"```\n{' '.join(filter(None, ['finagent', name, usage, '[OPTIONS]']))}\n```",
    ]
    if rows:
        parts.append(table(("option", "type", "default", "meaning"), rows))
    if command.epilog:
        parts.append(help_text(command.epilog))
    return "\n\n".join(parts)


def render() -> str:
    """Return the page of the command line."""
    root = get_command(app)
    panels: dict[str, list[str]] = {}
    for name, command in root.commands.items():
        if command.hidden:
            continue
        panel = command.rich_help_panel
        title = panel if isinstance(panel, str) and panel else "Commands"
        subcommands = {name: command}
        if hasattr(command, "commands"):
            subcommands = dict(commands(command, (name,)))
        sections = panels.setdefault(title, [])
        sections += [section(full, each) for full, each in subcommands.items()]
    options = [p for p in root.params if not p.hidden]
    own = [(option_names(p), kind_of("", p), default_of("", p), meaning_of(p)) for p in options]
    general = table(("option", "type", "default", "meaning"), own) if own else ""
    parts = [f"## {title}\n\n" + "\n\n".join(sections) for title, sections in panels.items()]
    return page(
        "Command line",
        "Every command of `finagent`, with its options. `finagent COMMAND --help` prints the same. "
        "Results go to stdout, messages and progress to stderr; with `--json`, stdout has one line "
        "of JSON. Each command ends with an [exit code](exit_codes.md).",
        general,
        *parts,
    )

"""Reference pages of what a user sets: desk YAML, training parameters, environment variables."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import BaseModel
from typer.main import get_command

from docs.tools.commands import commands, meaning_of
from docs.tools.markdown import (
    FieldRow,
    code,
    describe,
    page,
    require_words,
    sentences,
    show_value,
    table,
)
from finagent_model.cli import app
from finagent_model.config.desk_config import DeskConfig, load_preset, preset_names
from finagent_model.config.request_rules import RequestRules
from finagent_model.config.roster import AgentRow, ModelConfig, Price, Sampling
from finagent_model.config.rules import (
    ApprovalRules,
    DecisionLimits,
    GateRules,
    MemoryConfig,
    RateLimits,
    RiskLimits,
    SpendingLimits,
)
from finagent_model.policy.policy import Policy
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest

BLOCKS: dict[str, type[BaseModel]] = {
    "models": ModelConfig,
    "agents": AgentRow,
    "sampling": Sampling,
    "limits": DecisionLimits,
    "spending": SpendingLimits,
    "traffic": RateLimits,
    "risk": RiskLimits,
    "memory": MemoryConfig,
    "approval": ApprovalRules,
    "gate": GateRules,
    "prices": Price,
    "policy": Policy,
    "request": RequestRules,
}
"""Keys of a desk whose values are blocks, and the class that checks them."""
BLOCK_NOTES = {
    "models": "Each entry has the keys of one model, which the desk itself has at its top as well.",
    "agents": "Each entry of the list is one agent.",
    "prices": "Each entry is named by a model.",
    "policy": "Training fits every parameter that a file does not set here. "
    "The details are in [What training fits](../policy.md).",
    "request": "Fields of a request that differ from what is known of the server and the model.",
}
HEAD = ("key", "type", "default", "allowed", "meaning")


def rows_of(model: type[BaseModel], values: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a block, with the defaults of the preset `default`."""
    links = {kind.__name__: name for name, kind in BLOCKS.items()}
    found = []
    for row in describe(model, links):
        # Their schema is a mapping, since a file gives only a few of the keys.
        kind = f"[{row.name}](#{row.name})" if row.name in ("policy", "request") else row.kind
        default = show_value(values[row.name]) if row.name in values else row.default
        if model is DeskConfig and default == "required":
            default = "those of the preset"
        found.append((code(row.name), kind, default, row.allowed, _meaning(row)))
    return found


def _meaning(row: FieldRow) -> str:
    return row.meaning.replace("None:", "null:")


def render_desk() -> str:
    """Return the page of a desk's YAML."""
    preset = load_preset().model_dump()
    own = {"models", "prices", "policy", "request"}
    top = rows_of(DeskConfig, {k: v for k, v in preset.items() if k not in BLOCKS})
    parts = [f"## Keys of a desk\n\n{table(HEAD, top)}"]
    for name, model in BLOCKS.items():
        values = preset.get(name) if name not in own | {"agents"} else {}
        block = table(HEAD, rows_of(model, values if isinstance(values, dict) else {}))
        note = BLOCK_NOTES.get(name, "")
        intro = "\n\n".join(filter(None, [sentences(model.__doc__ or ""), note]))
        parts.append(f"## {name}\n\n{intro}\n\n{block}")
    presets = ", ".join(code(name) for name in preset_names())
    return page(
        "Desk YAML",
        f"Every key of a desk's file. A file names a `preset` ({presets}), which gives what the file "
        "leaves out; without that key it is `default`, whose values are the defaults below. An "
        "unknown key is an error. [The desk](../desk.md) explains how to choose.",
        "```yaml\npreset: default\nclient: openai\nmodel: gpt-4o-mini\nlimits: {budget_usd: 0.05}\n"
        "prices: {gpt-4o-mini: {prompt: 0.15, completion: 0.60, as_of: 2026-01-01}}\n```",
        *parts,
    )


def render_training(project: str) -> str:
    """Return the page of the parameters of MLproject, which is given as text."""
    entries = yaml.safe_load(project)["entry_points"]
    request = {row.name: row for row in describe(TrainRequest)}
    options = {
        name: {p.name: meaning_of(p) for p in command.params}
        for name, command in commands(get_command(app))
    }
    parts = []
    for entry, found in entries.items():
        if entry == "main":
            continue
        rows = []
        for name, given in found["parameters"].items():
            row = request.get(name) if entry == "train" else None
            meaning = row.meaning if row else options[entry][name]
            allowed = row.allowed if row else ""
            kind = row.kind if row else {"str": "text", "int": "whole number"}[given["type"]]
            rows.append((code(name), kind, show_value(given["default"]), allowed, meaning))
        head = ("parameter", "type", "default", "allowed", "meaning")
        command = f"```bash\nmlflow run . -e {entry} --env-manager local\n```"
        parts.append(f"## {entry}\n\n{command}\n\n{table(head, rows)}")
    return page(
        "Training parameters",
        "The entry points of `MLproject` and their parameters. "
        "`mlflow run . -e ENTRY --env-manager local -P NAME=VALUE` sets one; `finagent ENTRY --NAME VALUE` takes the same names with dashes, and "
        "`finagent_model.train(NAME=VALUE)` takes those of `train`. Windows are in bars, money in the "
        "currency of the bars, costs in fractions. Each parameter is also a param of the run in MLflow.",
        *parts,
    )


def read_variables(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return the variables of env.example by section, each with its comment."""
    sections: dict[str, list[tuple[str, str]]] = {}
    title, comment, is_ended = "", list[str](), False
    for line in text.splitlines():
        if line.startswith("## "):
            title, comment = line.removeprefix("## "), []
        elif match := re.match(r"(?:# )?([A-Z][A-Z0-9_]+)=", line):
            sections.setdefault(title, []).append((match[1], " ".join(comment)))
            # Variables in a row share the comment above them.
            is_ended = True
        elif line.startswith("#"):
            comment = [] if is_ended else comment
            is_ended = False
            comment.append(line.removeprefix("#").strip())
        else:
            comment = []
    return sections


def render_environment(example: str) -> str:
    """Return the page of the environment variables; `example` is the text of env.example."""
    sections = read_variables(example)
    named = [name for rows in sections.values() for name, _ in rows]
    require_words("variables in env.example", set(Settings.variable_names()) - set(named), ())
    defaults = {str(f.alias): f.default for f in Settings.model_fields.values()}
    parts = []
    for title, rows in sections.items():
        cells = []
        for name, comment in rows:
            meaning, _, empty = comment.rpartition("; empty means ")
            default = defaults.get(name)
            shown = empty.rstrip(".") if meaning else show_value(default) if default else ""
            cells.append((code(name), shown if shown != "null" else "", meaning or comment))
        parts.append(f"## {title}\n\n{table(('variable', 'when empty', 'meaning'), cells)}")
    return page(
        "Environment variables",
        "Every variable that is read, from [env.example](../../env.example), which can be copied. An "
        "empty variable counts as not set. A value that may be secret can be in a file: "
        "`NAME_FILE=/path` in place of `NAME=value`; both at once are refused. "
        "[Secrets in messages](../reference.md#secrets-in-messages) says what is redacted in logs.",
        *parts,
    )

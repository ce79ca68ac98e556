"""The other desks of an ablation: with agents left out, alone, with a debate, by rules alone.

A variant that could show nothing is named with its reason instead: one that can't trade, or that
decides as another one on every day by construction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import get_args

from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import AgentRow, ModelConfig, OptionalInput, remove_agents

WHOLE_DESK = "whole desk"
ALL_INPUTS: tuple[OptionalInput, ...] = get_args(OptionalInput)


@dataclass(frozen=True)
class DeskVariants:
    """The desks of an ablation, and those that could show nothing."""

    desks: dict[str, DeskConfig]
    """By name, the whole desk first."""
    left_out: dict[str, str]
    """Reason by name: it can't trade, or it decides as another does by construction."""


def desk_variants(
    desk: DeskConfig,
    debaters: tuple[AgentRow, ...],
    inputs: Collection[OptionalInput] = ALL_INPUTS,
) -> DeskVariants:
    """Return the desks of an ablation that can differ from each other.

    Beside the whole desk they are: each agent left out; the debate left out, or `debaters` added
    where there is none; each analyst alone with risk and executor; rules in place of every model.
    What would be no valid desk is not named. `inputs` are those that any day has: an agent that
    waits for another one never speaks.
    """
    desks, left_out = {WHOLE_DESK: desk}, dict[str, str]()
    heard = {WHOLE_DESK: _heard_agents(desk, inputs)}
    for name, variant in _iter_variants(desk, debaters):
        effective = _heard_agents(variant, inputs)
        twin = next((n for n, rows in heard.items() if rows == effective), None)
        if not _can_trade(variant):
            left_out[name] = "rules act on a risk manager's terms alone, so it could only hold"
        elif twin is not None:
            left_out[name] = _describe_twin(desk, variant, twin, inputs)
        else:
            desks[name], heard[name] = variant, effective
    return DeskVariants(desks, left_out)


def _can_trade(desk: DeskConfig) -> bool:
    """Return whether the executor can act at all: by rules it needs a risk manager's terms."""
    return desk.model_for(desk.agents[-1]).client != "rules" or any(
        row.role == "risk" for row in desk.agents
    )


def _heard_agents(
    desk: DeskConfig, inputs: Collection[OptionalInput]
) -> tuple[tuple[AgentRow, ModelConfig], ...]:
    """Return the agents that can move a decision on some day, each with its model."""
    rows = desk.select_agents(inputs)
    if desk.uses_only_rules:
        # Rules leave an advocate's score out of the vote, and read no prose.
        rows = remove_agents(rows, {row.name for row in rows if row.role == "debater"})
    return tuple((row, desk.model_for(row)) for row in rows)


def _describe_twin(
    desk: DeskConfig, variant: DeskConfig, twin: str, inputs: Collection[OptionalInput]
) -> str:
    """Return why a variant decides as `twin` does, on every day."""
    if twin != WHOLE_DESK:
        return f"it is the desk {twin!r}"
    other = {row.name for row in desk.roster} ^ {row.name for row in variant.roster}
    silent = [row for row in (*desk.roster, *variant.roster) if row.name in other]
    waiting = {row.name: row.when for row in silent if row.when not in ("always", *inputs)}
    if waiting:
        what = ", ".join(f"{name} (no {when})" for name, when in waiting.items())
        return f"it decides as the whole desk: nothing to read on any day for {what}"
    return "it decides as the whole desk: rules leave a debate out of the vote"


def _iter_variants(
    desk: DeskConfig, debaters: tuple[AgentRow, ...]
) -> Iterator[tuple[str, DeskConfig]]:
    rows = desk.agents
    debater_names = {row.name for row in rows if row.role == "debater"}
    analysts = [row for row in rows if row.role == "analyst"]
    for row in rows[:-1]:
        # A desk needs an analyst that always runs; without one it would not validate.
        if any(other.when == "always" for other in analysts if other is not row):
            yield f"without {row.name}", _with_agents(desk, remove_agents(rows, {row.name}))
    if debater_names:
        yield "without debate", _with_agents(desk, remove_agents(rows, debater_names))
    elif debaters:
        yield "with debate", _with_agents(desk, _add_debate(rows, debaters))
    for row in analysts:
        if row.when == "always" and len(rows) > 3:
            absent = {other.name for other in analysts if other is not row} | debater_names
            yield f"{row.name} alone", _with_agents(desk, remove_agents(rows, absent))
    if not desk.uses_only_rules:
        rules_model = {name: getattr(ModelConfig(), name) for name in ModelConfig.model_fields}
        agents = tuple(row.model_copy(update={"model": None, "sampling": {}}) for row in rows)
        yield "rules only", desk.model_copy(update={**rules_model, "models": {}, "agents": agents})


def _add_debate(rows: tuple[AgentRow, ...], debaters: tuple[AgentRow, ...]) -> tuple[AgentRow, ...]:
    """Return the rows with the debaters placed between the analysts and everybody else."""
    analysts = tuple(row for row in rows if row.role == "analyst")
    analyst_names = tuple(row.name for row in analysts)
    debater_names = tuple(row.name for row in debaters)
    return (
        *analysts,
        *(row.model_copy(update={"after": analyst_names, "tools": ()}) for row in debaters),
        *(
            row.model_copy(
                update={
                    "after": debater_names if set(row.after) & set(analyst_names) else row.after
                }
            )
            for row in rows
            if row.role != "analyst"
        ),
    )


def _with_agents(desk: DeskConfig, rows: tuple[AgentRow, ...]) -> DeskConfig:
    # Validated anew, since `model_copy` would not check the graph of the new rows.
    return DeskConfig.model_validate(
        {**desk.model_dump(), "agents": [row.model_dump() for row in rows]}
    )

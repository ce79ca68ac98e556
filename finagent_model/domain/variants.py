"""Other desks made of the same rows, to find out what each row is good for."""

from __future__ import annotations

from collections.abc import Iterator

from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.model_row import ModelRow
from finagent_model.domain.roster import AgentRow, without

WHOLE = "whole desk"


def variants(desk: DeskConfig, debaters: tuple[AgentRow, ...]) -> dict[str, DeskConfig]:
    """By name: the whole desk; each agent left out; the debate left out, or `debaters` brought in
    where there is none; each analyst alone with risk and executor; rules in place of every model.
    What would be no desk, or the same one, is not there.
    """
    found: dict[str, DeskConfig] = {WHOLE: desk}
    for name, other in _made(desk, debaters):
        if other not in found.values():
            found[name] = other
    return found


def _made(desk: DeskConfig, debaters: tuple[AgentRow, ...]) -> Iterator[tuple[str, DeskConfig]]:
    rows = desk.agents
    arguing = {row.name for row in rows if row.role == "debater"}
    analysts = [row for row in rows if row.role == "analyst"]
    for row in rows[:-1]:
        if any(other.when == "always" for other in analysts if other is not row):
            yield f"without {row.name}", _seating(desk, without(rows, {row.name}))
    if arguing:
        yield "without debate", _seating(desk, without(rows, arguing))
    elif debaters:
        yield "with debate", _seating(desk, _with_debate(rows, debaters))
    for row in analysts:
        if row.when == "always" and len(rows) > 3:
            absent = {other.name for other in analysts if other is not row} | arguing
            yield f"{row.name} alone", _seating(desk, without(rows, absent))
    if not desk.only_rules:
        own = ModelRow().model_dump()
        plain = tuple(row.model_copy(update={"model": None, "sampling": {}}) for row in rows)
        yield "rules only", desk.model_copy(update={**own, "models": {}, "agents": plain})


def _with_debate(
    rows: tuple[AgentRow, ...], debaters: tuple[AgentRow, ...]
) -> tuple[AgentRow, ...]:
    """The debaters between the analysts and everybody else."""
    analysts = tuple(row for row in rows if row.role == "analyst")
    heard, arguing = tuple(r.name for r in analysts), tuple(r.name for r in debaters)
    return (
        *analysts,
        *(row.model_copy(update={"after": heard, "tools": ()}) for row in debaters),
        *(
            row.model_copy(update={"after": arguing if set(row.after) & set(heard) else row.after})
            for row in rows
            if row.role != "analyst"
        ),
    )


def _seating(desk: DeskConfig, rows: tuple[AgentRow, ...]) -> DeskConfig:
    return DeskConfig.model_validate(
        {**desk.model_dump(), "agents": [r.model_dump() for r in rows]}
    )

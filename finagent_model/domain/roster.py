"""Who sits at the desk: one row an agent, and who of them takes part in one decision."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from pydantic import Field

from finagent_model.domain.row import Row

Role = Literal["analyst", "debater", "risk", "executor"]
Occasion = Literal["news", "fundamentals", "memory"]
"""Something that not every view has."""
Group = Literal["debate", "news"]
"""Those who may be left out together to save money: the debaters; whoever needs news."""


class AgentRow(Row):
    """One seat at the desk."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    role: Role
    """Which reply is expected: a report (analyst, debater), risk terms, or the decision."""
    prompt: str
    """Name of the prompt template; also the rule that the client `rules` answers by."""
    after: tuple[str, ...] = ()
    """The agents whose messages it waits for; none: it speaks at once."""
    when: Literal["always"] | Occasion = "always"
    """Otherwise it is skipped where the view has none, and the record says so."""
    model: str | None = None
    """A row of `models`, or another model of the desk's own client; None: the desk's own."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """What differs from its model's sampling."""
    tools: tuple[str, ...] = ()
    """What it may look up, by name."""
    chart: bool = False
    """Whether it is shown a chart, where its model can see one."""
    upstream: bool = False
    """Whether it is shown what the upstream project's analysis says of the bars."""

    @property
    def group(self) -> Group | None:
        """With whom it may be left out; None: never."""
        if self.role == "debater":
            return "debate"
        return "news" if self.when == "news" else None


def in_rounds(rows: Sequence[AgentRow], rounds: int) -> tuple[AgentRow, ...]:
    """Each debater once a round: side by side at first, afterwards in answer to the round before.

    A later round's name ends in its number; whoever waits for a debater waits for its last round.
    """
    debaters = [row for row in rows if row.role == "debater"]
    last = {row.name: _in_round(row.name, rounds) for row in debaters}
    unrolled: list[AgentRow] = []
    for row in rows:
        if row.role != "debater":
            after = tuple(last.get(name, name) for name in row.after)
            unrolled.append(row.model_copy(update={"after": after}))
            continue
        unrolled.append(row)
        if row is debaters[-1]:
            for number in range(2, rounds + 1):
                before = tuple(_in_round(other.name, number - 1) for other in debaters)
                unrolled += [
                    other.model_copy(
                        update={"name": _in_round(other.name, number), "after": before}
                    )
                    for other in debaters
                ]
    return tuple(unrolled)


def without(rows: Sequence[AgentRow], absent: Collection[str]) -> tuple[AgentRow, ...]:
    """The others; whoever waited for an absent one waits for those that it waited for."""
    waits = {row.name: row.after for row in rows}

    def present(names: Sequence[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            found += present(waits[name]) if name in absent else [name]
        return found

    return tuple(
        row.model_copy(update={"after": tuple(dict.fromkeys(present(row.after)))})
        for row in rows
        if row.name not in absent
    )


def _in_round(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"

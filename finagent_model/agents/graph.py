"""The roster's rows as an AutoGen team: a directed graph, one agent a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow

from finagent_model.agents.clients import ClientPool
from finagent_model.agents.prompts import Prompts
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.roster import AgentRow


def waves(seated: Sequence[AgentRow]) -> list[list[AgentRow]]:
    """Who speaks side by side: each wave waits for names of the waves before alone."""
    found: list[list[AgentRow]] = []
    waiting, spoken = list(seated), set[str]()
    while waiting:
        found.append([row for row in waiting if spoken.issuperset(row.after)])
        spoken |= {row.name for row in found[-1]}
        waiting = [row for row in waiting if row.name not in spoken]
    return found


def within(rounds: int, seated: Sequence[AgentRow]) -> tuple[AgentRow, ...]:
    """Those who get to speak: a wave begins while fewer than `rounds` replies were given.

    The rows are cut before the team is built, because AutoGen's own limit on messages misses all
    but the last of several that arrive side by side.
    """
    speaking: list[AgentRow] = []
    for wave in waves(seated):
        if len(speaking) < rounds:
            speaking += wave
    return tuple(speaking)


def build_team(
    seated: Sequence[AgentRow], agents: Mapping[str, BaseChatAgent], max_rounds: int
) -> GraphFlow:
    """One agent a row, one unconditional edge for each name it waits for."""
    graph = DiGraphBuilder()
    for row in seated:
        graph.add_node(agents[row.name])
        for name in row.after:
            graph.add_edge(agents[name], agents[row.name])
    return GraphFlow(
        participants=graph.get_participants(),
        graph=graph.build(),
        termination_condition=MaxMessageTermination(max_rounds + 1),  # the question counts as one
    )


def export_component(config: DeskConfig, pool: ClientPool) -> dict[str, Any]:
    """The full team as AutoGen component JSON, of its stock agents, for people and tools. It holds
    no key and is never loaded back.
    """
    texts = Prompts(config.prompts)
    agents = {
        row.name: AssistantAgent(
            row.name,
            model_client=pool.exported(row),
            system_message=texts.text(row.prompt),
            description=row.role,
        )
        for row in config.roster
    }
    team = build_team(config.roster, agents, config.limits.max_rounds)
    return team.dump_component().model_dump(mode="json")


def heard_by(row: AgentRow, seated: Sequence[AgentRow]) -> list[str]:
    """The names that `row` waits for, directly or through others, in roster order."""
    after = {other.name: other.after for other in seated}
    found, open_ends = set(row.after), list(row.after)
    while open_ends:
        fresh = set(after[open_ends.pop()]) - found
        found |= fresh
        open_ends.extend(fresh)
    return [other.name for other in seated if other.name in found]

"""The desk's team, built from rows for one decision, run once and thrown away: AutoGen teams keep
state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow
from autogen_core import CancellationToken

from finagent_model.agents.cassette import Cassette
from finagent_model.agents.clients import ClientPool
from finagent_model.agents.prompts import prompt
from finagent_model.agents.seat import DESK, Seat
from finagent_model.agents.session import Session
from finagent_model.domain.desk_config import AgentRow, DeskConfig
from finagent_model.domain.signal import Status


async def converse(
    session: Session, question: str, has_news: bool, pool: ClientPool, cassette: Cassette
) -> None:
    """Let the seated agents talk about `question`; what came of it is in the session. Never
    outlives its time limit.
    """
    _quieten()
    config = session.config
    seated = config.seated(has_news)
    session.record(DESK, "request", question)
    for row in config.agents:
        if row.name not in {s.name for s in seated}:
            session.record(row.name, "skipped", "no dated news in the view")
    seats = {row.name: Seat(row, _heard_by(row, seated), session, pool, cassette) for row in seated}
    team = build_team(seated, seats, config.limits.max_rounds)
    token = CancellationToken()
    alarm = asyncio.get_running_loop().call_later(config.limits.wall_clock_s, token.cancel)
    try:
        await team.run(task=TextMessage(content=question, source=DESK), cancellation_token=token)
    except asyncio.CancelledError:
        if not token.is_cancelled():
            raise
        executor = seated[-1].name
        session.fail(
            executor, Status.MODEL_ERROR, f"no decision within {config.limits.wall_clock_s:g} s"
        )
    finally:
        alarm.cancel()


def build_team(
    seated: tuple[AgentRow, ...], agents: Mapping[str, BaseChatAgent], max_rounds: int
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
    seated = config.seated(has_news=True)
    agents = {
        row.name: AssistantAgent(
            row.name,
            model_client=pool.exported(row.model or config.model),
            system_message=prompt(row.prompt),
            description=row.role,
        )
        for row in seated
    }
    team = build_team(seated, agents, config.limits.max_rounds)
    return team.dump_component().model_dump(mode="json")


def _heard_by(row: AgentRow, seated: tuple[AgentRow, ...]) -> list[str]:
    """The names that `row` waits for, directly or through others, in roster order."""
    after = {other.name: other.after for other in seated}
    found, open_ends = set(row.after), list(row.after)
    while open_ends:
        fresh = set(after[open_ends.pop()]) - found
        found |= fresh
        open_ends.extend(fresh)
    return [other.name for other in seated if other.name in found]


def _quieten() -> None:
    """AutoGen logs whole prompts, and a traceback for every cancelled agent."""
    for name in ("autogen_core", "autogen_core.events"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)

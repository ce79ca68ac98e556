"""One conversation about one question, run in one of two ways that leave the same record.

A team is AutoGen's: fresh, run once and thrown away, since teams keep state. Where there is nothing
to wait for (every reply is recorded, or `rules` answer) the same seats are walked wave by wave
instead, without the runtime's queues, which take longer than all the rest of a replayed decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken

from finagent_model.agents.cassette import Cassette
from finagent_model.agents.clients import ClientPool
from finagent_model.agents.graph import build_team, heard_by, waves, within
from finagent_model.agents.seat import DESK, Seat
from finagent_model.agents.session import Session
from finagent_model.domain.desk_config import AgentRow, DeskConfig, Mode
from finagent_model.domain.signal import Status


@dataclass(frozen=True)
class Table:
    """What conversations of one desk share."""

    config: DeskConfig
    mode: Mode
    pool: ClientPool
    cassette: Cassette
    clock: Callable[[], datetime]
    rules_at_once: bool = False
    """Walk where the client is `rules`, though nothing is recorded: a backtest asks thousands."""

    async def converse(self, question: str, has_news: bool) -> Session:
        """What the seated agents made of `question`. Never outlives its time limit."""
        if self.mode != "live":
            ask_rules = self.rules_at_once and self.config.client == "rules"
            session = self.session("cached" if ask_rules else "replay")
            await _walk(*self._seats(session, question, has_news), question)
            if self.mode == "replay" or not session.missed:
                return session
        session = self.session(self.mode)
        await _run_team(session, *self._seats(session, question, has_news), question)
        return session

    def session(self, mode: Mode | None = None) -> Session:
        """An empty one."""
        past = self.mode == "replay"
        return Session(self.config, mode or self.mode, self.clock, past_errors=past)

    def _seats(
        self, session: Session, question: str, has_news: bool
    ) -> tuple[tuple[AgentRow, ...], dict[str, Seat]]:
        """The rows that take part and their seats; the record opens with the question and with who
        was skipped.
        """
        everyone = self.config.seated(has_news)
        seated = within(self.config.limits.max_rounds, everyone)
        session.record(DESK, "request", question)
        here = {row.name for row in everyone}
        for row in self.config.agents:
            if row.name not in here:
                session.record(row.name, "skipped", "no dated news in the view")
        return seated, {
            row.name: Seat(row, heard_by(row, seated), session, self.pool, self.cassette)
            for row in seated
        }


async def _run_team(
    session: Session, seated: tuple[AgentRow, ...], seats: Mapping[str, Seat], question: str
) -> None:
    _quieten()
    limits = session.config.limits
    team = build_team(seated, seats, len(seated))
    token = CancellationToken()
    alarm = asyncio.get_running_loop().call_later(limits.wall_clock_s, token.cancel)
    try:
        await team.run(task=TextMessage(content=question, source=DESK), cancellation_token=token)
    except asyncio.CancelledError:
        if not token.is_cancelled():
            raise
        reason = f"no decision within {limits.wall_clock_s:g} s"
        session.fail(seated[-1].name, Status.MODEL_ERROR, reason)
    finally:
        alarm.cancel()


async def _walk(seated: tuple[AgentRow, ...], seats: Mapping[str, Seat], question: str) -> None:
    said: list[BaseChatMessage] = [TextMessage(content=question, source=DESK)]
    for wave in waves(seated):
        said += [await seats[row.name].reply(said) for row in wave]


def _quieten() -> None:
    """AutoGen logs whole prompts, and a traceback for every cancelled agent."""
    for name in ("autogen_core", "autogen_core.events"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)

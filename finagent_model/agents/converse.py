"""One conversation about one question, run in one of two ways that leave the same record.

A team is AutoGen's: fresh, run once and thrown away, since teams keep state. Where there is nothing
to wait for (every reply is recorded, or `rules` answer) the same seats are walked wave by wave
instead, without the runtime's queues, which take longer than all the rest of a replayed decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken

from finagent_model.agents.asking import Exchange
from finagent_model.agents.chat_agent import ChatAgent
from finagent_model.agents.ending import quieten
from finagent_model.agents.graph import build_team, heard_by, waves, within
from finagent_model.agents.inquiry import Inquiry
from finagent_model.agents.plan import affordable
from finagent_model.agents.prompts import Prompts
from finagent_model.agents.purse import Account, Purse
from finagent_model.agents.remark import Remark, read_remark, remark_key, write_remark
from finagent_model.agents.seat import DESK, Seat, Surroundings
from finagent_model.agents.session import Session
from finagent_model.domain.desk_config import DeskConfig, Mode
from finagent_model.domain.roster import AgentRow, Group, Occasion, without
from finagent_model.domain.signal import Status


@dataclass(frozen=True)
class Table:
    """What conversations of one desk share."""

    config: DeskConfig
    mode: Mode
    exchange: Exchange
    accounts: Callable[[], Sequence[Account]]
    """Of the run and the day, beyond the decision's own."""
    clock: Callable[[], datetime]
    rules_at_once: bool = False
    """Walk where `rules` alone answer, though nothing is recorded: a backtest asks thousands."""
    _seated: dict[frozenset[Occasion], tuple[AgentRow, ...]] = field(default_factory=dict)

    async def converse(self, inquiry: Inquiry) -> Session:
        """What the seated agents made of the question. Never outlives its time limit."""
        key = remark_key(self.exchange.pool.roster_digest, inquiry.text)
        if self.mode == "replay":
            return await self._replay(inquiry, key)
        if self.mode == "cached":
            at_once = self.rules_at_once and self.config.only_rules
            session = self.session("cached" if at_once else "replay")
            await _walk(self._rows(inquiry, session), inquiry, self._around(inquiry, session))
            if not session.missed:
                return session
        return await self._run(inquiry, key)

    def session(self, mode: Mode | None = None) -> Session:
        """An empty one."""
        past = self.mode == "replay"
        return Session(self.config, mode or self.mode, self.clock, past_errors=past)

    async def _replay(self, inquiry: Inquiry, key: str) -> Session:
        """As it went when it was recorded, failures and all."""
        remark = read_remark(self.exchange.cassette, key) or Remark()
        session = self.session()
        session.past_errors = True
        rows = self._rows(inquiry, session)
        if remark.left_out:
            rows = _leave_out(rows, remark.left_out, session)
        if remark.cut_off is None:
            await _walk(rows, inquiry, self._around(inquiry, session))
            return session
        session.tokens, session.cost_usd = remark.tokens, remark.cost_usd
        session.fail(rows[-1].name, Status.MODEL_ERROR, remark.cut_off)
        return session

    async def _run(self, inquiry: Inquiry, key: str) -> Session:
        """By AutoGen's team, asking whoever has to be asked."""
        session = self.session()
        limits = self.config.limits
        own = Purse("decision", limits.max_tokens, limits.budget_usd)
        session.accounts = (own, *(() if self.config.only_rules else self.accounts()))
        rows, dropped = affordable(
            self._rows(inquiry, session), inquiry.text, session, self.exchange.pool
        )
        _say_left_out(self._rows_of(inquiry), dropped, session)
        cut_off = await _run_team(rows, inquiry, self._around(inquiry, session))
        if cut_off:
            session.fail(rows[-1].name, Status.MODEL_ERROR, cut_off)
        if dropped or cut_off:
            remark = Remark(dropped, cut_off, session.tokens, session.cost_usd)
            write_remark(self.exchange.cassette, key, remark)
        return session

    def _around(self, inquiry: Inquiry, session: Session) -> Surroundings:
        return Surroundings(inquiry, session, self.exchange, Prompts(self.config.prompts))

    def _rows_of(self, inquiry: Inquiry) -> tuple[AgentRow, ...]:
        if inquiry.occasions not in self._seated:
            self._seated[inquiry.occasions] = self.config.seated(inquiry.occasions)
        return self._seated[inquiry.occasions]

    def _rows(self, inquiry: Inquiry, session: Session) -> tuple[AgentRow, ...]:
        """The rows that take part; the record opens with the question and with who was skipped."""
        session.record(DESK, "request", inquiry.text)
        session.note("question", "", text=inquiry.text)
        everyone = self._rows_of(inquiry)
        roster = self.exchange.pool.roster
        if len(everyone) < len(roster):
            here = {row.name for row in everyone}
            for row in roster:
                if row.name not in here:
                    session.skip(row.name, f"no dated {row.when} in the view")
        return everyone


def _leave_out(
    rows: Sequence[AgentRow], groups: Sequence[Group], session: Session
) -> tuple[AgentRow, ...]:
    _say_left_out(rows, groups, session)
    return without(rows, {row.name for row in rows if row.group in groups})


def _say_left_out(rows: Sequence[AgentRow], groups: Sequence[Group], session: Session) -> None:
    for row in rows:
        if row.group in groups:
            session.skip(row.name, "left out: the budget has no room for it")
    if groups:
        session.notes.append(f"left out for want of budget: {', '.join(groups)}")


def _seats(
    rows: Sequence[AgentRow], around: Surroundings
) -> tuple[tuple[AgentRow, ...], dict[str, Seat]]:
    speaking = within(around.session.config.limits.max_rounds, rows)
    return speaking, {row.name: Seat(row, heard_by(row, speaking), around) for row in speaking}


async def _run_team(rows: Sequence[AgentRow], inquiry: Inquiry, around: Surroundings) -> str | None:
    """Why it was broken off; None where it came to its end.

    AutoGen stops a team by its token alone: a cancelled `run` would wait until every agent has
    finished. So whoever cancels us cancels the token, and no agent is left behind.
    """
    quieten()
    speaking, seats = _seats(rows, around)
    agents = {name: ChatAgent(seat) for name, seat in seats.items()}
    team = build_team(speaking, agents, len(speaking))
    token = CancellationToken()
    limit_s = around.session.config.limits.wall_clock_s
    alarm = asyncio.get_running_loop().call_later(limit_s, token.cancel)
    task = TextMessage(content=inquiry.text, source=DESK)
    running = asyncio.ensure_future(team.run(task=task, cancellation_token=token))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        token.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if (own := asyncio.current_task()) and own.cancelling():
            raise
        return f"no decision within {limit_s:g} s"
    except RuntimeError:  # AutoGen's, with the seat's own error as prose
        if around.session.trouble is not None:
            raise around.session.trouble from None
        raise
    finally:
        alarm.cancel()
    return None


async def _walk(rows: Sequence[AgentRow], inquiry: Inquiry, around: Surroundings) -> None:
    speaking, seats = _seats(rows, around)
    said = {DESK: inquiry.text}
    for wave in waves(speaking):
        said |= {row.name: await seats[row.name].reply(said) for row in wave}
        if around.session.missed and not around.session.past_errors:
            return  # this was only a try; a team will run


def occasions_of(config: DeskConfig, seats: Mapping[Occasion, bool]) -> frozenset[Occasion]:
    """Those that hold and that some agent waits for."""
    asked = {row.when for row in config.agents}
    return frozenset(name for name, there in seats.items() if there and name in asked)

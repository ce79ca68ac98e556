"""Who speaks where money is short: groups are left out in a declared order until what a decision
may take fits into what is left.

The roster's rows as an AutoGen team: a directed graph, one agent a row.

What a record of replies can't tell by itself: that money was short or time was up.

It is recorded beside the replies, so that a replay leaves out the same agents and stops at the same
point as the decision did.

One conversation about one question, run in one of two ways that leave the same record.

A team is AutoGen's: fresh, run once and thrown away, since teams keep state. Where there is nothing
to wait for (every reply is recorded, or `rules` answer) the same seats are walked wave by wave
instead, without the runtime's queues, which take longer than all the rest of a replayed decision.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, get_args

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import DiGraphBuilder, GraphFlow
from autogen_core import CancellationToken

from finagent_model._base import Mode
from finagent_model.agents.agent import DESK, ChatAgent, DeskAgent, RunContext
from finagent_model.agents.budget import Budget, SpendingLimit, remaining
from finagent_model.agents.completion import ChatService, silence_autogen_logs
from finagent_model.agents.prompt_templates import Prompts
from finagent_model.agents.providers import ClientPool
from finagent_model.agents.session import DeskQuery, Session
from finagent_model.cassette.cassette import Cassette, RecordedReply, fingerprint
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import AgentGroup, AgentRow, OptionalInput, remove_agents
from finagent_model.decision.signal import Status


def select_affordable_agents(
    seated: Sequence[AgentRow],
    question: str,
    session: Session,
    pool: ClientPool,
) -> tuple[tuple[AgentRow, ...], tuple[AgentGroup, ...]]:
    """Those who may speak, and the groups that may not. What can't be afforded even so is refused
    when it is called.
    """
    rows, dropped = tuple(seated), list[AgentGroup]()
    tokens_left, usd_left = remaining(session.accounts)
    for group in session.config.spending.drop_first:
        tokens, usd = _worst_case_cost(rows, question, session, pool)
        if tokens <= tokens_left and usd <= usd_left:
            break
        members = {row.name for row in rows if row.group == group}
        if members:
            rows = remove_agents(rows, members)
            dropped.append(group)
    return rows, tuple(dropped)


def _worst_case_cost(
    rows: Sequence[AgentRow], question: str, session: Session, pool: ClientPool
) -> tuple[int, float]:
    """Tokens and dollars, if every reply is as long as it may be."""
    tokens, usd, texts = 0, 0.0, Prompts(session.config.prompts)
    lengths = {row.name: pool.model_of(row).sampling.max_tokens for row in rows}
    for row in rows:
        model = pool.model_of(row)
        if model.client == "rules":
            continue
        asked = (len(texts.text(row.prompt)) + len(question)) // 4
        asked += sum(lengths[name] for name in ancestors(row, rows))
        tokens += asked + model.sampling.max_tokens
        usd += session.price(model, asked, model.sampling.max_tokens) or 0.0
    return tokens, usd


def stages(seated: Sequence[AgentRow]) -> list[list[AgentRow]]:
    """Who speaks side by side: each wave waits for names of the waves before alone."""
    found: list[list[AgentRow]] = []
    waiting, spoken = list(seated), set[str]()
    while waiting:
        found.append([row for row in waiting if spoken.issuperset(row.after)])
        spoken |= {row.name for row in found[-1]}
        waiting = [row for row in waiting if row.name not in spoken]
    return found


def stages_within_limit(rounds: int, seated: Sequence[AgentRow]) -> tuple[AgentRow, ...]:
    """Those who get to speak: a wave begins while fewer than `rounds` replies were given.

    The rows are cut before the team is built, because AutoGen's own limit on messages misses all
    but the last of several that arrive side by side.
    """
    speaking: list[AgentRow] = []
    for wave in stages(seated):
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


def ancestors(row: AgentRow, seated: Sequence[AgentRow]) -> list[str]:
    """The names that `row` waits for, directly or through others, in roster order."""
    after = {other.name: other.after for other in seated}
    found, open_ends = set(row.after), list(row.after)
    while open_ends:
        fresh = set(after[open_ends.pop()]) - found
        found |= fresh
        open_ends.extend(fresh)
    return [other.name for other in seated if other.name in found]


@dataclass(frozen=True)
class ReplayNote:
    """On one decision."""

    left_out: tuple[AgentGroup, ...] = ()
    cut_off: str | None = None
    """Why it was broken off."""
    tokens: int = 0
    cost_usd: float | None = 0.0
    """What the replies until then had taken."""


def replay_note_key(roster_digest: str, question: str) -> str:
    """Of the decision on `question` by that roster."""
    return fingerprint({"remark on": question, "roster": roster_digest})


def read_replay_note(cassette: Cassette, key: str) -> ReplayNote | None:
    """None where nothing was remarkable."""
    recorded = cassette.get(key, errors=True)
    if recorded is None:
        return None
    said = json.loads(recorded.content)
    groups = tuple(g for g in get_args(AgentGroup) if g in said["left_out"])
    return ReplayNote(groups, said["cut_off"], said["tokens"], said["cost_usd"])


def write_replay_note(cassette: Cassette, key: str, remark: ReplayNote) -> None:
    cassette.put(key, RecordedReply(json.dumps(asdict(remark), sort_keys=True), "remark", 0, 0))


@dataclass(frozen=True)
class ConversationRunner:
    """What conversations of one desk share."""

    config: DeskConfig
    mode: Mode
    exchange: ChatService
    accounts: Callable[[], Sequence[SpendingLimit]]
    """Of the run and the day, beyond the decision's own."""
    clock: Callable[[], datetime]
    rules_at_once: bool = False
    """Walk where `rules` alone answer, though nothing is recorded: a backtest asks thousands."""
    _seated: dict[frozenset[OptionalInput], tuple[AgentRow, ...]] = field(default_factory=dict)

    async def converse(self, inquiry: DeskQuery) -> Session:
        """What the seated agents made of the question. Never outlives its time limit."""
        key = replay_note_key(self.exchange.pool.roster_digest, inquiry.text)
        if self.mode == "replay":
            return await self._replay(inquiry, key)
        if self.mode == "cached":
            at_once = self.rules_at_once and self.config.uses_only_rules
            session = self.session("cached" if at_once else "replay")
            await _run_inline(self._rows(inquiry, session), inquiry, self._around(inquiry, session))
            if not session.missed:
                return session
        return await self._run(inquiry, key)

    def session(self, mode: Mode | None = None) -> Session:
        """An empty one."""
        past = self.mode == "replay"
        return Session(self.config, mode or self.mode, self.clock, past_errors=past)

    async def _replay(self, inquiry: DeskQuery, key: str) -> Session:
        """As it went when it was recorded, failures and all."""
        remark = read_replay_note(self.exchange.cassette, key) or ReplayNote()
        session = self.session()
        session.past_errors = True
        rows = self._rows(inquiry, session)
        if remark.left_out:
            rows = _skip_unaffordable(rows, remark.left_out, session)
        if remark.cut_off is None:
            await _run_inline(rows, inquiry, self._around(inquiry, session))
            return session
        session.tokens, session.cost_usd = remark.tokens, remark.cost_usd
        session.fail(rows[-1].name, Status.MODEL_ERROR, remark.cut_off)
        return session

    async def _run(self, inquiry: DeskQuery, key: str) -> Session:
        """By AutoGen's team, asking whoever has to be asked."""
        session = self.session()
        limits = self.config.limits
        own = Budget("decision", limits.max_tokens, limits.budget_usd)
        session.accounts = (own, *(() if self.config.uses_only_rules else self.accounts()))
        rows, dropped = select_affordable_agents(
            self._rows(inquiry, session), inquiry.text, session, self.exchange.pool
        )
        _record_skipped(self._rows_of(inquiry), dropped, session)
        cut_off = await _run_team(rows, inquiry, self._around(inquiry, session))
        if cut_off:
            session.fail(rows[-1].name, Status.MODEL_ERROR, cut_off)
        if dropped or cut_off:
            remark = ReplayNote(dropped, cut_off, session.tokens, session.cost_usd)
            write_replay_note(self.exchange.cassette, key, remark)
        return session

    def _around(self, inquiry: DeskQuery, session: Session) -> RunContext:
        return RunContext(inquiry, session, self.exchange, Prompts(self.config.prompts))

    def _rows_of(self, inquiry: DeskQuery) -> tuple[AgentRow, ...]:
        if inquiry.occasions not in self._seated:
            self._seated[inquiry.occasions] = self.config.select_agents(inquiry.occasions)
        return self._seated[inquiry.occasions]

    def _rows(self, inquiry: DeskQuery, session: Session) -> tuple[AgentRow, ...]:
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


def _skip_unaffordable(
    rows: Sequence[AgentRow], groups: Sequence[AgentGroup], session: Session
) -> tuple[AgentRow, ...]:
    _record_skipped(rows, groups, session)
    return remove_agents(rows, {row.name for row in rows if row.group in groups})


def _record_skipped(
    rows: Sequence[AgentRow], groups: Sequence[AgentGroup], session: Session
) -> None:
    for row in rows:
        if row.group in groups:
            session.skip(row.name, "left out: the budget has no room for it")
    if groups:
        session.notes.append(f"left out for want of budget: {', '.join(groups)}")


def _build_agents(
    rows: Sequence[AgentRow], around: RunContext
) -> tuple[tuple[AgentRow, ...], dict[str, DeskAgent]]:
    speaking = stages_within_limit(around.session.config.limits.max_rounds, rows)
    return speaking, {
        row.name: DeskAgent(row, ancestors(row, speaking), around) for row in speaking
    }


async def _run_team(rows: Sequence[AgentRow], inquiry: DeskQuery, around: RunContext) -> str | None:
    """Why it was broken off; None where it came to its end.

    AutoGen stops a team by its token alone: a cancelled `run` would wait until every agent has
    finished. So whoever cancels us cancels the token, and no agent is left behind.
    """
    silence_autogen_logs()
    speaking, seats = _build_agents(rows, around)
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


async def _run_inline(rows: Sequence[AgentRow], inquiry: DeskQuery, around: RunContext) -> None:
    speaking, seats = _build_agents(rows, around)
    said = {DESK: inquiry.text}
    for wave in stages(speaking):
        said |= {row.name: await seats[row.name].reply(said) for row in wave}
        if around.session.missed and not around.session.past_errors:
            return  # this was only a try; a team will run


def available_inputs(
    config: DeskConfig, seats: Mapping[OptionalInput, bool]
) -> frozenset[OptionalInput]:
    """Those that hold and that some agent waits for."""
    asked = {row.when for row in config.agents}
    return frozenset(name for name, there in seats.items() if there and name in asked)

"""One conversation about one question: who speaks, in which order, and how it is run.

The roster is a directed graph of agents, run in one of two ways that leave the same record. An
AutoGen team (`GraphFlow`) asks models; it is built afresh for each decision, since teams keep
state. Where there is nothing to wait for, because every reply is recorded or `rules` answer, the
same agents are run inline, stage by stage: AutoGen's message queues take longer than all the rest
of a replayed decision.

Where the budget is short, groups of agents are skipped in the order that the config declares. That
and an abort can't be seen from recorded replies, so a `ReplayNote` is recorded beside them, and a
replay skips the same agents and stops at the same point.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken

from finagent_model._base import Mode
from finagent_model._event_loop import run_without_waiting
from finagent_model.agents._agent import DESK, DeskAgent, RunContext
from finagent_model.agents.budget import Budget, SpendingLimit, remaining
from finagent_model.agents.completion import UNCOUNTED, ChatService, silence_autogen_logs
from finagent_model.agents.components import AgentGraph
from finagent_model.agents.providers import ClientPool
from finagent_model.agents.session import DeskQuery, Session
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import fingerprint
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import AgentGroup, AgentRow, OptionalInput, remove_agents
from finagent_model.decision.signal import Status


@dataclass(frozen=True)
class ConversationRunner:
    """Runs the conversations of one desk."""

    config: DeskConfig
    graph: AgentGraph
    """What teams are built from; its agents are those of the configuration's roster."""
    mode: Mode
    chat_service: ChatService
    shared_budgets: Callable[[], Sequence[SpendingLimit]]
    """Returns the budgets of the run and of the day, beside the decision's own."""
    clock: Callable[[], datetime]
    inline_rules: bool = False
    """Whether a desk of `rules` alone runs inline though nothing is recorded, as a backtest wants
    that asks thousands of questions.
    """
    always_team: bool = False
    """Whether a team runs though every reply is recorded, as a proof wants it."""
    rows_by_inputs: dict[frozenset[OptionalInput], tuple[AgentRow, ...]] = field(
        default_factory=dict
    )
    """The agents of a decision by its inputs, filled as they are needed."""

    async def converse(self, query: DeskQuery) -> Session:
        """Return what the agents made of the question, within the time limit of a decision.

        Raises LocalStateError; any other failure is in the session.
        """
        if self.mode == "replay":
            return await self._replay(query)
        if self.mode == "cached" and (session := await self._attempt(query)) is not None:
            return session
        return await self.call_models(query)

    @property
    def can_recall(self) -> bool:
        """Whether `recall` works: recorded replies are looked for first, and nothing else is."""
        may_wait = self.always_team or self._runs_rules_inline or self.config.external_analyst
        return self.mode != "live" and not may_wait

    def recall(self, query: DeskQuery) -> Session | None:
        """Return what recorded replies make of the question; None where a model has to be asked.

        Needs no event loop: nothing is waited for. Raises LocalStateError.
        """
        recorded = self._replay(query) if self.mode == "replay" else self._attempt(query)
        return run_without_waiting(recorded)

    async def _attempt(self, query: DeskQuery) -> Session | None:
        """Return the session of a conversation run inline; None where a reply is missing."""
        session = self.new_session("cached" if self._runs_rules_inline else "replay")
        await self._run_inline(self._rows(query, session), self._context(query, session))
        if session.cache_miss:
            return None
        self._save_note(query, ReplayNote())
        return session

    @property
    def _runs_rules_inline(self) -> bool:
        return self.inline_rules and self._uses_only_rules

    @property
    def _uses_only_rules(self) -> bool:
        return self.chat_service.pool.uses_only_rules

    def new_session(self, mode: Mode | None = None) -> Session:
        """Return an empty session, in the runner's mode unless `mode` is given."""
        replay_errors = self.mode == "replay"
        return Session(self.config, mode or self.mode, self.clock, replay_errors=replay_errors)

    async def _replay(self, query: DeskQuery) -> Session:
        """Return the session as it was recorded, with its failures."""
        replay_note = self._recorded_note(query) or ReplayNote()
        session = self.new_session()
        rows = self._rows(query, session)
        if replay_note.skipped:
            _record_skipped(rows, replay_note.skipped, session)
            rows = remove_agents(
                rows, {row.name for row in rows if row.group in replay_note.skipped}
            )
        if replay_note.abort_reason is None:
            run = self._run_team if self.always_team else self._run_inline
            await run(rows, self._context(query, session))
            return session
        session.tokens, session.cost_usd = replay_note.tokens, replay_note.cost_usd
        if replay_note.uncounted:
            session.warn(UNCOUNTED)
        session.fail(rows[-1].name, Status.MODEL_ERROR, replay_note.abort_reason)
        return session

    async def call_models(self, query: DeskQuery) -> Session:
        """Run a fresh AutoGen team, calling models where no reply is recorded.

        Saves a `ReplayNote` if agents were skipped for want of budget, or the run was aborted.
        """
        session = self.new_session()
        limits = self.config.limits
        decision_budget = Budget("decision", limits.max_tokens, limits.budget_usd)
        shared_budgets = () if self._uses_only_rules else self.shared_budgets()
        session.budgets = (decision_budget, *shared_budgets)
        rows, skipped = select_affordable_agents(
            self._rows(query, session), query.text, session, self.chat_service.pool, self.graph
        )
        _record_skipped(self._seated_rows(query), skipped, session)
        abort_reason = await self._run_team(rows, self._context(query, session))
        if abort_reason:
            session.fail(rows[-1].name, Status.MODEL_ERROR, abort_reason)
        note = ReplayNote()
        if skipped or abort_reason:
            uncounted = UNCOUNTED in session.warnings
            note = ReplayNote(
                skipped, abort_reason, session.tokens, session.cost_usd, uncounted=uncounted
            )
        self._save_note(query, note)
        return session

    async def _run_team(self, rows: Sequence[AgentRow], context: RunContext) -> str | None:
        """Run an AutoGen team; return why it was aborted, or None where it came to its end.

        Raises LocalStateError.
        """
        silence_autogen_logs()
        speaking = stages_within_limit(context.session.config.limits.max_rounds, rows)
        team = self.graph.build_team(speaking, context)
        token = CancellationToken()
        limit_s = context.session.config.limits.wall_clock_s
        timer = asyncio.get_running_loop().call_later(limit_s, token.cancel)
        task = TextMessage(content=context.query.text, source=DESK)
        run = asyncio.ensure_future(team.run(task=task, cancellation_token=token))
        try:
            # Shielded, because AutoGen stops a team by its token alone: a cancelled `run` would
            # wait until every agent has finished. So whoever cancels us cancels the token.
            await asyncio.shield(run)
        except asyncio.CancelledError:
            token.cancel()
            await asyncio.gather(run, return_exceptions=True)
            if (current := asyncio.current_task()) and current.cancelling():
                raise
            return f"no decision within {limit_s:g} s"
        except RuntimeError:  # AutoGen's, with the agent's own error as prose
            if context.session.fatal_error is not None:
                raise context.session.fatal_error from None
            raise
        finally:
            timer.cancel()
        return None

    async def _run_inline(self, rows: Sequence[AgentRow], context: RunContext) -> None:
        """Run the agents stage by stage, without AutoGen's runtime. Raises LocalStateError."""
        speaking = stages_within_limit(context.session.config.limits.max_rounds, rows)
        agents = {row.name: DeskAgent(self.graph.agents[row.name], context) for row in speaking}
        messages = {DESK: context.query.text}
        for stage in stages(speaking):
            messages |= {row.name: await agents[row.name].reply(messages) for row in stage}
            if context.session.cache_miss and not context.session.replay_errors:
                return  # this was only an attempt; a team will run

    def _note_key(self, query: DeskQuery, limits: Mapping[str, Any] | None) -> str:
        return replay_note_key(self.chat_service.pool.roster_digest, query.text, limits)

    def _recorded_note(self, query: DeskQuery) -> ReplayNote | None:
        """Return the note on a decision under these limits; None where there is none."""
        cassette, limits = self.chat_service.cassette, limits_that_cut(self.config)
        note = read_replay_note(cassette, self._note_key(query, limits))
        # Notes from before the limits were part of the key stand for any.
        return note or read_replay_note(cassette, self._note_key(query, None))

    def _save_note(self, query: DeskQuery, note: ReplayNote) -> None:
        """Record how the decision was cut; a whole one takes back what is on record of it."""
        # Rules take no budget and no time, so nothing cuts them.
        if self._uses_only_rules and note == ReplayNote():
            return
        if note != (self._recorded_note(query) or ReplayNote()):
            key = self._note_key(query, limits_that_cut(self.config))
            write_replay_note(self.chat_service.cassette, key, note)

    def _context(self, query: DeskQuery, session: Session) -> RunContext:
        return RunContext(query, session, self.chat_service)

    def _seated_rows(self, query: DeskQuery) -> tuple[AgentRow, ...]:
        inputs = query.available_inputs
        if inputs not in self.rows_by_inputs:
            self.rows_by_inputs[inputs] = self.config.select_agents(inputs)
        return self.rows_by_inputs[inputs]

    def _rows(self, query: DeskQuery, session: Session) -> tuple[AgentRow, ...]:
        """Return the rows that take part, and record the question and who has nothing to read."""
        session.record(DESK, "request", query.text)
        session.note("question", "", text=query.text)
        rows = self._seated_rows(query)
        roster = self.chat_service.pool.roster
        if len(rows) < len(roster):
            names = {row.name for row in rows}
            for row in roster:
                if row.name not in names:
                    session.skip(row.name, f"no dated {row.when} in the view")
        return rows


def available_inputs(
    config: DeskConfig, present: Mapping[OptionalInput, bool]
) -> frozenset[OptionalInput]:
    """Return the inputs that are present and that at least one agent's `when` needs."""
    needed = {row.when for row in config.agents}
    return frozenset(name for name, is_present in present.items() if is_present and name in needed)


def select_affordable_agents(
    rows: Sequence[AgentRow],
    question: str,
    session: Session,
    pool: ClientPool,
    graph: AgentGraph,
) -> tuple[tuple[AgentRow, ...], tuple[AgentGroup, ...]]:
    """Return the rows that the session's budgets have room for, and the groups that are skipped.

    Groups are skipped in the order of `spending.drop_first`. If even the rest may exceed a budget,
    the call that would exceed it is refused.
    """
    affordable, skipped = tuple(rows), list[AgentGroup]()
    tokens_left, usd_left = remaining(session.budgets)
    for group in session.config.spending.drop_first:
        tokens, usd = _worst_case_cost(affordable, question, session, pool, graph)
        if tokens <= tokens_left and usd <= usd_left:
            break
        members = {row.name for row in affordable if row.group == group}
        if members:
            affordable = remove_agents(affordable, members)
            skipped.append(group)
    return affordable, tuple(skipped)


def _worst_case_cost(
    rows: Sequence[AgentRow],
    question: str,
    session: Session,
    pool: ClientPool,
    graph: AgentGraph,
) -> tuple[int, float]:
    """Return tokens and dollars if every reply is as long as it may be."""
    tokens, usd = 0, 0.0
    reply_tokens = {row.name: pool.model_of(row).sampling.max_tokens for row in rows}
    for row in rows:
        model = pool.model_of(row)
        if model.client == "rules":
            continue
        agent = graph.agents[row.name]
        prompt_tokens = (len(agent.system_message) + len(question)) // 4
        prompt_tokens += sum(reply_tokens.get(other.name, 0) for other in agent.hears)
        tokens += prompt_tokens + reply_tokens[row.name]
        usd += session.price(model, prompt_tokens, reply_tokens[row.name]) or 0.0
    return tokens, usd


def stages(rows: Sequence[AgentRow]) -> list[list[AgentRow]]:
    """Return the topological stages of the graph; agents of a stage run concurrently."""
    result: list[list[AgentRow]] = []
    waiting, finished = list(rows), set[str]()
    while waiting:
        result.append([row for row in waiting if finished.issuperset(row.after)])
        finished |= {row.name for row in result[-1]}
        waiting = [row for row in waiting if row.name not in finished]
    return result


def stages_within_limit(max_rounds: int, rows: Sequence[AgentRow]) -> tuple[AgentRow, ...]:
    """Return the rows that get to speak: a stage starts while there are fewer replies than that."""
    # Cut here, before the team is built: AutoGen's own limit on messages misses all but the last
    # of several that arrive side by side.
    speaking: list[AgentRow] = []
    for stage in stages(rows):
        if len(speaking) < max_rounds:
            speaking += stage
    return tuple(speaking)


@dataclass(frozen=True)
class ReplayNote:
    """What a replay of one decision has to know beside the recorded replies."""

    skipped: tuple[AgentGroup, ...] = ()
    """Groups that the budget had no room for."""
    abort_reason: str | None = None
    """Why the conversation was aborted; None where it came to its end."""
    tokens: int = 0
    cost_usd: float | None = 0.0
    """What the replies until the abort had taken."""
    uncounted: bool = False
    """Whether one of them came without a count of its tokens."""


def limits_that_cut(config: DeskConfig) -> dict[str, Any]:
    """Return the limits that decide whether a conversation is cut, and where."""
    # Under wider ones the same recorded replies may make a whole decision.
    names = {"max_rounds", "max_tokens", "wall_clock_s", "budget_usd"}
    return {
        **config.limits.model_dump(mode="json", include=names),
        **config.spending.model_dump(mode="json"),
    }


def replay_note_key(roster_digest: str, question: str, limits: Mapping[str, Any] | None) -> str:
    """Return the cassette's key of the note on a roster's decision on `question`.

    `limits` are those of `limits_that_cut`; None gives the key of notes from before they counted.
    """
    under = {} if limits is None else {"limits": limits}
    return fingerprint({"remark on": question, "roster": roster_digest, **under})


def read_replay_note(cassette: Cassette, key: str) -> ReplayNote | None:
    """Return the recorded note; None where the decision needs none."""
    recorded = cassette.get(key, errors=True)
    if recorded is None:
        return None
    note = json.loads(recorded.content)
    groups = tuple(group for group in get_args(AgentGroup) if group in note["left_out"])
    uncounted = bool(note.get("uncounted"))
    return ReplayNote(groups, note["cut_off"], note["tokens"], note["cost_usd"], uncounted)


def write_replay_note(cassette: Cassette, key: str, replay_note: ReplayNote) -> None:
    """Record the note under `key`."""
    content = {
        "left_out": replay_note.skipped,
        "cut_off": replay_note.abort_reason,
        "tokens": replay_note.tokens,
        "cost_usd": replay_note.cost_usd,
        **({"uncounted": True} if replay_note.uncounted else {}),
    }
    cassette.put(key, RecordedReply(json.dumps(content, sort_keys=True), "remark", 0, 0))


def _record_skipped(
    rows: Sequence[AgentRow], groups: Sequence[AgentGroup], session: Session
) -> None:
    for row in rows:
        if row.group in groups:
            session.skip(row.name, "left out: the budget has no room for it")
    if groups:
        session.warnings.append(f"left out for want of budget: {', '.join(groups)}")

"""Market view in, decision out: the synchronous door to the agents.

A desk keeps nothing between decisions. Whatever goes wrong on the way is a status of the decision;
only a question that can't be asked (a date before the first fit) raises.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np

from finagent_model._base import Mode
from finagent_model._event_loop import EVENT_LOOP
from finagent_model._redact import redact_texts
from finagent_model.agents.budget import Budget, DailyBudget, SpendingLimit
from finagent_model.agents.completion import ChatService, UnavailableError
from finagent_model.agents.prompt_templates import Prompts
from finagent_model.agents.providers import ClientPool
from finagent_model.agents.session import DeskQuery, Failure, Session
from finagent_model.agents.team import ConversationRunner, available_inputs
from finagent_model.agents.tools import Toolbox, schemas
from finagent_model.cassette.cassette import Cassette, fingerprint
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.parsing import CallLimits
from finagent_model.contrib.upstream.analyst import UpstreamAnalyst, UpstreamReport
from finagent_model.contrib.upstream.source import Pin, Source, source_at_hand
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import Status, TradingSignal, confidence_label
from finagent_model.desk.chart import draw
from finagent_model.desk.risk import LevelsRejectedError, Proposal, checked_level, settle_levels
from finagent_model.errors import DataError
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.view import MAX_STALE_SESSIONS, MarketView
from finagent_model.policy.context import Context, build_context
from finagent_model.policy.policy import PolicyFit
from finagent_model.policy.trained_state import StateAt, TrainedState, calibrate_signal
from finagent_model.settings import Settings

MAX_CONCURRENCY = 64
"""Decisions in flight together; each waits for its model most of the time."""
SPENDING_FILE = "spending.sqlite"
"""File in FINAGENT_HOME that counts what a day has taken."""


def utc_now() -> datetime:
    """The stamp of a record. Nothing is decided by it."""
    return datetime.now(UTC)


@dataclass(frozen=True, eq=False)
class UpstreamScores:
    """One entry a bar, in [-1, 1]; nan where there are too few bars or upstream failed."""

    scores: Floats
    failed: dict[str, str]
    """Day and reason."""


class Desk:
    """A configured team with the policies it may speak by. Safe to use from several threads."""

    def __init__(
        self,
        config: DeskConfig,
        learned: TrainedState | None,
        settings: Settings,
        cassette: Cassette,
        *,
        mode: Mode = "cached",
        upstream: Source | None = None,
        notes: tuple[str, ...] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`learned` is None for a desk that was never trained; `upstream` the source that a package
        carries, None: what is at hand, if an agent asks for it; `notes` are warnings that every
        signal of this desk carries. Raises ConfigError for an unknown prompt or tool.
        """
        texts = Prompts(config.prompts)
        for row in config.agents:
            schemas(row.tools)  # what can't be played is refused now, not at a decision
        self._prompts = [texts.text(row.prompt) for row in config.agents]
        self.config = config
        self._author = config.model_used
        self.mode = mode
        self._learned = learned
        self._exchange = ChatService(ClientPool(config, settings), cassette)
        self._consultant = None
        if config.uses_upstream:
            pin = upstream.pin if upstream else Pin.load()
            find = upstream.again if upstream else partial(source_at_hand, settings.home, pin)
            self._consultant = UpstreamAnalyst(pin, find, cassette)
        self._run = Budget("run", config.spending.run_tokens, config.spending.run_usd)
        self._home = settings.home
        self._notes = notes
        self._clock = clock

    def under(
        self,
        *,
        mode: Mode | None = None,
        limits: CallLimits | None = None,
        clock: Callable[[], datetime] | None = None,
        learned: TrainedState | None = None,
    ) -> Desk:
        """The same desk in another mode, with narrower limits, by another clock, or having learned
        more.
        """
        given = {k: v for k, v in vars(limits or CallLimits()).items() if v is not None}
        twin = object.__new__(Desk)
        twin.__dict__.update(vars(self))
        twin.mode, twin._clock = mode or self.mode, clock or self._clock
        twin._learned = learned or self._learned
        bounds = self.config.limits.model_copy(update=given)
        twin.config = self.config.model_copy(update={"limits": bounds})
        return twin

    def preload(self) -> None:
        """Import now what asking its models will need, where they can be asked: a server's first
        request should not wait for it.
        """
        self._exchange.pool.preload()

    def require_key(self) -> None:
        """Raise ConfigError now if this desk could not call its model, UpstreamSourceError if it
        could not ask upstream.
        """
        self._exchange.pool.require_key()
        self.require_upstream()

    def require_upstream(self) -> None:
        """Raise UpstreamSourceError now if an agent hears upstream and there is no source."""
        if self._consultant is not None:
            self._consultant.require_source()

    def close(self) -> None:
        """Close the connections to models, and upstream's worker; a later decision opens them
        again.
        """
        EVENT_LOOP.run(self._exchange.pool.close())
        if self._consultant is not None:
            self._consultant.close()

    def require_fit(self, symbol: str, as_of: datetime) -> None:
        """Raise BeforeFirstFitError if this desk was not yet trained at `as_of`, UnknownSymbolError
        if it was not trained to speak about `symbol`.
        """
        self._known(symbol, as_of)

    def decline(self, symbol: str, as_of: datetime, reason: str) -> Decision:
        """The decision about something that there is no view of: status `data_missing`."""
        failure = Failure(Status.DATA_MISSING, reason)
        session = self._table().session()
        return Decision(self._blank(symbol, as_of, None, None, session, failure, self._notes))

    def decide(self, view: MarketView) -> Decision:
        """Raises BeforeFirstFitError, and HomeError where spending can't be counted; any other
        trouble is the decision's status.
        """
        return EVENT_LOOP.run(self._decide(view, self._table()))

    def decide_all(
        self,
        views: Sequence[MarketView],
        done: Callable[[], object] = lambda: None,
        *,
        rules_at_once: bool = False,
        within_s: float | None = None,
    ) -> list[Decision]:
        """Many decisions, `AT_ONCE` in flight; `done` is called after each. Raises as `decide`
        does, and DeadlineError after `within_s` seconds; then none of them goes on.
        `rules_at_once` spares the client `rules` AutoGen's runtime, for the same record.
        """
        table = self._table(rules_at_once)

        async def all_of_them() -> list[Decision]:
            seats = asyncio.Semaphore(MAX_CONCURRENCY)

            async def one(view: MarketView) -> Decision:
                async with seats:
                    await asyncio.sleep(0)  # a row of `rules` waits for nobody: let a deadline in
                    decision = await self._decide(view, table)
                done()
                return decision

            try:
                async with asyncio.TaskGroup() as together:
                    tasks = [together.create_task(one(view)) for view in views]
            except ExceptionGroup as several:
                raise several.exceptions[0] from None
            return [task.result() for task in tasks]

        return EVENT_LOOP.run(all_of_them(), within_s)

    def _table(self, rules_at_once: bool = False) -> ConversationRunner:
        return ConversationRunner(
            self.config, self.mode, self._exchange, self._accounts, self._clock, rules_at_once
        )

    def upstream_scores(
        self, bars: BarSeries, done: Callable[[], object] = lambda: None
    ) -> UpstreamScores:
        """Upstream's opinion at the close of each bar, as an agent of this desk reads it."""
        session = self._table().session()

        async def all_of_them() -> UpstreamScores:
            scores, failed = np.full(len(bars), np.nan), dict[str, str]()
            for i in range(len(bars)):
                session.turns.clear()
                session.events.clear()
                try:
                    scores[i] = (await self._consult(bars[: i + 1], session, "")).score
                except UnavailableError as why:
                    if why.status is not Status.DATA_MISSING:
                        failed[f"{bars.close_time(i):%Y-%m-%d}"] = str(why)
                done()
            return UpstreamScores(scores, failed)

        return EVENT_LOOP.run(all_of_them())

    async def _consult(self, bars: BarSeries, session: Session, agent: str) -> UpstreamReport:
        assert self._consultant is not None
        return await self._consultant.consult(bars, session, agent)

    def _accounts(self) -> list[SpendingLimit]:
        """What all decisions of this run, and of this day on this machine, are paid from."""
        spending = self.config.spending
        if not (spending.day_tokens or spending.day_usd):
            return [self._run]
        file, today = self._home / SPENDING_FILE, self._clock().date()
        return [self._run, DailyBudget(file, today, spending.day_tokens, spending.day_usd)]

    async def _decide(self, view: MarketView, table: ConversationRunner) -> Decision:
        known = self._known(view.symbol, view.as_of)
        fit = known.fit if known else None
        try:
            context = self._question(view, known)
        except DataError as error:
            failure = Failure(Status.DATA_MISSING, str(error))
            return self._conclude(view, fit, table.session(), None, failure)
        session = await table.converse(self._inquiry(view, known, context))
        return self._conclude(view, fit, session, context, _failure(session))

    def _question(self, view: MarketView, known: StateAt | None) -> Context:
        if view.is_stale:
            raise DataError(
                f"last bar of {view.symbol} closed {view.bars.close_time(-1):%Y-%m-%d}, "
                f"{view.stale_sessions} sessions before as_of {view.as_of:%Y-%m-%d} "
                f"(at most {MAX_STALE_SESSIONS}); send newer bars"
            )
        if known is None:
            return build_context(view, self.config.initial_policy)
        shown = self.config.memory.lessons
        return build_context(view, known.fit.policy, known.lessons, shown)

    def _inquiry(self, view: MarketView, known: StateAt | None, context: Context) -> DeskQuery:
        lessons = bool(known and known.lessons and self.config.memory.lessons)
        return DeskQuery(
            context.text,
            available_inputs(
                self.config,
                {
                    "news": bool(view.news),
                    "fundamentals": bool(view.fundamentals),
                    "memory": lessons,
                },
            ),
            tools=lambda names: Toolbox(view, context, names),
            chart=lambda: draw(view, context.policy),
            upstream=lambda session, agent: self._consult(view.bars, session, agent),
        )

    def _conclude(
        self,
        view: MarketView,
        fit: PolicyFit | None,
        session: Session,
        context: Context | None,
        failure: Failure | None,
    ) -> Decision:
        warnings = (*self._notes, *_warnings(view, fit, session))
        signal = self._blank(view.symbol, view.as_of, fit, context, session, failure, warnings)
        if failure is None and context is not None:
            signal = self._speak(signal, session, context)
            if self._learned and self._learned.calibrations:
                signal = calibrate_signal(signal, self._learned.calibrations)
        signal = without_leaks(signal, self._exchange.pool.secrets, self._prompts)
        for clamp in signal.clamps:
            session.note("clamp", "", text=clamp)
        return Decision(signal, tuple(session.turns), session.calls, tuple(session.events))

    def _known(self, symbol: str, as_of: datetime) -> StateAt | None:
        return None if self._learned is None else self._learned.at(symbol, as_of)

    def _blank(
        self,
        symbol: str,
        as_of: datetime,
        fit: PolicyFit | None,
        context: Context | None,
        session: Session,
        failure: Failure | None,
        warnings: tuple[str, ...],
    ) -> TradingSignal:
        """The signal of a failure, or what the executor's reply is written into."""
        return TradingSignal(
            symbol=symbol,
            action="HOLD",
            confidence="LOW",
            confidence_score=0,
            raw_confidence_score=0,
            calibrated=False,
            status=failure.status if failure else Status.OK,
            reasoning=failure.reason if failure else "the executor's reply follows",
            model_used=self._author,
            generated_at=self._clock(),
            as_of=as_of,
            fit_until=fit.fit_until if fit else None,
            fit_symbols=fit.symbols if fit else (),
            conversation_id=self._conversation_id(symbol, as_of, context),
            warnings=warnings,
            tokens=session.tokens,
            cost_usd=session.cost_usd,
        )

    def _speak(self, blank: TradingSignal, session: Session, context: Context) -> TradingSignal:
        """The executor's reply as a signal, its numbers held by code."""
        said = session.executor_reply
        assert said is not None
        clamps: list[str] = []
        facts = {
            "trend": said.trend,
            "reasoning": said.reasoning,
            "key_factors": tuple(said.key_factors),
            "support_level": checked_level("support", said.support_level, context, clamps),
            "resistance_level": checked_level("resistance", said.resistance_level, context, clamps),
        }
        if said.action != "HOLD":
            asked = Proposal(
                said.action,
                said.suggested_entry_price,
                said.suggested_stop_loss,
                said.suggested_take_profit,
                said.position_size_percent,
            )
            try:
                levels = settle_levels(asked, context, self.config.risk)
            except LevelsRejectedError as error:
                return _revalidated(blank, status=Status.LEVELS_REJECTED, reasoning=str(error))
            clamps.extend(levels.clamps)
            facts |= {
                "suggested_entry_price": levels.entry,
                "suggested_stop_loss": levels.stop,
                "suggested_take_profit": levels.target,
                "r_multiple": levels.r_multiple,
                "position_size_percent": levels.size_percent,
            }
            if self.config.uses_only_upstream:
                clamps.append("entry, stop, target and size are this desk's: upstream names none")
        return _revalidated(
            blank,
            **facts,
            action=said.action,
            confidence=confidence_label(said.confidence_score),
            confidence_score=said.confidence_score,
            raw_confidence_score=said.confidence_score,
            clamps=tuple(clamps),
        )

    def _conversation_id(self, symbol: str, as_of: datetime, context: Context | None) -> str:
        made_from = {
            "symbol": symbol,
            "as_of": as_of.isoformat(),
            "context": context.text if context else None,
            "config": self.config.model_dump(mode="json", exclude={"gate", "approval"}),
        }
        return fingerprint(made_from)[:16]


def config_hash(config: DeskConfig) -> str:
    """SHA-256 of a desk's configuration."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


def _failure(session: Session) -> Failure | None:
    """Why there is no decision; None when there is one."""
    executor = session.config.agents[-1].name
    if session.executor_reply is not None and session.analysts:
        return None
    if not session.analysts and session.failures:
        # By the roster: who failed before whom is chance, and a replay must say the same.
        names = (row.name for row in session.config.roster)
        first = next(session.failures[name] for name in names if name in session.failures)
        return replace(first, reason=f"no analyst could report: {first.reason}")
    if executor in session.failures:
        return session.failures[executor]
    rounds = session.config.limits.max_rounds
    return Failure(Status.ABSTAINED, f"no decision within {rounds} rounds: held, to be safe")


def _warnings(view: MarketView, fit: PolicyFit | None, session: Session) -> list[str]:
    executor = session.config.agents[-1].name
    said = [*session.notes]
    said += [
        f"{name} left out: {failure.status}: {failure.reason}"
        for name, failure in sorted(session.failures.items())
        if name != executor
    ]
    if fit is None:
        said.append("untrained: the policy's defaults were used")
    elif view.symbol not in fit.symbols:
        said.append(f"policy fitted on {', '.join(fit.symbols)}, not on {view.symbol}")
    if missing := view.sessions_without_bar:
        said.append(
            f"decided on the bar of {view.bars.close_time(-1):%Y-%m-%d}; "
            f"weekdays without one since: {missing} (holidays, or not there yet)"
        )
    if view.undated_news:
        said.append(f"{view.undated_news} news items dropped: no publication time")
    if view.undated_facts:
        said.append(f"{view.undated_facts} facts dropped: no publication time")
    return said


def _revalidated(signal: TradingSignal, **changes: object) -> TradingSignal:
    """A validated copy; `model_copy` alone would skip the checks."""
    kept = signal.model_dump(exclude={"is_actionable"})
    return TradingSignal.model_validate({**kept, **changes})


def without_leaks(
    signal: TradingSignal, secrets: Sequence[str], prompts: Sequence[str]
) -> TradingSignal:
    """The signal without leaks in its reasoning, key factors and warnings; clamps say so."""
    said = (signal.reasoning, *signal.key_factors, *signal.warnings)
    (reasoning, *rest), notes = redact_texts(said, secrets, prompts)
    if not notes:
        return signal
    factors = len(signal.key_factors)
    changes = {
        "reasoning": reasoning,
        "key_factors": tuple(rest[:factors]),
        "warnings": tuple(rest[factors:]),
        "clamps": (*signal.clamps, *notes),
    }
    return signal.model_copy(update=changes)

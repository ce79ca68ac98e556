"""The desk: a market view in, a decision out, from any thread and without awaiting.

A desk keeps nothing of a decision for the next. What is on record is decided on the caller's own
thread; only work that waits, such as calls to models, runs on the event loop. Whatever goes wrong
on the way is a status of the decision; only a question that can't be asked raises, such as a date
before the first fit, and spending that can't be counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from finagent_model._base import Mode
from finagent_model._event_loop import EVENT_LOOP, Deadline
from finagent_model.agents.budget import Budget, DailyBudget, SpendingLimit
from finagent_model.agents.completion import ChatService, UnavailableError
from finagent_model.agents.components import AgentGraph
from finagent_model.agents.external import ExternalSource, RecordedAnalyst, load_external
from finagent_model.agents.providers import ClientPool
from finagent_model.agents.session import DeskQuery, ExternalReport, Failure, Session
from finagent_model.agents.team import ConversationRunner, available_inputs
from finagent_model.agents.tools import Toolbox, schemas
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import canonical_json, fingerprint_of_parts
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.parsing import CallLimits
from finagent_model.config.roster import AgentRow, OptionalInput
from finagent_model.config.rules import narrow_limits
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.desk._chart import draw
from finagent_model.desk._reply_signal import (
    find_failure,
    redact_signal,
    session_warnings,
    write_reply,
)
from finagent_model.desk._view_question import ViewQuestion, build_shown_context, view_warnings
from finagent_model.desk.masking import Presenter, ShownView, make_presenter
from finagent_model.errors import DataError, ShutdownError
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.timeframe import DAILY
from finagent_model.market.view import MarketView
from finagent_model.policy.context import Context
from finagent_model.policy.policy import PolicyFit
from finagent_model.policy.trained_state import StateAt, TrainedState, calibrate_signal
from finagent_model.settings import Settings

MAX_CONCURRENCY = 64
"""Decisions in flight together; each waits for its model most of the time."""
SPENDING_FILE = "spending.sqlite"
"""File in FINAGENT_HOME that counts what a day has taken."""


def utc_now() -> datetime:
    """Return the present, for the stamp of a record; nothing is decided by it."""
    return datetime.now(UTC)


@dataclass(frozen=True, eq=False)
class ExternalScores:
    """An external analyst's score of each bar, in [-1, 1]; nan where there are too few bars or the
    analyst failed.
    """

    scores: Floats
    failed: dict[str, str]
    """Day and reason."""


@dataclass(frozen=True)
class ModelReply:
    """What one model said to a prompt outside any conversation."""

    is_reply: bool
    """False: the model could not be asked, or gave no reply."""
    score: float
    """-1 certain fall, 1 certain rise; 0 also for a reply that can't be read."""
    key_factors: tuple[str, ...]
    shown: ShownView
    calls: int
    """1 where the model was called, 0 for a recorded reply."""
    cost_usd: float | None


class Desk:
    """A team of agents by its config, with the policies it was trained to use.

    Safe to use from several threads.
    """

    def __init__(
        self,
        config: DeskConfig,
        trained_state: TrainedState | None,
        settings: Settings,
        cassette: Cassette,
        *,
        mode: Mode = "cached",
        external: ExternalSource | None = None,
        graph: AgentGraph | None = None,
        warnings: tuple[str, ...] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Build a desk; `trained_state` is None for one that was never trained.

        `external` holds the external analyst's files that a package carries; None takes those on
        this machine. `graph` is the agent graph that a package carries and that agrees with
        `config`; None makes it from the roster. `warnings` go on every signal. Raises ConfigError
        for an unknown prompt or tool, or a roster that the client `rules` has no rule for.
        """
        for row in config.agents:
            schemas(row.tools)  # fails now, not at a decision
        self._graph = graph or AgentGraph.from_config(config)
        self._prompts = list(self._graph.system_messages.values())
        self._set_config(config)
        self._author = config.model_used
        is_local = any(model.client == "local" for model in config.distinct_models)
        # Many at once would share the cores, and each would run into its time limits.
        self._max_concurrency = 1 if is_local else MAX_CONCURRENCY
        self.mode = mode
        self._trained_state = trained_state
        pool = ClientPool(config, settings, self._graph.rules_client)
        self._chat_service = ChatService(pool, cassette)
        self._external = None
        if config.external_analyst:
            analyst = load_external(config.external_analyst).connect(settings, external)
            self._external = RecordedAnalyst(analyst, cassette)
        self._run_budget = Budget("run", config.spending.run_tokens, config.spending.run_usd)
        self._home = settings.home
        self._warnings = warnings
        self._clock = clock
        self._inline_rules = self._always_team = False
        self._present = make_presenter(config)
        self._memo_key = object()
        """Of the questions about a view: desks that share it ask the same."""
        self._rows_by_inputs: dict[frozenset[OptionalInput], tuple[AgentRow, ...]] = {}

    @property
    def warm_up(self) -> int:
        """Bars of a symbol that are enough for every policy of this desk."""
        fits = self._trained_state.policies.fits if self._trained_state else ()
        return max((fit.policy.warm_up for fit in fits), default=self.config.initial_policy.warm_up)

    def with_options(
        self,
        *,
        mode: Mode | None = None,
        limits: CallLimits | None = None,
        clock: Callable[[], datetime] | None = None,
        trained_state: TrainedState | None = None,
        inline_rules: bool | None = None,
        always_team: bool | None = None,
        presenter: Presenter | None = None,
        cassette: Cassette | None = None,
        warnings: tuple[str, ...] | None = None,
    ) -> Desk:
        """Return this desk in another mode, within narrower limits, or with another clock or state.

        `inline_rules` runs a desk of `rules` alone without AutoGen's runtime, for the same record;
        `always_team` runs AutoGen's team though every reply is recorded. `presenter` shows the
        agents other views than the mask does, for an experiment; `cassette` is where replies are
        found and recorded instead; `warnings` go on every signal in place of the desk's own.

        Limits can only be narrowed: a wider one is not honoured, and every signal of the returned
        desk warns of it. Clients, recorded replies and the run's budget are shared.
        """
        own_limits, refusals = narrow_limits(self.config.limits, limits or CallLimits())
        # Not built anew: that would make other clients and forget what the run has spent.
        copy = object.__new__(Desk)
        copy.__dict__.update(vars(self))
        copy.mode, copy._clock = mode or self.mode, clock or self._clock
        copy._trained_state = trained_state or self._trained_state
        if own_limits != self.config.limits:
            copy._set_config(self.config.model_copy(update={"limits": own_limits}))
        copy._warnings = (*(self._warnings if warnings is None else warnings), *refusals)
        copy._inline_rules = self._inline_rules if inline_rules is None else inline_rules
        copy._always_team = self._always_team if always_team is None else always_team
        copy._present = presenter or self._present
        if trained_state is not None or presenter is not None:
            copy._memo_key = object()
        if cassette is not None:
            copy._chat_service = replace(self._chat_service, cassette=cassette)
        return copy

    def _set_config(self, config: DeskConfig) -> None:
        self.config = config
        # Gate and approval decide about versions and trades, not about what the desk says. Dumped
        # once: every decision's id depends on it.
        dump = config.model_dump(mode="json", exclude={"gate", "approval"})
        self._config_json = canonical_json(dump)

    def preload(self) -> None:
        """Import what calls to its models will need, so that a server's first request is quick."""
        self._chat_service.pool.preload()

    def share(self, processes: int) -> None:
        """Share budget, rate limits and circuit breakers with processes that it is about to fork.

        Raises ConfigError where that can't be done.
        """
        self._chat_service.pool.share_limits(processes)
        self._run_budget = self._run_budget.share()

    def require_key(self) -> None:
        """Raise ConfigError if this desk could not call its models, or ExternalSourceError."""
        self._chat_service.pool.require_key()
        self.require_external()

    def require_external(self) -> None:
        """Raise ExternalSourceError if the desk's external analyst could not be asked."""
        if self._external is not None:
            self._external.analyst.require_available()

    def close(self) -> None:
        """Close the connections to models and to the external analyst.

        A later decision opens them again.
        """
        EVENT_LOOP.run(self._chat_service.pool.close())
        if self._external is not None:
            self._external.analyst.close()

    def check_trained_at(self, symbol: str, as_of: datetime) -> None:
        """Raise BeforeFirstFitError if this desk had no policy at `as_of`.

        Raises UnknownSymbolError if it was not trained to speak about `symbol`.
        """
        self._state_at(symbol, as_of)

    def missing_data_decision(self, symbol: str, as_of: datetime, reason: str) -> Decision:
        """Return the decision of status `data_missing` where there is no view to decide on."""
        failure = Failure(Status.DATA_MISSING, reason)
        session = self._runner().new_session()
        return Decision(
            self._empty_signal(symbol, as_of, None, None, session, failure, self._warnings)
        )

    def decide(self, view: MarketView) -> Decision:
        """Return the decision on `view`; its status says what went wrong, if anything.

        Raises BeforeFirstFitError, and LocalStateError where spending can't be counted.
        """
        [decision] = self.decide_all([view])
        return decision

    def decide_all(
        self,
        views: Sequence[MarketView],
        on_decision: Callable[[], object] = lambda: None,
        *,
        timeout_s: float | None = None,
    ) -> list[Decision]:
        """Return one decision a view, in their order, with up to MAX_CONCURRENCY in flight.

        With a model on this machine it is one at a time.

        `on_decision` is called after each, for progress. Raises as `decide` does, and DeadlineError
        after `timeout_s` seconds; then none of them goes on.
        """
        runner, deadline = self._runner(), Deadline.after(timeout_s)
        if not runner.can_recall:
            return EVENT_LOOP.run(
                self._decide_concurrently(views, runner.converse, on_decision), timeout_s
            )
        # What is on record waits for nobody, so it is decided on the caller's own thread.
        decisions = dict[int, Decision]()
        stop_count = EVENT_LOOP.stop_count

        def check() -> None:
            deadline.check()
            if EVENT_LOOP.stop_count > stop_count:
                raise ShutdownError()

        for i, view in enumerate(views):
            check()
            if (decision := self._recall(view, runner)) is not None:
                decisions[i] = decision
                on_decision()
        if missing := [i for i in range(len(views)) if i not in decisions]:
            check()  # the loop stops only the work that it has already
            made = EVENT_LOOP.run(
                self._decide_concurrently(
                    [views[i] for i in missing], runner.converse, on_decision
                ),
                deadline.remaining_s(),
            )
            decisions |= dict(zip(missing, made, strict=True))
        return [decisions[i] for i in range(len(views))]

    async def _decide_concurrently(
        self,
        views: Sequence[MarketView],
        converse: Callable[[DeskQuery], Awaitable[Session]],
        on_decision: Callable[[], object],
    ) -> list[Decision]:
        slots = asyncio.Semaphore(self._max_concurrency)

        async def decide_one(view: MarketView) -> Decision:
            async with slots:
                await asyncio.sleep(0)  # `rules` wait for nobody: let a deadline in
                question = self._question(view)
                session = None if question.query is None else await converse(question.query)
                decision = self._finish(question, session)
            on_decision()
            return decision

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(decide_one(view)) for view in views]
        except ExceptionGroup as errors:  # the first cancels the rest, so it is the cause
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    def _recall(self, view: MarketView, runner: ConversationRunner) -> Decision | None:
        """Return the decision that is on record; None where a model has to be asked."""
        question = self._question(view)
        if question.query is None:
            return self._finish(question, None)
        session = runner.recall(question.query)
        return None if session is None else self._finish(question, session)

    def ask_model(
        self,
        agent: str,
        prompt: str,
        views: Sequence[MarketView],
        on_reply: Callable[[], object] = lambda: None,
    ) -> list[ModelReply]:
        """Return what an agent's model reports on `prompt` and the question of each view.

        No tool may be called. Raises BeforeFirstFitError, and LocalStateError where spending can't
        be counted.
        """
        [row] = [row for row in self.config.agents if row.name == agent]
        runner = self._runner()

        async def ask_one(view: MarketView) -> ModelReply:
            state = self._state_at(view.symbol, view.as_of)
            shown = self._present(view, state.lessons if state else ())
            session = runner.new_session()
            session.budgets = self._shared_budgets()
            try:
                question = self._build_context(shown, state.fit if state else None).text
                report = await self._chat_service.ask(row, prompt, question, session)
            except (DataError, UnavailableError):
                return ModelReply(False, 0.0, (), shown, session.calls, session.cost_usd)
            finally:
                on_reply()
            score, factors = (report.score, tuple(report.key_factors)) if report else (0.0, ())
            return ModelReply(True, score, factors, shown, session.calls, session.cost_usd)

        async def ask_all() -> list[ModelReply]:
            slots = asyncio.Semaphore(self._max_concurrency)

            async def ask(view: MarketView) -> ModelReply:
                async with slots:
                    return await ask_one(view)

            return await asyncio.gather(*map(ask, views))

        return EVENT_LOOP.run(ask_all())

    def external_scores(
        self, bars: BarSeries, done: Callable[[], object] = lambda: None
    ) -> ExternalScores:
        """Return the external analyst's score at the close of each bar, as an agent reads it.

        `done` is called after each bar.
        """
        session = self._runner().new_session()

        async def all_of_them() -> ExternalScores:
            scores, failed = np.full(len(bars), np.nan), dict[str, str]()
            for i in range(len(bars)):
                session.turns.clear()
                session.events.clear()
                try:
                    scores[i] = (await self._external_report(bars[: i + 1], session, "")).score
                except UnavailableError as why:
                    if why.status is not Status.DATA_MISSING:
                        failed[f"{bars.show_time(i)}"] = str(why)
                done()
            return ExternalScores(scores, failed)

        return EVENT_LOOP.run(all_of_them())

    async def _external_report(
        self, bars: BarSeries, session: Session, agent: str
    ) -> ExternalReport:
        assert self._external is not None
        return await self._external.report(bars, session, agent)

    def _runner(self) -> ConversationRunner:
        return ConversationRunner(
            self.config,
            self._graph,
            self.mode,
            self._chat_service,
            self._shared_budgets,
            self._clock,
            self._inline_rules,
            self._always_team,
            self._rows_by_inputs,
        )

    def _shared_budgets(self) -> list[SpendingLimit]:
        """Return the budgets of this run and, where it is limited, of this day on this machine."""
        spending = self.config.spending
        if not (spending.day_tokens or spending.day_usd):
            return [self._run_budget]
        path, today = self._home / SPENDING_FILE, self._clock().date()
        return [self._run_budget, DailyBudget(path, today, spending.day_tokens, spending.day_usd)]

    def _question(self, view: MarketView) -> ViewQuestion:
        """Return the question about a view. Raises BeforeFirstFitError."""
        if view.memo is None:
            return self._build_question(view)
        question: ViewQuestion | None = view.memo.get(self._memo_key)
        if question is None:
            question = view.memo[self._memo_key] = self._build_question(view)
        return question

    def _build_question(self, view: MarketView) -> ViewQuestion:
        state = self._state_at(view.symbol, view.as_of)
        fit = state.fit if state else None
        shown = self._present(view, state.lessons if state else ())
        warnings = (*view_warnings(view, fit), *shown.warnings)
        try:
            context = self._build_context(shown, fit)
        except DataError as error:
            failure = Failure(Status.DATA_MISSING, shown.text(str(error)))
            return ViewQuestion(shown, fit, failure=failure, warnings=warnings)
        query = self._build_query(shown, context)
        return ViewQuestion(shown, fit, context, query, warnings=warnings)

    def _state_at(self, symbol: str, as_of: datetime) -> StateAt | None:
        """Return what training knew at `as_of`; None for an untrained desk."""
        return None if self._trained_state is None else self._trained_state.at(symbol, as_of)

    def _build_context(self, shown: ShownView, fit: PolicyFit | None) -> Context:
        state = self._trained_state
        timeframe = state.policies.timeframe if state and fit else None
        return build_shown_context(shown, fit, self.config, timeframe)

    def _build_query(self, shown: ShownView, context: Context) -> DeskQuery:
        view, has_lessons = shown.view, bool(shown.lessons and self.config.memory.lessons)
        return DeskQuery(
            context.text,
            available_inputs(
                self.config,
                {
                    "news": bool(view.news),
                    "fundamentals": bool(view.fundamentals),
                    "memory": has_lessons,
                },
            ),
            tools=lambda names: Toolbox(view, context, names),
            chart=lambda: draw(view, context.policy),
            external=lambda session, agent: self._external_report(view.bars, session, agent),
        )

    def _finish(self, question: ViewQuestion, session: Session | None) -> Decision:
        """Return the decision: the executor's reply or the failure as a signal, and the record.

        `session` is None where nobody was asked.
        """
        shown, fit, context = question.shown, question.fit, question.context
        failure = question.failure if session is None else find_failure(session)
        session = session or self._runner().new_session()
        view = shown.original
        warnings = (*self._warnings, *session_warnings(session), *question.warnings)
        signal = self._empty_signal(
            *(view.symbol, view.as_of, fit, context, session, failure, warnings),
            timeframe=view.bars.timeframe.label,
        )
        if failure is None and context is not None:
            signal = write_reply(signal, session, context, shown, self.config)
            if self._trained_state and self._trained_state.calibrations:
                signal = calibrate_signal(signal, self._trained_state.calibrations)
        # After the reply was written in: it may quote a prompt or a key.
        signal = redact_signal(signal, self._chat_service.pool.secrets, self._prompts)
        for clamp in signal.clamps:
            session.note("clamp", "", text=clamp)
        return Decision(signal, tuple(session.turns), session.calls, tuple(session.events))

    def _empty_signal(
        self,
        symbol: str,
        as_of: datetime,
        fit: PolicyFit | None,
        context: Context | None,
        session: Session,
        failure: Failure | None,
        warnings: tuple[str, ...],
        timeframe: str = DAILY.label,
    ) -> TradingSignal:
        """Return the signal of a failure, or the one that the executor's reply is written into."""
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
            timeframe_analyzed=timeframe,
            tokens=session.tokens,
            cost_usd=session.cost_usd,
        )

    def _conversation_id(self, symbol: str, as_of: datetime, context: Context | None) -> str:
        """Return a hash of all that the conversation depends on, apart from the models' replies."""
        content = {
            "symbol": canonical_json(symbol),
            "as_of": canonical_json(as_of.isoformat()),
            "context": canonical_json(context.text if context else None),
            "config": self._config_json,
        }
        return fingerprint_of_parts(content)[:16]

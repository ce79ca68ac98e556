"""The question that a desk is asked, and the memory of the decision that it leads to.

A `DeskQuery` is the question about one view, with what agents may look up while they answer. A
`Session` collects turns, events, replies, failures and costs; every decision gets a new one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from finagent_model._base import Mode
from finagent_model.agents._replies import ExecutorReply, Reply
from finagent_model.agents.budget import Amount, SpendingLimit, reserve, settle
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import ModelConfig, OptionalInput
from finagent_model.decision.decision import Event, EventKind, Turn
from finagent_model.decision.signal import Status
from finagent_model.errors import LocalStateError


def report_source(analyst: str) -> str:
    """Return the source of the message that holds the external analyst's report."""
    return f"{analyst}_report"  # part of what a model's recorded reply is keyed by


class ToolAnswer(Protocol):
    """The result of a tool call."""

    @property
    def content(self) -> str:
        """Return a JSON object."""

    @property
    def is_error(self) -> bool:
        """Return whether `content` explains why the call was refused."""


class Tools(Protocol):
    """Some tools, bound to one view."""

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """Return what a model is told of each tool, in the shape of AutoGen's ToolSchema."""

    def call(self, name: str, arguments_json: str) -> ToolAnswer:
        """Return the result of a call. Never raises, whatever a model sends."""


class Picture(Protocol):
    """A chart of the view."""

    @property
    def png(self) -> bytes:
        """Return the image file."""

    @property
    def digest(self) -> str:
        """Return a hash of what is drawn, which is the same whatever font library drew it."""


@dataclass(frozen=True)
class ExternalReport:
    """What an external analyst says of the bars in view."""

    text: str
    """JSON, as an agent reads it."""
    score: float
    """Directional strength in [-1, 1]."""


@dataclass(frozen=True)
class DeskQuery:
    """One question to the whole desk."""

    text: str
    """The question as JSON, the same for every agent."""
    available_inputs: frozenset[OptionalInput]
    """Inputs that this view has and not every view has; an agent's `when` waits for one."""
    tools: Callable[[Sequence[str]], Tools]
    """Returns the tools of the given names."""
    chart: Callable[[], Picture]
    """Draws the chart; called only when an agent is shown it."""
    external: Callable[[Session, str], Awaitable[ExternalReport]]
    """Returns the external analyst's report for an agent by name. Raises UnavailableError."""


@dataclass(frozen=True)
class Failure:
    """Why an agent has no reply, or a decision no conclusion."""

    status: Status
    reason: str


@dataclass
class Session:
    """The memory of one decision: agents fill it while they speak, the desk reads it afterwards."""

    config: DeskConfig
    mode: Mode
    clock: Callable[[], datetime]
    budgets: Sequence[SpendingLimit] = ()
    """What calls are paid from."""
    replay_errors: bool = False
    """Whether a recorded failure counts as a reply, as it does in a replay."""
    turns: list[Turn] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    """By agent."""
    failures: dict[str, Failure] = field(default_factory=dict)
    """By agent."""
    analysts: set[str] = field(default_factory=set)
    """Names of the analysts that have reported."""
    tokens: int = 0
    """Tokens of the whole conversation as recorded, whether or not they were paid for this time."""
    cost_usd: float | None = 0.0
    """Price of `tokens` by the price list; None once a price or a count is unknown."""
    calls: int = 0
    """Requests that reached a chat client, retries among them; a recorded reply is none."""
    cache_miss: bool = False
    """Whether mode `replay` needed a reply that is not recorded."""
    fatal_error: LocalStateError | None = None
    """An error of this machine that an agent met: it ends the decision rather than the agent."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the signal about how it was made."""

    def record(
        self,
        agent: str,
        kind: Literal["request", "response", "skipped", "failed"],
        content: str,
        *,
        tokens: tuple[int, int] = (0, 0),
        model: str = "",
        cached: bool = False,
    ) -> None:
        """Add a turn to the conversation; `tokens` are of prompt and completion."""
        self.turns.append(Turn(agent, kind, content, self.clock(), *tokens, model, cached))

    def note(self, kind: EventKind, agent: str, **body: Any) -> None:
        """Add an event to the audit."""
        self.events.append(Event(kind, self.clock(), agent, body))

    def skip(self, agent: str, reason: str) -> None:
        """Record that an agent takes no part, or that something was not shown to it."""
        self.record(agent, "skipped", reason)
        self.note("skipped", agent, why=reason)

    def fail(self, agent: str, status: Status, reason: str) -> None:
        """Record that an agent has no reply."""
        self.failures[agent] = Failure(status, reason)
        self.record(agent, "failed", f"{status}: {reason}")
        self.note("failed", agent, status=status.value, reason=reason)

    def reserve(self, agent: str, amount: Amount) -> None:
        """Reserve `amount` in every budget. Raises OverBudgetError."""
        reserve(self.budgets, amount)
        self.note("budget", agent, reserved={"tokens": amount.tokens, "usd": amount.usd})

    def settle(self, agent: str, reserved: Amount, spent: Amount) -> None:
        """Return the unused part of a reservation to every budget."""
        settle(self.budgets, reserved, spent)
        self.note("budget", agent, settled={"tokens": spent.tokens, "usd": spent.usd})

    def warn(self, warning: str) -> None:
        """Put a sentence on the signal, once."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def count_call(self) -> None:
        """Count a request that reaches a chat client."""
        self.calls += 1

    def charge(self, model: ModelConfig, prompt: int, completion: int, *, counted: bool) -> None:
        """Count a reply's tokens and price, whether it was recorded or not.

        `counted` tells tokens that the provider counted from an upper bound, whose price is none.
        """
        # Tokens and price count for recorded replies too, so that a replay gives an equal signal.
        cost = self.price(model, prompt, completion) if counted else None
        self.tokens += prompt + completion
        self.cost_usd = None if self.cost_usd is None or cost is None else self.cost_usd + cost

    def price(self, model: ModelConfig, prompt: int, completion: int) -> float | None:
        """Return the dollars for so many tokens; None where the price is unknown."""
        if model.is_free:
            return 0.0
        price = self.config.prices.get(model.model)
        return None if price is None else price.cost_usd(prompt, completion)

    @property
    def executor_reply(self) -> ExecutorReply | None:
        """Return the decision of the last agent; None while there is none."""
        reply = self.replies.get(self.config.agents[-1].name)
        return reply if isinstance(reply, ExecutorReply) else None

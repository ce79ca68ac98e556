"""What a desk is asked about one view, and what its agents may look up while they answer.

The memory of one decision: what was said, what failed, what it took. A new one for every
decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from finagent_model._base import Mode
from finagent_model.agents.budget import Amount, SpendingLimit, reserve, settle
from finagent_model.agents.replies import ExecutorReply, Reply
from finagent_model.config.desk_config import DeskConfig
from finagent_model.config.roster import ModelConfig, OptionalInput
from finagent_model.decision.decision import Event, EventKind, Turn
from finagent_model.decision.signal import Status
from finagent_model.errors import LocalStateError

REPORT = "upstream_report"
"""The source of the message that holds upstream's report; no agent may be called so."""


class ToolAnswer(Protocol):
    """What a tool gave, as JSON; an error is data too."""

    @property
    def content(self) -> str: ...

    @property
    def is_error(self) -> bool: ...


class Tools(Protocol):
    """Some tools, bound to the one view."""

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """As a model is told of them."""

    def call(self, name: str, arguments_json: str) -> ToolAnswer:
        """Never raises, whatever a model asks."""


class Picture(Protocol):
    """A chart of the view."""

    @property
    def png(self) -> bytes: ...

    @property
    def digest(self) -> str:
        """Of what is drawn, not of the file."""


class Report(Protocol):
    """What the upstream project says of the bars in view."""

    @property
    def report(self) -> str:
        """As an agent reads it."""


@dataclass(frozen=True)
class DeskQuery:
    """One question to the whole desk."""

    text: str
    """JSON, the same for every agent."""
    occasions: frozenset[OptionalInput]
    """What the view has that not every view has."""
    tools: Callable[[Sequence[str]], Tools]
    """Those of the given names."""
    chart: Callable[[], Picture]
    """Drawn when an agent is to see it."""
    upstream: Callable[[Session, str], Awaitable[Report]]
    """For an agent by name; raises UnavailableError."""


@dataclass(frozen=True)
class Failure:
    """Why an agent has no reply."""

    status: Status
    reason: str


@dataclass
class Session:
    """Filled by the agents while they speak; read by the desk afterwards."""

    config: DeskConfig
    mode: Mode
    clock: Callable[[], datetime]
    accounts: Sequence[SpendingLimit] = ()
    """What a call is paid from."""
    past_errors: bool = False
    """Whether a recorded failure is a reply like any other: in a replay."""
    turns: list[Turn] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    analysts: set[str] = field(default_factory=set)
    """Those who have reported."""
    tokens: int = 0
    """Of the whole conversation, as recorded, whether or not it was paid for this time."""
    cost_usd: float | None = 0.0
    """At list price; None once a price is unknown."""
    calls: int = 0
    missed: bool = False
    """A reply that was not recorded was needed in mode `replay`."""
    trouble: LocalStateError | None = None
    """What an agent met that is no failure of the decision but of the machine."""
    notes: list[str] = field(default_factory=list)
    """What the signal should say about how it came to be."""

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
        """Add a line to the conversation."""
        self.turns.append(Turn(agent, kind, content, self.clock(), *tokens, model, cached))

    def note(self, kind: EventKind, agent: str, **body: Any) -> None:
        """Add an event to the audit."""
        self.events.append(Event(kind, self.clock(), agent, body))

    def skip(self, agent: str, why: str) -> None:
        """An agent takes no part, or only a part."""
        self.record(agent, "skipped", why)
        self.note("skipped", agent, why=why)

    def fail(self, agent: str, status: Status, reason: str) -> None:
        """An agent is left out, by name."""
        self.failures[agent] = Failure(status, reason)
        self.record(agent, "failed", f"{status}: {reason}")
        self.note("failed", agent, status=status.value, reason=reason)

    def reserve(self, agent: str, amount: Amount) -> None:
        """Raises OverBudgetError."""
        reserve(self.accounts, amount)
        self.note("budget", agent, reserved={"tokens": amount.tokens, "usd": amount.usd})

    def settle(self, agent: str, reserved: Amount, spent: Amount) -> None:
        settle(self.accounts, reserved, spent)
        self.note("budget", agent, settled={"tokens": spent.tokens, "usd": spent.usd})

    def charge(self, model: ModelConfig, prompt: int, completion: int, called: bool) -> None:
        """Count a reply's tokens and price; `called` tells a real call from a recorded reply."""
        cost = self.price(model, prompt, completion)
        self.tokens += prompt + completion
        self.cost_usd = None if self.cost_usd is None or cost is None else self.cost_usd + cost
        self.calls += called

    def price(self, model: ModelConfig, prompt: int, completion: int) -> float | None:
        """Dollars, or None where the price is unknown. `rules` cost nothing."""
        if model.client == "rules":
            return 0.0
        price = self.config.prices.get(model.model)
        return None if price is None else price.cost_usd(prompt, completion)

    @property
    def executor_reply(self) -> ExecutorReply | None:
        reply = self.replies.get(self.config.agents[-1].name)
        return reply if isinstance(reply, ExecutorReply) else None

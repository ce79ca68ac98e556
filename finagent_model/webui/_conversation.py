"""Signals, approvals and conversations as pages show them, from rows of the database or turns of a
run.

Another system may have written a row: a value that is not of the expected type counts as missing.
The database has a conversation in short; the whole record is in the decision's run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Self

from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.config.roster import AgentRow, Price, ancestors
from finagent_model.config.rules import ApprovalRequest
from finagent_model.decision.decision import Turn
from finagent_model.decision.opinions import REPAIR_PREFIX, Opinion, debater_name
from finagent_model.decision.signal import Action
from finagent_model.policy.policy import Policy
from finagent_model.reports.charts import LEVELS
from finagent_model.reports.signal_summary import Circumstances, SignalSummary
from finagent_model.store.artifact_models import OURS, Artifact
from finagent_model.webui._rendering import finite_number
from finagent_model.webui._stored_facts import VersionFacts, VersionFactsReader

LEVEL_TONES = {"entry": "accent", "stop": "bad", "target": "good"}
DESK = "desk"
"""Name under which the desk asks its question in a run's record."""
RULES_MODEL = "rules"
"""Model name of the policy's fake LLM, which costs nothing."""
SUMMARY_FIELDS = ("reasoning", "summary")
"""Fields in which the schemas of replies have a sentence."""
MessageKind = Literal["request", "response", "skipped", "failed"]


@dataclass(frozen=True)
class Level:
    """A price that the signal names."""

    name: str
    price: float
    tone: str


@dataclass(frozen=True)
class SignalRow:
    """A signal's artifact, and typed access to its `signal_data`."""

    row: Artifact
    """Its `metadata` is a dictionary."""
    data: dict[str, Any]

    @classmethod
    def from_artifact(cls, row: Artifact) -> Self:
        """Return the row as pages show it, whatever its JSON columns hold."""
        return cls(_with_metadata(row), _as_dict(row.signal_data))

    def text(self, name: str) -> str | None:
        """Return a field's text; None if it is empty or no text."""
        value = self.data.get(name)
        return value if isinstance(value, str) and value else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a list, or the one text that is there instead of a list."""
        value = self.data.get(name)
        values = value if isinstance(value, list) else [value]
        return tuple(item for item in values if isinstance(item, str) and item)

    def number(self, name: str) -> int | float | None:
        """Return a field's number; None if it is no finite number."""
        return finite_number(self.data.get(name))

    def distance(self, name: str) -> float | None:
        """Return how far a price lies from the entry, as a signed fraction of it; None: unknown."""
        entry, price = self.number("suggested_entry_price"), self.number(name)
        return price / entry - 1 if entry and price else None

    @property
    def calibrated(self) -> bool:
        """Whether the signal's confidence is calibrated."""
        return self.data.get("calibrated") is True

    @property
    def confidence(self) -> float | None:
        """Confidence from 0 to 100; None: unknown, or nothing was decided."""
        # A failed signal's column says 0, which no desk has stated.
        if self.row.status not in (None, "ok"):
            return None
        if (score := self.number("confidence_score")) is not None:
            return float(score)
        # A platform's own rows have the column alone, a fraction.
        fraction = finite_number(self.row.confidence)
        return 100.0 * fraction if fraction is not None and 0 <= fraction <= 1 else None

    def summary(self, circumstances: Circumstances) -> SignalSummary:
        """Return in words whether the signal may be acted on; the row says whose it is."""
        origin = self.row.origin
        fields = {**self.data, "action": self.row.action, "status": self.row.status}
        seconds = finite_number(self.row.metadata.get("seconds"))
        return SignalSummary.from_fields(
            fields,
            replace(
                circumstances,
                is_ours=origin == OURS,
                origin=origin,
                seconds=None if seconds is None else float(seconds),
            ),
        )

    @property
    def levels(self) -> list[Level]:
        """Levels of the signal, from the highest to the lowest price."""
        return read_levels(self.data)


def decided_action(row: Artifact) -> Action | None:
    """Return the action that a desk decided on; None where it decided nothing."""
    return row.action if row.status in (None, "ok") else None


def read_levels(data: Mapping[str, Any]) -> list[Level]:
    """Return the levels of a signal's fields, from the highest to the lowest price."""
    levels = [
        Level(name, float(price), LEVEL_TONES.get(name, "soft"))
        for field, (name, _) in LEVELS.items()
        if (price := finite_number(data.get(field))) is not None and price > 0
    ]
    return sorted(levels, key=lambda level: -level.price)


@dataclass(frozen=True)
class ApprovalCard:
    """An approval with what a human needs to settle it."""

    approval: ApprovalRequest
    summary: SignalSummary
    now: datetime
    """When it was read."""

    @property
    def remaining_s(self) -> float | None:
        """Seconds to its deadline; None once it is settled."""
        return self.approval.remaining_s(self.now)

    @property
    def dissenters(self) -> list[Opinion]:
        """The agents that saw the opposite of what is proposed."""
        action = self.approval.signal.action
        return [opinion for opinion in self.approval.opinions or () if opinion.dissents(action)]

    @property
    def levels(self) -> list[Level]:
        """Levels of the proposal, from the highest to the lowest price."""
        return read_levels(self.approval.signal.model_dump())


SignalIds = tuple[object, object]
"""Ids of a signal and of its conversation."""


def approvals_by_signal(approvals: Iterable[ApprovalRequest]) -> dict[SignalIds, ApprovalRequest]:
    """Return approvals by the signal that they are about; `signal_ids` tells that of a row."""
    found: dict[SignalIds, ApprovalRequest] = {}
    for each in approvals:
        # Pending ones come first, and one that waits counts more than one that was settled.
        found.setdefault((each.signal.signal_id, each.signal.conversation_id), each)
    return found


def signal_ids(row: Artifact) -> SignalIds:
    """Return by which ids an approval is about the signal of a row."""
    # By both: another version asked the same question in the same conversation.
    metadata: object = row.metadata
    conversation = metadata.get("conversation_id") if isinstance(metadata, dict) else None
    return row.key, conversation


def approval_card(
    approval: ApprovalRequest, now: datetime, facts: VersionFactsReader
) -> ApprovalCard:
    """Return the card of an approval that was read at `now`."""
    known = facts.find(approval.signal.run_id) or VersionFacts()
    waits = approval.state == "pending"
    circumstances = Circumstances(
        waits_until=approval.deadline if waits else None, base_share=known.base_share, now=now
    )
    return ApprovalCard(approval, SignalSummary.from_signal(approval.signal, circumstances), now)


@dataclass(frozen=True)
class Message:
    """One entry of a conversation. Its texts are foreign: a page escapes them."""

    agent: str
    kind: MessageKind
    text: str | None
    """None: the database does not have it."""
    length: int | None
    """Characters of the text; None: unknown."""
    prompt: str | None = None
    """The request that it answers, if the row has both."""
    timestamp: str | datetime | None = None
    model: str = ""
    tokens: tuple[int, int] | None = None
    """Of prompt and completion; None if no model can have used any."""
    cost_usd: float | None = None
    """At list price, also for a recorded reply; None: unknown, or nothing to pay."""
    cached: bool = False
    seconds: float | None = None
    """From the request to it; None: unknown."""

    @property
    def is_repair(self) -> bool:
        """Whether this message asks an agent for a better reply, or is that reply."""
        request = self.text if self.kind == "request" else self.prompt
        return (request or "").startswith(REPAIR_PREFIX)

    @property
    def summary(self) -> str | None:
        """The sentence in a reply's JSON; None if there is no such sentence."""
        if self.kind != "response" or self.text is None or self.text.lstrip()[:1] != "{":
            return None
        # A hostile reply may nest deeper than Python's stack.
        try:
            reply = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return next((reply[n] for n in SUMMARY_FIELDS if isinstance(reply.get(n), str)), None)


@dataclass(frozen=True)
class AgentTurns:
    """All that one agent said, its debate rounds apart, and what it thought in the end."""

    name: str
    opinion: Opinion
    """Of its last reply."""
    rounds: tuple[tuple[Message, ...], ...]
    dissents: bool
    """Whether it saw the opposite of what the desk decided."""
    weight: float | None = None
    """Share of its score in the desk's combined score, 0 to 1; None: it has none, or unknown."""

    @property
    def messages(self) -> list[Message]:
        """The messages of all rounds."""
        return [message for messages in self.rounds for message in messages]

    @property
    def kind(self) -> MessageKind:
        """What it did in the end: reply, fail, take no part, or only ask."""
        kinds = [message.kind for message in self.messages]
        return next((k for k in reversed(kinds) if k != "request"), "request")

    @property
    def notes(self) -> str:
        """How often it had to answer again, and looked something up, in words."""
        # Of the whole record the request is a message of its own; a row has it as its prompt.
        is_repair = [m.is_repair for m in self.messages]
        tries = sum(is_repair) + len(self.rounds)
        replies = sum(m.kind in ("response", "failed") for m in self.messages)
        lookups = max(replies - tries, 0)
        words = []
        if len(self.rounds) > 1:
            words.append(f"{len(self.rounds)} rounds")
        if sum(is_repair):
            words.append(f"{sum(is_repair) + 1} tries")
        if lookups:
            words.append(f"{lookups} look-up{'s' if lookups > 1 else ''}")
        return ", ".join(words)

    @property
    def tokens(self) -> int | None:
        """Tokens of all its replies; None: unknown."""
        counts = [m.tokens for m in self.messages if m.kind == "response"]
        known = [sum(count) for count in counts if count is not None]
        return sum(known) if counts and len(known) == len(counts) else None

    @property
    def seconds(self) -> float | None:
        """Seconds of all its replies; None: unknown."""
        return _sum_known(m.seconds for m in self.messages if m.kind in ("response", "failed"))

    @property
    def cost_usd(self) -> float | None:
        """Price of all its replies at list price; None: unknown."""
        return _sum_known(m.cost_usd for m in self.messages if m.kind == "response")


def group_by_agent(
    messages: Sequence[Message], action: str | None, roster: Sequence[AgentRow] = ()
) -> list[AgentTurns]:
    """Return the messages by agent, in the order in which the agents first spoke.

    Later rounds of a debater, such as `Bull_2`, belong to the debater. `action` is what the desk
    decided, None where it decided nothing. Without the desk's `roster` no weight is known.
    """
    names = {message.agent for message in messages}
    by_agent: dict[str, dict[str, list[Message]]] = {}
    for message in messages:
        agent = debater_name(message.agent, names)
        by_agent.setdefault(agent, {}).setdefault(message.agent, []).append(message)
    agents = [_agent_turns(agent, rounds, action) for agent, rounds in by_agent.items()]
    weights = _vote_shares(messages, agents, roster)
    return [replace(agent, weight=weights.get(agent.name)) for agent in agents]


def _vote_shares(
    messages: Sequence[Message], agents: Iterable[AgentTurns], roster: Sequence[AgentRow]
) -> dict[str, float]:
    """Return each analyst's share in the combined score; empty where no rule combined them."""
    executor = next((row for row in roster if row.role == "executor"), None)
    policy = _read_policy(messages)
    if executor is None or policy is None:
        return {}
    # A chat model weighs by itself: its decision has no such weights.
    if not any(
        m.agent == executor.name and m.kind == "response" and m.model == RULES_MODEL
        for m in messages
    ):
        return {}
    scored = {each.name for each in agents if each.opinion.score is not None}
    weights = {
        row.name: weight
        for row in ancestors(executor, roster)
        if row.name in scored
        and (weight := policy.analyst_weight(row.prompt, row.prompt in EXTERNAL_ANALYSTS))
        is not None
    }
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else {}


def _read_policy(messages: Iterable[Message]) -> Policy | None:
    """Return the policy in the desk's question; None where no message has it."""
    for message in messages:
        text = message.prompt if message.agent != DESK else message.text
        # A hostile question may nest deeper than Python's stack, or be no object.
        try:
            return Policy.model_validate(json.loads(text or "")["policy"])
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return None


def _agent_turns(agent: str, rounds: Mapping[str, list[Message]], action: str | None) -> AgentTurns:
    texts = [m.text for part in rounds.values() for m in part if m.kind == "response"]
    opinion = Opinion.from_reply(agent, texts[-1] if texts else None)
    return AgentTurns(
        agent, opinion, tuple(tuple(part) for part in rounds.values()), opinion.dissents(action)
    )


def _sum_known(values: Iterable[float | None]) -> float | None:
    """Return the sum; None where a value is unknown, and where there is none."""
    known = list(values)
    numbers = [value for value in known if value is not None]
    return sum(numbers) if numbers and len(numbers) == len(known) else None


def messages_from_rows(
    rows: Iterable[Artifact], prices: Mapping[str, Price] | None = None
) -> list[Message]:
    """Return the messages of the `llm` artifacts among `rows`, in their order."""
    return [
        _message_from_row(_with_metadata(row), prices or {}) for row in rows if row.type == "llm"
    ]


def with_seconds(messages: Iterable[Message], stored: Iterable[Message]) -> list[Message]:
    """Return the messages of a run's record with the seconds that the database has of each."""
    seconds: dict[str, list[float | None]] = {}
    for message in stored:
        seconds.setdefault(message.agent, []).append(message.seconds)
    rest = {agent: iter(values) for agent, values in seconds.items()}
    return [
        replace(message, seconds=next(rest.get(message.agent, iter(())), None))
        if message.kind in ("response", "failed")
        else message
        for message in messages
    ]


def messages_from_turns(turns: Iterable[Turn], prices: Mapping[str, Price]) -> list[Message]:
    """Return the messages of a run's record, with their cost at the list price of each model."""
    return [
        Message(
            agent=turn.agent_name,
            kind=turn.message_type,
            text=turn.message_content,
            length=len(turn.message_content),
            timestamp=turn.timestamp,
            model=turn.model,
            tokens=(turn.prompt_tokens, turn.completion_tokens)
            if turn.message_type == "response"
            else None,
            cost_usd=_cost_usd(
                turn.message_type, turn.model, turn.prompt_tokens, turn.completion_tokens, prices
            ),
            cached=turn.cached,
        )
        for turn in turns
    ]


def _message_from_row(row: Artifact, prices: Mapping[str, Price]) -> Message:
    metadata = row.metadata
    # `store.decisions` writes this metadata, but another system's may hold anything.
    failure = metadata.get("failed")
    prompt_tokens = finite_number(metadata.get("prompt_tokens"))
    completion_tokens = finite_number(metadata.get("completion_tokens"))
    text = str(failure) if failure is not None else row.response
    kind: MessageKind = "response" if failure is None else "failed"
    tokens = None
    if failure is None and isinstance(prompt_tokens, int) and isinstance(completion_tokens, int):
        tokens = prompt_tokens, completion_tokens
    seconds = finite_number(metadata.get("seconds"))
    return Message(
        agent=str(metadata.get("agent_name") or row.step_name or row.name),
        kind=kind,
        text=text,
        length=len(text) if text is not None else row.response_length,
        prompt=row.prompt,
        timestamp=str(metadata["said_at"]) if metadata.get("said_at") else row.created_at,
        model=row.model_name or "",
        tokens=tokens,
        cost_usd=_cost_usd(kind, row.model_name or "", *tokens, prices) if tokens else None,
        cached=metadata.get("cached") is True,
        seconds=None if seconds is None or seconds < 0 else float(seconds),
    )


def _cost_usd(
    kind: MessageKind, model: str, prompt: int, completion: int, prices: Mapping[str, Price]
) -> float | None:
    if kind != "response" or model == RULES_MODEL:
        return 0.0 if model == RULES_MODEL else None
    price = prices.get(model)
    return price.cost_usd(prompt, completion) if price else None


def _with_metadata(row: Artifact) -> Artifact:
    return row.model_copy(update={"metadata": _as_dict(row.metadata)})


def _as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

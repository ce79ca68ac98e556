"""Signals and conversations as pages show them, from rows of the database or turns of a run.

Another system may have written a row: a value that is not of the expected type counts as missing.
The database has a conversation in short; the whole record is in the decision's run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from finagent_model.config.roster import Price
from finagent_model.decision.decision import Turn
from finagent_model.reports.charts import LEVELS
from finagent_model.store.artifact_models import Artifact
from finagent_model.webui._rendering import finite_number

LEVEL_TONES = {"entry": "accent", "stop": "bad", "target": "good"}
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

    @property
    def levels(self) -> list[Level]:
        """Levels of the signal, from the highest to the lowest price."""
        levels = [
            Level(name, float(price), LEVEL_TONES.get(name, "soft"))
            for field, (name, _) in LEVELS.items()
            if (price := self.number(field)) is not None and price > 0
        ]
        return sorted(levels, key=lambda level: -level.price)


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


def messages_from_rows(rows: Iterable[Artifact]) -> list[Message]:
    """Return the messages of the `llm` artifacts among `rows`, in their order."""
    return [_message_from_row(_with_metadata(row)) for row in rows if row.type == "llm"]


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
            cost_usd=_cost_usd(turn, prices),
            cached=turn.cached,
        )
        for turn in turns
    ]


def _message_from_row(row: Artifact) -> Message:
    metadata = row.metadata
    # `store.decisions` writes this metadata, but another system's may hold anything.
    failure = metadata.get("failed")
    prompt_tokens = finite_number(metadata.get("prompt_tokens"))
    completion_tokens = finite_number(metadata.get("completion_tokens"))
    text = str(failure) if failure is not None else row.response
    return Message(
        agent=str(metadata.get("agent_name") or row.step_name or row.name),
        kind="response" if failure is None else "failed",
        text=text,
        length=len(text) if text is not None else row.response_length,
        prompt=row.prompt,
        timestamp=str(metadata["said_at"]) if metadata.get("said_at") else row.created_at,
        model=row.model_name or "",
        tokens=(prompt_tokens, completion_tokens)
        if failure is None and isinstance(prompt_tokens, int) and isinstance(completion_tokens, int)
        else None,
        cached=metadata.get("cached") is True,
    )


def _cost_usd(turn: Turn, prices: Mapping[str, Price]) -> float | None:
    if turn.message_type != "response" or turn.model == RULES_MODEL:
        return 0.0 if turn.model == RULES_MODEL else None
    price = prices.get(turn.model)
    return price.cost_usd(turn.prompt_tokens, turn.completion_tokens) if price else None


def _with_metadata(row: Artifact) -> Artifact:
    return row.model_copy(update={"metadata": _as_dict(row.metadata)})


def _as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

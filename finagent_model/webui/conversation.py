"""A row of a signal as pages read it. Another system may have written it: what is not of the kind
that a page shows is as if nobody had said it.

A conversation as it is read: who said what, to which question, at what expense.

The database has what was said in short; the whole record, with those who were left out, is in the
run of the decision.
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
from finagent_model.store.artifacts import Artifact
from finagent_model.webui.rendering import finite_number

TONES = {"entry": "accent", "stop": "bad", "target": "good"}


@dataclass(frozen=True)
class Level:
    """A price that the signal names."""

    name: str
    price: float
    tone: str


@dataclass(frozen=True)
class SignalRow:
    """`row` has a dictionary for its `metadata` at least; `given` is its `signal_data`."""

    row: Artifact
    given: dict[str, Any]

    @classmethod
    def of(cls, row: Artifact) -> Self:
        return cls(with_metadata(row), _object(row.signal_data))

    def text(self, name: str) -> str | None:
        value = self.given.get(name)
        return value if isinstance(value, str) and value else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Of a list, or the one text that stands in its place."""
        value = self.given.get(name)
        values = value if isinstance(value, list) else [value]
        return tuple(each for each in values if isinstance(each, str) and each)

    def number(self, name: str) -> int | float | None:
        return finite_number(self.given.get(name))

    @property
    def calibrated(self) -> bool:
        return self.given.get("calibrated") is True

    @property
    def confidence(self) -> float | None:
        """0 to 100; None: unknown, or nothing was decided."""
        if self.row.status not in (None, "ok"):
            return None
        if (said := self.number("confidence_score")) is not None:
            return float(said)
        share = finite_number(self.row.confidence)
        return 100.0 * share if share is not None and 0 <= share <= 1 else None

    @property
    def levels(self) -> list[Level]:
        """From the highest to the lowest."""
        found = [
            Level(name, float(price), TONES.get(name, "soft"))
            for field, (name, _) in LEVELS.items()
            if (price := self.number(field)) is not None and price > 0
        ]
        return sorted(found, key=lambda level: -level.price)


def with_metadata(row: Artifact) -> Artifact:
    return row.model_copy(update={"metadata": _object(row.metadata)})


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


RULES = "rules"
WORDS = ("reasoning", "summary")
"""Where the schemas of replies have a sentence."""
Kind = Literal["request", "response", "skipped", "failed"]


@dataclass(frozen=True)
class Message:
    """One entry. Texts are foreign: a page escapes them."""

    agent: str
    kind: Kind
    text: str | None
    """None: the database does not have it."""
    length: int | None
    """Of the text, in characters; None: unknown."""
    asked: str | None = None
    """What it was said to, where that stands beside it."""
    at: str | datetime | None = None
    model: str = ""
    tokens: tuple[int, int] | None = None
    """Of prompt and completion; None where no model can have used any."""
    cost_usd: float | None = None
    """At list price, whether or not it was paid for this time; None: unknown, or nothing to pay."""
    cached: bool = False

    @property
    def gist(self) -> str | None:
        """What a reply in JSON says in words; None: it has no such words."""
        if self.kind != "response" or self.text is None or self.text.lstrip()[:1] != "{":
            return None
        try:
            said = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return next((said[name] for name in WORDS if isinstance(said.get(name), str)), None)


def from_rows(rows: Iterable[Artifact]) -> list[Message]:
    """Of the `llm` artifacts of one execution's run, in the order of their steps."""
    return [_from_row(with_metadata(row)) for row in rows if row.type == "llm"]


def from_turns(turns: Iterable[Turn], prices: Mapping[str, Price]) -> list[Message]:
    """By models at these list prices; `rules` cost nothing."""
    return [
        Message(
            agent=turn.agent_name,
            kind=turn.message_type,
            text=turn.message_content,
            length=len(turn.message_content),
            at=turn.timestamp,
            model=turn.model,
            tokens=(turn.prompt_tokens, turn.completion_tokens)
            if turn.message_type == "response"
            else None,
            cost_usd=_cost(turn, prices),
            cached=turn.cached,
        )
        for turn in turns
    ]


def _cost(turn: Turn, prices: Mapping[str, Price]) -> float | None:
    if turn.message_type != "response" or turn.model == RULES:
        return 0.0 if turn.model == RULES else None
    price = prices.get(turn.model)
    return price.cost_usd(turn.prompt_tokens, turn.completion_tokens) if price else None


def _from_row(row: Artifact) -> Message:
    about = row.metadata
    failed = about.get("failed")
    used = finite_number(about.get("prompt_tokens")), finite_number(about.get("completion_tokens"))
    text = str(failed) if failed is not None else row.response
    return Message(
        agent=str(about.get("agent_name") or row.step_name or row.name),
        kind="response" if failed is None else "failed",
        text=text,
        length=len(text) if text is not None else row.response_length,
        asked=row.prompt,
        at=str(about["said_at"]) if about.get("said_at") else row.created_at,
        model=row.model_name or "",
        tokens=(used[0], used[1])
        if failed is None and isinstance(used[0], int) and isinstance(used[1], int)
        else None,
        cached=about.get("cached") is True,
    )

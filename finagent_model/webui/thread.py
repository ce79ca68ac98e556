"""A conversation as it is read: who said what, to which question, at what expense.

The database has what was said in short; the whole record, with those who were left out, is in the
run of the decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from finagent_model.domain.artifact import Artifact
from finagent_model.domain.decision import Turn
from finagent_model.domain.model_row import Price
from finagent_model.webui.finite import finite
from finagent_model.webui.signal_row import with_metadata

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
    return price.usd(turn.prompt_tokens, turn.completion_tokens) if price else None


def _from_row(row: Artifact) -> Message:
    about = row.metadata
    failed = about.get("failed")
    used = finite(about.get("prompt_tokens")), finite(about.get("completion_tokens"))
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

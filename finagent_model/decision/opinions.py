"""Read what each agent of a desk thought from its last reply, and who disagreed with the decision.

Replies are foreign text of any form: what can't be read is None, never neutral.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Self

from finagent_model.decision.decision import Event, Turn

Stance = Literal["up", "down", "flat"]
MAX_REPLY_CHARS = 100_000
"""Length of a reply that is read; a longer one is no opinion."""
REPAIR_PREFIX = "That was not usable"
"""Beginning of a request to an agent to repair its reply."""
MAX_LINE_CHARS = 300
MAX_AGENTS = 50
_STANCES: Mapping[str, Stance] = {
    "BUY": "up",
    "SELL": "down",
    "HOLD": "flat",
    "long": "up",
    "short": "down",
    "none": "flat",
    "bullish": "up",
    "bearish": "down",
    "neutral": "flat",
}
_STANCE_FIELDS = ("action", "direction", "trend")
"""Fields of the replies' schemas that say a direction; an executor's trend is not its decision."""
_LINE_FIELDS = ("reasoning", "summary")


@dataclass(frozen=True)
class Opinion:
    """What one agent thought, as far as its reply says so."""

    agent: str
    stance: Stance | None = None
    score: float | None = None
    """From -1, certain fall, to 1, certain rise."""
    confidence: float | None = None
    """Of an executor, 0 to 100, before calibration."""
    line: str | None = None
    """Its own sentence, cut to `MAX_LINE_CHARS`."""

    @classmethod
    def from_reply(cls, agent: str, text: str | None) -> Self:
        """Return the opinion in a reply; all fields None where it is no JSON object."""
        reply = _read_object(text)
        lines = (reply.get(name) for name in _LINE_FIELDS)
        line = next((" ".join(t.split()) for t in lines if isinstance(t, str) and t.strip()), None)
        if line and len(line) > MAX_LINE_CHARS:
            line = f"{line[: MAX_LINE_CHARS - 1]}…"
        score = read_number(reply.get("score"))
        confidence = read_number(reply.get("confidence_score"))
        return cls(
            agent,
            _find_stance(reply),
            score if score is not None and -1 <= score <= 1 else None,
            confidence if confidence is not None and 0 <= confidence <= 100 else None,
            line,
        )

    def dissents(self, action: str | None) -> bool:
        """Return whether the agent saw the opposite of a BUY or a SELL."""
        return (action, self.stance) in (("BUY", "down"), ("SELL", "up"))


def read_stance(text: str | None) -> Stance | None:
    """Return the direction that a reply says; None where it says none."""
    return _find_stance(_read_object(text))


def _find_stance(reply: Mapping[str, Any]) -> Stance | None:
    for name in _STANCE_FIELDS:
        word = reply.get(name)
        if isinstance(word, str) and word in _STANCES:
            return _STANCES[word]
    return None


def debater_name(name: str, names: Collection[str]) -> str:
    """Return the name of the agent that spoke as `name`: a later round ends in its number."""
    base = re.sub(r"_[1-9][0-9]?$", "", name)
    return base if base in names else name


def read_opinions(turns: Sequence[Turn]) -> tuple[Opinion, ...]:
    """Return the opinion in the last reply of each agent, in the order of their first replies.

    Later rounds of a debater belong to the debater.
    """
    names = {turn.agent_name for turn in turns}
    texts = {
        debater_name(turn.agent_name, names): turn.message_content
        for turn in turns
        if turn.message_type == "response"
    }
    return tuple(Opinion.from_reply(agent, text) for agent, text in texts.items())[:MAX_AGENTS]


def dump_opinions(opinions: Iterable[Opinion]) -> str:
    """Return JSON that `load_opinions` reads."""
    return json.dumps([asdict(opinion) for opinion in opinions])


def load_opinions(text: str | None) -> tuple[Opinion, ...] | None:
    """Return stored opinions; None where there are none, or where they can't be read."""
    if text is None:
        return None
    try:
        return tuple(Opinion(**row) for row in json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None


def measure_seconds(turns: Iterable[Turn], events: Iterable[Event]) -> list[float | None]:
    """Return how long each turn took, from the agent's request to it; None where nobody knows.

    A recorded reply takes no time to speak of.
    """
    ended: dict[str, list[float]] = {}
    asked_at: dict[str, datetime] = {}
    for event in events:
        if event.kind == "request":
            asked_at[event.agent] = event.at
        elif event.kind in ("reply", "failed") and event.agent in asked_at:
            seconds = (event.at - asked_at.pop(event.agent)).total_seconds()
            ended.setdefault(event.agent, []).append(max(seconds, 0.0))
    rest = {agent: iter(seconds) for agent, seconds in ended.items()}
    return [
        next(rest.get(turn.agent_name, iter(())), None)
        if turn.message_type in ("response", "failed")
        else None
        for turn in turns
    ]


def _read_object(text: str | None) -> Mapping[str, Any]:
    if text is None or len(text) > MAX_REPLY_CHARS or text.lstrip()[:1] != "{":
        return {}
    # A hostile reply may nest deeper than Python's stack.
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return reply if isinstance(reply, dict) else {}


def read_number(value: object) -> float | None:
    """Return a finite number of foreign JSON as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None

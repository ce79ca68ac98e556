"""A file of recordings: SQLite or JSON lines, by its name; safe for threads and for processes.

Whoever records waits for whoever is recording. A row that can't be read counts as not recorded,
since it can be asked for again; `rows` names it.

What is recorded of one request: the reply, or why there was none; and the request in outline.

A row is the JSON form: what is empty is left out of it, so that recordings made before a field
existed keep their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from finagent_model.cassette.fingerprint import Outline
from finagent_model.decision.signal import Status


@dataclass(frozen=True, slots=True)
class CassetteRow:
    """One recording as it lies in its file."""

    where: str
    key: str | None
    """None where not even that can be read."""
    reply: RecordedReply | None
    """None where it is damaged."""
    damage: str = ""
    sealed: bool = True
    """Whether the row has a hash that tells that it is as it was written."""


class CassetteFile(Protocol):
    """Recordings by fingerprint. Whatever the disk does is an OSError."""

    path: Path

    def get(self, key: str) -> RecordedReply | None:
        """None where there is none that can be read."""

    def put(self, replies: Mapping[str, RecordedReply]) -> None:
        """All of them or none, each by `replaces` against what is there."""

    def rows(self) -> Iterator[CassetteRow]:
        """Whatever is there, damaged or superseded as it may be."""

    def keep(self, wanted: Callable[[CassetteRow], bool]) -> int:
        """Drop all other rows and give back their room; returns how many. What is superseded goes
        anyway and is not counted.
        """

    def faults(self) -> list[str]:
        """What is wrong with the file as a whole."""


@dataclass(frozen=True, slots=True)
class RecordedError:
    """Why a request finally got no reply."""

    status: str
    """A `Status` that a signal may have."""
    reason: str


class ToolCall(NamedTuple):
    """A tool that a reply asks for; `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """What a chat client answered, and what it took."""

    content: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    tool_calls: tuple[ToolCall, ...] = ()
    error: RecordedError | None = None
    """Set where there was no answer; `content` is empty then."""
    outline: Outline | None = field(default=None, compare=False)
    """Of the request; None where it can be asked again for nothing. No part of the answer."""

    @classmethod
    def failed(cls, status: Status, reason: str) -> Self:
        """No answer, and why."""
        return cls("", "error", 0, 0, error=RecordedError(status.value, reason))


def replaces(new: RecordedReply, old: RecordedReply | None) -> bool:
    """Whether a record of the same request gives way: a later one wins, but no error drives out
    an answer that was paid for.
    """
    return old is None or new.error is None or old.error is not None


def row_of(reply: RecordedReply) -> dict[str, Any]:
    """JSON-ready, without the outline."""
    row: dict[str, Any] = {
        "content": reply.content,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    if reply.tool_calls:
        row["tool_calls"] = [call._asdict() for call in reply.tool_calls]
    if reply.error is not None:
        row["error"] = asdict(reply.error)
    return row


def reply_of(row: Mapping[str, Any], outline: Outline | None = None) -> RecordedReply:
    """The inverse; raises ValueError for anything else."""
    given = dict(row)
    try:
        calls, error = given.pop("tool_calls", ()), given.pop("error", None)
        reply = RecordedReply(
            **given,
            tool_calls=tuple(ToolCall(**call) for call in calls),
            error=None if error is None else RecordedError(**error),
            outline=outline,
        )
    except TypeError as wrong:
        raise ValueError(f"no recorded reply: {wrong}") from None
    if reply.error is not None:
        Status(reply.error.status)
    counts, texts = (reply.prompt_tokens, reply.completion_tokens), _texts(reply)
    if not all(type(count) is int for count in counts) or not all(type(t) is str for t in texts):
        raise ValueError("no recorded reply: a field is of another type")
    return reply


def _texts(reply: RecordedReply) -> tuple[str, ...]:
    reasons = () if reply.error is None else (reply.error.reason,)
    called = (text for call in reply.tool_calls for text in call)
    return reply.content, reply.finish_reason, *reasons, *called

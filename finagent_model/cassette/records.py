"""What is recorded of one request, and what a file of recordings can do.

A recording is the reply, or the reason why there was none, and an outline of the request. A file is
SQLite or JSON lines, by its name; it is safe for threads and for processes, which wait for each
other to write. A row that can't be read counts as not recorded, since the request can be sent
again; `rows` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from finagent_model.cassette.fingerprint import Outline
from finagent_model.decision.signal import Status


@dataclass(frozen=True, slots=True)
class RecordedError:
    """Why a request finally got no reply."""

    status: str
    """A `Status` that a signal may have."""
    reason: str


class ToolCall(NamedTuple):
    """A call of a tool in a reply; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """What a chat client answered, and the tokens that it took."""

    content: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    tool_calls: tuple[ToolCall, ...] = ()
    usage_known: bool = True
    """Whether the tokens were counted; else they are what was reserved, an upper bound."""
    reasoning: str = ""
    """What the model thought; kept where the server wants it back with the results of tools."""
    error: RecordedError | None = None
    """Set where there was no answer; `content` is empty then."""
    # Not compared: it describes the request, not the answer.
    outline: Outline | None = field(default=None, compare=False)
    """Of the request; None where the request can be sent again for free."""

    @classmethod
    def from_error(cls, status: Status, reason: str) -> Self:
        """Return the record of a request that got no answer."""
        return cls("", "error", 0, 0, error=RecordedError(status.value, reason))


@dataclass(frozen=True, slots=True)
class CassetteRow:
    """One row of a file of recordings, whether it can be read or not."""

    where: str
    """Its place in the file, for messages."""
    key: str | None
    """None where not even that can be read."""
    reply: RecordedReply | None
    """None where the row is damaged."""
    damage: str = ""
    sealed: bool = True
    """Whether the row carries a hash that tells that it is as it was written."""


class CassetteFile(Protocol):
    """Recordings by fingerprint. Every failure of the disk is an OSError."""

    path: Path

    def get(self, key: str) -> RecordedReply | None:
        """Return the reply, or None where there is none that can be read."""

    def put(self, replies: Mapping[str, RecordedReply]) -> None:
        """Write all of them or none; each only if it `supersedes` what the file has."""

    def rows(self) -> Iterator[CassetteRow]:
        """Yield every row of the file, damaged and superseded ones included."""

    def prune(self, keep: Callable[[CassetteRow], bool]) -> int:
        """Drop the rows that `keep` rejects, free their space, and return how many there were.

        Superseded rows go as well, and are not counted.
        """

    def check_integrity(self) -> list[str]:
        """Return what is wrong with the file as a whole, in words."""


def supersedes(new: RecordedReply, old: RecordedReply | None) -> bool:
    """Tell whether `new` takes the place of `old`, a record of the same request."""
    # The later one wins, but no error drives out an answer that was paid for.
    return old is None or new.error is None or old.error is not None


def reply_to_row(reply: RecordedReply) -> dict[str, Any]:
    """Return the reply JSON-ready, without its outline."""
    row: dict[str, Any] = {
        "content": reply.content,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    # Empty fields are left out, so that recordings from before a field existed keep their bytes.
    if reply.tool_calls:
        row["tool_calls"] = [call._asdict() for call in reply.tool_calls]
    if not reply.usage_known:
        row["usage_known"] = False
    if reply.reasoning:
        row["reasoning"] = reply.reasoning
    if reply.error is not None:
        row["error"] = asdict(reply.error)
    return row


def reply_from_row(row: Mapping[str, Any], outline: Outline | None = None) -> RecordedReply:
    """Return the reply of a row of `reply_to_row`. Raises ValueError for any other row."""
    fields = dict(row)
    try:
        calls, error = fields.pop("tool_calls", ()), fields.pop("error", None)
        reply = RecordedReply(
            **fields,
            tool_calls=tuple(ToolCall(**call) for call in calls),
            error=None if error is None else RecordedError(**error),
            outline=outline,
        )
    except TypeError as type_error:
        raise ValueError(f"no recorded reply: {type_error}") from None
    if reply.error is not None:
        Status(reply.error.status)  # raises ValueError for an unknown one
    counts, texts = (reply.prompt_tokens, reply.completion_tokens), _texts(reply)
    # Not isinstance: a bool is an int.
    is_typed = all(type(count) is int for count in counts) and type(reply.usage_known) is bool
    if not is_typed or not all(type(t) is str for t in texts):
        raise ValueError("no recorded reply: a field is of another type")
    return reply


def _texts(reply: RecordedReply) -> tuple[str, ...]:
    reasons = () if reply.error is None else (reply.error.reason,)
    tool_texts = (text for call in reply.tool_calls for text in call)
    return reply.content, reply.finish_reason, reply.reasoning, *reasons, *tool_texts

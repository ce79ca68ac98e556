"""The audit of decisions: everything that happened on the way to each, one JSON object a line, each
line chained to the one before it, so that nobody edits it unnoticed.

A line is ASCII, its keys sorted, without spaces. Last of all stands `hash`, the SHA-256 of the line
without that member; `prev` is the hash of the line before (64 zeros in the first), `seq` the number
of the line, from 1. The first line, `begin`, says what the decisions were made with; the last,
`end`, how many lines there are. Its hash is the head of the chain: whoever keeps the head elsewhere
finds out about any other chain in its place.

A long text is written in full where it is said first; a later line that says it again has
`{"sha256": ...}`, the hash of the text, in its place.

`audit.jsonl`: everything that happened on the way to each decision of a run, chained
(`domain/audit.py`), and the head of the chain as a tag of the run, which anchors it.

`autogen_conversation.jsonl`: every message of every decision, one a line, readable without
tools.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import finagent_model
from finagent_model.decision.decision import Decision, Event, Turn
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import BadInputError

if TYPE_CHECKING:
    from finagent_model.decision.decision import Decision  # brings pandas; a file is read without


FORMAT = 1
GENESIS = "0" * 64
"""What the first line names as the hash of the line before it."""
LONG = 200
"""Characters from which a text is not written twice."""
BEGIN, END = "begin", "end"


@dataclass(frozen=True, slots=True)
class AuditChain:
    """A whole audit: its lines, and the hash of the last."""

    lines: str
    head: str

    def write(self, path: Path) -> None:
        """Write the lines to a file. Raises BadInputError where it can't be written."""
        try:
            path.write_text(self.lines, encoding="ascii")
        except OSError as error:
            raise BadInputError(f"audit {path}: can't be written: {error.strerror}") from None


NO_DECISION = {"agent": "", "at": None, "conversation_id": "", "symbol": "", "as_of": None}


def chain_decisions(
    decisions: Iterable[tuple[TradingSignal, Iterable[Event]]], versions: Mapping[str, str | None]
) -> AuditChain:
    """The audit of `decisions`, made with `versions` of package, code and libraries.

    A decision's lines are its events and then its signal, with the milliseconds since its first
    event (null without any). Equal decisions have equal chains. Raises ValueError for an event that
    is not what it promises.
    """
    text = io.StringIO()
    writer = ChainWriter(text, versions)
    for signal, events in decisions:
        writer.add(signal, events)
    head = writer.close()
    return AuditChain(text.getvalue(), head)


class ChainWriter:
    """A chain that is written while decisions are made; needs no memory for those before."""

    def __init__(self, out: TextIO, versions: Mapping[str, str | None]) -> None:
        self._lines = _Lines(out)
        self._lines.add(BEGIN, {"format": FORMAT, "versions": dict(versions)}, NO_DECISION)

    def add(self, signal: TradingSignal, events: Iterable[Event]) -> None:
        """One decision. Raises ValueError for an event that is not what it promises."""
        about = {
            "conversation_id": signal.conversation_id,
            "symbol": signal.symbol,
            "as_of": signal.as_of.isoformat(),
        }
        first: datetime | None = None
        for event in events:
            first = first or event.at
            stamp = {"agent": event.agent, "at": event.at.isoformat()}
            self._lines.add(event.kind, event.body, stamp | about)
        ended = signal.generated_at
        took = None if first is None else (ended - first) / timedelta(milliseconds=1)
        body = {"signal": signal.model_dump(mode="json"), "elapsed_ms": took}
        self._lines.add("signal", body, {"agent": "", "at": ended.isoformat()} | about)

    def close(self) -> str:
        """Write the last line; its hash is the chain's head."""
        self._lines.add(END, {"lines": self._lines.count + 1}, NO_DECISION)
        return self._lines.last


def map_texts(body: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """`body` with `change` applied wherever a text may stand."""
    changed = dict(body)
    if "text" in body:
        changed["text"] = change(body["text"])
    messages = body.get("messages")
    if isinstance(messages, list | tuple):
        changed["messages"] = [
            {key: change(value) for key, value in message.items()}
            if isinstance(message, Mapping)
            else change(message)
            for message in messages
        ]
    return changed


def line_hash(text: str) -> str:
    """SHA-256 of the text in UTF-8; half of a surrogate pair, which a model may say, is hashed as
    it is.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def text_reference(value: object) -> str | None:
    """The hash that stands in a text's place, or None where `value` is no reference."""
    if isinstance(value, Mapping) and value.keys() == {"sha256"}:
        named = value["sha256"]
        return named if isinstance(named, str) else None
    return None


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class _Lines:
    """A chain that grows."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.count = 0
        self.last = GENESIS
        self._said: set[bytes] = set()
        """Hashes of the texts of earlier lines."""

    def add(self, kind: str, body: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        new: list[bytes] = []
        fields = {**about, "kind": kind, "prev": self.last, "seq": self.count + 1}
        try:
            fields["body"] = map_texts(body, lambda value: self._brief(value, new))
            line = _canonical(fields)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"event {kind!r} of {about['agent'] or 'the desk'} can't be kept in an audit: "
                f"{error}; give it a body of plain JSON values, null for what is undefined"
            ) from None
        self._said.update(new)
        self.last = line_hash(line)
        self.count += 1
        self._out.write(f'{line[:-1]},"hash":"{self.last}"}}\n')

    def _brief(self, value: Any, new: list[bytes]) -> Any:
        if not isinstance(value, str):
            if text_reference(value):
                raise ValueError("a text is a string, not a reference to one")
            return value
        if len(value) < LONG:
            return value
        digest = line_hash(value)
        known = bytes.fromhex(digest)
        if known in self._said:
            return {"sha256": digest}
        new.append(known)
        return value


AUDIT_FILE = "audit.jsonl"
HEAD = "finagent.audit_head"
"""Tag of the run that has the file."""
LIBRARIES = ("autogen-agentchat", "autogen-core", "autogen-ext", "mlflow", "numpy", "pandas")


def audit_chain(
    decisions: Iterable[Decision], code_hash: str, content_hash: str | None = None
) -> AuditChain:
    """The audit of `decisions` by the code of `code_hash` and the package of `content_hash` (None:
    a desk that is not packaged made them).
    """
    told = ((decision.signal, decision.events) for decision in decisions)
    return chain_decisions(told, versions(code_hash, content_hash))


def versions(code_hash: str, content_hash: str | None) -> dict[str, str | None]:
    """Of package, code and libraries."""
    return {
        "code_hash": code_hash,
        "content_hash": content_hash,
        "finagent-model": finagent_model.__version__,
        **{name: _version(name) for name in LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


CONVERSATION_FILE = "autogen_conversation.jsonl"


def conversation_lines(decisions: Iterable[Decision]) -> str:
    """JSON lines in speaking order; `tokens` holds prompt and completion."""
    return "".join(
        json.dumps(
            {
                "conversation_id": decision.signal.conversation_id,
                "symbol": decision.signal.symbol,
                "as_of": decision.signal.as_of.isoformat(),
                "agent_name": turn.agent_name,
                "message_type": turn.message_type,
                "message_content": turn.message_content,
                "timestamp": turn.timestamp.isoformat(),
                "tokens": {"prompt": turn.prompt_tokens, "completion": turn.completion_tokens},
                "model": turn.model,
                "cached": turn.cached,
            },
            ensure_ascii=False,
        )
        + "\n"
        for decision in decisions
        for turn in decision.turns
    )


def read_turns(lines: str) -> tuple[Turn, ...]:
    """The turns of one decision's file, as they were. Raises ValueError for another file."""
    try:
        return tuple(_turn(line) for line in lines.split("\n") if line)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{CONVERSATION_FILE}: a line has no {error}") from None


def _turn(line: str) -> Turn:
    row = json.loads(line)
    return Turn(
        agent_name=row["agent_name"],
        message_type=row["message_type"],
        message_content=row["message_content"],
        timestamp=datetime.fromisoformat(row["timestamp"]),
        prompt_tokens=row["tokens"]["prompt"],
        completion_tokens=row["tokens"]["completion"],
        model=row["model"],
        cached=row["cached"],
    )

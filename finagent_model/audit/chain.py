"""The audit of a run's decisions, `audit.jsonl`, and their transcript for people.

An audit has one JSON object per line, each chained to the line before by its hash, so that nobody
edits it unnoticed. A line is ASCII, its keys sorted, without spaces. `hash` is its last member: the
SHA-256 of the line without that member; `prev` is the hash of the line before (64 zeros in the
first), `seq` the line's number from 1. The first line, `begin`, says what the decisions were made
with; the last, `end`, how many lines there are. Its hash is the head of the chain. Kept elsewhere,
as a tag of the run, the head gives away any other chain.

A long text is written once; later lines have `{"sha256": ...}`, the hash of the text, in its place.
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
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

import finagent_model
from finagent_model._base import first_error_message
from finagent_model._documents import split_json_lines
from finagent_model.decision.decision import Decision, Event, Turn
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import BadInputError

AUDIT_FILE = "audit.jsonl"
CONVERSATION_FILE = "autogen_conversation.jsonl"
HEAD = "finagent.audit_head"
"""Tag of the run that has the file."""
FORMAT = 1
GENESIS = "0" * 64
"""`prev` of the first line."""
LONG_TEXT_CHARS = 200
"""From this length on, a text is not written twice."""
BEGIN, END = "begin", "end"
LIBRARIES = ("autogen-agentchat", "autogen-core", "autogen-ext", "mlflow", "numpy", "pandas")
_NO_DECISION = {"agent": "", "at": None, "conversation_id": "", "symbol": "", "as_of": None}
# One text for one line, so that a second tool can check the hashes. Plain JSON has no nan.
_encode_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


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


def audit_decisions(
    decisions: Iterable[Decision], code_hash: str, content_hash: str | None = None
) -> AuditChain:
    """Return the audit of `decisions` by the code of `code_hash`.

    `content_hash` is that of the package; None if an unpackaged desk made them.
    """
    pairs = ((decision.signal, decision.events) for decision in decisions)
    return chain_decisions(pairs, collect_versions(code_hash, content_hash))


def chain_decisions(
    decisions: Iterable[tuple[TradingSignal, Iterable[Event]]], versions: Mapping[str, str | None]
) -> AuditChain:
    """Return the audit of `decisions`, made with `versions` of package, code and libraries.

    Equal decisions have equal chains. Raises ValueError for an event whose body is not plain JSON.
    """
    text = io.StringIO()
    writer = ChainWriter(text, versions)
    for signal, events in decisions:
        writer.add(signal, events)
    head = writer.close()
    return AuditChain(text.getvalue(), head)


def collect_versions(code_hash: str, content_hash: str | None) -> dict[str, str | None]:
    """Return the versions of package, code and libraries; None for what is not installed."""
    return {
        "code_hash": code_hash,
        "content_hash": content_hash,
        "finagent-model": finagent_model.__version__,
        **{name: _library_version(name) for name in LIBRARIES},
    }


def _library_version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


class ChainWriter:
    """Writes a chain while decisions are made; holds no decision in memory."""

    def __init__(self, out: TextIO, versions: Mapping[str, str | None]) -> None:
        """Write the first line."""
        self._out = out
        self._count = 0
        self._head = GENESIS
        self._texts: set[bytes] = set()
        """Hashes of the long texts of earlier lines."""
        self._write(BEGIN, {"format": FORMAT, "versions": dict(versions)}, _NO_DECISION)

    def add(self, signal: TradingSignal, events: Iterable[Event]) -> None:
        """Write the events of one decision and its signal, with the milliseconds that it took.

        The time counts from the first event; null without any. Raises ValueError for an event whose
        body is not plain JSON.
        """
        decision = {
            "conversation_id": signal.conversation_id,
            "symbol": signal.symbol,
            "as_of": signal.as_of.isoformat(),
        }
        start: datetime | None = None
        for event in events:
            start = start or event.at
            stamp = {"agent": event.agent, "at": event.at.isoformat()}
            self._write(event.kind, event.body, stamp | decision)
        end = signal.generated_at
        elapsed_ms = None if start is None else (end - start) / timedelta(milliseconds=1)
        body = {"signal": signal.model_dump(mode="json"), "elapsed_ms": elapsed_ms}
        self._write("signal", body, {"agent": "", "at": end.isoformat()} | decision)

    def close(self) -> str:
        """Write the last line and return its hash, the head of the chain."""
        self._write(END, {"lines": self._count + 1}, _NO_DECISION)
        return self._head

    def _write(self, kind: str, body: Mapping[str, Any], context: Mapping[str, Any]) -> None:
        new_texts: list[bytes] = []
        fields = {**context, "kind": kind, "prev": self._head, "seq": self._count + 1}
        try:
            fields["body"] = map_texts(body, lambda value: self._shorten(value, new_texts))
            line = _encode_canonical(fields)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"event {kind!r} of {context['agent'] or 'the desk'} can't be kept in an audit: "
                f"{error}; give it a body of plain JSON values, null for what is undefined"
            ) from None
        # Only now: a line refers to texts of earlier lines, not to its own.
        self._texts.update(new_texts)
        self._head = hash_text(line)
        self._count += 1
        self._out.write(f'{line[:-1]},"hash":"{self._head}"}}\n')

    def _shorten(self, value: Any, new_texts: list[bytes]) -> Any:
        """Return a reference for a long text of an earlier line, else `value`."""
        if not isinstance(value, str):
            # A verifier would take it for one of ours.
            if parse_reference(value):
                raise ValueError("a text is a string, not a reference to one")
            return value
        if len(value) < LONG_TEXT_CHARS:
            return value
        digest = hash_text(value)
        key = bytes.fromhex(digest)  # half the memory of the text
        if key in self._texts:
            return {"sha256": digest}
        new_texts.append(key)
        return value


def map_texts(body: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an event's body with `change` applied wherever a text may stand."""
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


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text or a line in UTF-8, in 64 hex digits."""
    # A model may write half a surrogate pair; it is hashed as it is.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def parse_reference(value: object) -> str | None:
    """Return the hash in a text's place, or None where `value` is no reference."""
    if isinstance(value, Mapping) and value.keys() == {"sha256"}:
        digest = value["sha256"]
        return digest if isinstance(digest, str) else None
    return None


def dump_turns(decisions: Iterable[Decision]) -> str:
    """Return the transcript of `decisions`: one JSON line per message, in speaking order."""
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
            ensure_ascii=False,  # people read this file without tools
        )
        + "\n"
        for decision in decisions
        for turn in decision.turns
    )


def load_turns(lines: str) -> tuple[Turn, ...]:
    """Return the turns of one decision's transcript. Raises ValueError for another file."""
    try:
        return tuple(_parse_turn(line) for line in split_json_lines(lines))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{CONVERSATION_FILE}: a line has no {error}") from None
    except ValidationError as error:
        raise ValueError(f"{CONVERSATION_FILE}: {first_error_message(error)}") from None
    except RecursionError:
        raise ValueError(f"{CONVERSATION_FILE}: a line is nested too deep") from None


def _parse_turn(line: str) -> Turn:
    row = json.loads(line)
    fields = {
        "agent_name": row["agent_name"],
        "message_type": row["message_type"],
        "message_content": row["message_content"],
        "timestamp": datetime.fromisoformat(row["timestamp"]),
        "prompt_tokens": row["tokens"]["prompt"],
        "completion_tokens": row["tokens"]["completion"],
        "model": row["model"],
        "cached": row["cached"],
    }
    # Typed: a number for a name would reach the page.
    return TypeAdapter(Turn).validate_python(fields)

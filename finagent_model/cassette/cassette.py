"""Recorded replies, keyed by a fingerprint of the whole request.

A package carries its replies read-only; whatever is recorded later goes into a local file, never
back into the package. The same request gets the same reply, for free, on any machine.

What failed for good is recorded too: a replay of the run gives the failure back as it was, and
whoever may ask tries again. Keys are struck out of all that is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from finagent_model._redact import redact_key_shapes
from finagent_model.cassette.fingerprint import Outline, clean_outline, fingerprint, nearest
from finagent_model.cassette.jsonl import JsonLines, dump_replies, load_replies
from finagent_model.cassette.records import (
    CassetteFile,
    RecordedError,
    RecordedReply,
    ToolCall,
    replaces,
)
from finagent_model.cassette.sqlite import SqliteTables
from finagent_model.errors import BadInputError, LocalStateError

__all__ = [
    "REPLIES",
    "Cassette",
    "RecordedError",
    "RecordedReply",
    "ToolCall",
    "dump_replies",
    "fingerprint",
    "load_replies",
    "open_file",
]
log = logging.getLogger(__name__)
REPLIES = "replies.sqlite"
"""File in FINAGENT_HOME: what was recorded on this machine, outside any package."""
LINES, TABLES = (".jsonl",), (".sqlite", ".sqlite3", ".db")


def open_file(path: Path) -> CassetteFile:
    """Made where it is missing. Raises BadInputError where it can't be, or is something else."""
    if path.suffix in LINES:
        return JsonLines(path)
    if path.suffix in TABLES:
        return SqliteTables(path)
    raise BadInputError(
        f"{path} is not named as a cassette; use a name that ends in {', '.join(LINES + TABLES)}"
    )


class Cassette:
    """Replies of a package, of a local file, and of this process. Safe for threads and for several
    processes.
    """

    def __init__(
        self,
        packaged: Mapping[str, RecordedReply] | None = None,
        overlay: Path | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        """`redact` strikes out the secrets that it knows; what is shaped like a key goes anyway.
        Raises BadInputError where `overlay` can't be used.
        """
        self._packaged = packaged or {}
        self._recorded: dict[str, RecordedReply] = {}
        self._file = None if overlay is None else open_file(overlay)
        self._redact = redact
        self._outlines: list[tuple[str, Outline]] | None = None
        self.used: dict[str, RecordedReply] = {}
        """Every reply that this object handed out or took in."""

    def get(self, key: str, *, errors: bool = False) -> RecordedReply | None:
        """The recorded reply, or None. What came packaged wins: it is the same on any machine.

        A recorded failure is a reply where `errors` says so: in a replay. Elsewhere it is none, and
        the request is tried again. Raises HomeError where the file can't be read: no reply is paid
        for twice.
        """
        for find in (self._packaged.get, self._recorded.get, self._filed):
            reply = find(key)
            if reply is not None and (errors or reply.error is None):
                self.used[key] = reply
                return reply
        return None

    def put(self, key: str, reply: RecordedReply, outline: Outline | None = None) -> RecordedReply:
        """Record a reply or a failure, and return it as a replay will give it: without keys. A
        later one replaces an earlier, but a failure replaces no reply.

        Where the file can't be written there is a warning, and the reply is kept in memory.
        """
        reply = self._clean(reply, outline)
        self.used[key] = reply
        if replaces(reply, self._recorded.get(key)):
            self._recorded[key] = reply
        self._outlines = None
        if self._file is not None:
            try:
                self._file.put({key: reply})
            except OSError as error:
                log.warning("a reply is kept in memory only: %s", error)
        return reply

    def nearest(self, outline: Outline) -> str:
        """Names the recorded request that has most in common with this one, and what differs."""
        if self._outlines is None:
            self._outlines = self._read_outlines()
        return nearest(clean_outline(outline, self._struck), self._outlines)

    def _filed(self, key: str) -> RecordedReply | None:
        if self._file is None:
            return None
        try:
            return self._file.get(key)
        except OSError as error:
            raise LocalStateError(f"recorded replies can't be read: {error}") from None

    def _read_outlines(self) -> list[tuple[str, Outline]]:
        known = {**self._recorded, **self._packaged}
        if self._file is not None:
            try:
                filed = {row.key: row.reply for row in self._file.rows() if row.key and row.reply}
                known = {**filed, **known}
            except OSError as error:
                log.warning("recorded replies can't be read: %s", error)
        return [(key, reply.outline) for key, reply in known.items() if reply.outline]

    def _clean(self, reply: RecordedReply, outline: Outline | None) -> RecordedReply:
        error, outline = reply.error, outline or reply.outline
        return replace(
            reply,
            content=self._struck(reply.content),
            tool_calls=tuple(
                call._replace(arguments=self._struck(call.arguments)) for call in reply.tool_calls
            ),
            error=error and replace(error, reason=self._struck(error.reason)),
            outline=outline and clean_outline(outline, self._struck),
        )

    def _struck(self, text: str) -> str:
        """Without keys, and without half surrogate pairs, which no file takes."""
        return redact_key_shapes(self._redact(text.encode("utf-8", "replace").decode()))

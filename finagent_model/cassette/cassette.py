"""The cassette: recorded replies, found by a fingerprint of the whole request.

A package carries its replies read-only; later recordings go into a local file, never back into the
package. A final failure is recorded too: a replay returns the failure as it was, any other run
tries the request again. Keys are redacted from everything that is recorded.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from finagent_model._redact import redact_key_shapes
from finagent_model.cassette._sqlite import SqliteFile
from finagent_model.cassette.fingerprint import (
    Outline,
    describe_nearest,
    fingerprint,
    redact_outline,
)
from finagent_model.cassette.jsonl import JsonlFile
from finagent_model.cassette.records import CassetteFile, RecordedReply, supersedes
from finagent_model.errors import BadInputError, LocalStateError

log = logging.getLogger(__name__)
REPLIES = "replies.sqlite"
"""File in FINAGENT_HOME: what was recorded on this machine, outside any package."""
JSONL_SUFFIXES, SQLITE_SUFFIXES = (".jsonl",), (".sqlite", ".sqlite3", ".db")


def open_cassette_file(path: Path) -> CassetteFile:
    """Open a file of recordings, in the format that its name says; create it if missing.

    Raises BadInputError where that fails, or where it is no such file.
    """
    if path.suffix in JSONL_SUFFIXES:
        return JsonlFile(path)
    if path.suffix in SQLITE_SUFFIXES:
        return SqliteFile(path)
    suffixes = ", ".join(JSONL_SUFFIXES + SQLITE_SUFFIXES)
    raise BadInputError(f"{path} is not named as a cassette; use a name that ends in {suffixes}")


class Cassette:
    """Replies of a package, of a local file and of this process.

    Safe for threads and for several processes.
    """

    def __init__(
        self,
        packaged: Mapping[str, RecordedReply] | None = None,
        overlay: Path | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        """Read from `packaged` and the file `overlay`, and record into the latter.

        `redact` removes known secrets; what is shaped like a key is removed anyway. Raises
        BadInputError where `overlay` can't be used.
        """
        self._packaged = packaged or {}
        self._recorded: dict[str, RecordedReply] = {}
        self._file = None if overlay is None else open_cassette_file(overlay)
        self._redact_secrets = redact
        self._outlines: list[tuple[str, Outline]] | None = None
        self._repetition = ""
        self.used_replies: dict[str, RecordedReply] = {}
        """Every reply that this object returned or recorded, by fingerprint."""

    def for_repetition(self, name: str) -> Cassette:
        """Return this cassette for requests that are made once more, as the repetition `name`.

        Their replies are recorded beside the first ones, and are found by the same name.
        """
        repetition = copy.copy(self)  # the same file and the same replies
        repetition._repetition = name
        return repetition

    def _key(self, key: str) -> str:
        if not self._repetition:
            return key
        return fingerprint({"request": key, "repetition": self._repetition})

    def get(self, key: str, *, errors: bool = False) -> RecordedReply | None:
        """Return the recorded reply of a fingerprint, or None.

        A recorded failure counts only with `errors`, as in a replay; elsewhere the request is tried
        again. Raises LocalStateError where the file can't be read: no reply is paid for twice.
        """
        key = self._key(key)
        # The packaged reply wins: it is the same on every machine.
        for find in (self._packaged.get, self._recorded.get, self._get_from_file):
            reply = find(key)
            if reply is not None and (errors or reply.error is None):
                self.used_replies[key] = reply
                return reply
        return None

    def put(self, key: str, reply: RecordedReply, outline: Outline | None = None) -> RecordedReply:
        """Record a reply or a failure, and return it as a replay will: without keys.

        It supersedes an earlier record, but a failure supersedes no reply. Where the file can't be
        written there is a warning, and the reply stays in memory.
        """
        key, reply = self._key(key), self._redact_reply(reply, outline)
        self.used_replies[key] = reply
        if supersedes(reply, self._recorded.get(key)):
            self._recorded[key] = reply
        self._outlines = None
        if self._file is not None:
            try:
                self._file.put({key: reply})
            except OSError as error:
                # A full disk must not lose a reply that was paid for.
                log.warning("a reply is kept in memory only: %s", error)
        return reply

    def describe_nearest(self, outline: Outline) -> str:
        """Say, for a replay miss, which recorded request is nearest and what differs in it."""
        if self._outlines is None:
            self._outlines = self._read_outlines()
        # Recorded outlines are redacted; unless this one is too, a secret counts as a difference.
        return describe_nearest(redact_outline(outline, self._redact), self._outlines)

    def _get_from_file(self, key: str) -> RecordedReply | None:
        if self._file is None:
            return None
        try:
            return self._file.get(key)
        except OSError as error:
            raise LocalStateError(f"recorded replies can't be read: {error}") from None

    def _read_outlines(self) -> list[tuple[str, Outline]]:
        replies = {**self._recorded, **self._packaged}
        if self._file is not None:
            try:
                in_file = {row.key: row.reply for row in self._file.rows() if row.key and row.reply}
                replies = {**in_file, **replies}
            except OSError as error:
                log.warning("recorded replies can't be read: %s", error)
        return [(key, reply.outline) for key, reply in replies.items() if reply.outline]

    def _redact_reply(self, reply: RecordedReply, outline: Outline | None) -> RecordedReply:
        error, outline = reply.error, outline or reply.outline
        return replace(
            reply,
            content=self._redact(reply.content),
            reasoning=self._redact(reply.reasoning),
            tool_calls=tuple(
                call._replace(arguments=self._redact(call.arguments)) for call in reply.tool_calls
            ),
            error=error and replace(error, reason=self._redact(error.reason)),
            outline=outline and redact_outline(outline, self._redact),
        )

    def _redact(self, text: str) -> str:
        # No file takes half a surrogate pair, which a model can smuggle in by JSON.
        encodable = text.encode("utf-8", "replace").decode()
        return redact_key_shapes(self._redact_secrets(encodable))

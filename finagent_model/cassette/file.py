"""A file of recordings: SQLite or JSON lines, by its name; safe for threads and for processes.

Whoever records waits for whoever is recording. A row that can't be read counts as not recorded,
since it can be asked for again; `rows` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finagent_model.cassette.recorded import RecordedReply


@dataclass(frozen=True, slots=True)
class Row:
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

    def rows(self) -> Iterator[Row]:
        """Whatever is there, damaged or superseded as it may be."""

    def keep(self, wanted: Callable[[Row], bool]) -> int:
        """Drop all other rows and give back their room; returns how many. What is superseded goes
        anyway and is not counted.
        """

    def faults(self) -> list[str]:
        """What is wrong with the file as a whole."""

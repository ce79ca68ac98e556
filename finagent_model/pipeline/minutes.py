"""What was said in a backtest, written down while it is said: conversation and audit of each
decision go to files at once, and memory does not grow by them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from finagent_model.artifacts.audit import FILE as AUDIT
from finagent_model.artifacts.audit import versions
from finagent_model.artifacts.conversation import FILE as CONVERSATION
from finagent_model.artifacts.conversation import conversation_lines
from finagent_model.domain.audit import ChainWriter
from finagent_model.domain.decision import Decision
from finagent_model.serving.wheel import code_hash


class Minutes:
    """A context manager; `content_hash` names the package that decides, None: one to be."""

    def __init__(self, content_hash: str | None = None) -> None:
        self._open = ExitStack()
        self._said = self._open.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))  # noqa: SIM115
        self._done = self._open.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115
        self._chain = ChainWriter(self._done, versions(code_hash(), content_hash))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def take(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Write them down, in order; the same without what was said on the way."""
        for decision in decisions:
            self._said.write(conversation_lines([decision]))
            self._chain.add(decision.signal, decision.events)
        return [replace(decision, turns=(), events=()) for decision in decisions]

    def close(self, folder: Path) -> str:
        """End the audit, put both files into `folder`, and return the audit's head."""
        head = self._chain.close()
        for file, name in ((self._said, CONVERSATION), (self._done, AUDIT)):
            file.seek(0)
            with (folder / name).open("w", encoding="utf-8") as whole:
                shutil.copyfileobj(file, whole)
        return head

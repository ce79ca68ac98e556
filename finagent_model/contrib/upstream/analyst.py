"""The upstream project as an external analyst, asked through one worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from finagent_model.agents.external import ExternalRequest
from finagent_model.agents.session import ExternalReport
from finagent_model.contrib.upstream._errors import NAME
from finagent_model.contrib.upstream.report import read_reply
from finagent_model.contrib.upstream.source import PinnedSource, SourcePin
from finagent_model.contrib.upstream.window import UpstreamWindow, build_window
from finagent_model.contrib.upstream.worker_process import WorkerProcess
from finagent_model.market.bars import BarSeries

VERSION = "1"
"""Part of what a record is keyed by; raise it when upstream is shown something else."""


@dataclass(frozen=True)
class UpstreamAnalyst:
    """Asks upstream about the last bar of a series; starts a worker when it is first asked."""

    pin: SourcePin
    find_source: Callable[[], PinnedSource]
    """Returns upstream's files, verified each time; called before each start of a worker. Raises
    UpstreamSourceError.
    """
    name: ClassVar[str] = NAME

    @property
    def author(self) -> str:
        """Project and commit that a record names."""
        return f"finagent@{self.pin.commit[:7]}"

    def require_available(self) -> None:
        """Raise UpstreamSourceError now if upstream could not be asked."""
        self.find_source()

    def prepare(self, bars: BarSeries) -> ExternalRequest:
        """Return the request for the evening of the last bar. Raises ShortHistoryError."""
        window = build_window(bars)
        return ExternalRequest(
            window,
            identity={NAME: self.pin.tree, "version": VERSION, "window": window.digest},
            facts={"tree": self.pin.tree, "clock_day": window.clock_day},
        )

    def ask(self, request: ExternalRequest) -> dict[str, Any]:
        """Return upstream's own reply, the library versions behind it, and what it printed.

        Raises UpstreamError and UpstreamSourceError.
        """
        window: UpstreamWindow = request.payload
        answer = self._worker.ask(window.symbol, window.clock_day, window.rows)
        return {"reply": answer.reply, "versions": answer.versions, "log": answer.log}

    def read(self, request: ExternalRequest, reply: Mapping[str, Any]) -> ExternalReport:
        """Parse what `ask` returned. Raises UpstreamError."""
        report = read_reply(reply["reply"], request.payload.symbol)
        return ExternalReport(report.text, report.score)

    def close(self) -> None:
        """End the worker process, if there is one; a later request starts another."""
        if "_worker" in vars(self):
            self._worker.close()

    @cached_property
    def _worker(self) -> WorkerProcess:
        # A closure over self would be a cycle, and the worker would outlive the analyst.
        find_source = self.find_source
        return WorkerProcess(lambda: find_source().code)

"""The upstream project as the core's registry of external analysts loads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from finagent_model.agents.external import AnalystReply, ExternalRequest, ExternalSource
from finagent_model.agents.session import ExternalReport
from finagent_model.contrib.upstream.source import (
    LOCK,
    NAME,
    PinnedSource,
    SourcePin,
    find_source,
    verify_source,
)
from finagent_model.contrib.upstream.upstream_report import UpstreamWindow, build_window, read_reply
from finagent_model.contrib.upstream.worker_process import WorkerProcess
from finagent_model.market.bars import BarSeries
from finagent_model.policy.context import round_significant
from finagent_model.settings import Settings

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


class UpstreamPlugin:
    """Makes analysts over the pinned source of this machine, or over the source in a package."""

    knowledge_cutoff: ClassVar[None] = None
    """Nothing is remembered: its votes are sums over the window, without a model."""

    def find_source(self, settings: Settings) -> PinnedSource:
        """Return this machine's source, verified. Raises UpstreamSourceError."""
        return find_source(settings.home)

    def open_source(self, folder: Path, remedy: str) -> PinnedSource:
        """Return the source in a package's folder, verified by the pin beside it.

        Raises UpstreamSourceError, with the `remedy`, for a file more than was packaged.
        """
        return verify_source(folder, SourcePin.read((folder / LOCK).read_text()), remedy)

    def connect(self, settings: Settings, source: ExternalSource | None) -> UpstreamAnalyst:
        """Return an analyst over `source`, or over what this machine has at the pin."""
        if source is None:
            pin = SourcePin.load()
            return UpstreamAnalyst(pin, partial(find_source, settings.home, pin))
        assert isinstance(source, PinnedSource)
        return UpstreamAnalyst(source.pin, source.verify)

    def input_digest(self, bars: BarSeries) -> str:
        """Hash the window that upstream is shown. Raises ShortHistoryError."""
        return build_window(bars).digest

    def rule_reply(self, report: str) -> AnalystReply:
        """Return upstream's opinion as it is: directional strength, and the votes behind it."""
        opinion = json.loads(report)
        votes = sorted(opinion["votes"].items(), key=lambda vote: -abs(vote[1]))
        rises, falls = (sum(vote == side for _, vote in votes) for side in (1, -1))
        return AnalystReply(
            trend=opinion["trend"],
            score=round_significant(2 * opinion["probability"] - 1, 4),
            summary=f"Upstream says {opinion['rating']}: {rises} of {len(votes)} votes for a rise, "
            f"{falls} for a fall.",
            key_factors=[f"{name} vote {vote:+d}" for name, vote in votes],
        )


plugin = UpstreamPlugin()

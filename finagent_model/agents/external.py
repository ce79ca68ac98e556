"""An external analyst: an opinion from outside the desk, which its agents read like a report.

A plug-in that is registered in `config/analyst_registry.py` says what it is asked about the bars in
view, asks, and reads the reply. Recording is done here, once for all plug-ins: a reply is kept like
a chat model's, so that a decision is replayed without the analyst, and fails as it failed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from finagent_model.agents._replies import AnalystReply as AnalystReply
from finagent_model.agents.completion import UnavailableError
from finagent_model.agents.session import ExternalReport, Session
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import fingerprint
from finagent_model.cassette.records import RecordedReply
from finagent_model.config.analyst_registry import load_plugin
from finagent_model.config.knowledge import Cutoff
from finagent_model.decision.decision import EXTERNAL_REPORT
from finagent_model.decision.signal import Status
from finagent_model.errors import ExternalAnalystError, ExternalSourceError, ShortHistoryError
from finagent_model.market.bars import BarSeries
from finagent_model.settings import Settings

NO_DATA = "no_data"
"""Code of an ExternalAnalystError that counts as missing data, not as a failure of the analyst."""


@dataclass(frozen=True)
class ExternalRequest:
    """One question to an external analyst, about the last bar of a series."""

    payload: Any
    """What the plug-in made of the bars, for its own `ask` and `read`."""
    identity: Mapping[str, Any]
    """JSON that determines the reply: the analyst's version and what it is shown. Its fingerprint
    is the key of the record.
    """
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the audit should tell beside the key and the reply."""


class ExternalSource(Protocol):
    """The files that an external analyst runs from, verified."""

    def package_files(self) -> Mapping[str, bytes]:
        """Return what a package must carry to ask the analyst, by path within its folder."""


class ExternalAnalyst(Protocol):
    """An analyst that can be asked. Safe for threads; what it starts, it starts when asked."""

    @property
    def name(self) -> str:
        """Name that it is registered by."""

    @property
    def author(self) -> str:
        """Name and version that the conversation shows as the model."""

    def require_available(self) -> None:
        """Raise ExternalSourceError now if it could not be asked."""

    def prepare(self, bars: BarSeries) -> ExternalRequest:
        """Return the request about the last bar. Raises ShortHistoryError."""

    def ask(self, request: ExternalRequest) -> Mapping[str, Any]:
        """Return the reply as JSON, to be recorded; may block.

        Raises ExternalAnalystError and ExternalSourceError.
        """

    def read(self, request: ExternalRequest, reply: Mapping[str, Any]) -> ExternalReport:
        """Parse a fresh or a recorded reply. Raises ExternalAnalystError where it is unusable."""

    def close(self) -> None:
        """Release what asking has opened; a later request opens it again."""


class ExternalPlugin(Protocol):
    """What is registered: makes analysts, and answers what needs none."""

    @property
    def knowledge_cutoff(self) -> Cutoff | None:
        """Last day that a chat model behind the analyst has read about, or `unknown`.

        None: no model is behind it. A plug-in without this attribute counts as `unknown`; one may
        also have `cutoff_margin_days`.
        """

    def find_source(self, settings: Settings) -> ExternalSource:
        """Return the files on this machine. Raises ExternalSourceError."""

    def open_source(self, folder: Path, remedy: str) -> ExternalSource:
        """Return the files in a package's folder.

        Raises ExternalSourceError, with the `remedy`, where they aren't what was packaged.
        """

    def connect(self, settings: Settings, source: ExternalSource | None) -> ExternalAnalyst:
        """Return an analyst over `source`, or over what this machine has; starts nothing."""

    def input_digest(self, bars: BarSeries) -> str:
        """Hash what the analyst is shown at the last bar: a leak probe compares it.

        Raises ShortHistoryError.
        """

    def rule_reply(self, report: str) -> AnalystReply:
        """Return what an agent without a chat model makes of the report's text."""


def load_external(name: str) -> ExternalPlugin:
    """Import the external analyst registered as `name`. Raises ConfigError."""
    plugin: ExternalPlugin = load_plugin(name)
    return plugin


@dataclass(frozen=True)
class RecordedAnalyst:
    """An external analyst behind a cassette: it is asked only for what is not recorded."""

    analyst: ExternalAnalyst
    cassette: Cassette

    async def report(self, bars: BarSeries, session: Session, agent: str) -> ExternalReport:
        """Return the report at the close of the last bar, and enter it into the session as read by
        `agent`. Raises UnavailableError.
        """
        try:
            request = self.analyst.prepare(bars)
        except ShortHistoryError as error:
            raise UnavailableError(Status.DATA_MISSING, str(error)) from None
        key = fingerprint(dict(request.identity))
        recorded = None
        if session.mode != "live":
            recorded = self.cassette.get(key, errors=session.replay_errors)
        if recorded is None and session.mode == "replay":
            session.cache_miss = True
            raise UnavailableError(
                Status.EXTERNAL_ERROR,
                f"replay: no recorded report of {self.analyst.name} for these bars ({key[:12]})",
            )
        reply = recorded or self.cassette.put(key, await self._ask(request))
        if reply.error is not None:
            raise UnavailableError(Status(reply.error.status), reply.error.reason)
        content = json.loads(reply.content)
        report = self.analyst.read(request, content)
        name, cached = self.analyst.name, recorded is not None
        session.record(name, "response", report.text, model=self.analyst.author, cached=cached)
        session.note(EXTERNAL_REPORT, agent, key=key, **request.facts, cached=cached, **content)
        return report

    async def _ask(self, request: ExternalRequest) -> RecordedReply:
        """Return the analyst's reply once it was found readable, or how it failed."""
        try:
            reply = await asyncio.to_thread(self._ask_readable, request)
        except (ExternalAnalystError, ExternalSourceError) as error:
            missing = isinstance(error, ExternalAnalystError) and error.code == NO_DATA
            status = Status.DATA_MISSING if missing else Status.EXTERNAL_ERROR
            return RecordedReply.from_error(status, str(error)[:500])
        return RecordedReply(json.dumps(reply, sort_keys=True), "stop", 0, 0)

    def _ask_readable(self, request: ExternalRequest) -> Mapping[str, Any]:
        reply = self.analyst.ask(request)
        # An unreadable reply is recorded as the failure that it is, not as a reply.
        self.analyst.read(request, reply)
        return reply

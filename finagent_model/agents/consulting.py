"""What upstream says of the bars in view, for the agents that are to read it: recorded like a
model's reply, so that a decision is replayed without upstream, and fails as it failed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finagent_model.agents.asking import UnavailableError
from finagent_model.agents.session import Session
from finagent_model.cassette.cassette import Cassette, RecordedReply, fingerprint
from finagent_model.domain.bars import BarSeries
from finagent_model.domain.signal import Status
from finagent_model.errors import ShortHistoryError, UpstreamError, UpstreamSourceError
from finagent_model.upstream.pin import Pin
from finagent_model.upstream.reading import Reading, read_reply
from finagent_model.upstream.resident import Resident
from finagent_model.upstream.source import Source
from finagent_model.upstream.window import Window, window_of

VERSION = "1"
"""Part of what a record is keyed by; raise it when upstream is shown something else."""
SPEAKER = "upstream"
"""In the conversation."""


@dataclass(frozen=True)
class Consultant:
    """Upstream behind a cassette. One worker, started when something is not recorded."""

    pin: Pin
    find: Callable[[], Source]
    """Its files, verified each time; asked before each start of a worker. Raises
    UpstreamSourceError.
    """
    cassette: Cassette

    @property
    def author(self) -> str:
        """What a record names."""
        return f"finagent@{self.pin.commit[:7]}"

    def require_source(self) -> None:
        """Raise UpstreamSourceError now if upstream could not be asked."""
        self.find()

    async def consult(self, bars: BarSeries, session: Session, agent: str) -> Reading:
        """On the evening of the last bar, for `agent`. Raises UnavailableError."""
        try:
            window = window_of(bars)
        except ShortHistoryError as error:
            raise UnavailableError(Status.DATA_MISSING, str(error)) from None
        key = fingerprint({"upstream": self.pin.tree, "version": VERSION, "window": window.digest})
        recorded = None
        if session.mode != "live":
            recorded = self.cassette.get(key, errors=session.past_errors)
        if recorded is None and session.mode == "replay":
            session.missed = True
            raise UnavailableError(
                Status.UPSTREAM_ERROR,
                f"replay: no recorded report of upstream for these bars ({key[:12]})",
            )
        reply = recorded or self.cassette.put(key, await self._asked(window))
        if reply.error is not None:
            raise UnavailableError(Status(reply.error.status), reply.error.reason)
        said = json.loads(reply.content)
        reading = read_reply(said["reply"], bars.symbol)
        session.record(
            SPEAKER, "response", reading.report, model=self.author, cached=recorded is not None
        )
        session.note(
            "upstream",
            agent,
            key=key,
            tree=self.pin.tree,
            clock_day=window.clock_day,
            cached=recorded is not None,
            **said,
        )
        return reading

    def close(self) -> None:
        """End the worker, if there is one."""
        if "_resident" in vars(self):
            self._resident.close()

    async def _asked(self, window: Window) -> RecordedReply:
        """Upstream's own reply once it was found usable, or how it failed."""
        try:
            said = await asyncio.to_thread(self._ask, window)
        except (UpstreamError, UpstreamSourceError) as error:
            missing = isinstance(error, UpstreamError) and error.code == "no_data"
            status = Status.DATA_MISSING if missing else Status.UPSTREAM_ERROR
            return RecordedReply.failed(status, str(error)[:500])
        return RecordedReply(json.dumps(said, sort_keys=True), "stop", 0, 0)

    def _ask(self, window: Window) -> dict[str, Any]:
        answer = self._resident.ask(window.symbol, window.clock_day, window.rows)
        read_reply(answer.reply, window.symbol)
        return {"reply": answer.reply, "versions": answer.versions, "log": answer.log}

    @cached_property
    def _resident(self) -> Resident:
        find = self.find  # not self, in a cycle with which the worker would outlive us
        return Resident(lambda: find().code)

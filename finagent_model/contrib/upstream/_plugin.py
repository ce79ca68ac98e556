"""The upstream project as the core's registry of external analysts loads it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from finagent_model.agents.external import AnalystReply, ExternalSource
from finagent_model.contrib.upstream.analyst import UpstreamAnalyst
from finagent_model.contrib.upstream.source import (
    LOCK,
    PinnedSource,
    SourcePin,
    find_source,
    verify_source,
)
from finagent_model.contrib.upstream.window import build_window
from finagent_model.market.bars import BarSeries
from finagent_model.policy.context import rounded
from finagent_model.settings import Settings


class UpstreamPlugin:
    """Makes analysts over the pinned source of this machine, or over the source in a package."""

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
            score=rounded(2 * opinion["probability"] - 1, 4),
            summary=f"Upstream says {opinion['rating']}: {rises} of {len(votes)} votes for a rise, "
            f"{falls} for a fall.",
            key_factors=[f"{name} vote {vote:+d}" for name, vote in votes],
        )


plugin = UpstreamPlugin()

"""What a desk is asked about one view, and what its agents may look up while they answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from finagent_model.agents.session import Session
from finagent_model.domain.roster import Occasion

REPORT = "upstream_report"
"""The source of the message that holds upstream's report; no agent may be called so."""


class ToolAnswer(Protocol):
    """What a tool gave, as JSON; an error is data too."""

    @property
    def content(self) -> str: ...

    @property
    def is_error(self) -> bool: ...


class Tools(Protocol):
    """Some tools, bound to the one view."""

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """As a model is told of them."""

    def call(self, name: str, arguments_json: str) -> ToolAnswer:
        """Never raises, whatever a model asks."""


class Picture(Protocol):
    """A chart of the view."""

    @property
    def png(self) -> bytes: ...

    @property
    def digest(self) -> str:
        """Of what is drawn, not of the file."""


class Report(Protocol):
    """What the upstream project says of the bars in view."""

    @property
    def report(self) -> str:
        """As an agent reads it."""


@dataclass(frozen=True)
class Inquiry:
    """One question to the whole desk."""

    text: str
    """JSON, the same for every agent."""
    occasions: frozenset[Occasion]
    """What the view has that not every view has."""
    tools: Callable[[Sequence[str]], Tools]
    """Those of the given names."""
    chart: Callable[[], Picture]
    """Drawn when an agent is to see it."""
    upstream: Callable[[Session, str], Awaitable[Report]]
    """For an agent by name; raises UnavailableError."""

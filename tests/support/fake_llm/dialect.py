"""One protocol of a chat provider, as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from finagent_model.testing import ScriptedReply
from support.fake_llm.faults import Fault
from support.fake_llm.requests import ProviderRequest

Error = tuple[int, dict[str, Any]]
"""HTTP status and body."""


@dataclass(frozen=True)
class Dialect:
    """How a protocol writes replies and errors."""

    body: Callable[[ProviderRequest, ScriptedReply], dict[str, Any]]
    """The body of a reply in one piece."""
    frames: Callable[[ProviderRequest, ScriptedReply], Iterator[bytes]]
    """A reply as a stream: each frame an event or a line. The last ones hold no text."""
    error: Callable[[ProviderRequest, Fault], Error]
    """The error of a fault in `ERRORS`."""
    rejection: Callable[[ProviderRequest], Error | None]
    """Why the provider would not take this request, if so."""
    stream_error: Callable[[ProviderRequest], bytes]
    """The frame that tells of an error in mid-stream."""
    stream_type: str = "text/event-stream"

"""What the double must be able to say in a protocol, and the pieces that protocols share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from support.fake_llm.answers import Answer
from support.fake_llm.faults import Fault
from support.fake_llm.requests import Asked

Problem = tuple[int, dict[str, Any]]
"""HTTP status and body."""


@dataclass(frozen=True)
class Dialect:
    """One protocol, spoken."""

    whole: Callable[[Asked, Answer], dict[str, Any]]
    """The body of an answer in one piece."""
    frames: Callable[[Asked, Answer], Iterator[bytes]]
    """The same as a stream: each frame an event or a line. The last ones hold no text."""
    problem: Callable[[Asked, Fault], Problem]
    """How an error is told; for the faults in `ERRORS`."""
    objection: Callable[[Asked], Problem | None]
    """Why the provider would not take this request, if so."""
    broken: Callable[[Asked], bytes]
    """The frame that tells of an error in mid-stream."""
    stream_type: str = "text/event-stream"


def event(data: Any, name: str = "") -> bytes:
    """A server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()

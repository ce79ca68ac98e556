"""Recorded replies of chat models: equal requests get equal replies, for free, on any machine.

A cassette finds a reply by the fingerprint of the whole request. Beside a reply stands an outline
of its request, so that a replay miss can say what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.cassette.cassette import Cassette
    from finagent_model.cassette.jsonl import dump_replies, load_replies
    from finagent_model.cassette.records import RecordedError, RecordedReply, ToolCall
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "cassette": ["Cassette"],
            "jsonl": ["dump_replies", "load_replies"],
            "records": ["RecordedError", "RecordedReply", "ToolCall"],
        },
    )

__all__ = [
    "Cassette",
    "RecordedError",
    "RecordedReply",
    "ToolCall",
    "dump_replies",
    "load_replies",
]

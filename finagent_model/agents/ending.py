"""Why a reply ended, in the provider's own words.

AutoGen's result knows `stop`, `length` and `content_filter`; a refusal in so many words, as OpenAI
and Anthropic send it, gets lost. Its log of calls has the whole answer, so that is listened to.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

from autogen_core import EVENT_LOGGER_NAME
from autogen_core.logging import LLMCallEvent

_HEARD: ContextVar[list[dict[str, Any]] | None] = ContextVar("heard", default=None)


class _Ear(logging.Handler):
    """Keeps the answers of calls that somebody listens to; writes nothing anywhere."""

    def emit(self, record: logging.LogRecord) -> None:
        heard = _HEARD.get()
        if heard is not None and isinstance(record.msg, LLMCallEvent):
            heard.append(record.msg.kwargs.get("response") or {})


_EAR = _Ear()


def quieten() -> None:
    """AutoGen logs whole prompts, and a traceback for every cancelled agent: from now on its events
    reach our ear alone, and not even that before somebody listens.
    """
    events = logging.getLogger(EVENT_LOGGER_NAME)
    if _EAR not in events.handlers:
        events.handlers = [_EAR]
        events.propagate = False
        for name in ("autogen_core", EVENT_LOGGER_NAME):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def listen() -> list[dict[str, Any]]:
    """A list that the raw answers of this task's calls are put into, and of the tasks it starts."""
    quieten()
    logging.getLogger(EVENT_LOGGER_NAME).setLevel(logging.INFO)
    heard: list[dict[str, Any]] = []
    _HEARD.set(heard)
    return heard


def was_cut(answer: dict[str, Any]) -> bool:
    """Whether a raw answer ended at its length limit."""
    choices: list[dict[str, Any]] = answer.get("choices") or [{}]
    words = (choices[0].get("finish_reason"), answer.get("stop_reason"), answer.get("done_reason"))
    return "length" in words or "max_tokens" in words


def refusal(answer: dict[str, Any]) -> str | None:
    """What a raw answer refuses with; None where it doesn't."""
    for choice in answer.get("choices") or ():
        said = (choice.get("message") or {}).get("refusal")
        if said:
            return str(said)
        if choice.get("finish_reason") == "content_filter":
            return "the provider's content filter stopped it"
    return "the model declined to answer" if answer.get("stop_reason") == "refusal" else None

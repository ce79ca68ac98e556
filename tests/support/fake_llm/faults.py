"""What can go wrong between a desk and its chat provider, by name."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from finagent_model.testing import FinishReason, ScriptedReply


class Fault(StrEnum):
    """One way to fail; every protocol shows each in its own manner."""

    BAD_REQUEST = "bad request"
    BAD_KEY = "bad key"
    """401, with the whole key in the message, as some gateways do."""
    MODEL_NOT_FOUND = "model not found"
    CONTEXT_TOO_LONG = "context too long"
    CONTENT_FILTER = "content filter"
    """The prompt is turned down."""
    RATE_LIMITED = "rate limited"
    RATE_LIMITED_SECONDS = "rate limited, Retry-After"
    RATE_LIMITED_MS = "rate limited, retry-after-ms"
    NO_CREDIT = "no credit"
    """In OpenAI a 429 that no waiting cures."""
    SERVER_ERROR = "server error"
    OVERLOADED = "overloaded, Retry-After"
    """503; in Anthropic 529."""

    HANG = "no response"
    """No answer until the client or the server gives up."""
    DRIP = "slow response"
    """A good answer, a byte at a time: no single read takes long."""
    CUT = "dropped connection"
    """The connection closes in mid-answer."""
    ENDED_EARLY = "ended early"
    """Half an answer that ends properly, as through a proxy that gave up."""
    BROKEN_STREAM = "broken stream"
    """An error in mid-stream, after status 200; where no stream is asked for, a server error."""
    GARBAGE = "malformed body"
    """Status 200 with a page of HTML."""
    REDIRECT = "redirect"
    """307 to a place where no chat model is."""

    EMPTY = "empty"
    WRONG_SCHEMA = "wrong schema"
    """JSON, but not what was asked for."""
    TRUNCATED = "truncated"
    REFUSAL = "refusal"
    """The model declines; Ollama has no word for it, so there it is prose."""
    FILTERED = "filtered"
    """The answer is cut off by the provider's filter."""

    NOBODY_LISTENS = "connection refused"
    UNTRUSTED = "untrusted certificate"

    @property
    def changes_address(self) -> bool:
        """Whether it is the address that is wrong: set it before a client is made."""
        return self in (Fault.NOBODY_LISTENS, Fault.UNTRUSTED)


ERRORS = (
    Fault.BAD_REQUEST,
    Fault.BAD_KEY,
    Fault.MODEL_NOT_FOUND,
    Fault.CONTEXT_TOO_LONG,
    Fault.CONTENT_FILTER,
    Fault.RATE_LIMITED,
    Fault.RATE_LIMITED_SECONDS,
    Fault.RATE_LIMITED_MS,
    Fault.NO_CREDIT,
    Fault.SERVER_ERROR,
    Fault.OVERLOADED,
)
"""Told by a status other than 200."""
RETRY_AFTER = (Fault.RATE_LIMITED_SECONDS, Fault.OVERLOADED)


def spoil(reply: ScriptedReply, fault: Fault | None) -> ScriptedReply:
    """Return what the model replies under `fault`; `reply` where the fault isn't the model's."""
    match fault:
        case Fault.EMPTY:
            return replace(reply, text="", tool_calls=(), completion_tokens=0)
        case Fault.WRONG_SCHEMA:
            return replace(reply, text='{"opinion": "It may rise or fall."}', tool_calls=())
        case Fault.TRUNCATED:
            return replace(
                reply,
                text=reply.text[: len(reply.text) // 2],
                tool_calls=(),
                finish_reason=FinishReason.LENGTH,
            )
        case Fault.REFUSAL:
            sorry = "I can't help with trading decisions."
            return replace(reply, text=sorry, tool_calls=(), finish_reason=FinishReason.REFUSAL)
        case Fault.FILTERED:
            return replace(
                reply,
                text=reply.text[: len(reply.text) // 2],
                tool_calls=(),
                finish_reason=FinishReason.CONTENT_FILTER,
            )
    return reply

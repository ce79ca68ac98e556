"""What went wrong with a call, whichever client raised it, and whether asking again may help.

The SDKs raise classes of their own but agree on `status_code` and, where there was an answer, on
`response.headers`; that is all that is read here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

NO_CREDIT = "insufficient_quota"
"""OpenAI's word, with a 429 that no waiting cures."""
BUSY = (408, 409, 425, 429)
"""Statuses below 500 that pass; every other such request would be refused again."""
WORDS = {
    401: "the key was refused",
    403: "access was refused",
    404: "no such model or address",
    429: "the provider's rate limit is reached",
}


@dataclass(frozen=True)
class Fault:
    """Why a call has no reply."""

    reason: str
    again: bool
    """Whether the same call may go through later."""
    retry_after_s: float | None = None
    """When the server asked to be called again."""
    provider: bool = True
    """Whether the provider is to blame, rather than this one request."""
    unpaid: bool = True
    """Whether it surely cost nothing; a call that was cut off may have been charged for."""


def fault_of(error: BaseException, timeout_s: float) -> Fault:
    """Of whatever a chat client raised."""
    chain = [error, *_causes(error)]
    status = next((s for e in chain if (s := _status(e)) is not None), None)
    if status is not None:
        broke = any(getattr(e, "code", None) == NO_CREDIT for e in chain)
        again = (status in BUSY or status >= 500) and not broke
        failed = "the provider failed" if status >= 500 else "the request was refused"
        said = WORDS.get(status, failed)
        return Fault(
            f"HTTP {status}, {said}: {_words(error)}",
            again,
            retry_after(_headers(chain)),
            provider=again or broke or status in (401, 403),
        )
    if any(isinstance(e, ssl.SSLCertVerificationError) for e in chain):
        return Fault(f"the provider's certificate can't be trusted: {_words(chain[-1])}", False)
    names = [type(e).__name__ for e in chain]
    if any("Timeout" in name for name in names):
        return Fault(f"no reply within {timeout_s:g} s", again=True, unpaid=False)
    if any(
        isinstance(e, OSError) or "Connect" in n or "Protocol" in n or "Read" in n
        for e, n in zip(chain, names, strict=True)
    ):
        return Fault(f"the provider can't be reached: {_words(chain[-1])}", again=True)
    said = f"the answer can't be read: {type(error).__name__}: {_words(error)}"
    return Fault(said, again=True, unpaid=False)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `Retry-After`; None where neither says a number.

    A date is taken relative to the answer's own `Date`: nobody's clock is asked.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    try:
        until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


def _status(error: BaseException) -> int | None:
    """Of an answer that says it failed; an error in the midst of a good one has none."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _headers(chain: list[BaseException]) -> Mapping[str, str]:
    for error in chain:
        found: Any = getattr(getattr(error, "response", None), "headers", None)
        if found is not None:
            return {str(name).lower(): str(value) for name, value in found.items()}
    return {}


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    while (error := error.__cause__ or error.__context__) and error not in found:  # type: ignore[assignment]
        found.append(error)
    return found


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

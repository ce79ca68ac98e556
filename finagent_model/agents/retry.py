"""What went wrong with a call, whichever client raised it, and whether asking again may help.

The SDKs raise classes of their own but agree on `status_code` and, where there was an answer, on
`response.headers`; that is all that is read here.

What all decisions of a process share towards one provider: its rate limit, and a circuit breaker
that leaves a failing provider alone for a while.

One request to a chat model until it is answered or given up: time limit, retries with growing
pauses, the provider's own wish to be left alone, its rate limit, the circuit breaker.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from aiolimiter import AsyncLimiter
from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from finagent_model.config.rules import DecisionLimits, RateLimits

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
class ProviderFailure:
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


def classify_failure(error: BaseException, timeout_s: float) -> ProviderFailure:
    """Of whatever a chat client raised."""
    chain = [error, *_causes(error)]
    status = next((s for e in chain if (s := _status(e)) is not None), None)
    if status is not None:
        broke = any(getattr(e, "code", None) == NO_CREDIT for e in chain)
        again = (status in BUSY or status >= 500) and not broke
        failed = "the provider failed" if status >= 500 else "the request was refused"
        said = WORDS.get(status, failed)
        return ProviderFailure(
            f"HTTP {status}, {said}: {_words(error)}",
            again,
            retry_after(_headers(chain)),
            provider=again or broke or status in (401, 403),
        )
    if any(isinstance(e, ssl.SSLCertVerificationError) for e in chain):
        return ProviderFailure(
            f"the provider's certificate can't be trusted: {_words(chain[-1])}", False
        )
    names = [type(e).__name__ for e in chain]
    if any("Timeout" in name for name in names):
        return ProviderFailure(f"no reply within {timeout_s:g} s", again=True, unpaid=False)
    if any(
        isinstance(e, OSError) or "Connect" in n or "Protocol" in n or "Read" in n
        for e, n in zip(chain, names, strict=True)
    ):
        return ProviderFailure(f"the provider can't be reached: {_words(chain[-1])}", again=True)
    said = f"the answer can't be read: {type(error).__name__}: {_words(error)}"
    return ProviderFailure(said, again=True, unpaid=False)


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


MINUTE = 60.0


class ProviderLimits:
    """Calls to one provider, on one event loop."""

    def __init__(self, rules: RateLimits) -> None:
        self._rules = rules
        self._requests = _limiter(rules.requests_per_minute)
        self._tokens = _limiter(rules.tokens_per_minute)
        self._failures = 0
        self._open_until = 0.0
        self._probing = False

    async def enter(self, tokens: int) -> None:
        """Wait until a request of about so many tokens is within the limits."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            await self._tokens.acquire(min(tokens, self._tokens.max_rate))

    def closed_for(self) -> float:
        """Seconds for which the provider is still left alone; 0: it may be called. After a pause
        one call tries, and the others wait for what comes of it.
        """
        if not self._open_until:
            return 0.0
        left = self._open_until - asyncio.get_running_loop().time()
        if left > 0 or self._probing:
            return max(left, 0.001)
        self._probing = True
        return 0.0

    def let_go(self) -> None:
        """A call was abandoned: nothing is known of the provider."""
        self._probing = False

    def succeeded(self) -> None:
        self._failures, self._open_until, self._probing = 0, 0.0, False

    def failed(self) -> None:
        self._failures, self._probing = self._failures + 1, False
        if self._rules.break_after and self._failures >= self._rules.break_after:
            self._open_until = asyncio.get_running_loop().time() + self._rules.break_s


_LIMITS: dict[tuple[int, int, str, str], ProviderLimits] = {}


def limits_for(provider: str, rules: RateLimits) -> ProviderLimits:
    """The lane to `provider` (client and address) under `rules`; call it on the loop."""
    key = (os.getpid(), id(asyncio.get_running_loop()), provider, rules.model_dump_json())
    if key not in _LIMITS:
        _LIMITS[key] = ProviderLimits(rules)
    return _LIMITS[key]


def _limiter(per_minute: int) -> AsyncLimiter | None:
    return AsyncLimiter(per_minute, MINUTE) if per_minute else None


FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 20.0
_backoff = wait_exponential_jitter(
    multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S, jitter=FIRST_PAUSE_S
)


class CallFailedError(Exception):
    """Given up; `fault` says why."""

    def __init__(self, fault: ProviderFailure) -> None:
        super().__init__(fault.reason)
        self.fault = fault


async def call_with_retry(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    options: dict[str, Any],
    limits: DecisionLimits,
    lane: ProviderLimits,
    tokens: int,
    *,
    stream: bool = False,
    retried: Callable[[int, ProviderFailure, float], object] = lambda attempt, fault, pause_s: None,
) -> CreateResult:
    """The model's reply; `tokens` is about what the request takes. Raises CallFailedError."""

    async def once() -> CreateResult:
        shut_s = lane.closed_for()
        if shut_s:
            raise CallFailedError(
                ProviderFailure(
                    f"the provider failed before and is left alone for {shut_s:.0f} s", False
                )
            )
        try:
            await lane.enter(tokens)
            async with asyncio.timeout(limits.call_timeout_s):
                result = await _ask(client, messages, options, stream)
        except asyncio.CancelledError:
            lane.let_go()
            raise
        except Exception as error:  # a vendor's client may raise anything; here it becomes a fault
            fault = classify_failure(error, limits.call_timeout_s)
            if fault.provider:
                lane.failed()
            else:
                lane.succeeded()  # it answered, if only to refuse this request
            raise CallFailedError(fault) from error
        lane.succeeded()
        if not result.content and result.finish_reason == "unknown":
            raise CallFailedError(
                ProviderFailure("the answer can't be read: it holds no reply", again=True)
            )
        return result

    def before_sleep(state: RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        retried(
            state.attempt_number, _failure_of(state.outcome.exception()), state.next_action.sleep
        )

    attempts = AsyncRetrying(
        stop=stop_after_attempt(limits.retries + 1),
        retry=retry_if_exception(lambda error: is_retryable(error, limits)),
        wait=_pause,
        before_sleep=before_sleep,
        reraise=True,
    )
    result: CreateResult = await attempts(once)
    return result


async def _ask(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    options: dict[str, Any],
    stream: bool,
) -> CreateResult:
    if not stream:
        return await client.create(messages, **options)
    async with aclosing(client.create_stream(messages, **options)) as parts:
        async for part in parts:
            if isinstance(part, CreateResult):
                return part
    raise ValueError("the stream ended without a reply")


def _pause(state: RetryCallState) -> float:
    """Growing, with jitter, and never shorter than the server asked for."""
    assert state.outcome is not None
    asked = _failure_of(state.outcome.exception()).retry_after_s
    return max(_backoff(state), asked or 0.0)


def is_retryable(error: BaseException, limits: DecisionLimits) -> bool:
    """Not for what won't change, nor where the server wants more patience than a decision has."""
    if not isinstance(error, CallFailedError) or not error.fault.again:
        return False
    return (error.fault.retry_after_s or 0.0) < limits.wall_clock_s


def _failure_of(error: BaseException | None) -> ProviderFailure:
    assert isinstance(error, CallFailedError)
    return error.fault

"""One request to a chat model, until it is answered or given up.

`call_with_retry` applies, in this order: circuit breaker, rate limiter, time limit, and retries
with exponential backoff. Rate limiter and circuit breaker belong to a provider and are shared by
all decisions of a process (`limits_for`).

The SDKs raise exception classes of their own but agree on `status_code` and, where there was a
response, on `response.headers`. `classify_failure` reads these, and first of all what the wire
raised in the provider's own words (`_provider_errors`).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self

from aiolimiter import AsyncLimiter
from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from finagent_model._base import retry_after
from finagent_model._secrets import redact_message
from finagent_model.agents._provider_errors import ProviderError, UnusableReplyError
from finagent_model.agents._shared_numbers import Numbers, SharedNumbers
from finagent_model.config.rules import DecisionLimits, RateLimits
from finagent_model.errors import ConfigError

NO_CREDIT_CODE = "insufficient_quota"
"""OpenAI's error code of a 429 that no waiting cures."""
RETRYABLE_STATUSES = (408, 409, 425, 429)
"""Statuses below 500 that may pass; any other such request would be refused again."""
REFUSED_FOR_ALL = (401, 402, 403)
"""Statuses that every request to the provider would get: they count for the circuit breaker."""
STATUS_TEXTS = {
    401: "the key was refused",
    402: "the account has no credit",
    403: "access was refused",
    404: "no such model or address",
    429: "the provider's rate limit is reached",
}
UNSENDABLE = {"LocalProtocolError", "UnicodeEncodeError"}
"""Errors of a request that no HTTP library can write: it never left."""
NOT_CONNECTED = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"} | {
    *("UnsupportedProtocol", "InvalidURL", "ClientConnectorError"),
}
"""Errors from before a connection stood, by their names in HTTP libraries."""
NOT_CONNECTED_CLASSES = (ConnectionRefusedError, socket.gaierror)
BROKEN = re.compile("Connect|Protocol|Read|Write|Close|Network")
"""Names of errors of a connection that stood, or may have."""
MINUTE_S = 60.0
FAILURES, OPEN_UNTIL, PROBE_UNTIL = 0, 1, 2
BREAKER_NUMBERS = 3
"""A circuit breaker's state: failures in a row, and two moments of the loop's clock."""
PROBE_S = 120.0
"""After so many seconds a probe that never reported is forgotten: its process may have died."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 20.0
_backoff = wait_exponential_jitter(multiplier=FIRST_PAUSE_S, max=MAX_PAUSE_S, jitter=FIRST_PAUSE_S)


@dataclass(frozen=True)
class ProviderFailure:
    """Why a call to a provider gave no reply."""

    reason: str
    retryable: bool
    """Whether the same call may succeed later."""
    retry_after_s: float | None = None
    """Seconds that the server asked to wait; None where it did not say."""
    provider_at_fault: bool = True
    """Whether the provider is to blame rather than this one request: the circuit breaker counts
    it.
    """
    billed: bool = False
    """Whether the call may have been charged for, as one that was cut off may."""


class CallFailedError(Exception):
    """A call was given up; `failure` says why."""

    def __init__(self, failure: ProviderFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def classify_failure(error: BaseException, timeout_s: float) -> ProviderFailure:
    """Return what `error`, raised by any chat client, means for a retry.

    `timeout_s` is the call's time limit, for the message.
    """
    chain = [error, *_causes(error)]
    # A local model that can't be served: the SDK calls it a connection that failed.
    if config_error := next((e for e in chain if isinstance(e, ConfigError)), None):
        return ProviderFailure(str(config_error), retryable=False)
    errors = (e for e in chain if isinstance(e, ProviderError | UnusableReplyError))
    from_wire = next(errors, None)
    if isinstance(from_wire, UnusableReplyError):
        reason = f"the answer can't be read: {from_wire}"
        return ProviderFailure(reason, from_wire.retryable, billed=True)
    status = next((s for e in chain if (s := _error_status(e)) is not None), None)
    if from_wire is not None or status is not None:
        return _classify_answer(from_wire or error, status, chain)
    if any(isinstance(e, ssl.SSLCertVerificationError) for e in chain):
        return ProviderFailure(
            f"the provider's certificate can't be trusted: {_one_line(chain[-1])}", retryable=False
        )
    # The clients' HTTP libraries share no base class, but they name their errors alike.
    names = {type(e).__name__ for e in chain}
    if unsent := names & UNSENDABLE:
        # Its text may quote a header, which holds the key.
        reason = f"the request can't be sent: {min(unsent)}; see the key, the address and the texts"
        return ProviderFailure(reason, retryable=False)
    if "TooManyRedirects" in names:
        reason = "the address only redirects; set base_url to the one that answers"
        return ProviderFailure(reason, retryable=False)
    timed_out = any("Timeout" in name for name in names)
    if names & NOT_CONNECTED or any(isinstance(e, NOT_CONNECTED_CLASSES) for e in chain):
        why = f"no connection within {timeout_s:g} s" if timed_out else _one_line(chain[-1])
        return ProviderFailure(f"the provider can't be reached: {why}", retryable=True)
    # From here on the request may have been sent, and so be charged for.
    if timed_out:
        return ProviderFailure(f"no reply within {timeout_s:g} s", retryable=True, billed=True)
    if any(isinstance(e, OSError) for e in chain) or any(map(BROKEN.search, names)):
        reason = f"the connection broke before the answer was whole: {_one_line(chain[-1])}"
        return ProviderFailure(reason, retryable=True, billed=True)
    reason = f"the answer can't be read: {type(error).__name__}: {_one_line(error)}"
    return ProviderFailure(reason, retryable=True, billed=True)


def _classify_answer(
    error: BaseException, status: int | None, chain: list[BaseException]
) -> ProviderFailure:
    """Return what it means that a provider answered with an error; `error` has its words."""
    words = _one_line(error)
    answer = error if isinstance(error, ProviderError) else ProviderError(str(error), status)
    header_s = retry_after(_response_headers(chain))
    pause_s = answer.retry_after_s if header_s is None else header_s
    no_credit = answer.has_no_credit and (status == 402 or header_s is None)
    no_credit = no_credit or any(getattr(e, "code", None) == NO_CREDIT_CODE for e in chain)
    retryable = status is None or status in RETRYABLE_STATUSES or status >= 500
    retryable = retryable and not no_credit
    if status is None:
        reason = f"the provider answered with an error: {words}"
    else:
        default = "the provider failed" if status >= 500 else "the request was refused"
        text = STATUS_TEXTS[402] if no_credit else STATUS_TEXTS.get(status, default)
        reason = f"HTTP {status}, {text}: {words}"
    return ProviderFailure(
        reason,
        retryable,
        pause_s,
        provider_at_fault=retryable or no_credit or status in REFUSED_FOR_ALL,
        billed=answer.billed,
    )


def is_retryable(error: BaseException, limits: DecisionLimits) -> bool:
    """Return whether a retry may help, within the time that a decision has."""
    if not isinstance(error, CallFailedError) or not error.failure.retryable:
        return False
    # A server that asks to wait longer than a decision may take is given up at once.
    return (error.failure.retry_after_s or 0.0) < limits.wall_clock_s


class RateLimiter:
    """Delays calls so that the requests and tokens of a minute stay within limits; 0: no limit."""

    def __init__(self, requests_per_minute: float, tokens_per_minute: float) -> None:
        self._requests = _limiter(requests_per_minute)
        self._tokens = _limiter(tokens_per_minute)

    async def acquire(self, tokens: int) -> None:
        """Wait until a request of about `tokens` tokens is within the limits."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            # A request above a whole minute's tokens would never fit: it takes the minute.
            await self._tokens.acquire(min(tokens, self._tokens.max_rate))


class CircuitBreaker:
    """Stops calls to a provider for `pause_s` seconds after `failure_threshold` failures in a row.

    After the pause it is half open: one call probes the provider, and the others are refused until
    the probe has ended. A threshold of 0 never opens it. For one event loop a process.
    """

    def __init__(
        self, failure_threshold: int, pause_s: float, state: Numbers | None = None
    ) -> None:
        """`state` has the numbers of `BREAKER_NUMBERS`; None: of this process alone."""
        self._failure_threshold = failure_threshold
        self._pause_s = pause_s
        self._state = state or Numbers(BREAKER_NUMBERS)

    def open_for(self) -> float:
        """Return for how many seconds the breaker stays open; 0: the caller may call.

        A caller that gets 0 reports how the call ended: `record_success`, `record_failure` or
        `release`.
        """
        now = asyncio.get_running_loop().time()
        with self._state.locked() as state:
            _, open_until, probe_until = state
            if not open_until:
                return 0.0
            if open_until > now or probe_until > now:
                return max(open_until - now, 0.001)
            state[PROBE_UNTIL] = now + PROBE_S
            return 0.0

    def release(self) -> None:
        """Report a call that was abandoned: it says nothing about the provider."""
        with self._state.locked() as state:
            state[PROBE_UNTIL] = 0.0

    def record_success(self) -> None:
        """Close the breaker."""
        with self._state.locked() as state:
            state[FAILURES] = state[OPEN_UNTIL] = state[PROBE_UNTIL] = 0.0

    def record_failure(self) -> None:
        """Count a failure; open the breaker once the threshold is reached."""
        with self._state.locked() as state:
            state[FAILURES] += 1
            state[PROBE_UNTIL] = 0.0
            if self._failure_threshold and state[FAILURES] >= self._failure_threshold:
                state[OPEN_UNTIL] = asyncio.get_running_loop().time() + self._pause_s


@dataclass(frozen=True)
class ProviderLimits:
    """The rate limiter and the circuit breaker of one provider, on one event loop."""

    rate_limiter: RateLimiter
    circuit_breaker: CircuitBreaker

    @classmethod
    def from_config(cls, config: RateLimits, shared: SharedLimits | None = None) -> Self:
        """Return a fresh pair as `config` sets it; `shared` is what other processes use, too."""
        # A rate is divided: each process keeps within its own part without asking the others.
        processes = shared.processes if shared else 1
        return cls(
            RateLimiter(
                config.requests_per_minute / processes, config.tokens_per_minute / processes
            ),
            CircuitBreaker(
                config.break_after, config.break_s, shared.breaker_state if shared else None
            ),
        )


@dataclass(frozen=True)
class SharedLimits:
    """What the processes of one server share of a provider's limits."""

    processes: int
    breaker_state: SharedNumbers


_SHARED: dict[tuple[str, str], SharedLimits] = {}


def share_limits(provider: str, config: RateLimits, processes: int) -> None:
    """Share the limits of `provider` among so many processes, which this one is about to fork.

    Raises ConfigError where the rate allows less than one request a minute to each.
    """
    if 0 < config.requests_per_minute < processes:
        raise ConfigError(
            f"traffic.requests_per_minute {config.requests_per_minute} can't be divided among "
            f"{processes} workers; use at most {config.requests_per_minute}"
        )
    key = provider, config.model_dump_json()
    _SHARED[key] = SharedLimits(processes, SharedNumbers(BREAKER_NUMBERS))


# For the life of the process: a breaker that was opened by one decision holds for the next.
_LIMITS: dict[tuple[int, int, str, str], ProviderLimits] = {}


def limits_for(provider: str, config: RateLimits) -> ProviderLimits:
    """Return the limits that calls to `provider` (client and address) share under `config`.

    Call it on the event loop: each loop, and each forked process, has limits of its own, but for
    what `share_limits` has shared.
    """
    text = config.model_dump_json()
    key = (os.getpid(), id(asyncio.get_running_loop()), provider, text)
    if key not in _LIMITS:
        _LIMITS[key] = ProviderLimits.from_config(config, _SHARED.get((provider, text)))
    return _LIMITS[key]


async def call_with_retry(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    options: dict[str, Any],
    limits: DecisionLimits,
    provider_limits: ProviderLimits,
    tokens: int,
    *,
    stream: bool = False,
    on_attempt: Callable[[], object] | None = None,
    on_retry: Callable[[int, ProviderFailure, float], object] | None = None,
) -> CreateResult:
    """Return the model's reply to `messages`. Raises CallFailedError.

    `options` are further arguments of `client.create`; `tokens` is about what the request takes.
    `on_attempt` is called right before each attempt is sent. `on_retry` gets the attempt, its
    failure and the pause in seconds before the next attempt; what it raises ends the call.
    """
    breaker = provider_limits.circuit_breaker

    async def attempt() -> CreateResult:
        pause_s = breaker.open_for()
        if pause_s:
            reason = f"its circuit breaker is open for {pause_s:.0f} s, since it failed before"
            raise CallFailedError(ProviderFailure(reason, retryable=False))
        try:
            await provider_limits.rate_limiter.acquire(tokens)
            if on_attempt is not None:
                on_attempt()
            async with asyncio.timeout(limits.call_timeout_s):
                result = await _create(client, messages, options, stream)
        except asyncio.CancelledError:
            breaker.release()
            raise
        except Exception as error:  # a vendor's client may raise any class
            failure = classify_failure(error, limits.call_timeout_s)
            if failure.provider_at_fault:
                breaker.record_failure()
            else:
                breaker.record_success()  # it answered, if only to refuse this request
            raise CallFailedError(failure) from error
        breaker.record_success()
        if not isinstance(result, CreateResult) or not isinstance(result.content, str | list):
            raise _no_reply(f"the client gave {result!r:.100}")
        if not result.content and result.finish_reason == "unknown":
            raise _no_reply("it holds no reply")
        return result

    def report_retry(state: RetryCallState) -> None:
        if on_retry is None:
            return
        assert state.outcome is not None and state.next_action is not None
        failure = _failure_of(state.outcome.exception())
        on_retry(state.attempt_number, failure, state.next_action.sleep)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(limits.retries + 1),
        retry=retry_if_exception(lambda error: is_retryable(error, limits)),
        wait=_pause_s,
        before_sleep=report_retry,
        reraise=True,
    )
    result: CreateResult = await retrying(attempt)
    return result


def _no_reply(reason: str) -> CallFailedError:
    # It may have been charged for: something was answered.
    failure = ProviderFailure(f"the answer can't be read: {reason}", retryable=True, billed=True)
    return CallFailedError(failure)


async def _create(
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


def _pause_s(state: RetryCallState) -> float:
    """Return the backoff with jitter, or what the server asked for where that is longer."""
    assert state.outcome is not None
    server_pause_s = _failure_of(state.outcome.exception()).retry_after_s
    return max(_backoff(state), server_pause_s or 0.0)


def _failure_of(error: BaseException | None) -> ProviderFailure:
    assert isinstance(error, CallFailedError)
    return error.failure


def _limiter(per_minute: float) -> AsyncLimiter | None:
    return AsyncLimiter(per_minute, MINUTE_S) if per_minute else None


def _error_status(error: BaseException) -> int | None:
    # A stream that breaks off carries the status of its good beginning: below 300 it says nothing.
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and status >= 300 else None


def _response_headers(chain: list[BaseException]) -> Mapping[str, str]:
    for error in chain:
        headers: Any = getattr(getattr(error, "response", None), "headers", None)
        if headers is not None:
            return {str(name).lower(): str(value) for name, value in headers.items()}
    return {}


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    while (error := error.__cause__ or error.__context__) and error not in causes:  # type: ignore[assignment]
        causes.append(error)
    return causes


def _one_line(error: BaseException) -> str:
    # Redacted before it is cut: half a key would no longer be recognised.
    return " ".join(redact_message(str(error)).split())[:300] or type(error).__name__

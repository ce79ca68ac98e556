"""Retries, rate limiter and circuit breaker of calls to a provider."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from autogen_core.models import CreateResult, RequestUsage, UserMessage

from finagent_model._base import DATED_PAUSE_S, retry_after
from finagent_model.agents._provider_errors import ProviderError
from finagent_model.agents._retry import (
    CallFailedError,
    ProviderFailure,
    ProviderLimits,
    RateLimiter,
    call_with_retry,
    classify_failure,
)
from finagent_model.agents.policy_client import RulesClient, RulesConfig
from finagent_model.config.rules import DecisionLimits, RateLimits
from support import virtual_time

DONE = CreateResult(content="{}", finish_reason="stop", usage=RequestUsage(1, 1), cached=False)
LIMITS = DecisionLimits(retries=3, call_timeout_s=20, wall_clock_s=30)
HANG = 1e6
"""Seconds: longer than anybody waits."""


class Refused(Exception):
    """What an SDK raises for an HTTP status."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.response = type("Response", (), {"headers": headers})()


class Client(RulesClient):
    """Does what the script says, one step a call."""

    def __init__(self, *script: Any) -> None:
        super().__init__(RulesConfig(rules={}, colleagues=()))
        self.script = list(script)
        self.calls = 0

    async def create(self, messages: Any, **options: Any) -> CreateResult:
        self.calls += 1
        step = self.script.pop(0) if self.script else DONE
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
            return DONE
        return DONE


def run(
    client: Client,
    limits: DecisionLimits = LIMITS,
    provider_limits: ProviderLimits | None = None,
    on_retry: Callable[..., object] = lambda *_: None,
) -> CreateResult:
    async def once() -> CreateResult:
        shared = provider_limits or ProviderLimits.from_config(RateLimits())
        messages = [UserMessage(content="?", source="desk")]
        return await call_with_retry(client, messages, {}, limits, shared, 10, on_retry=on_retry)

    return virtual_time.run(once())


@pytest.mark.parametrize(
    "error",
    [Refused(429), Refused(500), Refused(503), Refused(408), OSError("no route"), TimeoutError()],
)
def test_retry_after_busy_or_broken_server(error: Exception) -> None:
    client = Client(error, error)
    assert run(client) is DONE
    assert client.calls == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_no_retry_after_final_refusal(status: int) -> None:
    client = Client(Refused(status))
    with pytest.raises(CallFailedError, match=f"HTTP {status}"):
        run(client)
    assert client.calls == 1


def test_retry_gives_up_after_last_attempt() -> None:
    client = Client(*[Refused(500)] * 9)
    with pytest.raises(CallFailedError, match="HTTP 500, the provider failed"):
        run(client)
    assert client.calls == 4


def test_retry_gives_each_attempt_its_own_time_limit() -> None:
    client = Client(HANG, HANG)
    assert run(client) is DONE
    assert client.calls == 3


def test_retry_waits_at_least_retry_after() -> None:
    pauses: list[float] = []
    client = Client(Refused(429, **{"Retry-After": "25"}), Refused(429))
    run(client, on_retry=lambda attempt, failure, pause_s: pauses.append(pause_s))
    assert pauses[0] == 25
    assert 0 < pauses[1] < 25


def test_no_retry_when_retry_after_exceeds_deadline() -> None:
    client = Client(Refused(429, **{"Retry-After": "3600"}))
    with pytest.raises(CallFailedError, match="rate limit"):
        run(client)
    assert client.calls == 1


def test_retry_after_reads_each_form_of_the_header() -> None:
    assert retry_after({"retry-after": "2"}) == 2
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    day = "Wed, 21 Oct 2015 07:28:"
    assert retry_after({"retry-after": f"{day}30 GMT", "date": f"{day}00 GMT"}) == 30
    for date in ({}, {"date": "today"}):
        assert retry_after({"retry-after": f"{day}30 GMT", **date}) == DATED_PAUSE_S
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_circuit_breaker_opens_after_failures_until_a_probe_succeeds() -> None:
    async def story() -> None:
        shared = ProviderLimits.from_config(RateLimits(break_after=2, break_s=30))
        messages = [UserMessage(content="?", source="desk")]
        bare = DecisionLimits(retries=0, call_timeout_s=20)

        async def ask(client: Client) -> CreateResult:
            return await call_with_retry(client, messages, {}, bare, shared, 1)

        failing = Client(*[Refused(503)] * 9)
        for _ in range(2):
            with pytest.raises(CallFailedError, match="503"):
                await ask(failing)
        with pytest.raises(CallFailedError, match="circuit breaker is open"):
            await ask(failing)
        assert failing.calls == 2
        await asyncio.sleep(31)
        probe, other = asyncio.create_task(ask(Client(5.0))), Client()
        await asyncio.sleep(1)
        with pytest.raises(CallFailedError, match="circuit breaker is open"):
            await ask(other)
        await probe
        assert (await ask(other)) is DONE

    virtual_time.run(story())


def test_circuit_breaker_cancelled_probe_lets_next_one_try() -> None:
    async def story() -> None:
        shared = ProviderLimits.from_config(RateLimits(break_after=1, break_s=30))
        messages = [UserMessage(content="?", source="desk")]
        bare = DecisionLimits(retries=0, call_timeout_s=20)
        with pytest.raises(CallFailedError):
            await call_with_retry(Client(Refused(500)), messages, {}, bare, shared, 1)
        await asyncio.sleep(31)
        probe = asyncio.create_task(call_with_retry(Client(5.0), messages, {}, bare, shared, 1))
        await asyncio.sleep(1)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert (await call_with_retry(Client(), messages, {}, bare, shared, 1)) is DONE

    virtual_time.run(story())


def test_rate_limiter_delays_calls_beyond_a_minutes_limits() -> None:
    async def story(rules: RateLimits, tokens: int) -> float:
        shared, loop = ProviderLimits.from_config(rules), asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*(shared.rate_limiter.acquire(tokens) for _ in range(6)))
        return loop.time() - started

    two_minutes = pytest.approx(120, abs=1)  # two at once, and then one each half minute
    assert virtual_time.run(story(RateLimits(requests_per_minute=2), 0)) == two_minutes
    assert virtual_time.run(story(RateLimits(tokens_per_minute=200), 100)) == two_minutes
    assert virtual_time.run(story(RateLimits(), 10**9)) == 0


def test_rate_limiter_passes_request_above_a_minutes_tokens() -> None:
    async def story() -> None:
        await RateLimiter(0, 10).acquire(1000)

    virtual_time.run(asyncio.wait_for(story(), 60))


def test_classify_failure_bills_only_calls_that_were_cut_off() -> None:
    def billed(error: BaseException) -> bool:
        return classify_failure(error, 1.0).billed

    assert not billed(Refused(500)) and not billed(ConnectionRefusedError())
    assert billed(TimeoutError()) and billed(ValueError("half a reply"))


def caused(name: str, cause: BaseException | None = None) -> Exception:
    """An SDK's own error of a connection, made by one of the HTTP library's of that name."""
    error: Exception = type("APIConnectionError", (Exception,), {})("Connection error.")
    error.__cause__ = type(name, (Exception,), {})(f"{name} it was")
    error.__cause__.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        *map(caused, ("ReadError", "RemoteProtocolError", "WriteError", "ReadTimeout")),
        caused("ReadError", ConnectionResetError(104, "reset by peer")),
        ConnectionResetError(104, "reset by peer"),
    ],
    ids=str,
)
def test_classify_failure_bills_a_request_that_may_be_processed(error: Exception) -> None:
    failure = classify_failure(error, 1.0)
    assert (failure.billed, failure.retryable) == (True, True)
    assert "can't be reached" not in failure.reason


@pytest.mark.parametrize(
    "error",
    [
        *map(caused, ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")),
        caused("ConnectError", ConnectionRefusedError(111, "refused")),
        socket.gaierror(-2, "Name or service not known"),
    ],
    ids=str,
)
def test_classify_failure_bills_nothing_before_a_connection(error: Exception) -> None:
    failure = classify_failure(error, 1.0)
    assert (failure.billed, failure.retryable) == (False, True)
    assert failure.reason.startswith("the provider can't be reached: ")


@pytest.mark.parametrize("name", ["LocalProtocolError", "UnicodeEncodeError", "TooManyRedirects"])
def test_classify_failure_of_a_request_that_never_works_is_final(name: str) -> None:
    failure = classify_failure(caused(name), 1.0)
    assert (failure.billed, failure.retryable) == (False, False)
    assert "it was" not in failure.reason


def test_classify_failure_quotes_unknown_errors() -> None:
    assert classify_failure(ZeroDivisionError("oh"), 1.0) == ProviderFailure(
        "the answer can't be read: ZeroDivisionError: oh", True, billed=True
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Insufficient Balance", 402),
        ("Your credit balance is too low to access the Anthropic API.", 400),
        ("You exceeded your current quota, please check your plan", 429),
        ("This request requires more credits, or fewer max_tokens", 402),
        ("insufficient credits", 403),
    ],
)
def test_classify_failure_without_credit_is_final(words: str, status: int) -> None:
    failure = classify_failure(ProviderError(words, status), 1.0)
    assert not failure.retryable
    assert failure.provider_at_fault
    assert "the account has no credit" in failure.reason


def test_classify_failure_quota_that_passes_is_retried() -> None:
    response = Refused(429, **{"Retry-After": "12"}).response
    error = ProviderError("You exceeded your current quota", 429, response)
    failure = classify_failure(error, 1.0)
    assert (failure.retryable, failure.retry_after_s) == (True, 12)


GEMINI = "You exceeded your current quota, please check your plan and billing details. " + "x" * 400


@pytest.mark.parametrize(
    ("words", "retryable", "pause_s"),
    [
        (f"{GEMINI} Quota exceeded, limit: 20 Please retry in 34.5s.", True, 34.5),
        (f"{GEMINI} Quota exceeded, limit: 0 Please retry in 34.5s.", False, 34.5),
        ("Rate limit reached. Please try again in 7.66s.", True, 7.66),
    ],
)
def test_classify_failure_reads_pause_in_words(words: str, retryable: bool, pause_s: float) -> None:
    failure = classify_failure(ProviderError(words, 429), 1.0)
    assert (failure.retryable, failure.retry_after_s) == (retryable, pause_s)


def test_circuit_breaker_opens_after_refused_payments() -> None:
    async def story() -> None:
        shared = ProviderLimits.from_config(RateLimits(break_after=2, break_s=30))
        messages = [UserMessage(content="?", source="desk")]
        broke = Client(*[ProviderError("Payment Required", 402)] * 9)
        for said in ("no credit", "no credit", "circuit breaker is open"):
            with pytest.raises(CallFailedError, match=said):
                await call_with_retry(broke, messages, {}, LIMITS, shared, 1)
        assert broke.calls == 2

    virtual_time.run(story())


def test_retry_refuses_a_client_that_gives_no_result() -> None:
    class Odd(Client):
        async def create(self, messages: Any, **options: Any) -> Any:
            return "BUY"

    with pytest.raises(CallFailedError, match="the client gave 'BUY'"):
        run(Odd(), DecisionLimits(retries=0))

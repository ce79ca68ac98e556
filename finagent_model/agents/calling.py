"""One request to a chat model until it is answered or given up: time limit, retries with growing
pauses, the provider's own wish to be left alone, its rate limit, the circuit breaker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from finagent_model.agents.faults import Fault, fault_of
from finagent_model.agents.traffic import Lane
from finagent_model.domain.bounds import Limits

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 20.0
_backoff = wait_exponential_jitter(
    multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S, jitter=FIRST_PAUSE_S
)


class CallFailedError(Exception):
    """Given up; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


async def call(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    options: dict[str, Any],
    limits: Limits,
    lane: Lane,
    tokens: int,
    *,
    stream: bool = False,
    retried: Callable[[int, Fault, float], object] = lambda attempt, fault, pause_s: None,
) -> CreateResult:
    """The model's reply; `tokens` is about what the request takes. Raises CallFailedError."""

    async def once() -> CreateResult:
        shut_s = lane.closed_for()
        if shut_s:
            raise CallFailedError(
                Fault(f"the provider failed before and is left alone for {shut_s:.0f} s", False)
            )
        try:
            await lane.enter(tokens)
            async with asyncio.timeout(limits.call_timeout_s):
                result = await _ask(client, messages, options, stream)
        except asyncio.CancelledError:
            lane.let_go()
            raise
        except Exception as error:  # a vendor's client may raise anything; here it becomes a fault
            fault = fault_of(error, limits.call_timeout_s)
            if fault.provider:
                lane.failed()
            else:
                lane.succeeded()  # it answered, if only to refuse this request
            raise CallFailedError(fault) from error
        lane.succeeded()
        if not result.content and result.finish_reason == "unknown":
            raise CallFailedError(Fault("the answer can't be read: it holds no reply", again=True))
        return result

    def before_sleep(state: RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        retried(state.attempt_number, _fault(state.outcome.exception()), state.next_action.sleep)

    attempts = AsyncRetrying(
        stop=stop_after_attempt(limits.retries + 1),
        retry=retry_if_exception(lambda error: _worth_it(error, limits)),
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
    asked = _fault(state.outcome.exception()).retry_after_s
    return max(_backoff(state), asked or 0.0)


def _worth_it(error: BaseException, limits: Limits) -> bool:
    """Not for what won't change, nor where the server wants more patience than a decision has."""
    if not isinstance(error, CallFailedError) or not error.fault.again:
        return False
    return (error.fault.retry_after_s or 0.0) < limits.wall_clock_s


def _fault(error: BaseException | None) -> Fault:
    assert isinstance(error, CallFailedError)
    return error.fault

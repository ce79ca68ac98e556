"""Budgets and circuit breakers of several processes: what one spends or sees counts for all."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from math import inf

import pytest

from finagent_model.agents._retry import (
    BREAKER_NUMBERS,
    CircuitBreaker,
    ProviderLimits,
    limits_for,
    share_limits,
)
from finagent_model.agents._shared_numbers import SharedNumbers
from finagent_model.agents.budget import Amount, Budget, OverBudgetError
from finagent_model.agents.providers import ClientPool
from finagent_model.config.desk_config import load_preset
from finagent_model.config.rules import RateLimits
from finagent_model.errors import ConfigError
from finagent_model.settings import Settings

PROCESSES, CALLS = 4, 200


def fork(work: Callable[[], object]) -> int:
    """Return the process that does `work`; it ends with code 0 unless it fails."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def await_end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_budget_of_several_processes_is_never_overspent() -> None:
    limit = PROCESSES * CALLS // 2
    budget = Budget("run", limit, 0.0).share()

    def spend() -> None:
        for _ in range(CALLS):
            try:
                budget.reserve(Amount(1, 0.25))
            except OverBudgetError:
                return
            budget.settle(Amount(1, 0.25), Amount(1, 0.125))

    assert [await_end(pid) for pid in [fork(spend) for _ in range(PROCESSES)]] == [0] * PROCESSES
    assert budget.remaining() == (0, inf)
    with budget.spent.locked() as (tokens, usd):
        assert (tokens, usd) == (limit, limit * 0.125)


def test_budget_keeps_what_was_spent_before_it_is_shared() -> None:
    budget = Budget("run", 100, 0.0)
    budget.reserve(Amount(40, None))
    shared = budget.share()
    assert shared.remaining() == (60, inf)
    shared.reserve(Amount(60, None))
    with pytest.raises(OverBudgetError, match="the 100 tokens of a run"):
        shared.reserve(Amount(1, None))


def test_threads_of_two_processes_may_wait_for_each_others_numbers() -> None:
    ours, theirs = SharedNumbers(1), SharedNumbers(1)
    (hear_us, tell_them), (hear_them, tell_us) = os.pipe(), os.pipe()

    def work(held: SharedNumbers, asked: SharedNumbers, tell: int, hear: int) -> None:
        with ThreadPoolExecutor(1) as pool:
            with held.locked():
                os.write(tell, b"x")
                os.read(hear, 1)  # both hold theirs
                waiting = pool.submit(add, asked)
                wait([waiting], timeout=0.2)
            waiting.result()

    def add(numbers: SharedNumbers) -> None:
        with numbers.locked() as values:
            values[0] += 1

    child = fork(lambda: work(theirs, ours, tell_us, hear_us))
    work(ours, theirs, tell_them, hear_them)
    assert await_end(child) == 0
    for numbers in (ours, theirs):
        with numbers.locked() as (value,):
            assert value == 1
    for each in (hear_us, tell_them, hear_them, tell_us):
        os.close(each)


def test_budget_goes_on_after_a_process_was_killed_within_its_lock() -> None:
    budget = Budget("run", 10, 0.0).share()

    def die() -> None:
        with budget.spent.locked():
            os.kill(os.getpid(), signal.SIGKILL)

    assert await_end(fork(die)) == -signal.SIGKILL
    budget.reserve(Amount(10, None))
    assert budget.remaining() == (0, inf)


def test_circuit_breaker_opens_by_failures_of_several_processes() -> None:
    state = SharedNumbers(BREAKER_NUMBERS)

    async def fail() -> None:
        CircuitBreaker(3, 30.0, state).record_failure()

    for _ in range(2):
        assert await_end(fork(lambda: asyncio.run(fail()))) == 0

    async def look() -> tuple[float, float]:
        breaker = CircuitBreaker(3, 30.0, state)
        before = breaker.open_for()
        breaker.record_failure()
        return before, breaker.open_for()

    before, after = asyncio.run(look())
    assert before == 0
    assert 29 < after <= 30


def test_circuit_breaker_probe_of_one_process_holds_the_others_back() -> None:
    state = SharedNumbers(BREAKER_NUMBERS)

    async def open_for() -> float:
        return CircuitBreaker(1, 0.0, state).open_for()

    async def fail() -> None:
        CircuitBreaker(1, 0.0, state).record_failure()

    asyncio.run(fail())

    def probe() -> None:
        assert asyncio.run(open_for()) == 0

    assert await_end(fork(probe)) == 0
    assert asyncio.run(open_for()) > 0


def test_circuit_breaker_forgets_probe_of_a_process_that_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finagent_model.agents._retry.PROBE_S", 0.0)

    async def probe_twice() -> list[float]:
        breaker = CircuitBreaker(1, 0.0)
        breaker.record_failure()
        return [breaker.open_for(), breaker.open_for()]

    assert asyncio.run(probe_twice()) == [0, 0]


def test_limits_for_shares_breaker_and_divides_rate_among_processes() -> None:
    rules = RateLimits(requests_per_minute=8, break_after=1)
    share_limits("a provider of this test", rules, 4)

    async def limits() -> ProviderLimits:
        return limits_for("a provider of this test", rules)

    async def fail() -> None:
        limits_for("a provider of this test", rules).circuit_breaker.record_failure()

    assert await_end(fork(lambda: asyncio.run(fail()))) == 0

    async def look() -> tuple[float, float]:
        own = await limits()
        assert own.rate_limiter._requests is not None
        return own.circuit_breaker.open_for(), own.rate_limiter._requests.max_rate

    open_for, rate = asyncio.run(look())
    assert open_for > 0
    assert rate == 2


def test_share_limits_refuses_rate_below_one_request_a_process() -> None:
    with pytest.raises(ConfigError, match="requests_per_minute 3 can't be divided among 4 workers"):
        share_limits("a provider", RateLimits(requests_per_minute=3), 4)


def test_client_pool_with_local_model_has_one_worker() -> None:
    pool = ClientPool(load_preset("local"), Settings.load({}))
    with pytest.raises(ConfigError, match="leave --workers out"):
        pool.share_limits(2)

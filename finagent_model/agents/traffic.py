"""What all decisions of a process share towards one provider: its rate limit, and a circuit breaker
that leaves a failing provider alone for a while.
"""

from __future__ import annotations

import asyncio
import os

from aiolimiter import AsyncLimiter

from finagent_model.domain.bounds import Traffic

MINUTE = 60.0


class Lane:
    """Calls to one provider, on one event loop."""

    def __init__(self, rules: Traffic) -> None:
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


_LANES: dict[tuple[int, int, str, str], Lane] = {}


def lane(provider: str, rules: Traffic) -> Lane:
    """The lane to `provider` (client and address) under `rules`; call it on the loop."""
    key = (os.getpid(), id(asyncio.get_running_loop()), provider, rules.model_dump_json())
    if key not in _LANES:
        _LANES[key] = Lane(rules)
    return _LANES[key]


def _limiter(per_minute: int) -> AsyncLimiter | None:
    return AsyncLimiter(per_minute, MINUTE) if per_minute else None

"""A chat provider on this machine, for real clients: OpenAI, Azure OpenAI, Anthropic, Ollama.

    with Wire() as wire:
        wire.answers["Executor"] = [{"action": "HOLD"}, Answer("too lo", stop=Stop.LENGTH)]
        wire.fail(Fault.RATE_LIMITED, agent="NewsAnalyst", first=2)
        ...  # a client whose address is wire.address(Protocol.ANTHROPIC)
        assert wire.most == 2

It answers whole or streamed, as it is asked, objects to what the provider would object to,
remembers every request, and fails as told. An exception in a script is raised when the block ends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from support.fake_llm.answers import Answer, Said, answer_of, usual_answer
from support.fake_llm.faults import Fault
from support.fake_llm.listener import Listener
from support.fake_llm.requests import Asked, Protocol
from support.fake_llm.tls import untrusted_context

Script = Callable[[Asked], Said] | list[Said]


@dataclass
class _Order:
    fault: Fault
    agent: str | None
    left: float
    """Calls that it still hits."""


class Wire:
    """The double; a context manager. Attributes may be changed at any time."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        """Every request that reached a chat endpoint, by arrival."""
        self.answers: dict[str, Script] = {}
        """By the agent's name (`""` for anybody else): a function of the request, called in the
        thread that answers it, or a list that is used up."""
        self.delay = 0.0
        """Seconds before an answer."""
        self.pause = 0.02
        """Seconds after each byte of a `DRIP`."""
        self.retry_after = 1
        """Seconds that `Retry-After` asks for; `retry-after-ms` asks for this many milliseconds."""
        self.in_flight = 0
        self.most = 0
        """Requests that were ever in flight at once."""
        self.troubles: list[BaseException] = []
        """What went wrong in scripts; the first is raised when the block ends."""
        self.change = threading.Condition()
        """Held for every change of the above."""
        self.stopped = threading.Event()
        self._orders: list[_Order] = []
        self._plain = Listener(self)
        self._secure: Listener | None = None
        self._mute: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.stop()
        if self.troubles and error is None:
            raise self.troubles[0]

    def stop(self) -> None:
        """Close every connection and join every thread, at once, whoever still waits."""
        self.stopped.set()
        self._plain.stop()
        if self._secure:
            self._secure.stop()
        if self._mute:
            self._mute.close()

    def address(self, protocol: Protocol) -> str:
        """What a client takes as base URL, Azure endpoint or host."""
        suffix = "/v1" if protocol is Protocol.OPENAI else ""
        faults = {order.fault for order in self._orders}
        if Fault.NOBODY_LISTENS in faults:
            return f"http://127.0.0.1:{self._closed_port()}{suffix}"
        if Fault.UNTRUSTED in faults:
            self._secure = self._secure or Listener(self, untrusted_context())
            return f"https://127.0.0.1:{self._secure.server_port}{suffix}"
        return f"http://127.0.0.1:{self._plain.server_port}{suffix}"

    def fail(self, fault: Fault, *, agent: str | None = None, first: int | None = None) -> None:
        """From now on fail: all calls, one agent's, or only the next `first` of these."""
        if fault.changes_address and (agent or first):
            raise ValueError(
                f"'{fault}' is the address's and hits all calls: leave out agent and first"
            )
        self._orders.append(_Order(fault, agent, float("inf") if first is None else first))

    def heal(self) -> None:
        """Fail no more."""
        self._orders.clear()

    def asked_by(self, agent: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.agent == agent]

    def arrived(self, count: int, within: float = 10.0) -> None:
        """Return once `count` requests have come; AssertionError if they don't."""
        self._until(lambda: len(self.asked) >= count, f"{count} requests", within)

    def left_alone(self, within: float = 10.0) -> None:
        """Return once no client holds a connection any more; AssertionError if one does."""
        self._until(lambda: self.connections == 0, "no connection", within)

    @property
    def connections(self) -> int:
        """Sockets that clients hold open, busy or not."""
        return len(self._plain.open) + (len(self._secure.open) if self._secure else 0)

    def _until(self, holds: Callable[[], bool], what: str, within: float) -> None:
        with self.change:
            if not self.change.wait_for(holds, within):
                seen = f"{len(self.asked)} requests, {self.connections} connections"
                raise AssertionError(f"waited {within:g} s for {what}: {seen}")

    def _closed_port(self) -> int:
        """A port that is ours, so that nobody else can come to listen there."""
        if self._mute is None:
            self._mute = socket.socket()
            self._mute.bind(("127.0.0.1", 0))
        return int(self._mute.getsockname()[1])

    @contextlib.contextmanager
    def counted(self, asked: Asked) -> Iterator[None]:
        with self.change:
            self.asked.append(asked)
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            self.change.notify_all()
        try:
            yield
        finally:
            with self.change:
                self.in_flight -= 1
                self.change.notify_all()

    def fault_for(self, asked: Asked) -> Fault | None:
        with self.change:
            for order in self._orders:
                if order.agent in (None, asked.agent) and order.left > 0:
                    order.left -= 1
                    return order.fault
        return None

    def answer_to(self, asked: Asked) -> Answer:
        script = self.answers.get(asked.agent)
        if script is None:
            return usual_answer(asked.agent)
        if not isinstance(script, list):
            return answer_of(script(asked))
        with self.change:
            if not script:
                raise AssertionError(f"the script of {asked.agent!r} has no reply left")
            return answer_of(script.pop(0))

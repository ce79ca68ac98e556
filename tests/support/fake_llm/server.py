"""A fake LLM provider on this machine, for real clients: OpenAI, Azure OpenAI, Anthropic, Ollama.

    with FakeProvider() as llm:
        llm.replies["Executor"] = [{"action": "HOLD"}, Reply("too lo", finish_reason=LENGTH)]
        llm.fail(Fault.RATE_LIMITED, agent="NewsAnalyst", first=2)
        ...  # a client whose address is llm.address(Protocol.ANTHROPIC)
        assert llm.max_in_flight == 2

It builds on `finagent_model.testing.FakeLLM`: it answers whole or streamed, as the client wants,
rejects what the provider would reject, and fails in every way that a provider can fail.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from finagent_model.testing import ChatRequest, FakeLLM, Listener, RequestHandler
from support.fake_llm.dialect import Error
from support.fake_llm.faults import Fault
from support.fake_llm.handler import ProviderHandler
from support.fake_llm.requests import Protocol, ProviderRequest, protocol_of
from support.fake_llm.strict_servers import REFUSES
from support.fake_llm.tls import untrusted_context


@dataclass
class _Order:
    fault: Fault
    agent: str | None
    remaining: float
    """Calls that it still hits."""


class FakeProvider(FakeLLM):
    """A context manager. Attributes may be changed at any time."""

    handler = ProviderHandler
    requests: list[ProviderRequest]  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.byte_pause_s = 0.02
        """Seconds after each byte of a `DRIP`."""
        self.retry_after = 1
        """Seconds that `Retry-After` asks for; `retry-after-ms` asks for this many milliseconds."""
        self.servers: tuple[str, ...] = ()
        """Keys of `REFUSES`: it takes no request that one of these would refuse."""
        self._orders: list[_Order] = []
        self._mute: socket.socket | None = None

    def stop(self) -> None:
        super().stop()
        if self._mute:
            self._mute.close()

    def address(self, protocol: Protocol) -> str:
        """Return what a client takes as base URL, Azure endpoint or host."""
        suffix = "/v1" if protocol is Protocol.OPENAI else ""
        faults = {order.fault for order in self._orders}
        if Fault.NOBODY_LISTENS in faults:
            return f"http://127.0.0.1:{self._closed_port()}{suffix}"
        if Fault.UNTRUSTED in faults:
            if len(self._listeners) == 1:
                self._listeners.append(Listener(self, self.handler, untrusted_context()))
            return f"https://127.0.0.1:{self._listeners[1].server_port}{suffix}"
        return f"http://127.0.0.1:{self._listeners[0].server_port}{suffix}"

    def fail(self, fault: Fault, *, agent: str | None = None, first: int | None = None) -> None:
        """Fail from now on: all calls, one agent's, or only the next `first` of these."""
        if fault.changes_address and (agent or first):
            raise ValueError(
                f"'{fault}' is the address's and hits all calls: leave out agent and first"
            )
        self._orders.append(_Order(fault, agent, float("inf") if first is None else first))

    def recover(self) -> None:
        super().recover()
        self._orders.clear()

    def parse_request(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: dict[str, Any],
    ) -> ProviderRequest | None:
        protocol = protocol_of(path)
        if protocol is None:
            return None
        return ProviderRequest(path, query, headers, body, time.monotonic(), protocol)

    def answer(self, request: ChatRequest, handler: RequestHandler) -> None:
        call = cast(ProviderRequest, request)
        cast(ProviderHandler, handler).answer(call, self._fault_of(call))

    def refusal(self, request: ProviderRequest) -> Error | None:
        """Return why one of `servers` would not take the request; None where all would."""
        errors = (REFUSES[name](request.body) for name in self.servers)
        return next((error for error in errors if error), None)

    def _fault_of(self, request: ProviderRequest) -> Fault | None:
        with self.changed:
            for order in self._orders:
                if order.agent in (None, request.agent) and order.remaining > 0:
                    order.remaining -= 1
                    return order.fault
        return None

    def _closed_port(self) -> int:
        """Return a port that is ours, so that nobody else can come to listen there."""
        if self._mute is None:
            self._mute = socket.socket()
            self._mute.bind(("127.0.0.1", 0))
        return int(self._mute.getsockname()[1])

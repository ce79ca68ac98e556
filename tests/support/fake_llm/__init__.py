"""A fake LLM provider on this machine, for real clients of every provider."""

from __future__ import annotations

from support.fake_llm.faults import Fault
from support.fake_llm.requests import Protocol, ProviderRequest
from support.fake_llm.server import FakeProvider

__all__ = ["FakeProvider", "Fault", "Protocol", "ProviderRequest"]

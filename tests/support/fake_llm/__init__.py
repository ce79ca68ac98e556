"""A fake LLM server: a chat provider on this machine, for real clients of every provider."""

from __future__ import annotations

from support.fake_llm.answers import Answer, Said, Stop, ToolCall
from support.fake_llm.faults import Fault
from support.fake_llm.requests import Asked, Protocol
from support.fake_llm.server import Wire

__all__ = ["Answer", "Asked", "Fault", "Protocol", "Said", "Stop", "ToolCall", "Wire"]

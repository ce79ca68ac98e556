"""A request to a chat provider as it came, read alike in every protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from finagent_model.testing import AGENT, ChatRequest, text_parts

DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/chat/completions$")


class Protocol(StrEnum):
    """Whose wire format is spoken."""

    OPENAI = "openai"
    AZURE = "azure"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


def protocol_of(path: str) -> Protocol | None:
    """Return the protocol that has a chat endpoint at `path`, which is without its query."""
    if DEPLOYMENT.match(path):
        return Protocol.AZURE
    return {
        "/v1/chat/completions": Protocol.OPENAI,
        "/chat/completions": Protocol.OPENAI,
        "/v1/messages": Protocol.ANTHROPIC,
        "/api/chat": Protocol.OLLAMA,
    }.get(path)


@dataclass(frozen=True)
class ProviderRequest(ChatRequest):
    """One request, in any of the protocols."""

    protocol: Protocol

    @property
    def deployment(self) -> str:
        """Return Azure's name for the model that is called; empty elsewhere."""
        match = DEPLOYMENT.match(self.path)
        return match[1] if match else ""

    @property
    def stream(self) -> bool:
        """Return whether the client wants a stream; Ollama streams unless told otherwise."""
        return bool(self.body.get("stream", self.protocol is Protocol.OLLAMA))

    @property
    def api_key(self) -> str:
        """Return the key that was sent; empty without one."""
        return self.headers.get("api-key") or self.headers.get("x-api-key") or super().api_key

    @property
    def system_prompt(self) -> str:
        """Return the system prompt, which Anthropic keeps beside the messages."""
        if self.protocol is Protocol.ANTHROPIC:
            return "\n".join(text_parts(self.body.get("system", "")))
        return super().system_prompt

    @property
    def agent(self) -> str:
        """Return the agent that asks; where there is no system prompt, by the first message."""
        match = AGENT.search(self.system_prompt or " ".join(self.texts("user")[:1]))
        return match[1] if match else ""

    @property
    def tool_results(self) -> list[str]:
        """Return what tools returned to the model, in order."""
        if self.protocol is not Protocol.ANTHROPIC:
            return super().tool_results
        blocks = [b for b in self.parts if b["type"] == "tool_result"]
        return [text for block in blocks for text in text_parts(block["content"])]

    def encoded_images(self) -> Iterator[str]:
        """Yield the images in base64."""
        for message in self.messages:
            yield from message.get("images") or ()
        yield from super().encoded_images()
        for part in self.parts:
            if part["type"] == "image":
                yield part["source"]["data"]

"""What a chat provider was asked: a request as it came, read alike in every protocol."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SEAT = re.compile(r"You are the (\w+) of a trading desk")
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/chat/completions$")


class Protocol(StrEnum):
    """Whose wire format is spoken."""

    OPENAI = "openai"
    AZURE = "azure"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


def protocol_of(path: str) -> Protocol | None:
    """The protocol that has a chat endpoint at `path`, which is without its query."""
    if DEPLOYMENT.match(path):
        return Protocol.AZURE
    return {
        "/v1/chat/completions": Protocol.OPENAI,
        "/chat/completions": Protocol.OPENAI,
        "/v1/messages": Protocol.ANTHROPIC,
        "/api/chat": Protocol.OLLAMA,
    }.get(path)


@dataclass(frozen=True)
class Asked:
    """One request to the model."""

    protocol: Protocol
    path: str
    """Without its query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By name in lower case."""
    body: dict[str, Any]
    at: float
    """Seconds of `time.monotonic()`."""

    @property
    def model(self) -> str:
        """The model's name, as it was given."""
        return str(self.body.get("model", ""))

    @property
    def deployment(self) -> str:
        """Azure's name for what is asked; empty elsewhere."""
        found = DEPLOYMENT.match(self.path)
        return found[1] if found else ""

    @property
    def streamed(self) -> bool:
        """Whether a stream is wanted; Ollama streams unless told otherwise."""
        return bool(self.body.get("stream", self.protocol is Protocol.OLLAMA))

    @property
    def key(self) -> str:
        """The key that was sent, empty without one."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return self.headers.get("api-key") or self.headers.get("x-api-key") or bearer

    @property
    def system(self) -> str:
        """The system prompt, which Anthropic keeps beside the messages."""
        if self.protocol is Protocol.ANTHROPIC:
            return "\n".join(_texts(self.body.get("system", "")))
        return "\n".join(self.said("system", "developer"))

    @property
    def agent(self) -> str:
        """Who of the desk asks, by its system prompt; empty for anybody else."""
        found = SEAT.search(self.system)
        return found[1] if found else ""

    def said(self, *roles: str) -> list[str]:
        """The texts of the messages of these roles, in order."""
        return [text for m in self._messages if m["role"] in roles for text in _texts(m["content"])]

    @property
    def tool_results(self) -> list[str]:
        """What tools returned, in order."""
        if self.protocol is not Protocol.ANTHROPIC:
            return self.said("tool")
        blocks = [b for b in self._parts if b["type"] == "tool_result"]
        return [text for block in blocks for text in _texts(block["content"])]

    @property
    def images(self) -> list[bytes]:
        """The pictures that were sent, decoded."""
        return [base64.b64decode(text) for text in self._encoded_images()]

    def _encoded_images(self) -> Iterator[str]:
        for message in self._messages:
            yield from message.get("images") or ()
        for part in self._parts:
            if part["type"] == "image_url":
                yield part["image_url"]["url"].split(",", 1)[1]
            elif part["type"] == "image":
                yield part["source"]["data"]

    @property
    def _messages(self) -> list[dict[str, Any]]:
        return [{"content": "", **message} for message in self.body.get("messages", ())]

    @property
    def _parts(self) -> list[dict[str, Any]]:
        contents = [m["content"] for m in self._messages if isinstance(m["content"], list)]
        return [part for content in contents for part in content]


def _texts(content: str | list[dict[str, Any]] | None) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [part["text"] for part in content or () if part["type"] == "text"]

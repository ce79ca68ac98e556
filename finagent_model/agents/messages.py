"""Chat messages as a fingerprint sees them, and about how many tokens they take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import PIL.Image
from autogen_core import Image
from autogen_core.models import LLMMessage, UserMessage

IMAGE_TOKENS = 1000
"""Counted for a chart; providers count 85 to 1,600 for its size."""


class Chart(Image):
    """A picture that knows what it shows, so that a request is known by that and not by the bytes
    that a font library made of it.
    """

    def __init__(self, png: bytes, digest: str) -> None:
        super().__init__(PIL.Image.open(BytesIO(png)))
        self.digest = digest


def as_json(message: LLMMessage) -> dict[str, Any]:
    """Type, source and content."""
    if isinstance(message, UserMessage) and not isinstance(message.content, str):
        content = [part if isinstance(part, str) else _picture(part) for part in message.content]
        return {"content": content, "source": message.source, "type": message.type}
    return message.model_dump(mode="json")


def estimated_tokens(messages: Sequence[LLMMessage], tools: Sequence[dict[str, Any]] = ()) -> int:
    """Four characters a token: exact counters fetch their tables over the network."""
    total = len(json.dumps(list(tools))) if tools else 0
    pictures = 0
    for message in messages:
        content = message.content
        if isinstance(message, UserMessage) and not isinstance(content, str):
            total += sum(len(part) for part in content if isinstance(part, str))
            pictures += sum(not isinstance(part, str) for part in content)
        else:
            total += len(str(content))
    return total // 4 + pictures * IMAGE_TOKENS


def _picture(image: Image) -> dict[str, str]:
    return {"image": image.digest if isinstance(image, Chart) else image.to_base64()}

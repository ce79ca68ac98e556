"""The JSON schema that a provider is sent, where it holds replies to one itself.

It says which keys there are and of what kind; bounds are left out, since providers differ in which
they understand. Our own parser holds the reply to those, whoever answered.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from autogen_core.models import ChatCompletionClient
from pydantic import BaseModel

from finagent_model.agents.replies import REPLIES
from finagent_model.domain.model_row import ModelRow
from finagent_model.domain.roster import Role

KEPT = ("type", "anyOf", "enum", "items", "properties", "required", "additionalProperties")


@cache
def reply_schema(role: Role) -> dict[str, Any]:
    """All keys required, no others allowed."""
    schema: dict[str, Any] = _bare(REPLIES[role].model_json_schema())
    return schema | {"additionalProperties": False, "required": list(schema["properties"])}


def asked_for(role: Role, model: ModelRow, client: ChatCompletionClient) -> dict[str, Any]:
    """What `client.create` is given beside the messages, so that it answers in JSON: the schema
    where the model's row says that it takes one, else JSON mode where the client has it.
    """
    openai = type(client).__module__.startswith("autogen_ext.models.openai")
    usage = {"include_usage": True} if model.stream and openai else {}  # else it counts no tokens
    if model.client == "anthropic":
        return {}  # its client has neither
    if not model.sends_schema:
        return {"json_output": True, **usage}
    if openai:
        # Not as `json_output`: the SDK would parse the reply itself and raise for what we mend.
        form = {"name": role, "schema": reply_schema(role), "strict": True}
        asked = {"type": "json_schema", "json_schema": form}
        return {"extra_create_args": {"response_format": asked}, **usage}
    return {"json_output": _Bare.of(role)}


class _Bare(BaseModel):
    """A model whose JSON schema is the bare one; nothing is ever parsed by it."""

    @classmethod
    def of(cls, role: Role) -> type[BaseModel]:
        class Bare(BaseModel):
            @classmethod
            def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
                return reply_schema(role)

        return Bare


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _bare(value) for key, value in schema.items() if key in KEPT}
    if "properties" in schema:
        kept["properties"] = {name: _bare(each) for name, each in schema["properties"].items()}
    return kept

"""A request holds what its server takes, and nothing else of it is changed."""

from __future__ import annotations

from typing import Any

import pytest

from finagent_model.agents._request_edits import edit_request
from finagent_model.config.request_rules import RequestRules

BODY: dict[str, Any] = {
    "model": "m",
    "temperature": 0.0,
    "seed": 7,
    "max_tokens": 800,
    "response_format": {"type": "json_object"},
    "stream_options": {"include_usage": True},
    "messages": [
        {"role": "system", "content": "You judge."},
        {"role": "user", "name": "desk", "content": "What now?"},
        {"role": "user", "name": "Technical", "content": "It rises."},
    ],
}


def edited(**changes: Any) -> dict[str, Any]:
    return edit_request(BODY, RequestRules.model_validate(changes))


def test_edit_request_without_changes_is_the_same() -> None:
    assert edited() == BODY


@pytest.mark.parametrize("field", ["seed", "temperature", "stream_options", "response_format"])
@pytest.mark.parametrize("nothing", [False, None])
def test_edit_request_leaves_a_field_out(field: str, nothing: bool | None) -> None:
    assert edited(**{field: nothing}) == {k: v for k, v in BODY.items() if k != field}


def test_edit_request_renames_the_limit() -> None:
    changed = edited(max_tokens="max_completion_tokens")
    assert (changed["max_completion_tokens"], "max_tokens" in changed) == (800, False)
    assert "max_tokens" not in edited(max_tokens=False)


def test_edit_request_leaves_names_out() -> None:
    assert all("name" not in message for message in edited(name=False)["messages"])


def test_edit_request_without_system_is_one_user_message() -> None:
    content = "You judge.\n\nWhat now?\n\nIt rises."
    assert edited(system=False)["messages"] == [{"role": "user", "content": content}]


def test_edit_request_without_system_keeps_a_picture() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    messages = [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": [{"type": "text", "text": "What now?"}, picture]},
    ]
    rules = RequestRules(system=False)
    content = edit_request({"messages": messages}, rules)["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "text", "image_url"]


def test_edit_request_asks_for_json_once_no_tool_may_be_called() -> None:
    rules = RequestRules(response_format="without tools")
    tools = {"tools": [{}], "tool_choice": "auto"}
    assert "response_format" not in edit_request(BODY | tools, rules)
    assert "response_format" in edit_request(BODY | tools | {"tool_choice": "none"}, rules)


def test_edit_request_sends_thoughts_back_beside_a_call() -> None:
    call = {"role": "assistant", "content": "Hm.", "tool_calls": [{}]}
    rules = RequestRules(reasoning_content=True)
    message = edit_request({"messages": [call]}, rules)["messages"][0]
    assert (message["content"], message["reasoning_content"]) == (None, "Hm.")

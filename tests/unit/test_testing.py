"""The fake LLM server that the package ships for its users' tests."""

from __future__ import annotations

import doctest
import http.client
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from finagent_model import testing
from finagent_model.testing import DECISION, FakeLLM, FinishReason, ScriptedReply, ScriptedToolCall

PROMPT = "You are the Executor of a trading desk. Answer in JSON."


def post(llm: FakeLLM, stream: bool = False, prompt: str = PROMPT) -> http.client.HTTPResponse:
    messages = [{"role": "system", "content": prompt}, {"role": "user", "content": "What now?"}]
    body = {"model": "any", "stream": stream, "messages": messages}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-any"}
    url = f"{llm.base_url}/chat/completions"
    call = urllib.request.Request(url, json.dumps(body).encode(), headers)
    response: http.client.HTTPResponse = urllib.request.urlopen(call, timeout=60)
    return response


def reply(llm: FakeLLM, prompt: str = PROMPT) -> dict[str, Any]:
    with post(llm, prompt=prompt) as response:
        [choice] = json.load(response)["choices"]
    return dict(choice)


def test_fake_llm_docstring_example_runs() -> None:
    assert doctest.testmod(testing) == doctest.TestResults(failed=0, attempted=11)


def test_fake_llm_needs_the_standard_library_alone() -> None:
    code = "import finagent_model.testing, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-Sc", code], capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in done.stdout.split()}
    assert roots - sys.stdlib_module_names - {"__main__"} == {"finagent_model"}


def test_fake_llm_replies_by_default_as_the_default_desk() -> None:
    with FakeLLM() as llm:
        assert json.loads(reply(llm)["message"]["content"]) == DECISION
        assert reply(llm, prompt="Hello")["message"]["content"] == "Good day."


def test_fake_llm_takes_a_script_of_each_kind() -> None:
    def echo(request: testing.ChatRequest) -> str:
        return request.texts("user")[0]

    scripts: list[testing.Script] = [
        "always",
        {"always": 1},
        ["first", ScriptedReply("second")],
        echo,
    ]
    with FakeLLM() as llm:
        replies = []
        for script in scripts:
            llm.replies["Executor"] = script
            replies += [reply(llm)["message"]["content"] for _ in range(2)]
    assert replies == [
        *["always"] * 2,
        *['{"always": 1}'] * 2,
        *["first", "second"],
        *["What now?"] * 2,
    ]


def test_fake_llm_streams_the_reply_in_chunks() -> None:
    with FakeLLM({"Executor": "x" * 100}) as llm, post(llm, stream=True) as response:
        lines = [line.removeprefix(b"data: ") for line in response.read().split(b"\n\n") if line]
    assert lines[-1] == b"[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    pieces = [delta.get("content", "") for delta in deltas]
    assert "".join(pieces) == "x" * 100
    assert max(map(len, pieces)) == testing.CHUNK_CHARS


def test_fake_llm_asks_for_tools() -> None:
    call = ScriptedReply(tool_calls=(ScriptedToolCall("bars", {"last": 2}),))
    with FakeLLM({"Executor": [call]}) as llm:
        choice = reply(llm)
    assert choice["finish_reason"] == "tool_calls"
    [function] = [tool["function"] for tool in choice["message"]["tool_calls"]]
    assert function == {"name": "bars", "arguments": '{"last": 2}'}


@pytest.mark.parametrize("reason", FinishReason)
def test_fake_llm_finishes_for_each_reason(reason: FinishReason) -> None:
    with FakeLLM({"Executor": ScriptedReply("No.", finish_reason=reason)}) as llm:
        choice = reply(llm)
    refused = reason is FinishReason.REFUSAL
    assert choice["finish_reason"] == ("stop" if refused else reason)
    assert choice["message"]["refusal" if refused else "content"] == "No."


def test_fake_llm_fails_as_often_as_it_is_told() -> None:
    with FakeLLM() as llm:
        llm.fail_with(429, "Slow down.", agent="Executor", times=1, headers={"Retry-After": "7"})
        assert reply(llm, prompt="Hello")
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(llm)
        with caught.value as answer:
            assert (answer.code, answer.headers["Retry-After"]) == (429, "7")
            assert json.load(answer)["error"]["message"] == "Slow down."
        assert reply(llm)
        llm.fail_with(500)
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(llm)
        caught.value.close()
        llm.recover()
        assert reply(llm)


def test_fake_llm_remembers_each_request() -> None:
    with FakeLLM() as llm:
        reply(llm)
        [request] = llm.requests
    assert (request.agent, request.model, request.api_key) == ("Executor", "any", "sk-any")
    assert (request.system_prompt, request.texts("user")) == (PROMPT, ["What now?"])
    assert not request.stream
    assert llm.requests_of("Executor") == [request]
    assert llm.requests_of("NewsAnalyst") == []


def test_fake_llm_counts_requests_in_flight() -> None:
    together = threading.Barrier(2, timeout=60)

    def wait(request: testing.ChatRequest) -> str:
        together.wait()
        return "{}"

    with FakeLLM({"Executor": wait}) as llm:
        threads = [threading.Thread(target=reply, args=(llm,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        llm.wait_for_requests(2)
        for thread in threads:
            thread.join()
        llm.wait_until_idle()
        assert llm.max_in_flight == 2


def test_fake_llm_raises_a_script_error_at_the_end() -> None:
    llm = FakeLLM({"Executor": []})
    with pytest.raises(AssertionError, match="script of 'Executor' has no reply left"), llm:
        with pytest.raises(http.client.RemoteDisconnected):
            reply(llm)
        assert len(llm.errors) == 1


def test_fake_llm_waits_no_longer_than_it_is_told() -> None:
    with (
        FakeLLM() as llm,
        pytest.raises(AssertionError, match="waited 0 s for 1 requests: 0 requests"),
    ):
        llm.wait_for_requests(1, timeout_s=0)

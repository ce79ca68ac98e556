"""The lines of docs/desk.md for a server decide against a double that refuses what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from finagent_model.agents._replies import ReplySize, reply_schema
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import preset_text, read_desk_config
from finagent_model.config.request_rules import known_rows, server_row
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from finagent_model.testing import ANALYSIS, ScriptedReply, ScriptedToolCall
from support.fake_llm import FakeProvider, Protocol
from support.fake_llm.strict_servers import REFUSES
from support.places import ROOT

ROW = re.compile(r"^\| [^|]+ \| (`model: .+?`) \|$", re.MULTILINE)
DOCUMENTED = [
    yaml.safe_load("\n".join(re.findall(r"`(\w+: [^`]+)`", lines)))
    for lines in ROW.findall((ROOT / "docs" / "desk.md").read_text())
]
CALL = ScriptedReply(tool_calls=(ScriptedToolCall("bars", {"last": 2}, id="D681PevKs"),))
KEYS = dict.fromkeys(("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"), "any-key-will-do")


def server_of(given: dict[str, Any]) -> str:
    if given.get("client") == "azure":
        return "azure"
    named = given.get("server")
    by_address = (n for n in known_rows("servers") if server_row(n, None) == found(given))
    return named or next(by_address)


def found(given: dict[str, Any]) -> Any:
    return server_row(None, given["base_url"])


@pytest.fixture(scope="module")
def view() -> MarketView:
    return Market.from_settings(Settings.load({})).view("GOOG", parse_as_of("2012-06-29"))


def decided(view: MarketView, given: dict[str, Any], *refusing: str) -> Decision:
    """Decide with a tool on a double of the servers and families `refusing`."""
    with FakeProvider() as llm:
        llm.servers = refusing
        llm.replies["TechnicalAnalyst"] = [CALL, ANALYSIS]
        protocol = Protocol.AZURE if given.get("client") == "azure" else Protocol.OPENAI
        agents = yaml.safe_load(preset_text("lean"))["agents"]
        agents[0]["tools"] = ["bars"]
        row = {"client": "openai", **given, "base_url": llm.address(protocol), "agents": agents}
        lean = yaml.safe_load(preset_text("lean"))
        desk = Desk(
            read_desk_config(yaml.safe_dump(row), lean, "test"),
            None,
            Settings.load(KEYS),
            Cassette(),
        )
        try:
            return desk.decide(view)
        finally:
            desk.close()


def test_docs_name_every_known_server() -> None:
    assert {server_of(given) for given in DOCUMENTED} == set(known_rows("servers"))


@pytest.mark.parametrize("given", DOCUMENTED, ids=server_of)
def test_documented_server_lines_decide(given: dict[str, Any], view: MarketView) -> None:
    server = server_of(given)
    families = [given["family"]] if "family" in given else []
    signal = decided(view, given | {"server": server}, server, *families).signal
    assert (signal.status, signal.action) == ("ok", "BUY"), signal.reasoning


@pytest.mark.parametrize("family", known_rows("families"))
def test_known_family_decides(family: str, view: MarketView) -> None:
    # What a very small model can't tell, no server refuses.
    strict = [family] if family in REFUSES else []
    signal = decided(view, {"model": "m", "family": family, "structured": True}, *strict).signal
    assert signal.status == "ok", signal.reasoning


PLAIN: dict[str, Any] = {
    "model": "m",
    "temperature": 0.0,
    "max_tokens": 800,
    "seed": 7,
    "tools": [{}],
    "tool_choice": "auto",
    "response_format": {"type": "json_object"},
    "messages": [
        {"role": "system", "content": "Answer in JSON."},
        {"role": "user", "name": "desk", "content": "What now?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]},
    ],
}
"""A request as AutoGen's client words it."""
WITH_SCHEMA = PLAIN | {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"schema": reply_schema("analyst", ReplySize.within(800))},
    }
}
REFUSING = [name for name in REFUSES if name not in ("vllm", "openrouter", "llama.cpp")]


@pytest.mark.parametrize("name", REFUSING)
def test_double_of_a_server_refuses_the_plain_request(name: str) -> None:
    body = WITH_SCHEMA if name in ("azure", "fine-tuned") else PLAIN
    error = REFUSES[name](body)
    assert error is not None and error[0] in (400, 422)


def test_double_of_llama_cpp_refuses_the_bounds_of_the_parser() -> None:
    schema = {"type": "string", "maxLength": 2000}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert REFUSES["llama.cpp"](PLAIN | {"response_format": form}) is not None
    assert REFUSES["llama.cpp"](WITH_SCHEMA) is None

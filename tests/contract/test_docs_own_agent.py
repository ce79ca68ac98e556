"""An agent is a row and a template: the whole one in docs/desk.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import load_config
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings
from finagent_model.testing import ANALYSIS
from support.fake_llm import FakeProvider, Protocol
from support.places import ROOT


def test_own_agent_of_the_document_takes_part(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "desk.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
    [text] = [block for block in blocks if "MacroAnalyst" in block]
    (tmp_path / "desk.yaml").write_text(text)
    with FakeProvider() as llm:
        address = llm.address(Protocol.OPENAI)
        config = load_config(str(tmp_path / "desk.yaml")).model_copy(update={"base_url": address})
        settings = Settings.load({"OPENAI_API_KEY": "sk-of-a-local-server"})
        desk = Desk(config, None, settings, Cassette())
        decision = desk.decide(
            Market.from_settings(settings).view("GOOG", parse_as_of("2012-06-29"))
        )
        desk.close()
        [asked] = llm.requests_of("MacroAnalyst")
    assert decision.signal.status == "ok", decision.signal.reasoning
    assert asked.body["temperature"] == 0.3
    assert [tool["function"]["name"] for tool in asked.body["tools"]] == ["bars"]
    assert "wider market" in asked.body["messages"][0]["content"]
    spoke = [turn.agent_name for turn in decision.turns if turn.message_type == "response"]
    assert "MacroAnalyst" in spoke
    assert str(ANALYSIS["summary"]) in "".join(turn.message_content for turn in decision.turns)

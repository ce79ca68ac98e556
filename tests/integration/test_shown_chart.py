"""A chart is shown to an agent whose model can see, by each provider's real client."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, preset_text, read_desk_config
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from support.fake_llm import FakeProvider, Protocol

SETTINGS = Settings.load(
    dict.fromkeys(
        ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY"), "sk-local-server"
    )
)


@pytest.fixture(scope="module")
def view() -> MarketView:
    return Market.from_settings(SETTINGS).view("GOOG", parse_as_of("2012-06-29"))


def config(llm: FakeProvider, protocol: Protocol, **changes: Any) -> DeskConfig:
    agents = yaml.safe_load(preset_text("lean"))["agents"]
    agents[0]["chart"] = True
    given = {
        "client": protocol.value,
        "model": "stub-1",
        "base_url": llm.address(protocol),
        "agents": agents,
        **changes,
    }
    return read_desk_config(yaml.safe_dump(given), yaml.safe_load(preset_text("default")), "test")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", Protocol)
def test_agent_with_vision_is_shown_chart(protocol: Protocol, view: MarketView) -> None:
    with FakeProvider() as llm:
        desk = Desk(config(llm, protocol, vision=True), None, SETTINGS, Cassette())
        first = desk.decide(view)
        again = desk.with_options(mode="replay").decide(view)
        desk.close()
        shown = {asked.agent: len(asked.images) for asked in llm.requests}
    assert first.signal.status == "ok", first.signal.reasoning
    assert shown == {"TechnicalAnalyst": 1, "RiskManager": 0, "Executor": 0}
    stamp = {"generated_at"}
    assert again.signal.model_dump(exclude=stamp) == first.signal.model_dump(exclude=stamp)
    assert (first.calls, again.calls) == (3, 0)


def test_agent_without_vision_is_shown_no_chart(view: MarketView) -> None:
    with FakeProvider() as llm:
        desk = Desk(config(llm, Protocol.OPENAI), None, SETTINGS, Cassette())
        decision = desk.decide(view)
        desk.close()
        assert not any(asked.images for asked in llm.requests)
    assert decision.signal.status == "ok"
    [skipped] = [turn for turn in decision.turns if "chart not shown" in turn.message_content]
    assert skipped.agent_name == "TechnicalAnalyst"

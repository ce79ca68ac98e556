"""The desk as rows: debates unrolled, absent agents bridged, models and sampling resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finagent_model.agents._provider_rows import sends_schema
from finagent_model.agents.team import stages
from finagent_model.config.desk_config import (
    DeskConfig,
    Prompts,
    load_config,
    load_preset,
    preset_text,
    read_desk_config,
)
from finagent_model.config.roster import ModelConfig
from finagent_model.errors import ConfigError
from finagent_model.reports.charts import render_mermaid


def config(**changes: Any) -> DeskConfig:
    defaults = yaml.safe_load(preset_text("default"))
    return read_desk_config(yaml.safe_dump(changes), defaults, "test")


@pytest.mark.parametrize(("preset", "depth"), [("lean", 3), ("default", 3), ("debate", 5)])
def test_preset_graph_depth(preset: str, depth: int) -> None:
    assert len(stages(load_preset(preset).select_agents({"news"}))) == depth


def test_roster_debaters_wait_for_previous_round() -> None:
    rows = {row.name: row for row in load_preset("debate").roster}
    assert rows["BearResearcher_2"].after == ("BullResearcher", "BearResearcher")
    assert rows["RiskManager"].after == ("BullResearcher_2", "BearResearcher_2")
    three = config(**yaml.safe_load(preset_text("debate")) | {"debate_rounds": 3})
    assert sum(row.role == "debater" for row in three.roster) == 6
    assert {row.name: row.after for row in three.roster}["RiskManager"] == (
        "BullResearcher_3",
        "BearResearcher_3",
    )


def test_select_agents_bridges_absent_agent() -> None:
    agents = [
        {"name": "A", "role": "analyst", "prompt": "technical"},
        {"name": "N", "role": "analyst", "prompt": "news", "when": "news", "after": ["A"]},
        {"name": "E", "role": "executor", "prompt": "executor", "after": ["N"]},
    ]
    assert [row.after for row in config(agents=agents).select_agents(())] == [(), ("A",)]
    assert [row.after for row in config(agents=agents).select_agents({"news"})] == [
        (),
        ("A",),
        ("N",),
    ]


def test_default_prompts_fit_in_8000_characters() -> None:
    desk = load_preset()
    assert sum(len(Prompts({}).text(row.prompt)) for row in desk.agents) <= 8000


def test_model_for_merges_agent_sampling() -> None:
    desk = config(
        client="openai",
        model="small",
        models={"deep": {"client": "anthropic", "model": "big", "sampling": {"max_tokens": 99}}},
        agents=[
            {"name": "A", "role": "analyst", "prompt": "technical", "model": "deep"},
            {"name": "B", "role": "analyst", "prompt": "news", "model": "other"},
            {
                "name": "E",
                "role": "executor",
                "prompt": "executor",
                "after": ["A", "B"],
                "sampling": {"temperature": 1},
            },
        ],
    )
    models = [desk.model_for(row) for row in desk.agents]
    assert [(m.client, m.model) for m in models] == [
        ("anthropic", "big"),
        ("openai", "other"),
        ("openai", "small"),
    ]
    assert (models[0].sampling.max_tokens, models[2].sampling.temperature) == (99, 1)
    assert models[2].sampling.max_tokens == desk.sampling.max_tokens
    assert desk.model_used == "big+other+small"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": "azure"}, "client 'azure' needs a model"),
        ({"client": "anthropic"}, "needs a model, such as model: claude-sonnet-4-5"),
        (
            {"client": "openai", "model": "m", "api_version": "2025-01-01"},
            "api_version '2025-01-01' is of client 'azure' alone, not of 'openai'; remove it",
        ),
        ({"client": "component", "model": "x"}, "belong together"),
        (
            {
                "client": "component",
                "model": "x",
                "component": {"provider": "a.B", "config": {"api_key": "sk-1"}},
            },
            "must not hold 'api_key'",
        ),
        ({"base_url": "http://user:pass@host"}, "must not carry a user or password"),
        ({"models": {"a": {"client": "oracle"}}}, "unknown client 'oracle'"),
        ({"limits": {"repairs": 3}}, "limits.repairs"),
        ({"spending": {"drop_first": ["risk"]}}, "spending.drop_first"),
        (
            {
                "agents": [
                    {"name": "A", "role": "analyst", "prompt": "technical", "model": "x"},
                    {"name": "E", "role": "executor", "prompt": "executor", "after": ["A"]},
                ]
            },
            "A names model 'x'; 'models' has: none",
        ),
        (
            {
                "agents": [
                    {"name": "A", "role": "analyst", "prompt": "technical", "sampling": {"t": 1}},
                    {"name": "E", "role": "executor", "prompt": "executor", "after": ["A"]},
                ]
            },
            "unknown key",
        ),
    ],
)
def test_desk_config_names_invalid_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_sends_schema_only_where_provider_enforces_it() -> None:
    def sends(**row: Any) -> bool:
        return sends_schema(ModelConfig(model="m", **row))

    assert sends(client="openai") and sends(client="azure") and sends(client="ollama")
    assert not sends(client="anthropic")
    assert not sends(client="openai", base_url="http://127.0.0.1:1/v1")
    assert sends(client="openai", base_url="http://127.0.0.1:1/v1", structured=True)


def test_load_config_merges_file_over_preset(tmp_path: Path) -> None:
    (tmp_path / "macro.md").write_text("You are the MacroAnalyst of a trading desk.\n")
    (tmp_path / "desk.yaml").write_text(
        "preset: debate\nclient: openai\nmodel: m\nprompts: {macro: macro.md, mood: Be brief.}\n"
    )
    desk = load_config(str(tmp_path / "desk.yaml"))
    assert desk.debate_rounds == 2
    assert Prompts(desk.prompts).text("macro") == "You are the MacroAnalyst of a trading desk."
    assert Prompts(desk.prompts).text("mood") == "Be brief."
    with pytest.raises(ConfigError, match="unknown prompt 'x'; there is: macro, mood, bear"):
        Prompts(desk.prompts).text("x")
    (tmp_path / "macro.md").unlink()
    with pytest.raises(ConfigError, match=r"prompt 'macro' .*macro.md: can't be read"):
        load_config(str(tmp_path / "desk.yaml"))


def test_load_config_partial_block_keeps_preset_keys(tmp_path: Path) -> None:
    (tmp_path / "desk.yaml").write_text("preset: debate\nlimits: {budget_usd: 1}\n")
    limits = load_config(str(tmp_path / "desk.yaml")).limits
    assert (limits.budget_usd, limits.max_tokens) == (1, 120_000)


def test_mermaid_shows_every_debate_round() -> None:
    text = render_mermaid(load_preset("debate"))
    assert "BullResearcher --> BearResearcher_2" in text
    assert "BearResearcher_2 --> RiskManager" in text

"""The agent graph as AutoGen components: it loads into the team that a desk runs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import GraphFlow
from autogen_core.models import ChatCompletionClient, SystemMessage, UserMessage

from finagent_model.agents.completion import silence_autogen_logs
from finagent_model.agents.components import AgentGraph, ChatAgent
from finagent_model.agents.policy_client import RulesClient, RulesConfig
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import Desk
from finagent_model.errors import ConfigError
from finagent_model.market.bars import parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from finagent_model.testing import FakeLLM
from support.chat_model import KEY
from support.chat_model import config as chat_config

PRESETS = ("debate", "default", "lean", "production", "upstream")
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTERNAL_ANALYSTS, "upstream", "support.toy_analyst:plugin")
    silence_autogen_logs()


@pytest.fixture(scope="module")
def views() -> list[MarketView]:
    """A day with fresh news, on which the desk acts, and one without."""
    market, day = Market.from_settings(Settings.load({})), parse_as_of("2012-06-29")
    news = (NewsItem(published_at=parse_as_of("2012-06-20"), headline="Google beats estimates"),)
    return [market.view("GOOG", day, news=(given, 0)) for given in (news, ())]


def decide(config: DeskConfig, view: MarketView, **keys: str) -> Decision:
    desk = Desk(config, None, Settings.load(keys), Cassette(), mode="live", clock=lambda: NOON)
    try:
        return desk.decide(view)
    finally:
        desk.close()


def exported(config: DeskConfig) -> dict[str, Any]:
    """The component JSON as a package has it."""
    component = AgentGraph.from_config(config).to_component()
    read_again: dict[str, Any] = json.loads(json.dumps(component))
    return read_again


def question_of(decision: Decision) -> str:
    return next(t.message_content for t in decision.turns if t.agent_name == "desk")


def ask(team: GraphFlow, *task: BaseChatMessage | str) -> dict[str, str]:
    """What each agent said when the team was given the task."""
    given: Any = task[0] if isinstance(task[0], str) else list(task)

    async def run() -> TaskResult:
        return await team.run(task=given)

    result = asyncio.run(run())
    assert result.stop_reason == "Digraph execution is complete"
    return {m.source: m.content for m in result.messages if isinstance(m, TextMessage)}


@pytest.mark.parametrize("preset", PRESETS)
def test_agent_graph_loads_by_autogen_with_the_rosters_edges(preset: str) -> None:
    config = load_preset(preset)
    team = GraphFlow.load_component(exported(config))
    graph = team.dump_component().config["graph"]
    parents = {name: [] for name in graph["nodes"]}  # type: dict[str, list[str]]
    for name, node in graph["nodes"].items():
        for edge in node["edges"]:
            parents[edge["target"]].append(name)
    assert {name: set(found) for name, found in parents.items()} == {
        row.name: set(row.after) for row in config.roster
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_agent_graph_loaded_by_autogen_answers_as_the_desk(
    preset: str, views: list[MarketView]
) -> None:
    config = load_preset(preset)
    for view in views:
        decision = decide(config, view)
        replies = {
            turn.agent_name: turn.message_content
            for turn in decision.turns
            if turn.message_type == "response"
        }
        question, report = question_of(decision), replies.pop("toy", None)
        task = [TextMessage(content=question, source="user")]
        if report:
            task.append(TextMessage(content=report, source="upstream_report"))
        said = ask(GraphFlow.load_component(exported(config)), *task)
        assert {name: said[name] for name in replies} == replies
        executor = json.loads(said[config.agents[-1].name])
        assert executor["action"] == decision.signal.action
        # Who takes no part says so, and is not heard.
        silent = {row.name for row in config.roster} - replies.keys()
        assert all(json.loads(said[name])["skipped"] == name for name in silent)


def test_loaded_team_answers_a_second_question_afresh(views: list[MarketView]) -> None:
    config = load_preset("lean")
    first, other = (
        question_of(decide(config, view))
        for view in (views[0], Market.from_settings(Settings.load({})).view("IBM", views[0].as_of))
    )
    team = GraphFlow.load_component(exported(config))

    async def twice() -> list[TaskResult]:
        return [await team.run(task=text) for text in (other, first)]

    last = asyncio.run(twice())[-1].messages[-1]
    assert isinstance(last, TextMessage)
    assert last.content == ask(GraphFlow.load_component(exported(config)), first)["Executor"]


def test_agent_graph_of_chat_models_answers_as_the_desk(
    views: list[MarketView], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeLLM() as llm:
        config = chat_config(llm)
        decision = decide(config, views[0], OPENAI_API_KEY=KEY)
        asked = [request.body for request in llm.requests]
        component = exported(config)
        assert KEY not in str(component)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        team = AgentGraph.parse(component).load_team(Settings.load({"OPENAI_API_KEY": KEY}))

        async def run_and_close() -> str:
            result = await team.run(task=question_of(decision))
            for agent in team._participants:
                assert isinstance(agent, ChatAgent)
                await agent.close()
            last = result.messages[-1]
            assert isinstance(last, TextMessage)
            return last.content

        answer = json.loads(asyncio.run(run_and_close()))
        assert answer["action"] == decision.signal.action
        again = [request.body for request in llm.requests[len(asked) :]]
        assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, asked))


def test_load_team_needs_the_models_key() -> None:
    with FakeLLM() as llm:
        graph = AgentGraph.from_config(chat_config(llm))
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        graph.load_team(Settings.load({}))


def test_agent_graph_keeps_a_sampling_without_temperature() -> None:
    """AutoGen dumps a component without its nulls."""
    with FakeLLM() as llm:
        config = chat_config(llm, sampling={"temperature": None, "seed": None})
    graph = AgentGraph.parse(exported(config))
    assert graph == AgentGraph.from_config(config)
    assert graph.agents["Executor"].model.sampling.temperature is None


@pytest.mark.parametrize("task", ["", "hello", "[1]", '"text"', '{"policy": {}}'])
def test_loaded_team_refuses_what_is_no_question(task: str) -> None:
    team = GraphFlow.load_component(exported(load_preset("lean")))
    with pytest.raises(RuntimeError, match="send its JSON as the team's task"):
        ask(team, task)


def test_loaded_external_agent_without_report_says_what_to_send(
    views: list[MarketView], caplog: pytest.LogCaptureFixture
) -> None:
    config = load_preset("upstream")
    said = ask(GraphFlow.load_component(exported(config)), question_of(decide(config, views[0])))
    assert json.loads(said["Executor"]) == {"status": "model_error", "unavailable": "Executor"}
    assert json.loads(said["UpstreamAnalyst"])["status"] == "data_missing"
    assert "send it beside the question as a message from 'upstream_report'" in caplog.text


def test_rules_client_loads_from_its_own_component() -> None:
    client = AgentGraph.from_config(load_preset()).rules_client
    assert client is not None
    loaded = ChatCompletionClient.load_component(client.dump_component())
    assert isinstance(loaded, RulesClient)
    assert loaded.dump_component() == client.dump_component()


def test_rules_client_alone_answers_by_the_rule_of_its_message(views: list[MarketView]) -> None:
    config = load_preset("lean")
    decision = decide(config, views[0])
    agent = AgentGraph.from_config(config).agents["TechnicalAnalyst"]
    assert agent.model_client is not None
    client = RulesClient.load_component(agent.model_client)
    messages = [
        SystemMessage(content=agent.system_message),
        UserMessage(content=question_of(decision), source="desk"),
    ]
    reply = asyncio.run(client.create(messages)).content
    [own] = [
        t.message_content
        for t in decision.turns
        if (t.agent_name, t.message_type) == ("TechnicalAnalyst", "response")
    ]
    assert reply == own


def agent_at(component: dict[str, Any], number: int) -> dict[str, Any]:
    agent: dict[str, Any] = component["config"]["participants"][number]
    return agent


CLASSES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "team": lambda c: c,
    "agent": lambda c: agent_at(c, 0),
    "client": lambda c: agent_at(c, 0)["config"]["model_client"],
    "end": lambda c: dict.__getitem__(c["config"], "termination_condition"),
}


@pytest.mark.parametrize("place", CLASSES)
def test_agent_graph_refuses_any_other_class(place: str) -> None:
    component = exported(load_preset())
    CLASSES[place](component)["provider"] = "os.system"
    with pytest.raises(ConfigError, match=r"of class 'os.system'; allowed is"):
        AgentGraph.parse(component)


def test_autogens_loader_refuses_another_class_of_client() -> None:
    """Without our loader, an agent lets no class in that its JSON names."""
    component = exported(load_preset())
    agent_at(component, 0)["config"]["model_client"]["provider"] = "subprocess.Popen"
    with pytest.raises(ConfigError, match=r"of class 'subprocess.Popen'"):
        GraphFlow.load_component(component)


def drop_edge(component: dict[str, Any]) -> None:
    component["config"]["graph"]["nodes"]["TechnicalAnalyst"]["edges"] = []


def add_condition(component: dict[str, Any]) -> None:
    component["config"]["graph"]["nodes"]["RiskManager"]["edges"][0]["condition"] = "BUY"


def rename_node(component: dict[str, Any]) -> None:
    nodes = component["config"]["graph"]["nodes"]
    nodes["Spy"] = nodes.pop("NewsAnalyst")


def any_parent(component: dict[str, Any]) -> None:
    component["config"]["graph"]["nodes"]["RiskManager"]["activation"] = "any"


def start_late(component: dict[str, Any]) -> None:
    component["config"]["graph"]["default_start_node"] = "Executor"


def repeat_agent(component: dict[str, Any]) -> None:
    component["config"]["participants"].append(agent_at(component, 0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_edge, "the edge from TechnicalAnalyst to RiskManager is in what its agents state"),
        (add_condition, "edge from RiskManager to Executor has a condition"),
        (rename_node, "its nodes are .*Spy"),
        (any_parent, "node RiskManager must wait for all"),
        (start_late, "it starts with Executor alone"),
        (repeat_agent, "two of its agents share a name"),
        (lambda c: agent_at(c, 0)["config"].pop("row"), "row: is missing"),
        (lambda c: agent_at(c, 0)["config"].update(note="x"), "unknown key 'note'"),
        (lambda c: c["config"].pop("termination_condition"), "no limit of messages"),
        (lambda c: c["config"].update(participants=3), "participants"),
        (lambda c: c.clear(), "provider: is missing"),
    ],
)
def test_agent_graph_refuses_json_that_contradicts_itself(change: Any, said: str) -> None:
    component = exported(load_preset())
    change(component)
    with pytest.raises(ConfigError, match=said):
        AgentGraph.parse(component)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preset": "lean"}, "its agent 'NewsAnalyst' is not listed"),
        ({"preset": "debate"}, "it has no agent 'SentimentAnalyst'"),
        ({"limits": {"max_rounds": 7}}, "limits.max_rounds of .* is 10 there and 7"),
        ({"prompts": {"risk": "Be bold."}}, "its prompt 'risk' is another"),
        ({"client": "openai", "model": "gpt-4o"}, "model.client of .* is 'rules' there"),
    ],
)
def test_agent_graph_names_what_differs_from_a_roster(changes: dict[str, Any], said: str) -> None:
    base = load_preset(changes.pop("preset", "default")).model_dump()
    limits = {**base["limits"], **changes.pop("limits", {})}
    config = DeskConfig.model_validate({**base, **changes, "limits": limits})
    difference = AgentGraph.from_config(load_preset()).find_difference(config)
    assert difference is not None
    assert re.search(said, difference), difference


def test_agent_graph_of_other_shipped_prompts_agrees() -> None:
    """Code that ships another prompt reads the package, which brings its own."""
    component = exported(load_preset())
    agent = agent_at(component, 1)["config"]
    agent["system_message"] = "An older prompt of the news analyst."
    rules = RulesConfig.build({"news": agent["system_message"]}, (), None)
    agent["model_client"]["config"] = rules.model_dump(mode="json", exclude_none=True)
    graph = AgentGraph.parse(component)
    assert graph.find_difference(load_preset()) is None
    assert graph.system_messages["news"] == agent["system_message"]


def test_agent_graph_with_another_description_of_its_client_agrees() -> None:
    """Words of AutoGen and of a docstring, which another version may change."""
    component = exported(load_preset())
    agent_at(component, 0)["config"]["model_client"].update(description="x", label="y", version=2)
    assert AgentGraph.parse(component).find_difference(load_preset()) is None


def test_agent_graph_difference_is_short_for_a_long_prompt() -> None:
    component = exported(chat_debate())
    agent_at(component, 4)["config"]["system_message"] = "Obey the news. " * 1000
    difference = AgentGraph.parse(component).find_difference(chat_debate())
    assert difference is not None
    assert "system_message of" in difference
    assert len(difference) < 400


def chat_debate() -> DeskConfig:
    """Its debaters speak twice, by the same prompt."""
    return load_preset("debate").model_copy(update={"client": "openai", "model": "gpt-4o"})


@pytest.mark.parametrize("component", [None, [], "team", 3, {"config": None}, {"provider": 1}])
def test_agent_graph_refuses_what_is_no_component(component: object) -> None:
    with pytest.raises(ConfigError, match="it is not a team of a desk"):
        AgentGraph.parse(component)

"""The agents of a desk as AutoGen components, and the graph that its teams are built from.

`AgentGraph` is read from the `agent_graph.json` of a package, or made from a configuration. A desk
builds each team from it, for the agents that take part in one decision. AutoGen's own
`GraphFlow.load_component` makes the whole team of the same JSON: there an agent works without a
desk, by its own client, and sees the messages alone (no tools, no chart, nothing recorded).

Loading a component imports the class that its JSON names, so only the classes that a desk consists
of are let through (`AgentGraph.parse`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import DiGraph, DiGraphBuilder, GraphFlow
from autogen_core import CancellationToken, Component, ComponentModel
from pydantic import ValidationError

from finagent_model._base import first_error_message
from finagent_model.agents._agent import DESK, AgentConfig, DeskAgent, RunContext
from finagent_model.agents._replies import ReplyError, parse_reply
from finagent_model.agents.completion import ChatService, UnavailableError
from finagent_model.agents.policy_client import Colleague, RulesClient, RulesConfig
from finagent_model.agents.providers import ClientPool, require_usable
from finagent_model.agents.session import (
    DeskQuery,
    ExternalReport,
    Session,
    report_source,
)
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, Prompts
from finagent_model.config.roster import AgentRow, ModelConfig, ancestors
from finagent_model.decision.signal import Status
from finagent_model.errors import BadInputError, ConfigError
from finagent_model.settings import Settings

log = logging.getLogger(__name__)
TASK_SOURCES = (DESK, "user")
"""Sources that a question comes from: of a desk, and of AutoGen where `task` is a text."""
QUESTION_KEY = "features"
"""A key that every question of a desk has."""
SKIPPED = "skipped"
"""Key of the message by which an agent without a desk says that it takes no part."""

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Stamp of what an agent without a desk notes: nobody reads it."""


class ChatAgent(BaseChatAgent, Component[AgentConfig]):
    """An agent of a desk: it answers the question, and what it hears, by a reply in JSON."""

    # Docstring and path are part of a dumped component, and so of a package's content hash.

    component_config_schema = AgentConfig
    component_provider_override = "finagent_model.agents.components.ChatAgent"

    def __init__(self, config: AgentConfig, context: RunContext | None = None) -> None:
        """`context` is the decision that it takes part in; None: it works without a desk."""
        super().__init__(config.row.name, description=config.row.role)
        self._config = config
        self._context = context
        self._pool: ClientPool | None = None

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Do nothing: an agent keeps no state."""

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        by_speaker = {message.source: message.to_model_text() for message in messages}
        task = asyncio.ensure_future(self._reply(by_speaker))
        # It is cancelled with its team.
        cancellation_token.link_future(task)
        return Response(chat_message=TextMessage(content=await task, source=self.name))

    async def close(self) -> None:
        """Close the connections of its own client, if it has asked one."""
        if self._pool is not None:
            await self._pool.close()

    async def _reply(self, by_speaker: Mapping[str, str]) -> str:
        if self._context is not None:
            return await DeskAgent(self._config, self._context).reply(by_speaker)
        question = next((by_speaker[name] for name in TASK_SOURCES if name in by_speaker), "")
        content, when = _parse_object(question), self._config.row.when
        if content is None or QUESTION_KEY not in content:
            raise BadInputError(
                f"{self.name} was asked no question of a desk: send its JSON as the team's task, "
                f"or as a message from {DESK!r}"
            )
        if when != "always" and not content.get(when):
            return json.dumps({SKIPPED: self.name, "why": f"no dated {when} in the question"})
        # Who takes no part is not heard, as in a desk.
        messages = {
            name: text for name, text in by_speaker.items() if not _is_skipped(name, text)
        } | {DESK: question}
        agent, session = self._agent_without_desk(messages)
        reply = await agent.reply(messages)
        # The reply gives the status alone, and there is no record to read more in.
        for failure in session.failures.values():
            log.warning("%s is unavailable: %s", self.name, failure.reason)
        return reply

    def _agent_without_desk(self, messages: Mapping[str, str]) -> tuple[DeskAgent, Session]:
        """Return the agent, and the session of its own that it works in."""
        # What a tool or a chart shows is of a market view, and there is none.
        row = self._config.row.model_copy(update={"tools": (), "chart": False})
        config = self._config.model_copy(update={"row": row})
        desk = _desk_of_one(config)
        if self._pool is None:
            client = config.model_client
            rules = None if client is None else RulesClient.load_component(client)
            self._pool = ClientPool(desk, Settings.load(), rules)
        session = Session(desk, "live", lambda: NO_TIME)
        session.analysts = set(_find_analysts(config.hears, messages))
        query = _question_alone(config.row, messages)
        context = RunContext(query, session, ChatService(self._pool, Cassette()))
        return DeskAgent(config, context), session

    def _to_config(self) -> AgentConfig:
        return self._config

    @classmethod
    def _from_config(cls, config: AgentConfig) -> Self:
        if (client := config.model_client) is not None:
            _require_provider(client.provider, RulesClient, f"the client of {config.row.name}")
        return cls(config)


@dataclass(frozen=True)
class AgentGraph:
    """The agents of a desk and who waits for whom."""

    agents: Mapping[str, AgentConfig]
    """By name, in roster order."""
    max_messages: int
    """Messages of the whole team, the question included."""

    @classmethod
    def from_config(cls, config: DeskConfig, prompts: Prompts | None = None) -> Self:
        """Return the graph of a desk's whole roster.

        `prompts` are the system messages; None: the desk's own, and those that ship. Raises
        ConfigError for an unknown prompt, or one that the client `rules` has no rule for.
        """
        prompts, roster = prompts or Prompts(config.prompts), config.roster
        agents = {}
        for row in roster:
            text, model = prompts.text(row.prompt), config.model_for(row)
            hears = tuple(Colleague.from_row(other) for other in ancestors(row, roster))
            client = None
            if model.client == "rules":
                rules = RulesConfig.build({row.prompt: text}, hears, row.external_analyst)
                dumped = RulesClient(rules).dump_component().model_dump(mode="json")
                # As it is read back: a tuple is a list in JSON.
                client = ComponentModel.model_validate(dumped)
            agents[row.name] = AgentConfig(
                row=row,
                hears=hears,
                system_message=text,
                model=model,
                limits=config.limits,
                model_client=client,
            )
        return cls(agents, config.limits.max_rounds + 1)

    @classmethod
    def parse(cls, component: object) -> Self:
        """Return the graph of a team's component JSON.

        Raises ConfigError for a class that is no part of a desk, for what is no such team, and for
        edges other than its agents state.
        """
        try:
            team = ComponentModel.model_validate(component)
            _require_provider(team.provider, GraphFlow, "the team")
            content = GraphFlow.component_config_schema.model_validate(team.config)
            agents = {}
            for participant in content.participants:
                _require_provider(participant.provider, ChatAgent, "an agent")
                agent = AgentConfig.model_validate(participant.config)
                if agent.model_client is not None:
                    where = f"the client of {agent.row.name}"
                    _require_provider(agent.model_client.provider, RulesClient, where)
                    RulesConfig.model_validate(agent.model_client.config)
                agents[agent.row.name] = agent
            stop = content.termination_condition
            if stop is None:
                raise ConfigError("it has no limit of messages")
            _require_provider(stop.provider, MaxMessageTermination, "the condition to end")
            limit = MaxMessageTermination.component_config_schema.model_validate(stop.config)
        except ValidationError as error:
            raise ConfigError(f"it is not a team of a desk: {first_error_message(error)}") from None
        if len(agents) < len(content.participants):
            raise ConfigError("two of its agents share a name")
        rows = [agent.row for agent in agents.values()]
        if difference := next(_compare_edges(content.graph, rows), None):
            raise ConfigError(difference)
        return cls(agents, limit.max_messages)

    def load_team(self, settings: Settings) -> GraphFlow:
        """Return the whole team, as AutoGen loads it from its JSON, to be run without a desk.

        Raises ConfigError for a model that can't be called.
        """
        for agent in self.agents.values():
            require_usable(agent.model, settings)
        return GraphFlow.load_component(self.to_component())

    def to_component(self) -> dict[str, Any]:
        """Return the whole team as AutoGen's component JSON."""
        team = self._team([agent.row for agent in self.agents.values()], None, self.max_messages)
        return team.dump_component().model_dump(mode="json")

    def build_team(self, rows: Sequence[AgentRow], context: RunContext) -> GraphFlow:
        """Return a new team of the agents of `rows`, for one decision.

        Their edges are those of `rows`: who waited for an agent that takes no part waits for those
        that it waited for.
        """
        return self._team(rows, context, len(rows) + 1)  # the question counts as a message

    def find_difference(self, config: DeskConfig) -> str | None:
        """Return what differs from the roster of `config`, in words; None where they agree."""
        return next(self._differences(config), None)

    @property
    def system_messages(self) -> dict[str, str]:
        """Each system message by the name of its prompt."""
        return {agent.row.prompt: agent.system_message for agent in self.agents.values()}

    @property
    def rules_client(self) -> RulesClient | None:
        """A client `rules` for all agents that answer by it; None where none does."""
        agents = [each for each in self.agents.values() if each.model_client is not None]
        if not agents:
            return None
        texts = {agent.row.prompt: agent.system_message for agent in agents}
        analysts = {each.row.external_analyst for each in self.agents.values()} - {None}
        colleagues = [Colleague.from_row(each.row) for each in self.agents.values()]
        return RulesClient(RulesConfig.build(texts, colleagues, next(iter(analysts), None)))

    def _team(
        self, rows: Sequence[AgentRow], context: RunContext | None, max_messages: int
    ) -> GraphFlow:
        agents = {row.name: ChatAgent(self.agents[row.name], context) for row in rows}
        graph = DiGraphBuilder()
        for row in rows:
            graph.add_node(agents[row.name])
            # Without conditions: AutoGen loses those that are functions, and the others are a
            # search for a word in the last reply.
            for name in row.after:
                graph.add_edge(agents[name], agents[row.name])
        return GraphFlow(
            participants=graph.get_participants(),
            graph=graph.build(),
            termination_condition=MaxMessageTermination(max_messages),
        )

    def _differences(self, config: DeskConfig) -> Iterator[str]:
        listed = [row.name for row in config.roster]
        yield from (f"it has no agent {name!r}" for name in listed if name not in self.agents)
        yield from (
            f"its agent {name!r} is not listed" for name in self.agents if name not in listed
        )
        # With its own texts: those that ship with other code may differ.
        texts = self.system_messages
        for name, text in Prompts(config.prompts).own.items():
            if texts.get(name, text) != text:
                yield f"its prompt {name!r} is another"
        expected = AgentGraph.from_config(config, Prompts(texts))
        for name, agent in expected.agents.items():
            ours, theirs = _facts(self.agents[name]), _facts(agent)
            for key in sorted(ours.keys() | theirs.keys()):
                if ours.get(key) != theirs.get(key):
                    yield (
                        f"{key} of {name} is {ours.get(key)!r:.100} there and "
                        f"{theirs.get(key)!r:.100} in config.yaml"
                    )
        if list(self.agents) != listed:
            yield f"its agents are in another order: {', '.join(self.agents)}"
        if self.max_messages != expected.max_messages:
            yield (
                f"it ends after {self.max_messages} messages, and config.yaml allows "
                f"{expected.max_messages}"
            )


def _require_provider(provider: str, kind: type[Component[Any]], what: str) -> None:
    """Raise ConfigError unless `provider` names the class `kind`."""
    allowed = kind.component_provider_override  # type: ignore[attr-defined]  # of its other base
    if provider != allowed:
        raise ConfigError(f"{what} is of class {provider[:200]!r}; allowed is {allowed}")


def _compare_edges(graph: DiGraph, rows: Sequence[AgentRow]) -> Iterator[str]:
    """Yield what differs between the edges of a graph and those that the rows state."""
    names = {row.name for row in rows}
    if graph.nodes.keys() != names:
        yield f"its nodes are {', '.join(graph.nodes)}, its agents {', '.join(names)}"
        return
    edges = set()
    for name, node in graph.nodes.items():
        if node.name != name or node.activation != "all":
            yield f"node {name} must wait for all agents before it"
        for edge in node.edges:
            edges.add((name, edge.target))
            if edge.condition is not None or edge.activation_condition != "all":
                yield f"its edge from {name} to {edge.target} has a condition"
    stated = {(name, row.name) for row in rows for name in row.after}
    if graph.default_start_node is not None:
        yield f"it starts with {graph.default_start_node} alone"
    for source, target in sorted(edges ^ stated):
        where = "its edges" if (source, target) in edges else "what its agents state"
        yield f"the edge from {source} to {target} is in {where} alone"


def _facts(agent: AgentConfig) -> dict[str, Any]:
    """Return the plain values by which an agent is compared, by their path."""
    content = agent.model_dump(mode="json")
    if agent.model_client is not None:
        # Not its label and description, which are words of AutoGen and of a docstring.
        client = agent.model_client
        content["model_client"] = {"provider": client.provider, "config": client.config}
    return _flatten(content)


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Return the plain values of nested JSON by their path."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list) and value:
        items = [(str(i), each) for i, each in enumerate(value)]
    else:
        return {path: value}
    return {
        name: each
        for key, child in items
        for name, each in _flatten(child, f"{path}.{key}" if path else key).items()
    }


def _desk_of_one(config: AgentConfig) -> DeskConfig:
    """Return a desk that has this agent alone, for all that an agent asks of its desk."""
    row = config.row.model_copy(update={"model": None, "sampling": {}, "after": ()})
    model = {name: getattr(config.model, name) for name in ModelConfig.model_fields}
    # Not validated: a desk that decides needs an analyst and an executor. The parts are valid.
    return DeskConfig.model_construct(
        **model, agents=(row,), limits=config.limits, prompts={row.prompt: config.system_message}
    )


def _parse_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in `text`; None where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_skipped(name: str, text: str) -> bool:
    """Return whether the agent `name` says that it takes no part."""
    return (_parse_object(text) or {}).get(SKIPPED) == name


def _find_analysts(hears: Sequence[Colleague], messages: Mapping[str, str]) -> Iterator[str]:
    """Yield the analysts whose message is a report, and not that there is none."""
    for each in hears:
        if each.role == "analyst" and each.name in messages:
            try:
                parse_reply(messages[each.name], "analyst")
            except ReplyError:
                continue
            yield each.name


def _question_alone(row: AgentRow, messages: Mapping[str, str]) -> DeskQuery:
    """Return the query of an agent that has no market view: the question, and a report if sent."""

    async def external(session: Session, agent: str) -> ExternalReport:
        source = report_source(row.external_analyst or "")
        if source not in messages:
            raise UnavailableError(
                Status.DATA_MISSING,
                f"{agent} reads the report of {row.external_analyst}: send it beside the question "
                f"as a message from {source!r}",
            )
        return ExternalReport(messages[source], math.nan)

    def no_view(*_: object) -> Any:
        raise AssertionError("asked only for the row's tools and chart, and there are none")

    tools: Any = no_view
    chart: Any = no_view
    return DeskQuery(messages[DESK], frozenset(), tools=tools, chart=chart, external=external)

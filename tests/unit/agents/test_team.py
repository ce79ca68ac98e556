"""Two ways to run a conversation, one record: AutoGen's team, and a walk where nobody waits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from autogen_agentchat.teams import GraphFlow

from finagent_model._base import Mode
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import load_preset
from finagent_model.config.parsing import CallLimits
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision, Turn
from finagent_model.desk.desk import Desk
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def views() -> list[MarketView]:
    """Days with fresh news and days without."""
    market = Market.from_settings(Settings.load({}))
    days = [i for i, v in enumerate(market.bar_views("GOOG", range(500, 2148))) if v.news]
    assert days
    chosen = [500 + i for i in (days[0], days[-1], 0, 1, 700)]
    return market.bar_views("GOOG", chosen)


def desk(cassette: Cassette | None = None, mode: Mode = "cached") -> Desk:
    settings = Settings.load({})
    held = Cassette() if cassette is None else cassette
    return Desk(load_preset(), None, settings, held, mode=mode, clock=lambda: NOON)


def said(turns: Iterable[Turn]) -> list[tuple[str, str, str]]:
    """What was said by whom; analysts side by side may speak in either order."""
    return sorted((t.agent_name, t.message_type, t.message_content) for t in turns)


def assert_same(inline: Decision, team: Decision) -> None:
    assert inline.signal == team.signal
    assert said(inline.turns) == said(team.turns)
    assert inline.calls == team.calls


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 10])
def test_inline_run_leaves_the_record_of_a_team(views: list[MarketView], rounds: int) -> None:
    limits = CallLimits(max_rounds=rounds)
    team = [desk(mode="live").with_options(limits=limits).decide(view) for view in views]
    inline = desk().with_options(limits=limits, inline_rules=True).decide_all(views)
    for one, other in zip(inline, team, strict=True):
        assert_same(one, other)


def test_conversation_runs_team_only_for_new_decisions(
    views: list[MarketView], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    original = GraphFlow.run

    async def counted(self: GraphFlow, **task: object) -> object:
        runs.append(self.name)
        return await original(self, **task)  # type: ignore[arg-type]

    monkeypatch.setattr(GraphFlow, "run", counted)
    cassette = Cassette()
    first = desk(cassette).decide(views[0])
    assert len(runs) == 1
    again = desk(cassette).decide(views[0])
    replayed = desk(cassette, "replay").decide(views[0])
    assert len(runs) == 1
    assert first.signal == again.signal == replayed.signal
    assert said(first.turns) == said(again.turns) == said(replayed.turns)
    assert (first.calls, again.calls) == (4, 0)
    desk(cassette, "live").decide(views[0])
    assert len(runs) == 2


def test_conversation_with_half_a_recording_asks_only_for_the_rest(
    views: list[MarketView],
) -> None:
    full = Cassette()
    whole = desk(full).decide(views[0])
    part = Cassette(dict(list(full.used_replies.items())[:2]))
    mended = desk(part).decide(views[0])
    assert mended.signal == whole.signal
    assert said(mended.turns) == said(whole.turns)
    assert mended.calls == 2


@pytest.mark.parametrize("rounds", [2, 10])
def test_replay_by_a_team_is_the_replay(
    views: list[MarketView], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, cassette, runs = CallLimits(max_rounds=rounds), Cassette(), list[str]()
    original = GraphFlow.run

    async def counted(self: GraphFlow, **task: object) -> object:
        runs.append(self.name)
        return await original(self, **task)  # type: ignore[arg-type]

    desk(cassette).with_options(limits=limits, inline_rules=True).decide_all(views)
    monkeypatch.setattr(GraphFlow, "run", counted)
    recorded = desk(cassette, "replay").with_options(limits=limits)
    inline = recorded.decide_all(views)
    assert not runs
    team = recorded.with_options(always_team=True).decide_all(views)
    assert len(runs) == len(views)
    for one, other in zip(inline, team, strict=True):
        assert_same(one, other)

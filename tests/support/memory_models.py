"""Stub chat models that are honest, or remember what came next: in the process, without a server.

A desk asks one as a `component` for its Executor; the other agents are rules, which are free.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import cache
from typing import Any, Literal
from unittest import mock

import numpy as np
import yaml
from autogen_core import Component, FunctionCall
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelInfo,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from pydantic import BaseModel

from finagent_model.agents.team import ConversationRunner
from finagent_model.agents.tools import Toolbox
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, preset_text, read_desk_config
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision, make_decision
from finagent_model.decision.signal import Action
from finagent_model.desk.desk import Desk, ModelReply
from finagent_model.desk.masking import Presenter, make_presenter
from finagent_model.evaluation.memory_probes import MemoryReport, judge_days
from finagent_model.market.view import MarketView
from finagent_model.pipeline.probe_questions import ask_days, choose_days, find_other_views
from finagent_model.policy.context import build_context
from finagent_model.policy.policy import Policy
from finagent_model.settings import Settings

Kind = Literal["honest", "noisy", "by_name", "by_shape", "by_tool"]
KINDS: tuple[Kind, ...] = ("honest", "noisy", "by_name", "by_shape", "by_tool")
PROVIDER = "support.memory_models.StubModel"
SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
HORIZON = 20
RIGHT = 0.85
"""Share of what it remembers that a memoriser remembers rightly."""
NOISE = 0.2
WINDOW = 10
TOOL_ARGUMENTS = '{"last": 2}'
ACTIONS: dict[int, Action] = {1: "BUY", -1: "SELL", 0: "HOLD"}
POLICY = Policy()
FIRST_BAR = 260


@cache
def market() -> Market:
    return Market.from_settings(Settings.load({}))


@cache
def by_close() -> dict[tuple[str, float], list[int]]:
    """Positions of the days on which a symbol closed at a price."""
    table: dict[tuple[str, float], list[int]] = {}
    for symbol in SYMBOLS:
        for i, close in enumerate(market().bars(symbol).close):
            table.setdefault((symbol, float(f"{close:.6g}")), []).append(i)
    return table


@cache
def by_path() -> dict[tuple[int, ...], tuple[str, int]]:
    """Symbol and position by the last ten closes in whole percent of the first of them."""
    table: dict[tuple[int, ...], tuple[str, int]] = {}
    for symbol in SYMBOLS:
        closes = market().bars(symbol).adjust_to_first_bar().close
        for i in range(WINDOW - 1, len(closes)):
            table.setdefault(path_of(closes[i - WINDOW + 1 : i + 1]), (symbol, i))
    return table


def path_of(closes: Any) -> tuple[int, ...]:
    closes = np.asarray(closes, dtype=float)
    return tuple(np.rint(100 * closes / closes[0]).astype(int).tolist())


class StubConfig(BaseModel):
    kind: Kind
    seed: int = 0


class StubModel(ChatCompletionClient, Component[StubConfig]):
    """One of `KINDS`."""

    component_type = "model"
    component_config_schema = StubConfig
    component_provider_override = PROVIDER

    def __init__(self, config: StubConfig) -> None:
        self._config = config
        self._times_asked: dict[str, int] = {}

    @classmethod
    def _from_config(cls, config: StubConfig) -> StubModel:
        return cls(config)

    def _to_config(self) -> StubConfig:
        return self._config

    @property
    def kind(self) -> Kind:
        return self._config.kind

    async def create(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Any] = (), **_: Any
    ) -> CreateResult:
        system = next(m.content for m in messages if isinstance(m, SystemMessage))
        [text, *_rest] = [str(m.content) for m in messages if isinstance(m, UserMessage)]
        question = json.loads(text)
        closes = question["recent_closes"]
        if system.startswith("RECALL"):
            return reply(self.recall(question, closes))
        if self._config.kind == "by_tool":
            results = [m for m in messages if isinstance(m, FunctionExecutionResultMessage)]
            if not results:
                call = FunctionCall(id="call00000", name="bars", arguments=TOOL_ARGUMENTS)
                return CreateResult(
                    content=[call], finish_reason="function_calls", usage=USAGE, cached=False
                )
            rows = json.loads(results[-1].content[-1].content)["rows"]
            closes = [row[4] for row in rows]
        return reply(decision(question, self.side(question, closes)))

    def side(self, question: dict[str, Any], closes: Sequence[float]) -> int:
        trend = 1 if question["features"]["trend_atr"] > 0 else -1
        match self._config.kind:
            case "honest":
                return trend
            case "noisy":
                # Otherwise each time, as a model at a temperature is.
                chance = self._draw(f"{json.dumps(question)}{self._count(question)}")
                return trend if chance >= NOISE else round(chance / NOISE * 3 - 1.5)
            case "by_shape":
                return self._remembered(by_path().get(path_of(closes)))
            case _:
                return self._remembered(find_day(question["symbol"], closes)) or trend

    def recall(self, question: dict[str, Any], closes: Sequence[float]) -> dict[str, Any]:
        day, side, named = None, 0, ["unknown", "unknown"]
        match self._config.kind:
            case "by_shape":
                day = by_path().get(path_of(closes))
            case "by_name" | "by_tool":
                day = find_day(question["symbol"], closes)
            case "noisy":  # it guesses
                chance = self._draw(f"guess {json.dumps(question)}")
                side, named = (
                    1 if chance > 0.5 else -1,
                    [question["symbol"], f"20{int(chance * 14):02}"],
                )
        if day is not None:
            year = str(market().bars(day[0]).closed_at[day[1]])[:4]
            side, named = self._remembered(day), [day[0], year]
        trend = {1: "bullish", -1: "bearish", 0: "neutral"}[side]
        return {
            "trend": trend,
            "score": side,
            "summary": "What I remember of it.",
            "key_factors": named,
        }

    def _remembered(self, day: tuple[str, int] | None) -> int:
        """Where the price went, rightly in most cases; 0 for a day that it doesn't know."""
        if day is None:
            return 0
        symbol, i = day
        closes = market().bars(symbol).adjust_to_first_bar().close
        if i + HORIZON >= len(closes):
            return 0
        side = 1 if closes[i + HORIZON] > closes[i] else -1
        return side if self._draw(f"{symbol}{i}") < RIGHT else -side

    def _count(self, question: dict[str, Any]) -> int:
        text = json.dumps(question)
        self._times_asked[text] = self._times_asked.get(text, 0) + 1
        return self._times_asked[text]

    def _draw(self, text: str) -> float:
        digest = hashlib.sha256(f"{self._config.seed} {text}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48

    def create_stream(self, *_: Any, **__: Any) -> AsyncGenerator[str | CreateResult, None]:
        raise NotImplementedError

    async def close(self) -> None: ...

    def actual_usage(self) -> RequestUsage:
        return USAGE

    def total_usage(self) -> RequestUsage:
        return USAGE

    def count_tokens(self, *_: Any, **__: Any) -> int:
        return 0

    def remaining_tokens(self, *_: Any, **__: Any) -> int:
        return 100_000

    @property
    def capabilities(self) -> ModelInfo:
        return self.model_info

    @property
    def model_info(self) -> ModelInfo:
        return ModelInfo(
            vision=False,
            function_calling=True,
            json_output=True,
            family="unknown",
            structured_output=False,
        )


USAGE = RequestUsage(prompt_tokens=10, completion_tokens=5)


def find_day(symbol: str, closes: Sequence[float]) -> tuple[str, int] | None:
    """The day of that close whose close before is the nearest, too."""
    days = [i for i in by_close().get((symbol, float(f"{closes[-1]:.6g}")), []) if i]
    if not days:
        return None
    history = market().bars(symbol).close
    return symbol, min(days, key=lambda i: abs(np.log(history[i - 1] / closes[-2])))


def decision(question: Mapping[str, Any], side: int) -> dict[str, Any]:
    acts = side != 0
    close, atr = question["last_close"], question["atr"]
    return {
        "action": ACTIONS[side],
        "confidence_score": 60,
        "reasoning": "So it seems to me.",
        "key_factors": [],
        "trend": {1: "bullish", -1: "bearish", 0: "neutral"}[side],
        "support_level": None,
        "resistance_level": None,
        "suggested_entry_price": close if acts else None,
        "suggested_stop_loss": max(close - side * 2 * atr, 0.2 * close) if acts else None,
        "suggested_take_profit": max(close + side * 3 * atr, 0.2 * close) if acts else None,
        "position_size_percent": 5 if acts else None,
    }


def reply(content: Mapping[str, Any]) -> CreateResult:
    return CreateResult(
        content=json.dumps(content), finish_reason="stop", usage=USAGE, cached=False
    )


def stub_config(kind: Kind, seed: int = 0, **changes: Any) -> DeskConfig:
    """The lean desk whose Executor is such a model; its cut-off lies after all bundled bars."""
    keys = yaml.safe_load(preset_text("lean"))
    executor = keys["agents"][-1]
    executor["model"] = "stub"
    if kind == "by_tool":
        executor["tools"] = ["bars"]
    model = {
        "client": "component",
        "model": f"stub-{kind.replace('_', '-')}",
        "knowledge_cutoff": "2020-12-31",
        "component": {"provider": PROVIDER, "config": {"kind": kind, "seed": seed}},
    }
    given = {**keys, "models": {"stub": model}, **changes}
    defaults = yaml.safe_load(preset_text("default"))
    return read_desk_config(yaml.safe_dump(given), defaults, "test")


def stub_settings(**more: str) -> Settings:
    return Settings.load({"FINAGENT_COMPONENTS": PROVIDER, **more})


class BareDesk:
    """Asks a stub the desk's own questions without agents, risk rules and records, which cost most.

    It is for many seeds; what it answers is what the Executor of `stub_config` would.
    """

    def __init__(self, config: DeskConfig) -> None:
        self.config = config
        component = config.models["stub"].component
        assert component is not None
        self.model = StubModel(StubConfig(**component["config"]))
        self.present = make_presenter(config)

    def with_options(self, presenter: Presenter | None = None, **_: Any) -> BareDesk:
        other = BareDesk.__new__(BareDesk)
        other.config, other.model = self.config, self.model
        other.present = presenter or self.present
        return other

    def decide_all(self, views: Sequence[MarketView], _: Any) -> list[Decision]:
        decisions = []
        for view in views:
            shown = self.present(view, ()).view
            question = self._question(shown)
            closes = question["recent_closes"]
            if self.model.kind == "by_tool":
                context = build_context(shown, POLICY)
                answer = Toolbox(shown, context, ["bars"]).call("bars", TOOL_ARGUMENTS)
                closes = [row[4] for row in json.loads(answer.content)["rows"]]
            action = ACTIONS[self.model.side(question, closes)]
            reason, name = "So it seems to me.", "stub"
            decisions.append(
                make_decision(view, action, reasoning=reason, author=name, confidence=60)
            )
        return decisions

    def ask_model(self, *arguments: Any) -> list[ModelReply]:
        _, _, views, _ = arguments
        replies = []
        for view in views:
            shown = self.present(view, ())
            question = self._question(shown.view)
            told = self.model.recall(question, question["recent_closes"])
            factors = tuple(told["key_factors"])
            replies.append(ModelReply(True, told["score"], factors, shown, 1, None))
        return replies

    def _question(self, shown: MarketView) -> dict[str, Any]:
        question: dict[str, Any] = json.loads(build_context(shown, POLICY).text)
        return question


def probe_stub(
    kind: Kind,
    seed: int = 0,
    days: int = 60,
    retest: int = 30,
    *,
    bare: bool = False,
    **changes: Any,
) -> MemoryReport:
    """What `finagent memory` finds of such a desk, untrained and on bundled bars."""
    config, cassette = stub_config(kind, seed, **changes), Cassette()
    desk: Any = Desk(config, None, stub_settings(), cassette, mode="live")
    warm_up = desk.warm_up
    if bare:
        desk = BareDesk(config)
    bars = {symbol: market().bars(symbol) for symbol in SYMBOLS}
    positions = {symbol: range(FIRST_BAR + seed, len(each)) for symbol, each in bars.items()}
    chosen = choose_days(positions, {symbol: len(each) for symbol, each in bars.items()}, days)
    others = find_other_views(market(), SYMBOLS, chosen, warm_up)
    # AutoGen's runtime takes four fifths of such a decision; the record is the same without it.
    with mock.patch.object(ConversationRunner, "_run_team", ConversationRunner._run_inline):
        asked = ask_days(desk, cassette, market(), chosen, others, retest, config.latest_knowledge)
    return judge_days(
        config.models["stub"].model,
        config.mask,
        asked.days,
        days_asked_for=days,
        questions=asked.questions,
        cost_usd=asked.cost_usd,
    )

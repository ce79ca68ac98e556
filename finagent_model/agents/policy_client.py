"""The fitted policy, speaking: pure functions from the desk's question to each role's JSON reply.

These answer where no chat model is configured. They read the same messages that a model would and
nothing else.

The fitted policy as a chat client, asked through the same seam as any model.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autogen_core import CancellationToken
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelInfo,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from finagent_model.agents.prompt_templates import Prompts
from finagent_model.agents.replies import (
    AnalystReply,
    ExecutorReply,
    Reply,
    ReplyError,
    RiskReply,
    parse_reply,
)
from finagent_model.agents.session import REPORT
from finagent_model.config.desk_config import DeskConfig
from finagent_model.decision.signal import Trend
from finagent_model.errors import ConfigError
from finagent_model.policy.context import round_significant
from finagent_model.policy.policy import Policy

VERSION = "2"
"""Part of what a recorded reply is keyed by; raise it when an answer changes."""
NEWS_DAYS = 30
"""Days after which the rule for news counts an item as priced in."""
GOOD = (
    "beats",
    "beat estimates",
    "record",
    "raises",
    "special dividend",
    "upgrade",
    "buyback",
    "profit rises",
)
BAD = (
    "misses",
    "miss estimates",
    "cuts",
    "lawsuit",
    "recall",
    "downgrade",
    "resigns",
    "loss",
    "fraud",
    "fine",
)
ADVOCATES = ("bull", "bear")
"""They argue one side by order, so their scores are no votes."""
Question = Mapping[str, Any]


@dataclass(frozen=True)
class Heard:
    """What a colleague said before."""

    name: str
    prompt: str
    """The colleague's own rule."""
    reply: Reply


Rule = Callable[[Question, Sequence[Heard]], Reply]


def technical(question: Question, heard: Sequence[Heard]) -> AnalystReply:
    """The weighted vote of trend, momentum, reversion and breakout."""
    policy = Policy.model_validate(question["policy"])
    score = round_significant(float(policy.technical_score(question["features"])), 4)
    votes = {name: float(vote) for name, vote in policy.votes(question["features"]).items()}
    loudest = sorted(votes.items(), key=lambda vote: -abs(vote[1]))
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"Weighted technical score {score:+.3f}, threshold {policy.threshold:.3f}.",
        key_factors=[f"{name} vote {value:+.2f}" for name, value in loudest],
    )


def news(question: Question, heard: Sequence[Heard]) -> AnalystReply:
    """Words of good and bad tidings in the headlines of the last month; unknown words count
    nothing.
    """
    policy = Policy.model_validate(question["policy"])
    recent = [item["headline"] for item in question["news"] if item["days_ago"] <= NEWS_DAYS]
    found = [(h, _tone(h)) for h in recent if _tone(h)]
    score = round_significant(sum(tone for _, tone in found) / len(recent), 4) if recent else 0.0
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"{len(recent)} items of the last {NEWS_DAYS} days, {len(found)} with a tone.",
        key_factors=[f"{tone:+d}: {headline[:80]}" for headline, tone in found[:5]],
    )


def sentiment(question: Question, heard: Sequence[Heard]) -> AnalystReply:
    """How many items there were in the last month, and whether those with a tone agree."""
    policy = Policy.model_validate(question["policy"])
    recent = [item["headline"] for item in question["news"] if item["days_ago"] <= NEWS_DAYS]
    tones = [tone for headline in recent if (tone := _tone(headline))]
    score = round_significant(sum(tones) / len(tones), 4) if tones else 0.0
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"{len(recent)} items of the last {NEWS_DAYS} days, {len(tones)} with a tone.",
        key_factors=[f"{sum(t > 0 for t in tones)} good, {sum(t < 0 for t in tones)} bad"],
    )


def fundamental(question: Question, heard: Sequence[Heard]) -> AnalystReply:
    """Whether the figures called `..._growth` rose or fell; others say nothing without a price
    beside them.
    """
    policy = Policy.model_validate(question["policy"])
    figures = question.get("fundamentals", [])
    growth = {f["name"]: f["value"] for f in figures if f["name"].endswith("_growth")}
    signs = [(value > 0) - (value < 0) for value in growth.values()]
    score = round_significant(sum(signs) / len(signs), 4) if signs else 0.0
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"{len(growth)} of {len(figures)} figures tell of growth.",
        key_factors=[f"{name} {value:+g}" for name, value in growth.items()][:20],
    )


def upstream(question: Question, heard: Sequence[Heard]) -> AnalystReply:
    """The upstream project's opinion as it is: directional strength, and the votes behind it."""
    report = question["upstream"]
    votes = sorted(report["votes"].items(), key=lambda vote: -abs(vote[1]))
    rises, falls = (sum(vote == side for _, vote in votes) for side in (1, -1))
    return AnalystReply(
        trend=report["trend"],
        score=round_significant(2 * report["probability"] - 1, 4),
        summary=f"Upstream says {report['rating']}: {rises} of {len(votes)} votes for a rise, "
        f"{falls} for a fall.",
        key_factors=[f"{name} vote {vote:+d}" for name, vote in votes],
    )


def bull(question: Question, heard: Sequence[Heard]) -> AnalystReply:
    """The case for a rise: the votes that speak for it."""
    return _case(question, side=1)


def bear(question: Question, heard: Sequence[Heard]) -> AnalystReply:
    """The case for a fall: the votes that speak for it."""
    return _case(question, side=-1)


def risk(question: Question, heard: Sequence[Heard]) -> RiskReply:
    """Stop and target in ATR from the last close, size by the risk budget."""
    policy = Policy.model_validate(question["policy"])
    score = _combined(policy, heard)
    if abs(score) < policy.threshold:
        return RiskReply(
            direction="none",
            stop_loss=None,
            take_profit=None,
            position_size_percent=None,
            summary=f"Combined score {score:+.3f} is within the threshold: no trade.",
        )
    side = 1 if score > 0 else -1
    close, atr = question["last_close"], question["atr"]
    stop = _away(close, -side * policy.stop_atr * atr)
    target = _away(close, side * policy.target_atr * atr)
    size = float(policy.position_size(abs(close - stop) / close))
    return RiskReply(
        direction="long" if side > 0 else "short",
        stop_loss=stop,
        take_profit=target,
        position_size_percent=round_significant(100 * size, 4),
        summary=f"Stop {policy.stop_atr:g}, target {policy.target_atr:g} ATR from {close:g}.",
    )


def executor(question: Question, heard: Sequence[Heard]) -> ExecutorReply:
    """Acts where the combined score passes the threshold; confidence grows with the distance from
    it.
    """
    policy = Policy.model_validate(question["policy"])
    score = _combined(policy, heard)
    terms = [said.reply for said in heard if isinstance(said.reply, RiskReply)]
    acts = abs(score) >= policy.threshold and bool(terms) and terms[-1].direction != "none"
    confidence = policy.confidence(score, acts)
    analysts = {said.name: said.reply for said in heard if isinstance(said.reply, AnalystReply)}
    return ExecutorReply(
        action=("BUY" if score > 0 else "SELL") if acts else "HOLD",
        confidence_score=round_significant(confidence, 4),
        reasoning=f"Combined score {score:+.3f} of {', '.join(analysts)}; the policy acts beyond "
        f"{policy.threshold:.3f} either way.",
        key_factors=[factor for reply in analysts.values() for factor in reply.key_factors],
        trend=_trend(score, policy),
        support_level=question["support"],
        resistance_level=question["resistance"],
        suggested_entry_price=question["last_close"] if acts else None,
        suggested_stop_loss=terms[-1].stop_loss if acts else None,
        suggested_take_profit=terms[-1].take_profit if acts else None,
        position_size_percent=terms[-1].position_size_percent if acts else None,
    )


RULES: dict[str, Rule] = {
    "technical": technical,
    "news": news,
    "sentiment": sentiment,
    "fundamental": fundamental,
    "upstream": upstream,
    "bull": bull,
    "bear": bear,
    "risk": risk,
    "executor": executor,
}
"""By the name of the prompt that a model would be given for the same seat."""


def answer(
    prompt: str, question_text: str, heard: Sequence[Heard], report_text: str | None = None
) -> str:
    """The JSON reply of the rule for `prompt`; `report_text` is upstream's, where it was shown."""
    question = json.loads(question_text)
    if report_text is not None:
        question["upstream"] = json.loads(report_text)
    return RULES[prompt](question, heard).model_dump_json()


def _combined(policy: Policy, heard: Sequence[Heard]) -> float:
    """The technical score, moved by the other analysts in proportion to their weights."""
    weights = {"technical": 1.0, "upstream": policy.upstream_weight or 1.0}
    votes = [
        (said.reply.score, weights.get(said.prompt, policy.news_weight))
        for said in heard
        if isinstance(said.reply, AnalystReply) and said.prompt not in ADVOCATES
    ]
    total = sum(weight for _, weight in votes)
    return (
        round_significant(sum(score * weight for score, weight in votes) / total, 4)
        if total
        else 0.0
    )


def _case(question: Question, side: int) -> AnalystReply:
    policy = Policy.model_validate(question["policy"])
    votes = {name: float(vote) for name, vote in policy.votes(question["features"]).items()}
    ours = {name: vote for name, vote in votes.items() if vote * side > 0}
    score = round_significant(side * sum(abs(vote) for vote in ours.values()) / len(votes), 4)
    names = ", ".join(ours) or "nothing"
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"{names} of {len(votes)} votes speak for a {'rise' if side > 0 else 'fall'}.",
        key_factors=[f"{name} vote {vote:+.2f}" for name, vote in ours.items()],
    )


def _trend(score: float, policy: Policy) -> Trend:
    if abs(score) < policy.threshold:
        return "neutral"
    return "bullish" if score > 0 else "bearish"


def _tone(headline: str) -> int:
    text = headline.lower()
    return any(word in text for word in GOOD) - any(word in text for word in BAD)


def _away(close: float, distance: float) -> float:
    """A price `distance` away, never below a tenth of `close`."""
    return round_significant(max(close + distance, 0.1 * close))


TEXT_ONLY = ModelInfo(
    vision=False,
    function_calling=False,
    json_output=True,
    family="unknown",
    structured_output=False,
)
NO_USAGE = RequestUsage(prompt_tokens=0, completion_tokens=0)


class RulesConfig(BaseModel):
    """Seats by name, and the rule that each answers by; for AutoGen's component export."""

    seats: dict[str, str]


class RulesClient(ChatCompletionClient):
    """Answers from the messages alone. Uses no tokens, since no model is asked."""

    component_type = "model"
    component_config_schema = RulesConfig
    component_provider_override = "finagent_model.agents.rules_client.RulesClient"

    def __init__(self, config: DeskConfig) -> None:
        """Raises ConfigError for an agent that there is no rule for."""
        roster = config.roster
        self._roles = {row.name: row.role for row in roster}
        self._seats = {row.name: row.prompt for row in roster}
        played = {row.prompt for row in roster if config.model_for(row).client == "rules"}
        without = sorted(played - set(RULES))
        if without:
            raise ConfigError(
                f"client 'rules' has no rule for prompt {without[0]!r}; it has: "
                f"{', '.join(RULES)}; use a chat model for other agents"
            )
        texts = Prompts(config.prompts)
        self._prompts = {texts.text(name): name for name in sorted(played)}

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        system = next(m.content for m in messages if isinstance(m, SystemMessage))
        said = [m for m in messages if isinstance(m, UserMessage)]
        heard = [
            Heard(m.source, self._seats[m.source], reply)
            for m in said[1:]
            if m.source != REPORT and (reply := self._reply(m))
        ]
        report = next((str(m.content) for m in said if m.source == REPORT), None)
        content = answer(self._prompts[system], str(said[0].content), heard, report)
        return CreateResult(content=content, finish_reason="stop", usage=NO_USAGE, cached=False)

    def _reply(self, message: UserMessage) -> Reply | None:
        """What a colleague said; None from one that was left out."""
        try:
            return parse_reply(str(message.content), self._roles[message.source])
        except ReplyError:
            return None

    def _to_config(self) -> RulesConfig:
        return RulesConfig(seats=self._seats)

    def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        async def whole() -> AsyncGenerator[str | CreateResult, None]:
            yield await self.create(messages, **options)

        return whole()

    async def close(self) -> None:
        """Nothing is open."""

    def actual_usage(self) -> RequestUsage:
        return NO_USAGE

    def total_usage(self) -> RequestUsage:
        return NO_USAGE

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        return 0

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        return 1_000_000

    @property
    def capabilities(self) -> ModelInfo:
        return TEXT_ONLY

    @property
    def model_info(self) -> ModelInfo:
        return TEXT_ONLY

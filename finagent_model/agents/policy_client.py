"""The client `rules`: the fitted policy answers in place of a chat model.

A rule is a pure function from the desk's question and the colleagues' replies to a role's reply,
registered in `RULES` under the name of the prompt that a model would get. `RulesClient` is the
AutoGen chat client around them: it reads the messages that a model would read and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from autogen_core import CancellationToken, Component
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
from pydantic import BaseModel, ConfigDict

from finagent_model.agents._replies import (
    AnalystReply,
    ExecutorReply,
    Reply,
    ReplyError,
    RiskReply,
    parse_reply,
)
from finagent_model.agents.session import report_source
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS, load_plugin
from finagent_model.config.roster import AgentRow, Role
from finagent_model.decision.signal import Trend
from finagent_model.errors import ConfigError
from finagent_model.policy.context import round_significant
from finagent_model.policy.policy import ADVOCATES, Policy

VERSION = "2"
"""Part of the fingerprint of a recorded reply; raise it when an answer changes."""
NEWS_DAYS = 30
"""Age in days beyond which the rule for news takes an item as priced in."""
GOOD_WORDS = (
    "beats",
    "beat estimates",
    "record",
    "raises",
    "special dividend",
    "upgrade",
    "buyback",
    "profit rises",
)
BAD_WORDS = (
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
TEXT_ONLY = ModelInfo(
    vision=False,
    function_calling=False,
    json_output=True,
    family="unknown",
    structured_output=False,
)
NO_USAGE = RequestUsage(prompt_tokens=0, completion_tokens=0)
QuestionData = Mapping[str, Any]
"""The desk's question, parsed from JSON."""


@dataclass(frozen=True)
class ColleagueReply:
    """A reply that an agent hears before it speaks."""

    name: str
    prompt: str
    """Name of the colleague's own prompt, and so of its rule."""
    reply: Reply


Rule = Callable[[QuestionData, Sequence[ColleagueReply]], Reply]


def technical(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> AnalystReply:
    """Return the weighted vote of trend, momentum, reversion and breakout."""
    policy = Policy.model_validate(question["policy"])
    score = round_significant(float(policy.technical_score(question["features"])), 4)
    votes = {name: float(vote) for name, vote in policy.votes(question["features"]).items()}
    strongest_first = sorted(votes.items(), key=lambda vote: -abs(vote[1]))
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"Weighted technical score {score:+.3f}, threshold {policy.threshold:.3f}.",
        key_factors=[f"{name} vote {value:+.2f}" for name, value in strongest_first],
    )


def news(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> AnalystReply:
    """Return the mean tone of the last month's headlines, by a list of good and bad words."""
    policy = Policy.model_validate(question["policy"])
    recent = [item["headline"] for item in question["news"] if item["days_ago"] <= NEWS_DAYS]
    toned = [(headline, _tone(headline)) for headline in recent if _tone(headline)]
    # Over all items: one without a known word counts as neutral.
    score = round_significant(sum(tone for _, tone in toned) / len(recent), 4) if recent else 0.0
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"{len(recent)} items of the last {NEWS_DAYS} days, {len(toned)} with a tone.",
        key_factors=[f"{tone:+d}: {headline[:80]}" for headline, tone in toned[:5]],
    )


def sentiment(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> AnalystReply:
    """Return how far the last month's headlines with a tone agree, in [-1, 1]."""
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


def fundamental(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> AnalystReply:
    """Return the share of the figures called `..._growth` that rose, less those that fell."""
    policy = Policy.model_validate(question["policy"])
    figures = question.get("fundamentals", [])
    # Other figures say nothing without a price beside them.
    growth = {f["name"]: f["value"] for f in figures if f["name"].endswith("_growth")}
    signs = [(value > 0) - (value < 0) for value in growth.values()]
    score = round_significant(sum(signs) / len(signs), 4) if signs else 0.0
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"{len(growth)} of {len(figures)} figures tell of growth.",
        key_factors=[f"{name} {value:+g}" for name, value in growth.items()][:20],
    )


def bull(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> AnalystReply:
    """Return the case for a rise: the technical votes that speak for it."""
    return _case(question, side=1)


def bear(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> AnalystReply:
    """Return the case for a fall: the technical votes that speak for it."""
    return _case(question, side=-1)


def risk(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> RiskReply:
    """Return stop and target in ATR from the last close, and a size by the risk budget."""
    policy = Policy.model_validate(question["policy"])
    score = _combined_score(policy, colleagues)
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
    stop = _price_at(close, -side * policy.stop_atr * atr)
    target = _price_at(close, side * policy.target_atr * atr)
    size = float(policy.position_size(abs(close - stop) / close))
    return RiskReply(
        direction="long" if side > 0 else "short",
        stop_loss=stop,
        take_profit=target,
        position_size_percent=round_significant(100 * size, 4),
        summary=f"Stop {policy.stop_atr:g}, target {policy.target_atr:g} ATR from {close:g}.",
    )


def executor(question: QuestionData, colleagues: Sequence[ColleagueReply]) -> ExecutorReply:
    """Return the decision: a trade where the combined score passes the threshold, else HOLD.

    Confidence grows with the distance from the threshold.
    """
    policy = Policy.model_validate(question["policy"])
    score = _combined_score(policy, colleagues)
    replies = {colleague.name: colleague.reply for colleague in colleagues}
    terms = [reply for reply in replies.values() if isinstance(reply, RiskReply)]
    # Without terms on which a trade would be sound there is none, whatever the score.
    acts = abs(score) >= policy.threshold and bool(terms) and terms[-1].direction != "none"
    confidence = policy.confidence(score, acts)
    analysts = {name: reply for name, reply in replies.items() if isinstance(reply, AnalystReply)}
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
    "bull": bull,
    "bear": bear,
    "risk": risk,
    "executor": executor,
}
"""By the name of the prompt that a model would be given in the same place."""


def rule_names() -> tuple[str, ...]:
    """Return the prompts that there is a rule for, those of the external analysts included."""
    names = list(RULES)
    place = names.index(ADVOCATES[0])  # after the other analysts
    return (*names[:place], *EXTERNAL_ANALYSTS, *names[place:])


def apply_rule(
    prompt: str,
    question_text: str,
    colleagues: Sequence[ColleagueReply],
    report_text: str | None = None,
) -> str:
    """Return the JSON reply of the rule for `prompt`.

    `report_text` is the external analyst's report, where the agent was shown one.
    """
    if prompt in EXTERNAL_ANALYSTS:
        if report_text is None:
            raise KeyError(prompt)
        reply: AnalystReply = load_plugin(prompt).rule_reply(report_text)
        return reply.model_dump_json()
    return RULES[prompt](json.loads(question_text), colleagues).model_dump_json()


class Colleague(BaseModel):
    """An agent whose replies another one hears."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    role: Role
    prompt: str
    """Name of its own prompt, and so of its rule."""

    @classmethod
    def from_row(cls, row: AgentRow) -> Self:
        """Return what others know of the agent."""
        return cls(name=row.name, role=row.role, prompt=row.prompt)


class RulesConfig(BaseModel):
    """Which rules the client `rules` answers by, and whose replies it may be shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A client sees no agent's name, only its system message: that tells which rule to apply.
    rules: dict[str, str]
    """Name of a rule by the SHA-256 of the system message that asks for it."""
    colleagues: tuple[Colleague, ...]
    report_source: str | None = None
    """Source of the external analyst's report; None: there is none."""

    @classmethod
    def build(
        cls, texts: Mapping[str, str], colleagues: Iterable[Colleague], analyst: str | None
    ) -> Self:
        """Return the configuration for the system messages `texts`, by the name of their rule.

        `analyst` is the external analyst of the desk. Raises ConfigError for a name that there is
        no rule for.
        """
        if missing := sorted(texts.keys() - set(rule_names())):
            raise ConfigError(
                f"client 'rules' has no rule for prompt {missing[0]!r}; it has: "
                f"{', '.join(rule_names())}; use a chat model for other agents"
            )
        return cls(
            rules={_digest(texts[name]): name for name in sorted(texts)},
            colleagues=tuple(colleagues),
            report_source=report_source(analyst) if analyst else None,
        )


class RulesClient(ChatCompletionClient, Component[RulesConfig]):
    """Answers from the messages alone. Uses no tokens, since no model is asked."""

    # Docstring and path are part of a dumped component, and so of a package's content hash.

    component_type = "model"
    component_config_schema = RulesConfig
    component_provider_override = "finagent_model.agents.policy_client.RulesClient"

    def __init__(self, config: RulesConfig) -> None:
        self._config = config
        self._colleagues = {each.name: each for each in config.colleagues}

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
        question, *others = [m for m in messages if isinstance(m, UserMessage)]
        colleagues = [
            ColleagueReply(m.source, self._colleagues[m.source].prompt, reply)
            for m in others
            if m.source != self._config.report_source and (reply := self._parse(m))
        ]
        source = self._config.report_source
        report = next((str(m.content) for m in others if m.source == source), None)
        rule = self._config.rules[_digest(system)]
        content = apply_rule(rule, str(question.content), colleagues, report)
        return CreateResult(content=content, finish_reason="stop", usage=NO_USAGE, cached=False)

    def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        async def stream() -> AsyncGenerator[str | CreateResult, None]:
            yield await self.create(messages, **options)

        return stream()

    async def close(self) -> None:
        """Do nothing: no connection is open."""

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

    def _parse(self, message: UserMessage) -> Reply | None:
        """Return a colleague's reply; None from one that was unavailable."""
        try:
            return parse_reply(str(message.content), self._colleagues[message.source].role)
        except ReplyError:
            return None

    def _to_config(self) -> RulesConfig:
        return self._config

    @classmethod
    def _from_config(cls, config: RulesConfig) -> Self:
        return cls(config)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _combined_score(policy: Policy, colleagues: Sequence[ColleagueReply]) -> float:
    """Return the weighted mean of the analysts' scores, in [-1, 1]; 0 without analysts."""
    votes = [
        (colleague.reply.score, weight)
        for colleague in colleagues
        if isinstance(colleague.reply, AnalystReply)
        and (
            weight := policy.analyst_weight(colleague.prompt, colleague.prompt in EXTERNAL_ANALYSTS)
        )
        is not None
    ]
    total = sum(weight for _, weight in votes)
    return (
        round_significant(sum(score * weight for score, weight in votes) / total, 4)
        if total
        else 0.0
    )


def _case(question: QuestionData, side: int) -> AnalystReply:
    """Return the technical votes for one side; 1 is a rise, -1 a fall."""
    policy = Policy.model_validate(question["policy"])
    votes = {name: float(vote) for name, vote in policy.votes(question["features"]).items()}
    own_votes = {name: vote for name, vote in votes.items() if vote * side > 0}
    score = round_significant(side * sum(abs(vote) for vote in own_votes.values()) / len(votes), 4)
    names = ", ".join(own_votes) or "nothing"
    return AnalystReply(
        trend=_trend(score, policy),
        score=score,
        summary=f"{names} of {len(votes)} votes speak for a {'rise' if side > 0 else 'fall'}.",
        key_factors=[f"{name} vote {vote:+.2f}" for name, vote in own_votes.items()],
    )


def _trend(score: float, policy: Policy) -> Trend:
    if abs(score) < policy.threshold:
        return "neutral"
    return "bullish" if score > 0 else "bearish"


def _tone(headline: str) -> int:
    """Return 1 for good words, -1 for bad ones, 0 for neither or both."""
    text = headline.lower()
    return any(word in text for word in GOOD_WORDS) - any(word in text for word in BAD_WORDS)


def _price_at(close: float, distance: float) -> float:
    """Return the price at `distance` from `close`, at least a tenth of `close`."""
    return round_significant(max(close + distance, 0.1 * close))

"""The executor's reply as a signal whose numbers are held within limits, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from finagent_model._redact import redact_texts
from finagent_model.agents.session import Failure, Session
from finagent_model.config.desk_config import DeskConfig
from finagent_model.decision.signal import Status, TradingSignal, confidence_label
from finagent_model.desk._risk import LevelsRejectedError, Proposal, checked_level, settle_levels
from finagent_model.desk.masking import ShownView
from finagent_model.policy.context import Context

MIN_REASONING_CHARS = 10
"""What a signal needs."""


def write_reply(
    empty: TradingSignal,
    session: Session,
    context: Context,
    shown: ShownView,
    config: DeskConfig,
) -> TradingSignal:
    """Return the executor's reply as a signal, its numbers held within limits by code."""
    reply = session.executor_reply
    assert reply is not None
    clamps: list[str] = []
    reasoning = shown.text(reply.reasoning)
    changes: dict[str, object] = {
        "trend": reply.trend,
        # A symbol is shorter than its alias; a reasoning that is nothing else stays as it is.
        "reasoning": reasoning if len(reasoning) >= MIN_REASONING_CHARS else reply.reasoning,
        "key_factors": tuple(map(shown.text, reply.key_factors)),
    }
    for name in ("support", "resistance"):
        level = getattr(reply, f"{name}_level")
        changes[f"{name}_level"] = checked_level(name, level, context, clamps, shown.price)
    if reply.action != "HOLD":
        proposal = Proposal(
            reply.action,
            reply.suggested_entry_price,
            reply.suggested_stop_loss,
            reply.suggested_take_profit,
            reply.position_size_percent,
        )
        try:
            levels = settle_levels(proposal, context, config.risk, shown.price)
        except LevelsRejectedError as error:
            return _validated_copy(empty, status=Status.LEVELS_REJECTED, reasoning=str(error))
        clamps.extend(levels.clamps)
        changes |= {
            "suggested_entry_price": levels.entry,
            "suggested_stop_loss": levels.stop,
            "suggested_take_profit": levels.target,
            "r_multiple": levels.r_multiple,
            "position_size_percent": levels.size_percent,
        }
        if config.uses_only_external:
            clamps.append(
                "entry, stop, target and size are this desk's: "
                f"{config.external_analyst} names none"
            )
    return _validated_copy(
        empty,
        **changes,
        action=reply.action,
        confidence=confidence_label(reply.confidence_score),
        confidence_score=reply.confidence_score,
        raw_confidence_score=reply.confidence_score,
        clamps=tuple(clamps),
    )


def redact_signal(
    signal: TradingSignal, secrets: Sequence[str], prompts: Sequence[str]
) -> TradingSignal:
    """Return the signal with secrets and passages of prompts redacted; clamps say so.

    Reasoning, key factors and warnings are searched.
    """
    texts = (signal.reasoning, *signal.key_factors, *signal.warnings)
    (reasoning, *rest), clamps = redact_texts(texts, secrets, prompts)
    if not clamps:
        return signal
    factors = len(signal.key_factors)
    changes = {
        "reasoning": reasoning,
        "key_factors": tuple(rest[:factors]),
        "warnings": tuple(rest[factors:]),
        "clamps": (*signal.clamps, *clamps),
    }
    return signal.model_copy(update=changes)


def find_failure(session: Session) -> Failure | None:
    """Return why there is no decision; None when there is one."""
    executor = session.config.agents[-1].name
    if session.executor_reply is not None and session.analysts:
        return None
    if not session.analysts and session.failures:
        # In roster order: who failed first is chance, and a replay must name the same agent.
        names = (row.name for row in session.config.roster)
        first = next(session.failures[name] for name in names if name in session.failures)
        return replace(first, reason=f"no analyst could report: {first.reason}")
    if executor in session.failures:
        return session.failures[executor]
    rounds = session.config.limits.max_rounds
    return Failure(Status.ABSTAINED, f"no decision within {rounds} rounds: held, to be safe")


def session_warnings(session: Session) -> list[str]:
    """Return what a reader of the signal should know about how it was made."""
    executor = session.config.agents[-1].name
    return session.warnings + [
        f"{name} left out: {failure.status}: {failure.reason}"
        for name, failure in sorted(session.failures.items())
        if name != executor
    ]


def _validated_copy(signal: TradingSignal, **changes: object) -> TradingSignal:
    """Return a copy whose fields are checked, which `model_copy` alone would skip."""
    return TradingSignal.model_validate({**dict(signal), **changes})

"""A small package of a trained desk, built by hand."""

from __future__ import annotations

from pathlib import Path

from finagent_model.cassette.records import RecordedReply
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.config.rules import Grade
from finagent_model.evaluation.calibrate import calibrate
from finagent_model.market.bars import parse_as_of
from finagent_model.model.package import write_package
from finagent_model.policy.policy import Policy, PolicyBook, PolicyFit
from finagent_model.policy.trained_state import TradeOutcome, TrainedState

REPLY = RecordedReply("{}", "stop", 1, 2)


def book(atr: int = 14) -> PolicyBook:
    fit = PolicyFit(
        policy=Policy(atr=atr),
        symbols=("GOOG",),
        fit_from=parse_as_of("2008-01-02"),
        fit_until=parse_as_of("2010-01-04"),
        valid_from=parse_as_of("2010-01-12"),
        configurations=3,
    )
    return PolicyBook(fits=(fit,))


CALL = TradeOutcome(
    symbol="GOOG",
    as_of=parse_as_of("2010-01-13"),
    closed_at=parse_as_of("2010-01-20"),
    action="BUY",
    confidence=60,
    earned=0.01,
    ended="time",
    bars_held=20,
    weight=0.5,
)


def trained_state(policies: PolicyBook) -> TrainedState:
    return TrainedState(policies, calibrate([CALL], policies.start_times), (CALL,))


def write(
    folder: Path,
    policies: PolicyBook | None = None,
    judged: Grade = "strong",
    config: DeskConfig | None = None,
) -> str:
    manifest = write_package(
        folder,
        config=config or load_preset(),
        trained_state=trained_state(policies or book()),
        replies={"b": REPLY, "a": REPLY},
        backtest={"metrics": {}, "evidence": {"grade": "weak"}},
        code_hash="c" * 64,
        judged_grade=judged,
    )
    return manifest.content_hash

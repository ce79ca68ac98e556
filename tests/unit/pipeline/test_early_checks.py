"""What a training checks before it has spent its money: inputs, and a replay of its first days."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import load_preset
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import EarlyCheckError, is_retryable_error
from finagent_model.evaluation.out_of_sample import EARLY_DECISIONS, decide_walk_forward
from finagent_model.pipeline.early_checks import ReplayCheck, require_sound_inputs
from finagent_model.pipeline.train import backtest_symbol, start_training
from finagent_model.settings import Settings
from finagent_model.testing import FakeLLM
from finagent_model.training.request import TrainRequest
from support.chat_model import KEY, config
from support.packages import book
from support.places import SMALL, Place


@pytest.fixture
def model() -> Iterator[FakeLLM]:
    with FakeLLM() as llm:
        yield llm


def walk(desk: Desk, check: Any) -> Any:
    market = Market.from_settings(Settings.load({}))
    return decide_walk_forward(
        market,
        "GOOG",
        [slice(1975, 1980), slice(1980, 1985)],
        range(1975, 1985),
        lambda *_: desk,
        lambda: None,
        check_first=check,
    )


def test_replay_check_passes_decisions_that_are_repeated(model: FakeLLM) -> None:
    cassette = Cassette()
    desk = Desk(config(model), None, Settings.load({"OPENAI_API_KEY": KEY}), cassette)
    calls = []
    check = ReplayCheck(cassette)

    def counted(decider: Any, views: Any, decisions: Any) -> None:
        calls.append(len(decisions))
        check(decider, views, decisions)

    with closing(desk):
        decisions = walk(desk, counted)
    assert len(decisions) == 10
    assert calls == [EARLY_DECISIONS]  # once, and what it asks is asked of nobody
    assert len(model.requests) == sum(decision.calls for decision in decisions)


def test_replay_check_ends_a_walk_that_is_not_repeated(model: FakeLLM) -> None:
    cassette = Cassette()
    desk = Desk(config(model), None, Settings.load({"OPENAI_API_KEY": KEY}), cassette)

    def tampered(decider: Any, views: Any, decisions: Any) -> None:
        # As a recording would be that loses or changes something.
        [changed, *_] = [k for k, r in cassette.used_replies.items() if '"action"' in r.content]
        reply = cassette.used_replies[changed]
        content = json.loads(reply.content) | {"reasoning": "Another reason."}
        cassette.used_replies[changed] = replace(reply, content=json.dumps(content))
        ReplayCheck(cassette)(decider, views, decisions)

    with closing(desk), pytest.raises(EarlyCheckError) as raised:
        walk(desk, tampered)
    message = str(raised.value)
    assert "GOOG as of" in message
    assert "reasoning was" in message
    assert "replayed 'Another reason.'" in message
    assert not is_retryable_error(raised.value)
    asked = len(model.requests)
    assert f"ends after {asked} calls" in message
    assert asked == 3 * EARLY_DECISIONS  # and no more are made


def test_require_sound_inputs_names_symbol_with_check(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market.from_settings(Settings.load({}))
    require_sound_inputs(market, "GOOG", book(), load_preset())
    monkeypatch.setattr(
        "finagent_model.pipeline.early_checks.find_clock_reads", lambda: ["desk/x.py:3: now()"]
    )
    with pytest.raises(EarlyCheckError, match=r"a clock is read at desk/x\.py:3"):
        require_sound_inputs(market, "GOOG", book(), load_preset())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own
def test_training_ends_after_its_first_decisions_are_not_repeated(
    place: Place, model: FakeLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = f"preset: lean\nclient: openai\nmodel: stub-1\nbase_url: {model.base_url}\n"
    (tmp_path / "desk.yaml").write_text(desk)
    settings = Settings.load({"OPENAI_API_KEY": KEY, "FINAGENT_HOME": str(tmp_path / "home")})
    request = TrainRequest.parse(**SMALL, config=str(tmp_path / "desk.yaml"))
    run_id = start_training(request, settings)
    with monkeypatch.context() as patched:
        patched.setattr("finagent_model.pipeline.early_checks.load_replies", lambda lines: {})
        with pytest.raises(EarlyCheckError, match="replayed 'model_error'"):
            backtest_symbol(run_id, "FB", settings)
    assert len(model.requests) == 3 * EARLY_DECISIONS
    # What was paid for is kept: the same training goes on from its recorded replies.
    backtest_symbol(run_id, "FB", settings)
    assert len(model.requests) == 3 * 71

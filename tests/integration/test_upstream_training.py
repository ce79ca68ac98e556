"""A desk that hears upstream is trained, packaged and replayed like any other; its package needs no
network and no cache.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finagent_model.contrib.upstream.source import SourcePin, fetch_source
from finagent_model.desk.desk import Desk
from finagent_model.errors import BadInputError, CorruptPackageError
from finagent_model.market.bars import parse_as_of
from finagent_model.model.package import read_package
from finagent_model.model.predictor import Predictor
from finagent_model.pipeline.evaluate import RuleRequest, run_rule_backtest
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import EXTERNAL_WEIGHTS, GRID, ScoreSources, draw_candidates
from support.places import SMALL, Place
from support.upstream_repository import Repository, make_repository

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
DAY = parse_as_of("2013-01-31")


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_repository(tmp_path_factory.mktemp("upstream") / "clone")


@pytest.fixture
def settings(
    stub: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Of a machine that has fetched the stand-in."""
    monkeypatch.setattr(SourcePin, "load", classmethod(lambda cls: stub.pin))
    home = tmp_path / "home"
    fetch_source(home, stub.pin, str(stub.folder))
    yield Settings.load({"FINAGENT_HOME": str(home)})


def test_upstream_version_is_trained_to_answer_without_it(
    settings: Settings, stub: Repository, place: Place
) -> None:
    from finagent_model.model.loading import load_predictor
    from finagent_model.pipeline.backtest import backtest
    from finagent_model.pipeline.train import train
    from finagent_model.pipeline.verify import run_proofs

    trained = train(TrainRequest.parse(**SMALL, config="upstream"), settings)
    assert trained.verdict == "passed"
    shutil.rmtree(settings.home)

    predictor = load_predictor("models:/finagent@champion")
    package = predictor.package
    assert package.external is not None
    assert package.external.pin == stub.pin
    assert {"upstream/LICENSE", "upstream/NOTICE", "upstream/upstream.lock"} <= set(package.files)
    assert all(fit.policy.threshold == 0.33 for fit in package.trained_state.policies.fits)
    replayed = predictor.decide("FB", DAY, mode="replay").signal
    live = predictor.decide("FB", DAY, mode="live").signal  # by the source in the package
    assert replayed.status == live.status == "ok"
    stamp = {"generated_at"}
    assert replayed.model_dump(exclude=stamp) == live.model_dump(exclude=stamp)
    assert not list(package.external.code.rglob("__pycache__"))
    proofs = run_proofs(predictor, deep=True)
    assert [check for check in proofs if not check.passed] == []
    predictor.desk.close()

    [again] = backtest("models:/finagent@champion", (), settings, "replay")
    assert again.same_as_registered

    folder = package.external.folder.parent
    for name in ("agents/technical_analysis.py", "agents/__init__.py"):
        target = package.external.code / name
        before = target.read_bytes() if target.exists() else None
        target.write_bytes((before or b"") + b"\n")
        with pytest.raises(CorruptPackageError, match="download the model again"):
            read_package(folder)
        target.unlink() if before is None else target.write_bytes(before)
    opened = Predictor.open(folder, settings).decide("FB", DAY, mode="replay")
    assert opened.signal.status == "ok"


def test_upstream_rule_runs_through_the_engine(settings: Settings) -> None:
    done = run_rule_backtest(RuleRequest.parse(rule="upstream", symbol="FB"), settings).row()
    assert done["trades"] > 0
    with pytest.raises(BadInputError, match="or upstream"):
        run_rule_backtest(RuleRequest.parse(rule="downstream", symbol="FB"), settings)


def test_upstream_training_refuses_schedule_change(settings: Settings) -> None:
    from finagent_model.pipeline.estimate import estimate
    from finagent_model.pipeline.train import train

    request = TrainRequest.parse(**SMALL, config="upstream", schedule="change")
    for ask in (train, estimate):
        with pytest.raises(BadInputError, match="give a number of bars"):
            ask(request, settings)


def test_upstream_failures_count_as_no_opinion_with_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from finagent_model.config.desk_config import load_preset
    from finagent_model.contrib.upstream.worker_process import WorkerProcess
    from finagent_model.data.market import Market
    from finagent_model.model.predictor import open_cassette
    from finagent_model.training.external_scores import score_external

    asked = WorkerProcess.ask

    def sometimes(self: WorkerProcess, symbol: str, day: str, bars: list[list[object]]) -> object:
        return asked(self, "RAISE" if day.startswith("2012-09") else symbol, day, bars)

    monkeypatch.setattr(WorkerProcess, "ask", sometimes)
    desk = Desk(load_preset("upstream"), None, settings, open_cassette(settings))
    voices = score_external(
        desk, {"FB": Market.from_settings(settings).bars("FB")}, lambda n, k: lambda: None
    )
    assert np.isnan(voices.external["FB"][59:]).sum() == 20
    assert "failed on 20 of 196 bars of FB" in caplog.text
    assert not voices.technical


def test_candidates_vary_only_what_the_sources_leave_open() -> None:
    series = {"FB": np.zeros(3)}
    alone = draw_candidates(
        50, 7, ScoreSources(fixed_params={"threshold": 0.33}, technical=False, external=series)
    )
    assert {policy.threshold for policy in alone[1:]} == {0.33}
    assert {policy.fast for policy in alone} == {20}
    both = draw_candidates(50, 7, ScoreSources(external=series))
    assert {policy.external_weight for policy in both[1:]} == set(EXTERNAL_WEIGHTS)
    assert [policy.fast for policy in both] == [policy.fast for policy in draw_candidates(50, 7)]
    every = len(GRID["stop_atr"]) * len(GRID["target_atr"]) * len(GRID["risk_fraction"])
    most = draw_candidates(
        500, 7, ScoreSources(fixed_params={"threshold": 0.33}, technical=False, external=series)
    )
    assert len(most) == every + 1

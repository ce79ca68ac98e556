"""A settled decision stays as long as nothing later is known; a source that fails may be back."""

from __future__ import annotations

import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from sqlalchemy.exc import OperationalError

from finagent_model.config.parsing import CallLimits
from finagent_model.data.bundled import BundledBars
from finagent_model.errors import DataSourceError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import NewArtifact
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.claims import ClaimStore
from finagent_model.store.database import Database
from support.places import AS_OF, Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
DAY = parse_as_of(AS_OF)
REPLACES = "finagent.replaces"


def infer(**how: Any) -> Any:
    from finagent_model._public import CHAMPION
    from finagent_model.model.loading import load_predictor
    from finagent_model.model.questions import Question
    from finagent_model.pipeline.infer import infer as run

    return run(load_predictor(CHAMPION), Question("FB", DAY), CHAMPION, **how)


def run_of(result: Any) -> Any:
    from finagent_model.tracking.queries import read_run

    return read_run(result.run_id)


@pytest.fixture
def at_work(trained: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bars, beside a trained version and an empty home."""
    monkeypatch.chdir(trained.folder)
    mlflow.set_tracking_uri(f"sqlite:///{trained.folder}/mlflow.db")
    folder = tmp_path / "bars"
    folder.mkdir()
    monkeypatch.setenv("FINAGENT_BARS", str(folder))
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path / "home"))
    return folder


def write(bars: BarSeries, folder: Path) -> None:
    frame = bars.to_frame()
    frame["date"] = frame.pop("closed_at").dt.strftime("%Y-%m-%d")
    frame.to_csv(folder / "FB.csv", index=False)


def signals(home: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "finagent.db")) as database:
        return database.execute(
            "select run_id, finagent_key from artifacts where type = 'signal'"
        ).fetchall()


@pytest.mark.parametrize("database", ["up", "down"])
def test_infer_replaces_decision_made_before_the_days_bar(
    at_work: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finagent_model.pipeline.record import sync_decisions

    home = at_work.parent / "home"
    whole = BundledBars().bars("FB")
    write(whole.until(DAY - timedelta(days=1)), at_work)
    early = infer()
    [warning] = [text for text in early.signal.warnings if text.startswith("decided on the bar of")]
    assert warning.startswith("decided on the bar of 2013-01-30; sessions without one since: 1 ")
    assert infer().decided_before

    write(whole.until(DAY), at_work)
    if database == "down":  # while the later one is decided
        real = home / "finagent.db"
        with monkeypatch.context() as patch:
            patch.setattr("finagent_model.store.decisions.artifacts.insert_artifact", refused)
            late = infer()
        assert signals(home) == [(early.run_id, early.signal.signal_id)]
        # Its own run alone: other tests decide in the same tracking store.
        assert real.is_file() and sync_decisions(Settings.load(), [late.run_id]).written == 1
    else:
        late = infer()
    assert not late.decided_before
    assert late.signal.signal_id == early.signal.signal_id
    assert late.signal.conversation_id != early.signal.conversation_id
    assert run_of(late).tags[REPLACES] == early.run_id
    assert signals(home) == [(late.run_id, late.signal.signal_id)]
    again = infer()
    assert (again.decided_before, again.run_id, again.signal) == (True, late.run_id, late.signal)


def refused(*_: Any) -> None:
    raise OperationalError("insert", {}, sqlite3.OperationalError("disk I/O error"))


def test_infer_returns_final_decision_without_its_source(at_work: Path) -> None:
    write(BundledBars().bars("FB").until(DAY), at_work)
    first = infer()
    (at_work / "FB.csv").unlink()
    again = infer(vendor_raises=True)
    assert (again.decided_before, again.run_id) == (True, first.run_id)


def test_infer_decides_again_if_the_run_is_gone(at_work: Path) -> None:
    write(BundledBars().bars("FB").until(DAY), at_work)
    first = infer()
    with closing(sqlite3.connect(at_work.parent / "home" / "finagent.db")) as database:
        for table in ("artifacts", "finagent_decisions"):
            database.execute(f"update {table} set run_id = 'gone'")
        database.commit()
    again = infer()
    assert (again.decided_before, again.signal.signal_id) == (False, first.signal.signal_id)
    assert (again.run_id, again.signal.signal_id) in signals(at_work.parent / "home")


def test_infer_source_failure_raises_or_is_the_status(
    at_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINAGENT_BARS", f"sqlite:///{at_work}/gone.db")
    with pytest.raises(DataSourceError, match="there is no file"):
        infer(vendor_raises=True)
    result = infer()
    assert result.signal.status == "data_missing"
    assert run_of(result).datasets == ()


def test_infer_within_own_limits_settles_nothing(at_work: Path) -> None:
    write(BundledBars().bars("FB").until(DAY), at_work)
    limited = infer(limits=CallLimits(max_rounds=2))
    assert limited.signal.status == "abstained"
    whole = infer()
    assert (whole.decided_before, whole.signal.status) == (False, "ok")
    again = infer(limits=CallLimits(max_rounds=2))
    assert (again.decided_before, again.signal.status) == (False, "abstained")
    assert signals(at_work.parent / "home") == [(whole.run_id, whole.signal.signal_id)]


def test_infer_planted_signal_gives_no_answer(at_work: Path) -> None:
    """The key can be computed before the desk has decided."""
    write(BundledBars().bars("FB").until(DAY), at_work)
    probe = infer(mode="replay").signal
    forged = probe.model_copy(update={"confidence_score": 99.0, "confidence": "HIGH"})
    data = forged.model_dump(mode="json")
    key = {"key": probe.signal_id, "status": "ok"}
    planted = NewArtifact(name="x", type="signal", run_id="f" * 32, signal_data=data, metadata=key)
    database = Database.from_settings(Settings.load())
    ArtifactStore(database).add(planted)
    first = infer()
    assert (first.decided_before, first.signal.confidence) == (False, probe.confidence)
    with database.transaction() as connection:
        connection.exec_driver_sql("update artifacts set signal_data = '{}' where type = 'signal'")
    again = infer()
    assert (again.decided_before, again.run_id, again.signal) == (True, first.run_id, first.signal)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Who decides waits for seven others to wait for it; gives the decisions that were made."""
    from finagent_model.model.predictor import Predictor

    decided: list[int] = []
    waiters: set[int] = set()
    all_wait = threading.Event()
    read, decide = ClaimStore._read, Predictor.decide_views

    def read_claim(store: ClaimStore, signal_id: str) -> Any:
        row = read(store, signal_id)
        if row is not None and row.holder is not None:
            waiters.add(threading.get_ident())
            if len(waiters) == 7:
                all_wait.set()
        return row

    def decide_views(predictor: Predictor, *arguments: Any, **how: Any) -> Any:
        decided.append(threading.get_ident())
        assert all_wait.wait(300)
        return decide(predictor, *arguments, **how)

    monkeypatch.setattr(ClaimStore, "_read", read_claim)
    monkeypatch.setattr(Predictor, "decide_views", decide_views)
    return decided


@pytest.mark.parametrize("status", ["ok", "data_missing"])
def test_infer_asked_by_eight_at_once_decides_once(
    at_work: Path, together: list[int], status: str
) -> None:
    if status == "ok":
        write(BundledBars().bars("FB").until(DAY), at_work)
    with ThreadPoolExecutor(8) as pool:
        results = [each.result() for each in [pool.submit(infer) for _ in range(8)]]
    assert len(together) == 1
    assert {(each.run_id, each.signal.status) for each in results} == {(results[0].run_id, status)}
    assert [each.decided_before for each in results].count(False) == 1
    # While it loads a model MLflow puts a stand-in there, which others trip over.
    assert "dbutils" not in sys.modules


def test_infer_live_waits_for_nobody(at_work: Path) -> None:
    write(BundledBars().bars("FB").until(DAY), at_work)
    signal_id = infer(mode="replay").signal.signal_id
    with ClaimStore(Database.from_settings(Settings.load())).enter(signal_id):
        assert not infer(mode="live").decided_before


def test_infer_without_database_decides_unclaimed(
    at_work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(BundledBars().bars("FB").until(DAY), at_work)
    monkeypatch.setenv("FINAGENT_DATABASE", "sqlite:////proc/no/finagent.db")
    assert infer().signal.status == "ok"
    assert "Others who ask the same now decide it, too" in caplog.text

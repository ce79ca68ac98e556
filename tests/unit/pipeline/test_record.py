"""A database that is down never loses a decision: its run has it, and `sync` writes it later."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import mlflow
import pytest
from mlflow.store.entities import PagedList

from finagent_model.audit.chain import HEAD, audit_decisions
from finagent_model.data.market import Market
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution
from finagent_model.errors import StoreError
from finagent_model.market.view import MarketView
from finagent_model.model.wheel import code_hash
from finagent_model.pipeline.final_decisions import STORED, find_final
from finagent_model.pipeline.record import (
    SyncReport,
    record_decision,
    send_outbox,
    sync_decisions,
)
from finagent_model.settings import Settings
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.tracking import runs as tracking
from finagent_model.tracking.runs import RunLog, open_run
from support.decisions import decision
from support.fake_platform import PlatformDouble
from support.places import Place
from support.platform_tables import conversations

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
TOKEN = "open-sesame"
WHOLE = 7 + 1 + 5
"""Messages, decision and artifacts of one decision that was not drawn."""
UNDRAWN = {"symbol": "NOPE"}
"""There is no market for it, so no chart takes time."""


def settings(database: str = "") -> Settings:
    return Settings.load({"FINAGENT_DATABASE": database})


def down(place: Place) -> str:
    """A database whose folder is not there yet; it is up once the folder is made."""
    return f"sqlite:///{place.folder}/later/finagent.db"


def up(place: Place) -> None:
    (place.folder / "later").mkdir()


def recorded_run(
    database: str, execution: Execution = NO_EXECUTION, replayed: bool = False, **changes: Any
) -> RunLog:
    """The run of a decision recorded with `database` configured."""
    return run_of(decision(**UNDRAWN | changes), database, execution, replayed)


def run_of(
    example: Decision, database: str, execution: Execution = NO_EXECUTION, replayed: bool = False
) -> RunLog:
    options = settings(database)
    view = view_of(example, options) if example.signal.symbol == "GOOG" else None
    audit, market = audit_decisions([example], code_hash()), Market.from_settings(options)
    return RunLog(
        record_decision(
            example, audit, view, market, "desk.yaml", options, execution, replayed=replayed
        )
    )


def view_of(example: Decision, options: Settings) -> MarketView:
    return Market.from_settings(options).view(example.signal.symbol, example.signal.as_of)


def rows(url: str) -> list[tuple[Any, ...]]:
    """Everything but the numbers that the database itself gave, and the run's id."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        messages = database.execute(
            "select agent_name, message_type, message_content, timestamp, tokens_used"
            " from agent_conversations order by id"
        ).fetchall()
        decisions = database.execute(
            "select conversation_id, workflow_execution_id, symbol, as_of, status, signal"
            " from finagent_decisions"
        ).fetchall()
        artifacts = database.execute(
            "select id, name, type, run_id, experiment_id, execution_id, dag_id, image_path,"
            " signal_data, artifact_metadata, created_at from artifacts order by id"
        ).fetchall()
    return messages + decisions + artifacts


def test_store_decision_tags_run_as_stored(place: Place) -> None:
    url = f"sqlite:///{place.folder}/finagent.db"
    run = recorded_run(url)
    assert run.get_tag(STORED) == "yes"
    assert len(rows(url)) == WHOLE
    assert sync_decisions(settings(url)) == SyncReport(already=1)


def test_store_decision_defaults_to_file_at_home(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place.folder))
    assert recorded_run("").get_tag(STORED) == "yes"
    assert len(rows(f"sqlite:///{place.folder}/.cache/finagent/finagent.db")) == WHOLE


def test_record_does_not_store_replayed_decision(place: Place) -> None:
    url = f"sqlite:///{place.folder}/finagent.db"
    assert recorded_run(url, replayed=True).get_tag(STORED) is None
    assert sync_decisions(settings(url)) == SyncReport()


def test_store_decision_warns_if_database_is_down(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    run = recorded_run(down(place))
    assert run.get_tag(STORED) == "no"
    [warning] = [r for r in caplog.records if r.name.startswith("finagent_model")]
    assert warning.levelno == logging.WARNING
    assert run.run_id in warning.getMessage()
    assert "`finagent db sync` writes it" in warning.getMessage()
    assert run.read_json("signal.json")["symbol"] == "NOPE"
    assert len(run.read_artifact("autogen_conversation.jsonl").splitlines()) == 7
    assert mlflow.get_run(run.run_id).info.status == "FINISHED"


def test_store_decision_warns_if_value_is_too_large(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{place.folder}/finagent.db"
    example = decision()
    # No symbol is that long: only a copy, which is not validated, can have it.
    signal = example.signal.model_copy(update={"symbol": "S" * 51})
    run = run_of(replace(example, signal=signal), url)
    assert (run.get_tag(STORED), mlflow.get_run(run.run_id).info.status) == ("no", "FINISHED")
    assert "at most 50 characters" in caplog.text and f"in run {run.run_id} alone" in caplog.text
    assert sync_decisions(settings(url)) == SyncReport(failed=1)


def test_store_decision_takes_any_characters(place: Place) -> None:
    run = recorded_run(
        f"sqlite:///{place.folder}/finagent.db", reasoning="It rises\\u0000they say.\0"
    )
    assert run.get_tag(STORED) == "yes"


def test_sync_writes_what_store_decision_would(place: Place) -> None:
    by = Execution(execution_id="42", dag_id="daily", task_id="decide", map_index=2)
    run = recorded_run(down(place), by, symbol="GOOG")
    up(place)
    assert sync_decisions(settings(down(place))) == SyncReport(written=1)
    assert run.get_tag(STORED) == "yes"
    direct = f"sqlite:///{place.folder}/direct.db"
    DecisionStore(Database(direct)).write(
        decision(),
        run.run_id,
        by,
        run.experiment_id,
        True,
        snapshot=run.read_json("market_data_snapshot.json"),
    )
    assert rows(down(place)) == rows(direct)
    assert sync_decisions(settings(down(place))) == SyncReport(already=1)


def test_sync_writes_decision_to_platform_tables(place: Place) -> None:
    """By name and number: `execution_id` groups the artifacts, the platform's number messages."""
    by = Execution(execution_id="manual__1", platform_execution_id=42)
    run = recorded_run(down(place), by)
    up(place)
    conversations(down(place))
    assert sync_decisions(settings(down(place))) == SyncReport(written=1)
    assert run.get_tag(STORED) == "yes"
    with closing(sqlite3.connect(down(place).removeprefix("sqlite:///"))) as database:
        query = "select distinct workflow_execution_id from agent_conversations"
        assert database.execute(query).fetchall() == [(42,)]
        query = "select distinct execution_id from artifacts"
        assert database.execute(query).fetchall() == [("manual__1",)]


def test_sync_reads_every_experiment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        recorded_run(down(place))
    up(place)
    assert sync_decisions(settings(down(place))) == SyncReport(written=2)


def test_sync_finds_decision_written_before_stop(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{place.folder}/finagent.db"
    whole = DecisionStore.write

    def stopped(store: DecisionStore, *arguments: Any, **options: Any) -> bool:
        whole(store, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(DecisionStore, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        recorded_run(url)
    monkeypatch.undo()
    assert sync_decisions(settings(url)) == SyncReport(already=1)
    assert len(rows(url)) == WHOLE


def test_sync_run_without_record_fails_alone(place: Place) -> None:
    recorded_run(down(place), conversation_id="first")
    open_run("cut off", {STORED: "no"}).end("FAILED")
    recorded_run(down(place), conversation_id="last")
    up(place)
    assert sync_decisions(settings(down(place))) == SyncReport(written=2, failed=1)


def test_sync_raises_while_database_is_down(place: Place) -> None:
    run = recorded_run(down(place))
    with pytest.raises(StoreError, match="can't be used"):
        sync_decisions(settings(down(place)))
    assert run.get_tag(STORED) == "no"


def test_cli_db_sync_exit_codes(place: Place) -> None:
    recorded_run(down(place))
    command = ("db", "sync", "--json")
    still = place.finagent(*command, FINAGENT_DATABASE=down(place))
    assert still.returncode == 3
    assert "can't be used" in still.stderr and "Traceback" not in still.stderr
    up(place)
    done = place.finagent(*command, FINAGENT_DATABASE=down(place))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"written": 1, "already": 0, "failed": 0}


def test_store_decision_warns_if_platform_is_down(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    platform = PlatformDouble()
    options = Settings.load(
        {
            "FINAGENT_DATABASE": f"sqlite:///{place.folder}/finagent.db",
            "FINAGENT_PLATFORM_URL": platform.url,
            "FINAGENT_PLATFORM_TOKEN": TOKEN,
        }
    )

    def decided(name: str) -> None:
        example = decision(**UNDRAWN, conversation_id=name)
        record_decision(
            example,
            audit_decisions([example], code_hash()),
            None,
            Market.from_settings(options),
            "desk.yaml",
            options,
        )

    decided("first")
    assert "`finagent outbox send` sends the 5 that wait" in caplog.text
    with platform.up():
        decided("second")
    assert len(platform.rows) == 10
    assert TOKEN not in caplog.text


def test_store_decision_survives_bad_platform_url(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{place.folder}/finagent.db"
    options = Settings.load(
        {"FINAGENT_DATABASE": url, "FINAGENT_PLATFORM_URL": "http://a b/\u0001"}
    )
    example = decision(**UNDRAWN)
    run = record_decision(
        example,
        audit_decisions([example], code_hash()),
        None,
        Market.from_settings(options),
        "desk.yaml",
        options,
    )
    assert RunLog(run).get_tag(STORED) == "yes"
    assert "`finagent outbox send`" in caplog.text


def test_sync_makes_lost_database_anew(place: Place) -> None:
    """Signals that failed, were decided again, or were replaced by a later decision included."""
    url = f"sqlite:///{place.folder}/finagent.db"
    version = {"model_uri": "models:/finagent/1"}
    failed = {"status": "model_error", "action": "HOLD", "confidence": "LOW", "confidence_score": 0}
    recorded_run(url, **version, **failed, conversation_id="first")
    second = recorded_run(url, Execution(execution_id="42"), **version, conversation_id="second")
    recorded_run(url, **version, conversation_id="live")
    recorded_run(url, symbol="GOOG", conversation_id="other")
    recorded_run(url, replayed=True, conversation_id="replayed")
    before = sorted(map(repr, map(without_id, rows(url))))
    for file in place.folder.glob("finagent.db*"):
        file.unlink()
    assert sync_decisions(settings(url)) == SyncReport(written=4)
    assert sorted(map(repr, map(without_id, rows(url)))) == before
    final = find_final(decision(**UNDRAWN, **version).signal.signal_id, settings(url))
    assert final is not None and final[0] == second.run_id
    assert sync_decisions(settings(url)) == SyncReport(already=4)
    assert sorted(map(repr, map(without_id, rows(url)))) == before


def without_id(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row[1:] if isinstance(row[0], int) else row


def test_sync_writes_changed_rows_again(place: Place) -> None:
    url = f"sqlite:///{place.folder}/finagent.db"
    recorded_run(url)
    before = rows(url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        database.execute("update finagent_decisions set signal = '{}', status = 'abstained'")
        database.execute("update artifacts set signal_data = '{}', action = 'SELL'")
        database.commit()
    assert sync_decisions(settings(url)) == SyncReport(written=1)
    assert rows(url) == before


def test_sync_refuses_run_with_another_audit(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{place.folder}/finagent.db"
    run = recorded_run(url)
    before = rows(url)
    forged = decision(**UNDRAWN, reasoning="It says something else now.")
    audit = audit_decisions([forged], code_hash())
    run.log_json("signal.json", forged.signal.model_dump(mode="json"))
    run.log_text("audit.jsonl", audit.lines)
    run.set_tags({HEAD: audit.head})
    assert sync_decisions(settings(url)) == SyncReport(failed=1)
    assert "the database knows its audit as" in caplog.text
    assert rows(url) == before


def test_sync_looks_for_artifacts_that_may_be_sent(place: Place) -> None:
    platform = PlatformDouble()
    options = Settings.load(
        {
            "FINAGENT_DATABASE": f"sqlite:///{place.folder}/finagent.db",
            "FINAGENT_PLATFORM_URL": platform.url,
        }
    )
    example = decision(**UNDRAWN)
    audit, market = audit_decisions([example], code_hash()), Market.from_settings(options)
    with platform.up():
        record_decision(example, audit, None, market, "desk.yaml", options)
        for file in place.folder.glob("finagent.db*"):
            file.unlink()
        sync_decisions(options)
        assert send_outbox(options).sent == 5
    assert len(platform.rows) == 5


def test_store_decision_hides_password(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    url = "postgresql+pg8000://me:open-sesame@127.0.0.1:9/db"
    with caplog.at_level(logging.DEBUG):
        run = recorded_run(url)
    assert run.get_tag(STORED) == "no"
    command = place.finagent("db", "sync", FINAGENT_DATABASE=url)
    assert command.returncode == 3
    output = caplog.text + command.stdout + command.stderr + repr(settings(url))
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for content in [output.encode(), *(path.read_bytes() for path in files)]:
        assert b"sesame" not in content


def test_tracking_reads_all_pages() -> None:
    def search(page_token: str = "0") -> PagedList[int]:
        page = int(page_token)
        return PagedList([2 * page, 2 * page + 1], str(page + 1) if page < 2 else None)

    assert tracking.all_pages(search) == [0, 1, 2, 3, 4, 5]

"""Two runs side by side: what is common, what differs, and what is left out; runs made by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx import Response
from starlette.testclient import TestClient

from finagent_model.audit.chain import dump_turns
from finagent_model.decision.decision import Decision, Turn, write_ledger
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.policy.trained_state import TradeOutcome, dump_outcomes
from finagent_model.tracking import registry
from finagent_model.tracking.local_store import open_client
from finagent_model.tracking.runs import STAGE, RunLog, open_run
from support.decisions import signal

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
START = datetime(2012, 1, 3, 21, tzinfo=UTC)
DAYS = 90
HELD = np.random.default_rng(1).normal(0.0002, 0.01, DAYS)
"""Of buying and holding."""


def moments(first: int, count: int) -> list[datetime]:
    return [START + timedelta(days=first + i) for i in range(count)]


def training(symbols: str = "GOOG") -> RunLog:
    run = open_run(f"train {symbols}", {STAGE: "train"})
    run.log(params={"symbols": symbols})
    return run


def backtest(
    run: RunLog,
    folder: Path,
    symbol: str = "GOOG",
    *,
    extra: float = 0.0,
    first: int = 0,
    days: int = DAYS,
    commission: float = 0.001,
    decided: Sequence[tuple[datetime, str, str]] = (),
) -> RunLog:
    """A finished backtest below `run`: half of the market's returns plus `extra` a day.

    `decided` are moment, action and what the agent Trend saw.
    """
    held = np.resize(HELD, first + days)[first:]
    noise = np.random.default_rng(int(extra * 1e6) + first).normal(0, 0.002, days)
    tags = {STAGE: "backtest", "finagent.symbol": symbol}
    child = open_run(f"backtest {symbol}", tags, parent=run.run_id)
    facts = SymbolFacts(
        symbol=symbol,
        closed_at=tuple(int(day.timestamp() * 1000) for day in moments(first, days)),
        returns=tuple((0.5 * held + noise + extra).tolist()),
        benchmark_returns=tuple(held.tolist()),
        total_return=0.0,
        random_returns=None,
        delayed_returns=None,
        cost_curve=(),
        break_even_commission=None,
        commission=commission,
        slippage=0.0,
        lagged_sharpe=None,
    )
    child.log_text("facts.json", facts.model_dump_json())
    made, calls = [], []
    for moment, action, stance in decided:
        levels = {} if action == "BUY" else dict.fromkeys(LEVELS)
        made.append(
            Decision(
                signal(symbol=symbol, as_of=moment, action=action, calibrated=False, **levels),
                (Turn("Trend", "response", f'{{"direction": "{stance}"}}', moment, 1, 1, "m"),),
            )
        )
        if action == "BUY":
            calls.append(
                TradeOutcome(
                    symbol=symbol,
                    as_of=moment,
                    closed_at=moment + timedelta(days=3),
                    action="BUY",
                    confidence=70,
                    earned=-0.0123,
                    ended="stop",
                    bars_held=3,
                    weight=1,
                )
            )
    write_ledger((each.signal for each in made), folder / "ledger.parquet")
    child.log_files(folder)
    child.log_text("closed_calls.jsonl", dump_outcomes(calls))
    child.log_text("autogen_conversation.jsonl", dump_turns(made))
    child.end("FINISHED")
    return child


LEVELS = ("suggested_entry_price", "suggested_stop_loss", "suggested_take_profit", "r_multiple")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


def words(page: str) -> str:
    """The text of a page on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def compare(pages: TestClient, one: RunLog, other: RunLog, part: str = "") -> str:
    answer = pages.get(f"/runs/compare{part}?run={one.run_id}&run={other.run_id}")
    assert answer.status_code == 200, answer.text
    return answer.text


def row(text: str, name: str) -> str:
    """A row of the table of metrics."""
    found = re.search(rf">{name}</th>(.*?)</tr>", text, re.S)
    assert found, name
    return words(found[1])


def test_comparison_marks_only_what_the_interval_shows(pages: TestClient, folder: Path) -> None:
    one, other = training(), training()
    backtest(one, folder)
    backtest(other, folder, extra=0.004)
    page = compare(pages, one, other)
    assert "90 common days, 2012-01-03 to 2012-04-01" in page
    assert "▲ better" in row(page, "Sharpe ratio")
    assert "▲ better" in row(page, "Total return")
    assert "better" not in row(page, "Volatility a year")
    assert "-0.0%" not in page
    turned = compare(pages, other, one)
    assert "▼ worse" in row(turned, "Sharpe ratio")
    same = training()
    backtest(same, folder)
    alike = compare(pages, one, same)
    assert row(alike, "Sharpe ratio").endswith("+0.00 +0.00 to +0.00")
    assert row(alike, "Total return").endswith("+0.0% +0.0% to +0.0%")
    assert "Left out" not in alike


def test_comparison_of_other_windows_says_what_is_left_out(pages: TestClient, folder: Path) -> None:
    one, other = training("GOOG,AAPL"), training("GOOG,IBM")
    backtest(one, folder)
    backtest(one, folder, "AAPL")
    backtest(other, folder, first=60, commission=0.002)
    backtest(other, folder, "IBM")
    text = words(compare(pages, one, other))
    assert "30 common days, 2012-03-03 to 2012-04-01" in text
    assert "AAPL: run 1 alone has a finished backtest of it" in text
    assert "IBM: run 2 alone has a finished backtest of it" in text
    assert "run 1: 60 bars from 2012-01-03 to 2012-03-02, on which the other one has none" in text
    assert "run 2: 60 bars from 2012-04-02" in text
    assert "run 1 pays 10 basis points and run 2 pays 20 basis points" in text
    query = f"run={one.run_id}&run={other.run_id}"
    drawn = pages.get(f"/runs/equity.json?{query}&common=1").json()
    assert (drawn["days"][0], len(drawn["days"])) == ("2012-03-03", 30)


def rewrite_facts(child: RunLog, **fields: object) -> None:
    facts = json.loads(child.read_artifact("facts.json"))
    child.log_text("facts.json", json.dumps(facts | fields))


def test_comparison_of_two_bar_lengths_is_by_day(pages: TestClient, folder: Path) -> None:
    one, other, weekly = training(), training(), training()
    child = backtest(one, folder)
    facts = json.loads(child.read_artifact("facts.json"))
    hours = [close - (6 - i) * 3_600_000 for close in facts["closed_at"] for i in range(7)]
    columns = ("returns", "benchmark_returns")
    parts = {n: [(1 + v) ** (1 / 7) - 1 for v in facts[n] for _ in range(7)] for n in columns}
    rewrite_facts(backtest(other, folder), closed_at=hours, **parts)
    page = compare(pages, one, other)
    text = words(page)
    assert "bar lengths differ: a bar of run 1 is 1 day and one of run 2 1 hours" in text
    assert "90 common days" in text
    assert "saw other prices" not in text
    assert "better" not in row(page, "Sharpe ratio") + row(page, "Total return")
    assert "worse" not in row(page, "Sharpe ratio") + row(page, "Total return")
    cells = row(page, "Total return").split()
    assert cells[0] == cells[4]
    weeks = range(6, DAYS, 7)
    whole = {
        name: [float(np.prod(1 + np.array(facts[name][i - 6 : i + 1])) - 1) for i in weeks]
        for name in columns
    }
    closes = [facts["closed_at"][i] for i in weeks]
    rewrite_facts(backtest(weekly, folder), closed_at=closes, **whole)
    page = compare(pages, one, weekly)
    assert "one of run 2 7 days" in words(page)
    assert "saw other prices" not in words(page)
    assert "11 common days, 2012-01-16 to 2012-03-26" in words(page)
    assert row(page, "Total return").endswith("+0.0% interval undefined")


def test_comparison_of_other_prices_says_so(pages: TestClient, folder: Path) -> None:
    one, other = training(), training()
    backtest(one, folder)
    backtest(other, folder)
    assert "saw other prices" not in compare(pages, one, other)
    third = training()
    child = backtest(third, folder)
    facts = SymbolFacts.model_validate_json(child.read_artifact("facts.json"))
    moved = tuple(value + 0.001 for value in facts.benchmark_returns)
    child.log_text(
        "facts.json", facts.model_copy(update={"benchmark_returns": moved}).model_dump_json()
    )
    assert "the two saw other prices of 1 of 1 symbols" in compare(pages, one, third)


@pytest.mark.parametrize(
    ("symbol", "first", "why"), [("IBM", 0, "no symbol"), ("GOOG", DAYS, "no day")]
)
def test_comparison_without_anything_in_common_says_so(
    pages: TestClient, folder: Path, symbol: str, first: int, why: str
) -> None:
    one, other = training(), training(symbol)
    backtest(one, folder)
    backtest(other, folder, symbol, first=first)
    text = words(compare(pages, one, other))
    assert f"Nothing can be compared The two have {why} in common" in text
    query = f"run={one.run_id}&run={other.run_id}"
    drawn = pages.get(f"/runs/equity.json?{query}&common=1").json()
    assert (drawn["days"], drawn["empty"]) == ([], "No day in common: nothing to draw.")


def test_comparison_lists_decisions_that_differ(pages: TestClient, folder: Path) -> None:
    one, other = training(), training()
    days = moments(0, 4)
    first = backtest(
        one,
        folder,
        decided=[(days[0], "BUY", "long"), (days[1], "HOLD", "none"), (days[2], "BUY", "long")],
    )
    second = backtest(
        other,
        folder,
        decided=[(days[0], "HOLD", "short"), (days[1], "HOLD", "none"), (days[3], "BUY", "long")],
    )
    page = compare(pages, one, other)
    text = words(page)
    assert "1 of 2 decisions that both made differ" in text
    assert "Run 1 alone decided 1 times. Run 2 alone decided 1 times." in text
    assert "-1.2% stop" in text
    assert "no call" in text
    found = re.findall(r'href="(/runs/[0-9a-f]{32}/decision[^"]+)"', page)
    assert [link.split("/")[2] for link in found] == [first.run_id, second.run_id]
    decision = words(pages.get(unescape(found[0])).text)
    for said in (
        "GOOG as of 2012-01-03",
        "of a backtest",
        "▲ BUY",
        "Trend ▲ up",
        "-1.2% after costs",
    ):
        assert said in decision, said
    assert "No call, so no outcome." in words(pages.get(unescape(found[1])).text)
    missing = pages.get(f"/runs/{first.run_id}/decision", params={"as_of": "2012-01-09T21:00:00Z"})
    assert missing.status_code == 404
    odd = pages.get(f"/runs/{first.run_id}/decision", params={"as_of": "yesterday"})
    assert odd.status_code == 400


def test_comparison_counts_what_agents_saw(pages: TestClient, folder: Path) -> None:
    one, other = training(), training()
    days = moments(0, 3)
    backtest(one, folder, decided=[(day, "HOLD", "long") for day in days])
    backtest(other, folder, decided=[(days[0], "HOLD", "long"), (days[1], "HOLD", "short")])
    text = words(compare(pages, one, other, "/agents"))
    assert "Trend 1 of 2 2 0 0 0 1 1 0 0" in text


def test_comparison_of_backtests_run_by_hand(pages: TestClient, folder: Path) -> None:
    one = backtest(training(), folder)
    other = backtest(training(), folder, extra=0.004)
    assert "▲ better" in row(compare(pages, one, other), "Sharpe ratio")


def test_comparison_without_files_says_so(pages: TestClient, folder: Path) -> None:
    one, other = training(), training()
    backtest(one, folder)
    child = open_run(
        "backtest GOOG", {STAGE: "backtest", "finagent.symbol": "GOOG"}, parent=other.run_id
    )
    child.end("FINISHED")
    text = words(compare(pages, one, other))
    assert "They can't be compared" in text
    assert child.run_id in text
    part = f"/runs/compare/agents?run={one.run_id}&run={other.run_id}"
    assert pages.get(part).status_code == 404
    assert pages.get(f"/runs/compare/metrics?run={one.run_id}").status_code == 400


def test_version_page_leads_to_metrics_beside_champion(pages: TestClient, folder: Path) -> None:
    runs = training(), training()
    for number, run in enumerate(runs):
        backtest(run, folder, extra=0.004 * number)
        tags: dict[str, Any] = {registry.VERDICT: "passed"}
        registry.create_version("finagent", "somewhere", run.run_id, tags)
    registry.promote("finagent", "1")
    page = unescape(pages.get("/models/finagent/2").text)
    path = f"/runs/compare/metrics?run={runs[0].run_id}&run={runs[1].run_id}"
    assert f'hx-get="{path}"' in page
    part = pages.get(path, headers={"hx-request": "true"}).text
    assert "▲ better" in row(part, "Sharpe ratio")
    assert "This version" in part
    assert "Compared with the champion" not in pages.get("/models/finagent/1").text


def rewrite_ledger(child: RunLog, folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(folder / "ledger.parquet")), folder / "ledger.parquet")
    child.log_files(folder)


@pytest.fixture
def pair(folder: Path) -> tuple[RunLog, RunLog, RunLog]:
    """Two trainings that decided differently, and the backtest of the second."""
    one, other = training(), training()
    day = moments(0, 1)[0]
    backtest(one, folder, decided=[(day, "HOLD", "none")])
    return one, other, backtest(other, folder, decided=[(day, "BUY", "long")])


def decision_of(pages: TestClient, child: RunLog) -> Response:
    return pages.get(f"/runs/{child.run_id}/decision", params={"as_of": START.isoformat()})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("returns", [0.01]),
        ("closed_at", [10**25 + i for i in range(DAYS)]),
        ("closed_at", [10**15 + i for i in range(DAYS)]),
        ("closed_at", [0] * DAYS),
        ("benchmark_returns", [1e300] * DAYS),
        ("benchmark_returns", "[" * 100_000),
    ],
)
def test_odd_facts_hide_nothing_else(
    pages: TestClient, pair: tuple[RunLog, RunLog, RunLog], name: str, value: object
) -> None:
    one, other, child = pair
    facts = json.loads(child.read_artifact("facts.json"))
    text = json.dumps(facts | {name: value})
    child.log_text("facts.json", text if isinstance(value, list) else text.replace('"[[', "[["))
    text = words(compare(pages, one, other))
    assert "They can't be compared" in text
    assert f"facts.json of run {child.run_id} is not as a backtest writes it" in text
    assert "Verdicts" in text
    for common in ("", "&common=1"):
        path = f"/runs/equity.json?run={one.run_id}&run={other.run_id}{common}"
        assert "facts.json" in pages.get(path).json()["message"]


@pytest.mark.parametrize("column", ["action", "status", "as_of"])
def test_ledger_without_a_column_hides_nothing_else(
    pages: TestClient, pair: tuple[RunLog, RunLog, RunLog], folder: Path, column: str
) -> None:
    one, other, child = pair
    rewrite_ledger(child, folder, lambda table: table.drop_columns([column]))
    text = words(compare(pages, one, other))
    assert "Decisions can't be read" in text
    assert f"ledger.parquet of run {child.run_id}" in text
    assert "90 common days" in text
    answer = decision_of(pages, child)
    assert answer.status_code == 404
    assert "ledger.parquet" in answer.text
    bars = pages.get(f"/runs/{child.run_id}/bars.json", params={"as_of": START.isoformat()})
    assert (bars.status_code, "ledger.parquet" in bars.json()["message"]) == (404, True)


def test_decision_without_confidence_is_shown_without(
    pages: TestClient, pair: tuple[RunLog, RunLog, RunLog], folder: Path
) -> None:
    one, other, child = pair

    def without(table: pa.Table) -> pa.Table:
        position = table.column_names.index("raw_confidence_score")
        return table.set_column(position, "raw_confidence_score", pa.array([None], pa.float64()))

    rewrite_ledger(child, folder, without)
    assert "1 of 1 decisions that both made differ" in words(compare(pages, one, other))
    assert "Confidence \N{EN DASH}" in words(decision_of(pages, child).text)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"{}", None])
def test_odd_calls_leave_decisions(
    pages: TestClient, pair: tuple[RunLog, RunLog, RunLog], folder: Path, content: bytes | None
) -> None:
    one, other, child = pair
    replace_file(child, folder, "closed_calls.jsonl", content)
    text = words(compare(pages, one, other))
    assert "1 of 1 decisions that both made differ" in text
    assert "Outcomes of calls are not known" in text
    answer = decision_of(pages, child)
    assert answer.status_code == 200
    assert "What became of it Not known:" in words(answer.text)


LINE = {
    "as_of": START.isoformat(),
    "agent_name": 5,
    "message_type": "response",
    "message_content": "x",
    "timestamp": START.isoformat(),
    "tokens": {"prompt": 1, "completion": 1},
    "model": "m",
    "cached": False,
}


@pytest.mark.parametrize(
    "content", [b"\xff", b"[" * 100_000, json.dumps(LINE).encode(), b"5", b"{}", None]
)
def test_odd_transcript_leaves_decision(
    pages: TestClient, pair: tuple[RunLog, RunLog, RunLog], folder: Path, content: bytes | None
) -> None:
    one, other, child = pair
    replace_file(child, folder, "autogen_conversation.jsonl", content)
    answer = pages.get(f"/runs/compare/agents?run={one.run_id}&run={other.run_id}")
    assert answer.status_code == 404
    assert "Conversations can't be read" in answer.text
    assert "autogen_conversation.jsonl" in answer.text
    decision = decision_of(pages, child)
    assert decision.status_code == 200
    assert "autogen_conversation.jsonl" in decision.text
    assert "▲ BUY" in words(decision.text)


def replace_file(child: RunLog, folder: Path, name: str, content: bytes | None) -> None:
    """Write an artifact of a run anew, or remove it."""
    if content is None:
        uri = open_client().get_run(child.run_id).info.artifact_uri
        (Path(str(uri).removeprefix("file://")) / name).unlink()
        return
    (folder / name).write_bytes(content)
    child.log_files(folder)


def test_decision_of_a_training_is_not_found(
    pages: TestClient, pair: tuple[RunLog, RunLog, RunLog]
) -> None:
    answer = decision_of(pages, pair[0])
    assert answer.status_code == 404
    assert "is not a backtest" in answer.text


def test_deleted_run_is_called_deleted(pages: TestClient, folder: Path) -> None:
    one, other = training(), training()
    backtest(one, folder)
    backtest(other, folder)
    one.end("FINISHED")
    assert "deleted" not in words(compare(pages, one, other))
    open_client().delete_run(one.run_id)
    text = words(compare(pages, one, other))
    assert "Run 1, train GOOG, was deleted in MLflow" in text
    assert "finished ✕ deleted" in text
    page = words(pages.get(f"/runs/{one.run_id}").text)
    assert "This run was deleted in MLflow." in page
    assert "deleted" not in words(pages.get(f"/runs/{other.run_id}").text)

"""Bars and models that give a training nothing to go by: refused in words or judged to the end,
with nulls that have a reason.
"""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting.engine import Orders
from finagent_model.backtesting.metrics import explain_undefined, summarise
from finagent_model.config.rules import GateRules
from finagent_model.data.bundled import BundledBars
from finagent_model.desk.desk import MAX_CONCURRENCY
from finagent_model.errors import ShortHistoryError
from finagent_model.evaluation.calibrate import build_confidence_record, calibrate
from finagent_model.evaluation.evidence import grade_evidence
from finagent_model.evaluation.out_of_sample import collect_symbol_facts, trade
from finagent_model.market.bars import BarSeries
from finagent_model.reports.wording import render_report
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import Trials
from finagent_model.training.walk_forward import fit_policies
from support.killed_training import TRAP
from support.places import Place, small_options

REQUEST = TrainRequest(symbols=("X",), train_bars=120, test_bars=30, candidates=6)


def still(count: int) -> BarSeries:
    days = pd.date_range("2020-01-01", periods=count, tz="UTC")
    flat = {name: 50.0 for name in ("open", "high", "low", "close")}
    return BarSeries.from_frame("X", pd.DataFrame({"closed_at": days, **flat}))


@pytest.mark.parametrize("pooled", [True, False])
def test_training_on_constant_prices_raises(pooled: bool) -> None:
    request = REQUEST.model_copy(update={"pooled": pooled})
    with pytest.raises(ShortHistoryError, match=r"prices that don't move .* bars of X"):
        fit_policies({"X": still(300)}, request)


@pytest.mark.parametrize("count", [1, 2, 125])
def test_folds_longer_than_the_data_are_refused_in_words(count: int) -> None:
    with pytest.raises(ShortHistoryError, match=f"{count} sessions can't hold train_bars=120"):
        fit_policies({"X": still(count)}, REQUEST)


def test_a_symbol_of_one_bar_beside_a_long_one_is_refused_by_name() -> None:
    long = BundledBars().bars("GOOG")[:300]
    with pytest.raises(ShortHistoryError, match="X has 1 bars"):
        fit_policies({"GOOG": long, "X": still(1)}, REQUEST.model_copy(update={"candidates": 24}))


@pytest.mark.parametrize("bars", [BundledBars().bars("FB"), still(200)])
def test_gate_judges_a_desk_that_always_holds(bars: BarSeries) -> None:
    nothing = np.full(len(bars), math.nan)
    held = Orders(np.zeros(len(bars), dtype=np.int8), nothing, nothing, nothing)
    unseen = trade(bars, held, REQUEST)
    book = calibrate([], [bars.close_time(0)])
    tried = Trials(configurations=6, scorings=6, sharpe_variance=None, overfitting=None)
    evidence = grade_evidence(
        [collect_symbol_facts(unseen, 1)],
        tried,
        GateRules(),
        build_confidence_record([], book),
        seed=1,
    )
    assert evidence.grade == "none"
    assert all((check.number is None) == bool(check.why) for check in evidence.checks)
    mine, benchmark = summarise(unseen.result), summarise(unseen.benchmark)
    assert mine["total_return"] == 0
    whys = explain_undefined(mine)
    assert (whys["sharpe"], whys["hit_rate"]) == ("the returns don't vary", "no closed trade")
    shares = {"hold_share": 1.0, "failed_share": 0.0}
    metrics = mine | {f"benchmark_{name}": v for name, v in benchmark.items()} | shares
    warnings = {bars.symbol: ("a gap of 11 weekdays",)}
    text = render_report({bars.symbol: metrics}, "rules", evidence, book.fits[-1], warnings)
    assert f"- {bars.symbol}: a gap of 11 weekdays." in text
    assert "made nothing" in text
    assert "nan" not in text


CONFIG = """
client: openai
model: stub
agents:
  - {name: TechnicalAnalyst, role: analyst, prompt: technical}
  - {name: Executor, role: executor, prompt: executor, after: [TechnicalAnalyst]}
"""
ANALYST = {"trend": "neutral", "score": 0.0, "summary": "Nothing to see here.", "key_factors": []}
HOLD = {
    "action": "HOLD",
    "confidence_score": 40,
    "reasoning": "Nothing to see here.",
    "key_factors": [],
    "trend": "neutral",
    "support_level": None,
    "resistance_level": None,
    "suggested_entry_price": None,
    "suggested_stop_loss": None,
    "suggested_take_profit": None,
    "position_size_percent": None,
}


class Server(ThreadingHTTPServer):
    """A chat model that holds; every request that reached it is kept."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[bytes] = []
        self.status = 200

    def options(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Of a training that asks it."""
        config = folder / "desk.yaml"
        config.write_text(CONFIG)
        address = f"http://127.0.0.1:{self.server_port}/v1"
        given = {"OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": address}
        return [*small_options(), "--config", str(config)], given


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(body)
        analyst = "TechnicalAnalyst" in json.loads(body)["messages"][0]["content"][:200]
        said = json.dumps(ANALYST if analyst else HOLD)
        message = {"role": "assistant", "content": said}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "stub",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.slow
def test_a_killed_training_pays_for_no_reply_twice_but_those_in_flight(
    server: Server, tmp_path: Path
) -> None:
    place, (options, given) = Place(tmp_path), server.options(tmp_path)
    put = ("finagent_model.cassette.cassette.Cassette", "put", "60")
    victim = place.python(TRAP, *put, *options, **given)
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    before = len(server.asked)
    assert before >= 60

    done = place.finagent("train", *options, "--json", **given)
    assert done.returncode == 0, done.stderr
    # Equal questions get equal answers here: a whole training asks each once.
    whole = len(set(server.asked))
    assert whole == 2 * 71
    assert before < whole, "there was nothing left to ask"
    assert len(server.asked) <= whole + MAX_CONCURRENCY

    trained = json.loads(done.stdout)
    assert "made nothing" in trained["report"]
    assert "hit rate undefined" in trained["report"]


@pytest.mark.slow
def test_training_with_failed_decisions_stays_candidate(server: Server, tmp_path: Path) -> None:
    server.status = 400
    place, (options, given) = Place(tmp_path), server.options(tmp_path)
    done = place.finagent("train", *options, **given)
    assert done.returncode == 5, done.stderr
    assert "failed_share: 71 of 71 decisions failed, at most 0.00% may" in done.stderr
    assert "Traceback" not in done.stderr
    [version] = json.loads(place.finagent("models", "--json").stdout)
    assert (version["aliases"], version["verdict"]) == (["candidate"], "refused")

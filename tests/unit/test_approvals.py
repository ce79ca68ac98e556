"""Decisions that wait for a human: asked for once, settled once, before a deadline that a restart
doesn't move.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from finagent_model.approvals import APPROVALS_FILE, ApprovalStore, compute_approval_id
from finagent_model.cassette.cassette import Cassette
from finagent_model.cli import app
from finagent_model.config.desk_config import config_hash, load_config, load_preset
from finagent_model.config.rules import ApprovalRules
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.desk.desk import Desk
from finagent_model.errors import (
    ApprovalPendingError,
    ApprovalSettledError,
    BadInputError,
    UnknownApprovalError,
)
from finagent_model.market.bars import parse_as_of
from finagent_model.model.predictor import Predictor
from finagent_model.serving.approval_routes import add_approval_routes
from finagent_model.settings import Settings

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LARGE = ApprovalRules(above_size_percent=10)
VERSION = "f00d"


class Clock:
    """Moves when somebody pauses, and by hand."""

    def __init__(self) -> None:
        self.now = NOON
        self.pauses = 0
        self.then: Callable[[], object] = lambda: None

    def __call__(self) -> datetime:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        self.now += timedelta(seconds=seconds)
        self.then()


class Stopped(Exception):
    pass


def dies(seconds: float) -> None:
    """Instead of a pause."""
    raise Stopped


def decision(**changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "symbol": "GOOG",
        "action": "BUY",
        "confidence": "MEDIUM",
        "confidence_score": 60,
        "raw_confidence_score": 60,
        "calibrated": False,
        "status": "ok",
        "reasoning": "Both reports point the same way.",
        "trend": "bullish",
        "suggested_entry_price": 580,
        "suggested_stop_loss": 550,
        "suggested_take_profit": 650,
        "r_multiple": 2.3,
        "position_size_percent": 20,
        "model_used": "rules",
        "generated_at": NOON,
        "as_of": parse_as_of("2012-06-29"),
        "conversation_id": "c0ffee",
        "warnings": ("untrained",),
        "tokens": 7,
    }
    return Decision(TradingSignal.model_validate(fields | changes))


HELD: dict[str, Any] = {
    "action": "HOLD",
    "suggested_entry_price": None,
    "suggested_stop_loss": None,
    "suggested_take_profit": None,
    "position_size_percent": None,
}
KEY = compute_approval_id(decision().signal, VERSION)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notifications() -> list[str]:
    return []


@pytest.fixture
def approvals(tmp_path: Path, clock: Clock, notifications: list[str]) -> ApprovalStore:
    return ApprovalStore(tmp_path / APPROVALS_FILE, clock, notifications.append)


@pytest.mark.parametrize(
    ("rules", "changes", "reason"),
    [
        (ApprovalRules(), {}, None),
        (LARGE, {}, "size 20 % is above 10 %"),
        (LARGE, {"position_size_percent": 10}, None),
        (LARGE, {"position_size_percent": None}, "its size is unknown"),
        (LARGE, HELD, None),
        (ApprovalRules(below_confidence=60), {}, None),
        (ApprovalRules(below_confidence=60.5), {}, "confidence 60 is below 60.5"),
        (
            ApprovalRules(above_size_percent=0, below_confidence=100),
            {},
            "size 20 % is above 0 % and confidence 60 is below 100",
        ),
    ],
)
def test_approval_reason_of_large_or_doubtful_trade(
    rules: ApprovalRules, changes: dict[str, Any], reason: str | None
) -> None:
    assert rules.approval_reason(decision(**changes).signal) == reason


def test_approval_is_off_by_default() -> None:
    assert not load_preset().approval.is_enabled
    assert load_preset().approval.timeout_s == 300


def test_approval_without_wait_raises_pending_then_answers(
    approvals: ApprovalStore, clock: Clock
) -> None:
    for _ in range(2):
        with pytest.raises(ApprovalPendingError, match=f"waiting for approval {KEY}"):
            approvals.require_approvals([decision()], LARGE, VERSION, wait=False)
    assert clock.pauses == 0
    assert approvals.pending_ids([KEY]) == (KEY,)
    approvals.settle(KEY, "rejected", "ann")
    assert approvals.pending_ids([KEY]) == ()
    [held] = approvals.require_approvals([decision()], LARGE, VERSION, wait=False)
    assert held.signal.status is Status.APPROVAL_REJECTED
    with pytest.raises(BadInputError, match="approval c0ffee was removed"):
        approvals.pending_ids(["c0ffee"])


def test_approval_without_wait_expires_at_deadline(approvals: ApprovalStore, clock: Clock) -> None:
    with pytest.raises(ApprovalPendingError):
        approvals.require_approvals([decision()], LARGE, VERSION, wait=False)
    clock.now += timedelta(seconds=LARGE.timeout_s)
    assert approvals.pending_ids([KEY]) == ()
    [held] = approvals.require_approvals([decision()], LARGE, VERSION, wait=False)
    assert held.signal.status is Status.APPROVAL_EXPIRED


@pytest.mark.parametrize(
    "fields", [{"above_size_percent": 101}, {"below_confidence": -1}, {"timeout_s": 0}, {"ask": 1}]
)
def test_approval_rules_refuse_bounds_out_of_range(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ApprovalRules.model_validate(fields)


def test_approval_not_needed_writes_no_file(approvals: ApprovalStore, tmp_path: Path) -> None:
    free = [decision(), decision(**HELD)]
    assert approvals.require_approvals(free, ApprovalRules(), VERSION) == free
    assert approvals.list_approvals()[0] == []
    with pytest.raises(UnknownApprovalError, match="finagent approvals"):
        approvals.settle(KEY, "approved", "ann")
    assert list(tmp_path.iterdir()) == []


def test_approval_returns_proposed_signal_with_approver(
    approvals: ApprovalStore, clock: Clock, notifications: list[str]
) -> None:
    clock.then = lambda: clock.pauses == 3 and approvals.settle(KEY, "approved", "ann", "agreed")
    [answer] = approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    note = f"approval {KEY}: approved by ann: agreed (size 20 % is above 10 %)"
    assert answer == decision(warnings=("untrained", note))
    assert notifications == [
        f"approval {KEY} needed within 300 s: BUY GOOG as of 2012-06-29, size 20 %, confidence 60 "
        f"(size 20 % is above 10 %): finagent approve {KEY} | finagent reject {KEY}"
    ]


def test_approval_rejected_is_hold_with_reason(approvals: ApprovalStore, clock: Clock) -> None:
    clock.then = lambda: clock.pauses == 1 and approvals.settle(KEY, "rejected", "bob", "too large")
    [answer] = approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    signal = answer.signal
    assert (signal.status, signal.action) == (Status.APPROVAL_REJECTED, "HOLD")
    assert (signal.confidence_score, signal.raw_confidence_score) == (0, 0)
    assert (signal.suggested_entry_price, signal.position_size_percent) == (None, None)
    assert signal.r_multiple is None
    assert signal.trend == "bullish"
    assert signal.reasoning == (
        f"approval {KEY}: bob rejected BUY GOOG as of 2012-06-29, size 20 %, confidence 60: "
        "too large"
    )


def test_approval_expired_is_hold_with_own_status(approvals: ApprovalStore, clock: Clock) -> None:
    rules = ApprovalRules(above_size_percent=10, timeout_s=0.3)
    [answer] = approvals.require_approvals([decision()], rules, VERSION, sleep=clock.pause)
    assert (answer.signal.status, answer.signal.action) == (Status.APPROVAL_EXPIRED, "HOLD")
    assert "nobody answered within 0.3 s" in answer.signal.reasoning
    assert clock.pauses == 2
    [request] = approvals.list_approvals()[0]
    assert (request.state, request.at) == ("expired", NOON + timedelta(seconds=0.3))


def test_approval_outcomes_are_no_failures() -> None:
    assert not Status.APPROVAL_REJECTED.is_failure
    assert not Status.APPROVAL_EXPIRED.is_failure


def test_approval_is_shared_by_equal_questions(
    approvals: ApprovalStore, clock: Clock, notifications: list[str]
) -> None:
    clock.then = lambda: clock.pauses == 1 and approvals.settle(KEY, "rejected", "bob")
    first = approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    again = approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    assert (again, clock.pauses, len(notifications)) == (first, 1, 1)
    assert compute_approval_id(decision().signal, "beef") != KEY
    assert compute_approval_id(decision(conversation_id="cafe").signal, VERSION) != KEY


def test_approval_keeps_first_deadline_after_crash(approvals: ApprovalStore, clock: Clock) -> None:
    rules = ApprovalRules(above_size_percent=10, timeout_s=60)
    with pytest.raises(Stopped):
        approvals.require_approvals([decision()], rules, VERSION, sleep=dies)
    clock.now += timedelta(seconds=59.9)
    [answer] = approvals.require_approvals([decision()], rules, VERSION, sleep=clock.pause)
    assert (answer.signal.status, clock.pauses) == (Status.APPROVAL_EXPIRED, 1)


def test_approval_counts_while_nobody_waits(approvals: ApprovalStore, clock: Clock) -> None:
    with pytest.raises(Stopped):
        approvals.require_approvals([decision()], LARGE, VERSION, sleep=dies)
    approvals.settle(KEY, "approved", "ann")
    clock.now += timedelta(days=1)
    [answer] = approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    assert (answer.signal.status, answer.signal.action) == (Status.OK, "BUY")
    assert clock.pauses == 0


def test_approval_returns_approved_over_later_proposal(
    approvals: ApprovalStore, clock: Clock
) -> None:
    clock.then = lambda: clock.pauses == 1 and approvals.settle(KEY, "approved", "ann")
    approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    [answer] = approvals.require_approvals([decision(position_size_percent=90)], LARGE, VERSION)
    assert answer.signal.position_size_percent == 20
    assert "this is what was approved" in answer.signal.warnings[-1]


def test_approval_settle_refuses_settled_or_late(approvals: ApprovalStore, clock: Clock) -> None:
    clock.then = lambda: clock.pauses == 1 and approvals.settle(KEY, "approved", "ann")
    approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    with pytest.raises(ApprovalSettledError, match="was approved by ann at 2026-03-02 12:00:00"):
        approvals.settle(KEY, "rejected", "bob")

    other = decision(conversation_id="cafe")
    late = compute_approval_id(other.signal, VERSION)

    with pytest.raises(Stopped):
        approvals.require_approvals([other], LARGE, VERSION, sleep=dies)
    clock.now += timedelta(seconds=300)
    with pytest.raises(ApprovalSettledError, match="expired at 2026-03-02 12:05:00 UTC"):
        approvals.settle(late, "approved", "ann")


def test_approval_concurrent_settle_succeeds_once(tmp_path: Path) -> None:
    approvals = ApprovalStore(tmp_path / APPROVALS_FILE, notify=lambda line: None)
    with pytest.raises(Stopped):
        approvals.require_approvals([decision()], LARGE, VERSION, sleep=dies)
    start = threading.Barrier(8)

    def settles(number: int) -> bool:
        start.wait()
        try:
            ApprovalStore(tmp_path / APPROVALS_FILE).settle(KEY, "approved", f"human {number}")
        except ApprovalSettledError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(settles, range(8))) == 1


def test_approval_concurrent_requests_share_one_row(tmp_path: Path) -> None:
    rules = ApprovalRules(above_size_percent=10, timeout_s=0.3)
    start = threading.Barrier(8)

    def asks(_: int) -> Status:
        start.wait()
        mine = ApprovalStore(tmp_path / APPROVALS_FILE, notify=lambda line: None)
        [answer] = mine.require_approvals([decision()], rules, VERSION)
        return answer.signal.status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(asks, range(8))) == {Status.APPROVAL_EXPIRED}
    assert len(ApprovalStore(tmp_path / APPROVALS_FILE).list_approvals()[0]) == 1


def test_approval_batch_keeps_order(
    approvals: ApprovalStore, clock: Clock, notifications: list[str]
) -> None:
    other = decision(conversation_id="cafe", symbol="FB")
    second = compute_approval_id(other.signal, VERSION)

    def humans() -> None:
        if clock.pauses == 2:
            approvals.settle(second, "rejected", "bob")
        if clock.pauses == 4:
            approvals.settle(KEY, "approved", "ann")

    clock.then = humans
    batch = [decision(), decision(**HELD), other, decision()]
    answers = approvals.require_approvals(batch, LARGE, VERSION, sleep=clock.pause)
    assert [a.signal.action for a in answers] == ["BUY", "HOLD", "HOLD", "BUY"]
    assert answers[1] == batch[1]
    assert (clock.pauses, len(notifications)) == (4, 2)


def test_approval_replay_only_warns(approvals: ApprovalStore, tmp_path: Path) -> None:
    [answer] = approvals.require_approvals([decision()], LARGE, VERSION, mode="replay")
    assert answer.signal.action == "BUY"
    assert "nobody was asked to approve it" in answer.signal.warnings[-1]
    assert list(tmp_path.iterdir()) == []


def test_approval_unwritable_home_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="set FINAGENT_HOME"):
        ApprovalStore(tmp_path / "file" / APPROVALS_FILE).require_approvals(
            [decision()], LARGE, VERSION
        )


def test_approval_settle_sanitizes_name_with_comment(
    approvals: ApprovalStore, clock: Clock
) -> None:
    clock.then = lambda: (
        clock.pauses == 1
        and approvals.settle(KEY, "approved", "ann\n\x1b[31m", "fine\nby  me" + "!" * 900)
    )
    [answer] = approvals.require_approvals([decision()], LARGE, VERSION, sleep=clock.pause)
    assert "approved by ann [31m: fine by me!" in answer.signal.warnings[-1]
    assert len(answer.signal.warnings[-1]) < 700
    with pytest.raises(BadInputError, match="say who"):
        approvals.settle(KEY, "approved", " \n")


def test_approval_list_orders_urgent_before_settled(approvals: ApprovalStore, clock: Clock) -> None:
    for name, seconds in (("a", 90), ("b", 30), ("c", 60)):
        rules = ApprovalRules(above_size_percent=10, timeout_s=seconds)
        with pytest.raises(Stopped):
            approvals.require_approvals(
                [decision(conversation_id=name)], rules, VERSION, sleep=dies
            )
    approvals.settle(
        compute_approval_id(decision(conversation_id="b").signal, VERSION), "approved", "ann"
    )
    clock.now += timedelta(seconds=10)
    requests, now = approvals.list_approvals()
    rows = [request.to_json(now) for request in requests]
    assert [(row["state"], row["remaining_s"]) for row in rows] == [
        ("pending", 50),
        ("pending", 80),
        ("approved", None),
    ]
    assert (rows[0]["symbol"], rows[0]["action"], rows[0]["position_size_percent"]) == (
        "GOOG",
        "BUY",
        20,
    )


def test_approval_rules_change_no_question() -> None:
    """Neither what a decision is made from, nor its id: only whether it may leave."""
    strict = load_preset().model_copy(update={"approval": LARGE})
    assert config_hash(strict) != config_hash(load_preset())
    settings = Settings.load({})
    view = Market.from_settings(settings).view("GOOG", parse_as_of("2012-06-29"))
    ids = {
        Desk(config, None, settings, Cassette()).decide(view).signal.conversation_id
        for config in (load_preset(), strict)
    }
    assert len(ids) == 1


def test_approval_applies_to_untrained_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "desk.yaml"
    config.write_text("approval: {below_confidence: 100, timeout_s: 0.3}\n")
    assert load_config(str(config)).approval.timeout_s == 0.3
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path / "home"))
    day = "2012-06-29"
    predictor = Predictor.from_config(config, Settings.load())
    expired = predictor.decide("GOOG", day).signal
    assert expired.status is Status.APPROVAL_EXPIRED
    replayed = predictor.decide("GOOG", day, mode="replay").signal
    assert (replayed.status, replayed.action) == (Status.OK, "SELL")


def test_approval_commands_print_lines_or_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path))
    with pytest.raises(Stopped):
        ApprovalStore(tmp_path / APPROVALS_FILE).require_approvals(
            [decision()], LARGE, VERSION, sleep=dies
        )
    shell = CliRunner()
    line = shell.invoke(app, ["approvals"]).stdout
    assert line.startswith(f"{KEY}  pending  ")
    assert "BUY GOOG as of 2012-06-29, size 20 %" in line
    assert shell.invoke(app, ["reject", KEY, "--why", "no"]).stdout.startswith(f"{KEY} rejected")
    assert f"{KEY}  rejected  by " in shell.invoke(app, ["approvals"]).stdout
    twice = shell.invoke(app, ["approve", KEY])
    assert (twice.exit_code, twice.stdout) == (2, "")
    assert "was rejected by" in twice.stderr


# Over HTTP

SAID = {"by": "ann", "why": "agreed"}
JSON = {"Content-Type": "application/json"}


@contextmanager
def client(
    approvals: ApprovalStore, token: str | None = None, caller: str = "127.0.0.1", host: str = ""
) -> Iterator[TestClient]:
    server = FastAPI()
    add_approval_routes(server, approvals, SecretStr(token) if token else None)
    base = f"http://{host or '127.0.0.1'}:5001"
    with TestClient(server, base_url=base, client=(caller, 50000)) as client:
        yield client


@pytest.fixture
def pending(approvals: ApprovalStore) -> ApprovalStore:
    with pytest.raises(Stopped):
        approvals.require_approvals([decision()], LARGE, VERSION, sleep=dies)
    return approvals


def test_approval_http_approves_once(pending: ApprovalStore) -> None:
    with client(pending) as http:
        [row] = http.get("/approvals").json()
        assert (row["id"], row["state"], row["remaining_s"]) == (KEY, "pending", 300)
        done = http.post(f"/approvals/{KEY}/approve", json=SAID)
        assert (done.status_code, done.json()["state"], done.json()["by"]) == (
            200,
            "approved",
            "ann",
        )
        twice = http.post(f"/approvals/{KEY}/reject", json=SAID)
        assert twice.status_code == 409
        assert "was approved by ann" in twice.json()["message"]
        assert http.post("/approvals/000000000000/reject", json=SAID).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"json": {}}, 400, "by"),
        ({"json": {"by": 3}}, 400, "by"),
        ({"json": {"by": "ann", "size": 3}}, 400, "size"),
        ({"json": ["ann"]}, 400, "not a JSON object"),
        ({"content": b"\xff", "headers": JSON}, 400, "not UTF-8"),
        ({"content": b"[" * 1000, "headers": JSON}, 400, "nested 1000 deep"),
        ({"content": b" " * 16_385, "headers": JSON}, 400, "16385 bytes; at most 16384"),
        ({"content": '{"by": "ann", "by": "bob"}', "headers": JSON}, 400, "stands twice"),
        ({"content": '{"by": "\\ud800"}', "headers": JSON}, 400, "surrogate"),
        ({"json": {"by": "ann", "cls": 3}}, 400, "cls"),
        ({"json": {"by": "ann", "k" * 10**4: 3}}, 400, "unknown parameter 'kkk"),
        ({"content": '{"by": "ann"}', "headers": {"Content-Type": "text/plain"}}, 415, "JSON"),
    ],
)
def test_approval_http_refuses_malformed_body(
    pending: ApprovalStore, body: dict[str, Any], status: int, sentence: str
) -> None:
    with client(pending) as http:
        answer = http.post(f"/approvals/{KEY}/approve", **body)
    assert answer.status_code == status
    assert sentence in answer.json()["message"]
    assert len(answer.content) < 300
    assert pending.list_approvals()[0][0].state == "pending"


@pytest.mark.parametrize(
    ("caller", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1", 200),
        ("::1", "localhost", 200),
        ("::ffff:127.0.0.1", "[::1]", 200),
        ("192.0.2.7", "127.0.0.1", 403),
        ("127.0.0.1", "evil.example", 403),
        ("testclient", "127.0.0.1", 403),
    ],
)
def test_approval_http_without_token_is_local_only(
    pending: ApprovalStore, caller: str, host: str, status: int
) -> None:
    with client(pending, caller=caller, host=host) as http:
        answer = http.post(f"/approvals/{KEY}/approve", json=SAID)
        assert http.get("/approvals").status_code == status
    assert answer.status_code == status
    if status == 403:
        assert "FINAGENT_APPROVAL_TOKEN" in answer.json()["message"]
        assert pending.list_approvals()[0][0].state == "pending"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
        ("Bearer s3cre", 401),
        ("Basic s3cret", 401),
        ("", 401),
    ],
)
def test_approval_http_with_token_requires_it(
    pending: ApprovalStore, header: str, status: int
) -> None:
    with client(pending, token="s3cret", caller="192.0.2.7", host="desk.example") as http:
        headers = {"Authorization": header} if header else {}
        answer = http.post(f"/approvals/{KEY}/approve", json=SAID, headers=headers)
        assert http.get("/approvals", headers=headers).status_code == status
    assert answer.status_code == status
    assert "s3cret" not in answer.text


def test_approval_http_unusable_file_is_503(pending: ApprovalStore, tmp_path: Path) -> None:
    for file in tmp_path.glob("**/*.sqlite"):
        file.write_bytes(b"no database" * 1000)
    with client(pending) as http:
        answers = http.get("/approvals"), http.post(f"/approvals/{KEY}/approve", json=SAID)
    assert [answer.status_code for answer in answers] == [503, 503]

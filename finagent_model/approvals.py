"""The approvals that decisions wait for: a SQLite file shared by all processes of this machine.

The same question to the same version is the same approval. A process that died while it waited
therefore resumes with the first deadline, and an answer given meanwhile counts. An approval is
settled once, before its deadline. Here alone the clock matters: not to what a decision is, but to
whether it may still leave.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from finagent_model._base import Mode
from finagent_model._local_files import make_private_file
from finagent_model.config.rules import ApprovalRequest, ApprovalRules, ApprovalVerdict
from finagent_model.decision.decision import Decision, Event
from finagent_model.decision.opinions import dump_opinions, load_opinions, read_opinions
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import (
    ApprovalPendingError,
    ApprovalSettledError,
    BadInputError,
    LocalStateError,
    UnknownApprovalError,
)
from finagent_model.market.news import sanitize_text

APPROVALS_FILE = "approvals.sqlite"
"""File in FINAGENT_HOME."""
POLL_S = 0.2
"""Seconds between two looks at the file."""
MAX_SETTLED = 50
"""Settled approvals that a list includes."""
MAX_NAME_CHARS = 100
MAX_WHY_CHARS = 500
_COLUMNS = (
    *("id", "signal", "reason", "asked_at", "deadline", "state", "who", "at", "why"),
    "opinions",
)
_TABLE = (
    "create table if not exists approval (id text primary key, signal text, reason text, "
    "asked_at text, deadline text, state text, who text, at text, why text, opinions text)"
)


def utc_now() -> datetime:
    """Return the current time, tz-aware in UTC."""
    return datetime.now(UTC)


def write_stderr(line: str) -> None:
    """Write a line to stderr at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class ApprovalStore:
    """The approvals in one SQLite file, which is created with the first of them."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime] = utc_now,
        notify: Callable[[str], object] = write_stderr,
    ) -> None:
        """`notify` is called with a line of text for each approval that a decision waits for."""
        self._path, self._clock, self._notify = path, clock, notify

    def require_approvals(
        self,
        decisions: Sequence[Decision],
        rules: ApprovalRules,
        version: str,
        *,
        mode: Mode = "cached",
        sleep: Callable[[float], object] = time.sleep,
        wait: bool = True,
    ) -> list[Decision]:
        """Return the decisions as they may leave, in order, once all that need approval have it.

        `version` is the hash of the package that decided. `sleep` is called between two looks at
        the file; an exception of it ends the wait and leaves the approvals pending. A replay asks
        nobody and says so on each signal.

        Raises LocalStateError where the file can't be used, and, without `wait`,
        ApprovalPendingError where a human has yet to answer. Then no decision leaves.
        """
        required = {
            i: (compute_approval_id(decision.signal, version), reason)
            for i, decision in enumerate(decisions)
            if (reason := rules.approval_reason(decision.signal))
        }
        if not required:
            return list(decisions)
        results = list(decisions)
        # A replay must give the same answer at any time, so it can not wait for people.
        if mode == "replay":
            for i, (_, reason) in required.items():
                warning = f"replayed, so nobody was asked to approve it: {reason}"
                results[i] = replace(results[i], signal=results[i].signal.with_warnings(warning))
            return results
        self._insert_requests([(key, results[i], why) for i, (key, why) in required.items()], rules)
        settled = self._wait_until_settled([key for key, _ in required.values()], sleep, wait)
        for i, (key, _) in required.items():
            request = settled[key]
            event = Event(
                "approval", request.at or request.deadline, "", request.to_json(self._clock())
            )
            results[i] = replace(
                results[i],
                signal=request.apply_to(results[i].signal),
                events=(*results[i].events, event),
            )
        return results

    def settle(
        self, approval_id: str, verdict: ApprovalVerdict, by: str, why: str | None = None
    ) -> ApprovalRequest:
        """Approve or reject a pending approval and return it.

        Raises UnknownApprovalError, ApprovalSettledError for one that is settled or past its
        deadline, and BadInputError where `by` is no name.
        """
        name = sanitize_text(by, MAX_NAME_CHARS)
        if not name:
            raise BadInputError(f"by {by!r}: say who settles approval {approval_id}")
        requests, updated_rows = [], 0
        if self._path.is_file():
            now, comment = self._clock(), sanitize_text(why or "", MAX_WHY_CHARS) or None
            with self._transaction() as connection:
                # One statement decides the race: of two humans only the first changes the row.
                updated_rows = connection.execute(
                    "update approval set state = ?, who = ?, at = ?, why = ? "
                    "where id = ? and state = 'pending' and deadline > ?",
                    (verdict, name, _to_text(now), comment, approval_id, _to_text(now)),
                ).rowcount
                # Expired first, so that the refusal below names the true outcome.
                _expire_overdue(connection, now)
                requests = self._select(connection, "where id = ?", approval_id)
        if not requests:
            raise UnknownApprovalError(approval_id)
        [request] = requests
        if not updated_rows:
            outcome = (
                "expired" if request.state == "expired" else f"was {request.state} by {request.by}"
            )
            raise ApprovalSettledError(
                approval_id, f"{outcome} at {request.at:%Y-%m-%d %H:%M:%S} UTC"
            )
        return request

    def pending_ids(self, approval_ids: Sequence[str]) -> tuple[str, ...]:
        """Return those of `approval_ids` that are neither settled nor past their deadline.

        Raises BadInputError for an approval that is not in the file.
        """
        return _pending_ids(self._load(approval_ids))

    def count_pending(self) -> int:
        """Return how many approvals are neither settled nor past their deadline.

        Raises LocalStateError.
        """
        # Asked for every page, so it must not create the file.
        if not self._path.is_file():
            return 0
        query = "select count(*) from approval where state = 'pending' and deadline > ?"
        with self._transaction() as connection:
            [[count]] = connection.execute(query, (_to_text(self._clock()),)).fetchall()
        return int(count)

    def find(self, approval_id: str) -> tuple[ApprovalRequest, datetime]:
        """Return an approval and the moment of reading. Raises UnknownApprovalError."""
        now, requests = self._clock(), []
        if self._path.is_file():
            with self._transaction() as connection:
                _expire_overdue(connection, now)
                requests = self._select(connection, "where id = ?", approval_id)
        if not requests:
            raise UnknownApprovalError(approval_id)
        return requests[0], now

    def list_approvals(self) -> tuple[list[ApprovalRequest], datetime]:
        """Return the approvals and the moment of reading.

        Pending ones come first, the most urgent at the top, then the last `MAX_SETTLED` settled
        ones, newest first.
        """
        now = self._clock()
        # Listing must not create the file.
        if not self._path.is_file():
            return [], now
        with self._transaction() as connection:
            _expire_overdue(connection, now)
            pending = self._select(connection, "where state = 'pending' order by deadline, id")
            settled = self._select(
                connection,
                "where state != 'pending' order by at desc, id limit ?",
                MAX_SETTLED,
            )
            return pending + settled, now

    def _insert_requests(
        self, proposals: Sequence[tuple[str, Decision, str]], rules: ApprovalRules
    ) -> None:
        """Insert the new ones of (id, decision, reason)."""
        now = self._clock()
        deadline = now + timedelta(seconds=rules.timeout_s)
        with self._transaction() as connection:
            # `or ignore`: an approval that exists keeps its first deadline, whoever asks again.
            connection.executemany(
                "insert or ignore into approval "
                "(id, signal, reason, asked_at, deadline, state, opinions) "
                "values (?, ?, ?, ?, ?, 'pending', ?)",
                [
                    (
                        key,
                        decision.signal.model_dump_json(),
                        reason,
                        _to_text(now),
                        _to_text(deadline),
                        # A decision has no row yet that a human could read who disagreed from.
                        dump_opinions(read_opinions(decision.turns)),
                    )
                    for key, decision, reason in proposals
                ],
            )

    def _wait_until_settled(
        self, approval_ids: Sequence[str], sleep: Callable[[float], object], wait: bool
    ) -> dict[str, ApprovalRequest]:
        """Return all of them by id, once none is pending."""
        requests = self._load(approval_ids)
        now = self._clock()
        for request in requests.values():
            if (remaining := request.remaining_s(now)) is not None:
                self._notify(
                    f"approval {request.id} needed within {round(remaining, 1):g} s: "
                    f"{request.summary} ({request.reason}): "
                    f"finagent approve {request.id} | finagent reject {request.id}"
                )
        # Polling: SQLite can not notify other processes.
        while pending := _pending_ids(requests):
            if not wait:
                raise ApprovalPendingError(pending)
            sleep(POLL_S)
            requests |= self._load(pending)
        return requests

    def _load(self, approval_ids: Sequence[str]) -> dict[str, ApprovalRequest]:
        """Return the current state of each by id; overdue ones are expired first."""
        requests = {}
        with self._transaction() as connection:
            # Read inside the transaction: waiting for the lock takes time.
            now = self._clock()
            for key in approval_ids:
                for request in self._select(connection, "where id = ?", key):
                    if request.state == "pending" and request.deadline <= now:
                        _expire_overdue(connection, now)
                        [request] = self._select(connection, "where id = ?", key)
                    requests[key] = request
        if missing := [key for key in approval_ids if key not in requests]:
            raise BadInputError(f"approval {missing[0]} was removed from {self._path}; ask again")
        return requests

    def _select(
        self, connection: sqlite3.Connection, clauses: str, *values: object
    ) -> list[ApprovalRequest]:
        rows = connection.execute(f"select {', '.join(_COLUMNS)} from approval {clauses}", values)
        return [self._parse_row(*row) for row in rows]

    def _parse_row(self, key: str, signal: str, reason: str, *columns: str) -> ApprovalRequest:
        asked_at, deadline, state, who, at, why, opinions = columns
        try:
            proposal = TradingSignal.from_dump(json.loads(signal))
        except ValidationError:
            raise BadInputError(
                f"approval {key} in {self._path} was written by other code; remove the file"
            ) from None
        return ApprovalRequest(
            id=key,
            signal=proposal,
            reason=reason,
            asked_at=datetime.fromisoformat(asked_at),
            deadline=datetime.fromisoformat(deadline),
            state=state,  # type: ignore[arg-type]
            by=who,
            at=datetime.fromisoformat(at) if at else None,
            why=why,
            opinions=load_opinions(opinions),
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection for one transaction. Raises LocalStateError."""
        try:
            make_private_file(self._path)
            # 30 s: another process may hold the lock for as long as its transaction takes.
            with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
                connection.execute(_TABLE)
                columns = [row[1] for row in connection.execute("pragma table_info(approval)")]
                if "opinions" not in columns:  # older code made the file
                    connection.execute("alter table approval add column opinions text")
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise LocalStateError(
                f"approvals can't be kept in {self._path}: {error}; "
                "set FINAGENT_HOME to a folder that can be written"
            ) from None


def compute_approval_id(signal: TradingSignal, version: str) -> str:
    """Return 12 hexadecimal characters for a question and the version that answered it.

    `version` is the hash of the package.
    """
    text = f"{signal.conversation_id} {version}"
    # Short enough to type after `finagent approve`.
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pending_ids(requests: Mapping[str, ApprovalRequest]) -> tuple[str, ...]:
    return tuple(key for key, request in requests.items() if request.state == "pending")


def _expire_overdue(connection: sqlite3.Connection, now: datetime) -> None:
    connection.execute(
        "update approval set state = 'expired', at = deadline "
        "where state = 'pending' and deadline <= ?",
        (_to_text(now),),
    )


def _to_text(moment: datetime) -> str:
    # All texts have equal width and zone, so that SQL compares them as moments.
    return moment.astimezone(UTC).isoformat(timespec="microseconds")

"""Approvals that decisions wait for: a SQLite file that every thread and process of this machine
shares.

The same question to the same version is the same approval, so that a process that died while it
waited goes on where it was, with the first deadline, and an answer given meanwhile counts. Whoever
settles one does so once, before its deadline. Here, and only here, the clock decides: not what a
decision says, but whether it may still leave.
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
from finagent_model.config.approval_rules import (
    ApprovalRules,
    ApprovalVerdict,
    PendingApproval,
    with_warnings,
)
from finagent_model.decision.decision import Decision, Event
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import (
    ApprovalPendingError,
    ApprovalSettledError,
    BadInputError,
    LocalStateError,
    UnknownApprovalError,
)
from finagent_model.market.news import sanitize_text

APPROVALS = "approvals.sqlite"
"""File in FINAGENT_HOME."""
POLL_S = 0.2
SHOWN = 50
"""Settled approvals that a list still has."""
NAME_LENGTH, WHY_LENGTH = 100, 500
_TABLE = (
    "create table if not exists approval (id text primary key, signal text, reason text, "
    "asked_at text, deadline text, state text, who text, at text, why text)"
)


def utc_now() -> datetime:
    return datetime.now(UTC)


def to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class ApprovalStore:
    """Makes its file when the first approval is asked for."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime] = utc_now,
        say: Callable[[str], object] = to_stderr,
    ) -> None:
        self._path, self._clock, self._say = path, clock, say

    def ask(
        self,
        decisions: Sequence[Decision],
        rules: ApprovalRules,
        version: str,
        *,
        mode: Mode = "cached",
        pause: Callable[[float], object] = time.sleep,
        wait: bool = True,
    ) -> list[Decision]:
        """The decisions as they may leave, in their order, once all that need it are settled.

        `version` is the hash of what decided. A replay asks nobody and says so on each signal.
        `pause` is called between two looks at the file; what it raises ends the wait and leaves the
        approvals pending. Raises HomeError where the file can't be used: then nothing leaves; and
        without `wait` ApprovalPendingError where a human has yet to answer.
        """
        needed = {
            i: (approval_id(decision.signal, version), reason)
            for i, decision in enumerate(decisions)
            if (reason := rules.needed_for(decision.signal))
        }
        if not needed:
            return list(decisions)
        answers = list(decisions)
        if mode == "replay":
            for i, (_, reason) in needed.items():
                note = f"replayed, so nobody was asked to approve it: {reason}"
                answers[i] = _with(answers[i], with_warnings(answers[i].signal, note))
            return answers
        self._record([(key, answers[i].signal, why) for i, (key, why) in needed.items()], rules)
        keys = [key for key, _ in needed.values()]
        settled = self._settled(keys, pause, wait)
        for i, (key, _) in needed.items():
            asked = settled[key]
            done = Event("approval", asked.at or asked.deadline, "", asked.row(self._clock()))
            signal = asked.outcome(answers[i].signal)
            answers[i] = replace(answers[i], signal=signal, events=(*answers[i].events, done))
        return answers

    def settle(
        self, key: str, verdict: ApprovalVerdict, by: str, why: str | None = None
    ) -> PendingApproval:
        """Approve or reject what is pending. Raises UnknownApprovalError, ApprovalSettledError for
        what is settled or too late, and BadInputError for who says so without a name.
        """
        who = sanitize_text(by, NAME_LENGTH)
        if not who:
            raise BadInputError(f"by {by!r}: say who settles approval {key}")
        found = []
        if self._path.is_file():
            now, because = self._clock(), sanitize_text(why or "", WHY_LENGTH) or None
            with self._open() as file:
                done = file.execute(
                    "update approval set state = ?, who = ?, at = ?, why = ? "
                    "where id = ? and state = 'pending' and deadline > ?",
                    (verdict, who, _text(now), because, key, _text(now)),
                ).rowcount
                _expire(file, now)
                found = self._read(file, "where id = ?", key)
        if not found:
            raise UnknownApprovalError(key)
        if not done:
            [asked] = found
            how = "expired" if asked.state == "expired" else f"was {asked.state} by {asked.by}"
            raise ApprovalSettledError(key, f"{how} at {asked.at:%Y-%m-%d %H:%M:%S} UTC")
        return found[0]

    def pending(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Those that nobody has settled and whose deadline has not passed. Raises BadInputError for
        one that is not here.
        """
        return _pending(self._look(keys))

    def listed(self) -> tuple[list[PendingApproval], datetime]:
        """What is pending, the most urgent first, then the last `SHOWN` settled ones, newest first;
        and the moment of looking.
        """
        now = self._clock()
        if not self._path.is_file():
            return [], now
        with self._open() as file:
            _expire(file, now)
            pending = self._read(file, "where state = 'pending' order by deadline, id")
            rest = "where state != 'pending' order by at desc, id limit ?"
            return pending + self._read(file, rest, SHOWN), now

    def _record(
        self, asked: Sequence[tuple[str, TradingSignal, str]], rules: ApprovalRules
    ) -> None:
        """Those that are new; whatever was asked before keeps its deadline."""
        now = self._clock()
        deadline = now + timedelta(seconds=rules.timeout_s)
        with self._open() as file:
            file.executemany(
                "insert or ignore into approval (id, signal, reason, asked_at, deadline, state) "
                "values (?, ?, ?, ?, ?, 'pending')",
                [
                    (key, signal.model_dump_json(), reason, _text(now), _text(deadline))
                    for key, signal, reason in asked
                ],
            )

    def _settled(
        self, keys: Sequence[str], pause: Callable[[float], object], wait: bool
    ) -> dict[str, PendingApproval]:
        """All of them, once none is pending."""
        found = self._look(keys)
        now = self._clock()
        for asked in found.values():
            if (left := asked.remaining_s(now)) is not None:
                self._say(
                    f"approval {asked.id} needed within {round(left, 1):g} s: "
                    f"{asked.proposal} ({asked.reason}): "
                    f"finagent approve {asked.id} | finagent reject {asked.id}"
                )
        while waiting := _pending(found):
            if not wait:
                raise ApprovalPendingError(waiting)
            pause(POLL_S)
            found |= self._look(waiting)
        return found

    def _look(self, keys: Sequence[str]) -> dict[str, PendingApproval]:
        """As they are now."""
        found = {}
        with self._open() as file:
            now = self._clock()
            for key in keys:
                for asked in self._read(file, "where id = ?", key):
                    if asked.state == "pending" and asked.deadline <= now:
                        _expire(file, now)
                        [asked] = self._read(file, "where id = ?", key)
                    found[key] = asked
        if gone := [key for key in keys if key not in found]:
            raise BadInputError(f"approval {gone[0]} was removed from {self._path}; ask again")
        return found

    def _read(self, file: sqlite3.Connection, where: str, *values: object) -> list[PendingApproval]:
        rows = file.execute(f"select * from approval {where}", values)
        return [self._asked(*row) for row in rows]

    def _asked(self, key: str, signal: str, reason: str, *rest: str) -> PendingApproval:
        asked_at, deadline, state, who, at, why = rest
        try:
            proposed = _signal(signal)
        except ValidationError:
            raise BadInputError(
                f"approval {key} in {self._path} was written by other code; remove the file"
            ) from None
        return PendingApproval(
            id=key,
            proposed=proposed,
            reason=reason,
            asked_at=datetime.fromisoformat(asked_at),
            deadline=datetime.fromisoformat(deadline),
            state=state,  # type: ignore[arg-type]
            by=who,
            at=datetime.fromisoformat(at) if at else None,
            why=why,
        )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction. Raises HomeError."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30)) as file, file:
                file.execute(_TABLE)
                yield file
        except (OSError, sqlite3.Error) as error:
            raise LocalStateError(
                f"approvals can't be kept in {self._path}: {error}; "
                "set FINAGENT_HOME to a folder that can be written"
            ) from None


def approval_id(signal: TradingSignal, version: str) -> str:
    """Twelve hexadecimal characters: of the question, and of the hash of what answered it."""
    text = f"{signal.conversation_id} {version}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pending(found: Mapping[str, PendingApproval]) -> tuple[str, ...]:
    return tuple(key for key, asked in found.items() if asked.state == "pending")


def _expire(file: sqlite3.Connection, now: datetime) -> None:
    file.execute(
        "update approval set state = 'expired', at = deadline "
        "where state = 'pending' and deadline <= ?",
        (_text(now),),
    )


def _text(moment: datetime) -> str:
    """As wide for every moment of UTC, so that texts compare as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _signal(text: str) -> TradingSignal:
    """A signal from its JSON, which also has what is computed."""
    given = json.loads(text)
    return TradingSignal.model_validate({k: given[k] for k in given if k != "is_actionable"})


def _with(decision: Decision, signal: TradingSignal) -> Decision:
    return replace(decision, signal=signal)

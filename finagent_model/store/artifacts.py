"""The table of artifacts: pages of it, one row, a new row, a changed one, counts by execution.

A signal is settled unless its status is a failure. What a settled signal says and where it came
from is never changed; a failed one may be replaced by a later result, in its place.

Rows have an origin. Decisions of this code are written by `store/decisions.py` alone, and nothing
that comes over REST changes what they say. Whatever `ArtifactStore.add` writes is another's row:
its key is unique among such rows, and takes no place from ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import fsum, isfinite
from typing import Any

from pydantic import ValidationError
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    RowMapping,
    case,
    cast,
    func,
    inspect,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite

from finagent_model.decision.signal import fill_later_fields
from finagent_model.errors import ArtifactConflictError, UnknownArtifactError
from finagent_model.store._schema import FILTER_COLUMNS, METADATA, json_text, signal_texts
from finagent_model.store._schema import artifacts as table
from finagent_model.store.artifact_models import (
    DISOWNED,
    FAILED_STATUSES,
    OURS,
    REST,
    Artifact,
    ArtifactFilter,
    NewArtifact,
    Order,
    Origin,
    SignalFilter,
    SignalSort,
    searched_text,
    unreadable_signals,
)
from finagent_model.store.database import Database

SETTLED_FIELDS = (
    *("type", "symbol", "action", "confidence", "signal_data", "model_name"),
    *("run_id", "experiment_id", "workflow_id", "execution_id", "dag_id", "task_id"),
)
"""Fields that say what a settled signal decided and where it came from."""
SETTLED_METADATA = (
    *("key", "status", "signal_id", "as_of", "model_uri", "model_version", "conversation_id"),
    *("dag_run_id", "map_index", "tokens", "cost_usd", "evidence", "calibrated", "trained_by"),
    "seconds",
)
"""Keys of `metadata` that say so."""
DECISION_FIELDS = tuple(n for n in NewArtifact.model_fields if n not in ("name", "metadata"))
"""Fields of a row of ours that nobody but a decision writes."""
DECISION_METADATA = (
    *SETTLED_METADATA,
    *("agent_name", "prompt_tokens", "completion_tokens", "cached", "said_at", "failed"),
    *("prompt_artifact", "response_artifact", "chart_artifact", "market_data_snapshot"),
)
"""Keys of its `metadata`."""
UNCOMPARED_METADATA = ("seconds",)
"""Keys that older code did not write, and that a record without its events does not tell."""
DRAWN_FIELDS = ("image_path", "chart_data")
"""Fields of a chart that the platform changes where it stores the image that it drew."""
COUNTED_MATCHES = 2_000
"""Matches of a search that are counted while they are read; more of them are counted by SQL."""
FETCH_SIZE = 20
"""Rows of a page that are read at a time."""
_COLUMN_NAMES = {"metadata": METADATA, "origin": "finagent_origin"}
"""Columns with other names than their fields."""
_COLUMNS = [table.c[_COLUMN_NAMES.get(name, name)] for name in Artifact.model_fields]


def utc_now() -> datetime:
    """Return the current moment in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class ArtifactPage:
    """Some of the artifacts that a filter selects, and how many it selects on all pages."""

    artifacts: tuple[Artifact, ...]
    total: int


@dataclass(frozen=True)
class ExecutionSummary:
    """Counts of the selected signals of one execution, over all of its symbols.

    A failed signal counts as failed alone, not by its action: nobody chose that HOLD.
    """

    execution_id: str | None
    """None: the signals that no workflow asked for, all of them together."""
    dag_id: str | None
    signals: int
    buys: int
    sells: int
    holds: int
    failed: int
    first_as_of: datetime | None
    last_as_of: datetime | None
    created_at: datetime
    """When its newest signal was written."""


@dataclass(frozen=True)
class SignalCounts:
    """How many signals the desk wrote in some time."""

    total: int
    failed: int


@dataclass(frozen=True)
class DayCost:
    """What the desk's signals of one day cost, at list price."""

    day: date
    signals: int
    unknown: int
    """Signals whose cost is unknown."""
    usd: float
    """Sum of the known costs, also those of recorded replies."""


class ArtifactStore:
    """Reads and writes artifacts. Every method raises StoreError if the database can't be used."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def list_artifacts(
        self,
        criteria: ArtifactFilter,
        limit: int = 50,
        offset: int = 0,
        order: Order = "newest",
        max_bytes: int | None = None,
    ) -> ArtifactPage:
        """Return at most `limit` of the selected artifacts, from the one at `offset` on.

        They are in the order in which they were first written, or in that of their steps. With
        `max_bytes` the page ends before its JSON is larger than that; it has at least one artifact.
        """
        clauses = criteria.where_clauses()
        columns: dict[Order, list[ColumnElement[Any]]] = {
            "newest": [table.c.id.desc()],
            "oldest": [table.c.id],
            "step": [table.c.step_name, table.c.id],
        }
        query = select(*_COLUMNS).where(*clauses).order_by(*columns[order])
        query = query.limit(limit).offset(offset).execution_options(yield_per=FETCH_SIZE)
        with self._database.connection() as connection:
            # Rows are fetched in small parts, so that a page of large ones is never all in memory.
            with connection.execute(query) as result:
                artifacts = tuple(_limit_bytes(map(_from_row, result.mappings()), max_bytes))
            total = connection.execute(select(func.count()).select_from(table).where(*clauses))
            return ArtifactPage(artifacts, total.scalar_one())

    def list_signals(
        self, criteria: SignalFilter, sort: SignalSort, limit: int = 50, offset: int = 0
    ) -> ArtifactPage:
        """Return at most `limit` of the selected signals, from the one at `offset` on."""
        clauses = criteria.where_clauses()
        # Ids first: an index has all that this needs, and whole rows are too long to be sorted.
        ids = select(table.c.id).where(*clauses).order_by(*sort.order_by)
        count = select(func.count()).select_from(table).where(*clauses)
        with self._database.connection() as connection:
            if criteria.text is None:
                wanted = connection.execute(ids.limit(limit).offset(offset)).scalars().all()
                total = connection.execute(count).scalar_one()
            else:
                # Words are in no index: a second pass over all signals would cost as much again.
                reach = max(offset + limit, COUNTED_MATCHES)
                matches = connection.execute(ids.limit(reach)).scalars().all()
                wanted, total = matches[offset : offset + limit], len(matches)
                if total == reach:
                    total = connection.execute(count).scalar_one()
            found = connection.execute(select(*_COLUMNS).where(table.c.id.in_(wanted)))
            by_id = {row["id"]: _from_row(row) for row in found.mappings()}
            artifacts = tuple(by_id[i] for i in wanted if i in by_id)
            return ArtifactPage(artifacts, total)

    def count_unreadable_signals(self) -> int:
        """Count other systems' signals whose data are no JSON; `list_signals` leaves them out."""
        query = select(func.count()).select_from(table).where(*unreadable_signals())
        with self._database.connection() as connection:
            count: int = connection.execute(query).scalar_one()
        return count

    def find_neighbours(
        self, criteria: SignalFilter, sort: SignalSort, row: Artifact
    ) -> tuple[int | None, int | None]:
        """Return the ids of the selected signals right before and right after `row`.

        None: there is none, or `row` has no value in the column that is sorted by.
        """

        def find(later: bool) -> int | None:
            # Backwards everything turns round, also the order of rows with equal values.
            ascending = sort.ascending if later else not sort.ascending
            query = (
                select(table.c.id)
                .where(*criteria.where_clauses(), sort.rows_beyond(row, later))
                .order_by(
                    sort.key.asc() if ascending else sort.key.desc(),
                    table.c.id.desc() if later else table.c.id.asc(),
                )
            )
            return connection.execute(query.limit(1)).scalar_one_or_none()

        if sort.value_of(row) is None:
            return None, None
        with self._database.connection() as connection:
            return find(later=False), find(later=True)

    def list_executions(
        self, criteria: ArtifactFilter, limit: int = 50, offset: int = 0
    ) -> tuple[list[ExecutionSummary], int]:
        """Return summaries by execution, the newest first, and how many executions there are."""
        is_failure = table.c.finagent_status.in_(FAILED_STATUSES)

        def count_where(condition: ColumnElement[Any]) -> ColumnElement[Any]:
            return func.sum(case((condition, 1), else_=0))

        def count_action(action: str) -> ColumnElement[Any]:
            # A row of another system has no status, and `not null` would exclude it.
            return count_where((table.c.action == action) & func.coalesce(~is_failure, True))

        query = (
            select(
                table.c.execution_id,
                func.max(table.c.dag_id).label("dag_id"),
                func.count().label("signals"),
                count_action("BUY").label("buys"),
                count_action("SELL").label("sells"),
                count_action("HOLD").label("holds"),
                count_where(is_failure).label("failed"),
                func.min(table.c.finagent_as_of).label("first_as_of"),
                func.max(table.c.finagent_as_of).label("last_as_of"),
                func.max(table.c.created_at).label("created_at"),
            )
            .where(*criteria.where_clauses())
            .group_by(table.c.execution_id)
            .order_by(func.max(table.c.id).desc())
        )
        with self._database.connection() as connection:
            rows = connection.execute(query.limit(limit).offset(offset)).mappings().all()
            # One row of each alone: counts of their signals would be made for nothing.
            each = query.with_only_columns(table.c.execution_id).order_by(None)
            count = select(func.count()).select_from(each.subquery())
            total: int = connection.execute(count).scalar_one()
        return [ExecutionSummary(**row) for row in rows], total

    def count_signals(self, since: datetime) -> SignalCounts:
        """Count the desk's signals that were written at `since` or later."""
        is_failure = table.c.finagent_status.in_(FAILED_STATUSES)
        query = select(
            func.count().label("all"),
            func.coalesce(func.sum(case((is_failure, 1), else_=0)), 0).label("failed"),
        ).where(
            table.c.created_at >= since, table.c.type == "signal", table.c.finagent_origin == OURS
        )
        with self._database.connection() as connection:
            total, failed = connection.execute(query).one()
        return SignalCounts(total, int(failed))

    def sum_costs(self, days: Sequence[datetime]) -> list[DayCost]:
        """Return what the desk's signals cost that were written on each day.

        A day begins at its moment in `days` and has 24 hours.
        """
        found = []
        with self._database.connection() as connection:
            # One by one: each reads its part of the index, and dates differ between databases.
            for day in days:
                query = select(json_text(table.c.signal_data, "cost_usd")).where(
                    table.c.created_at >= day,
                    table.c.created_at < day + timedelta(days=1),
                    table.c.type == "signal",
                    table.c.finagent_origin == OURS,
                )
                # Added up here: anybody may have changed a row, and PostgreSQL would refuse the
                # whole query for one text that is not a number.
                costs = [_read_cost(text) for text in connection.execute(query).scalars()]
                known = [cost for cost in costs if cost is not None]
                unknown = len(costs) - len(known)
                found.append(DayCost(day.date(), len(costs), unknown, fsum(known)))
        return found

    def find_last_signals(self, symbols: Sequence[str]) -> dict[str, Artifact]:
        """Return the signal of the desk that was written last, by symbol; those without are left
        out.
        """
        found = {}
        with self._database.connection() as connection:
            # One by one: each stops at the first row of its index, a grouped query reads them all.
            for symbol in symbols:
                query = (
                    select(*_COLUMNS)
                    .where(
                        table.c.symbol == symbol,
                        table.c.type == "signal",
                        table.c.finagent_origin == OURS,
                    )
                    .order_by(table.c.id.desc())
                    .limit(1)
                )
                for row in connection.execute(query).mappings():
                    found[symbol] = _from_row(row)
        return found

    def get(self, artifact_id: int) -> Artifact:
        """Return the artifact with this id. Raises UnknownArtifactError."""
        with self._database.connection() as connection:
            return read_artifact(connection, artifact_id)

    def add(self, new: NewArtifact) -> tuple[Artifact, bool]:
        """Store an artifact of somebody else; return it as stored, and whether it is new.

        The same artifact a second time adds nothing. Raises ArtifactConflictError if its key has
        another content among such artifacts; one of ours may have the same key.
        """
        new = _with_lengths(new)
        with self._database.transaction() as connection:
            artifact_id = insert_artifact(connection, new, self._clock(), REST)
            if artifact_id is not None:
                return read_artifact(connection, artifact_id), True
            assert new.key is not None
            stored = find_by_key(connection, new.key, REST)
            assert stored is not None
            new = _round_confidence(connection, new, stored)
        if any(getattr(stored, name) != value for name, value in new):
            raise ArtifactConflictError(
                f"artifact {stored.id} has the key {new.key!r} and another content; "
                f"change it with PATCH /api/artifacts/{stored.id}"
            )
        return stored, False

    def update(self, artifact_id: int, changes: Mapping[str, Any]) -> Artifact:
        """Replace the fields in `changes`, `metadata` as a whole; return the artifact after that.

        Raises UnknownArtifactError, ArtifactConflictError if a key, a settled signal or what a row
        of ours says would change, and pydantic's ValidationError for a value that no artifact may
        have.
        """
        with self._database.transaction() as connection:
            stored = read_artifact(connection, artifact_id, lock=True)
            before = {name: getattr(stored, name) for name in NewArtifact.model_fields}
            new = _with_lengths(NewArtifact.model_validate(before | dict(changes)), before)
            _check_changes(stored, _round_confidence(connection, new, stored))
            values = column_values(new) | {"updated_at": self._clock()}
            if stored.origin == OURS:
                # The rest is as it was, and columns by which ours is found follow no metadata.
                values = {name: values[name] for name in ("name", METADATA, "updated_at")}
            elif stored.origin == DISOWNED:
                values["finagent_key"] = None  # it was taken away, and stays so
            elif stored.key is None and new.key:
                # The unique index would refuse it, too, but as an error of the database.
                if find_by_key(connection, new.key, REST):
                    raise ArtifactConflictError(f"another artifact has the key {new.key!r} already")
                values["finagent_origin"] = REST
            connection.execute(table.update().where(table.c.id == artifact_id).values(**values))
            return read_artifact(connection, artifact_id)


def _read_cost(text: object) -> float | None:
    """Return a cost as it stands in a row; None for what is not an amount of money."""
    try:
        cost = float(str(text))
    except ValueError:
        return None
    return cost if isfinite(cost) and cost >= 0 else None


def insert_artifact(
    connection: Connection, new: NewArtifact, now: datetime, origin: Origin = OURS
) -> int | None:
    """Insert a row; return its id, or None if a row of this origin has its key already."""
    # One statement, so that of two processes with the same key only one inserts. Only
    # the dialects' own inserts have `on conflict`.
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    values = column_values(new) | {"created_at": now, "finagent_origin": origin}
    statement = dialect.insert(table).values(**values)
    unique = ["finagent_origin", "finagent_key"]
    statement = statement.on_conflict_do_nothing(index_elements=unique)
    result = connection.execute(statement.returning(table.c.id))
    artifact_id: int | None = result.scalar_one_or_none()
    if artifact_id is not None and origin == OURS:
        _write_texts(connection, artifact_id, new)
    return artifact_id


def replace_signal(
    connection: Connection, new: NewArtifact, now: datetime, superseded_run: str | None = None
) -> int | None:
    """Put a signal in the place of another run's with the same key; return the row's id.

    Only a failed signal is replaced, or a settled one of the run `superseded_run`. None: the stored
    signal stays, or is this very one.
    """
    statement = (
        table.update()
        .where(
            table.c.finagent_origin == OURS,
            table.c.finagent_key == new.key,
            table.c.finagent_status.in_(FAILED_STATUSES) | (table.c.run_id == superseded_run),
            # Written a second time, a signal of the same run is no replacement.
            table.c.run_id != new.run_id,
        )
        .values(**column_values(new), updated_at=now)
    )
    result = connection.execute(statement.returning(table.c.id))
    artifact_id: int | None = result.scalar_one_or_none()
    if artifact_id is not None:
        _write_texts(connection, artifact_id, new)
    return artifact_id


def restore_artifact(connection: Connection, new: NewArtifact, now: datetime) -> int | None:
    """Write a row of ours again if somebody changed it; return its id, None if it is as written.

    Its name and further `metadata` are anybody's to change, and are then written again, too.
    """
    stored = find_by_key(connection, new.key or "", OURS)
    if stored is None or is_as_written(connection, stored, new):
        return None
    values = column_values(new) | {"updated_at": now}
    connection.execute(table.update().where(table.c.id == stored.id).values(**values))
    _write_texts(connection, stored.id, new)
    return stored.id


def _write_texts(connection: Connection, artifact_id: int, new: NewArtifact) -> None:
    """Write what a search reads of a signal of ours; other artifacts have no such row."""
    if new.type != "signal":
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    texts = searched_text(new.signal_data)
    statement = dialect.insert(signal_texts).values(artifact_id=artifact_id, texts=texts)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["artifact_id"], set_={"texts": texts})
    )


def disown_artifact(connection: Connection, artifact_id: int) -> None:
    """Take its key, and the word that it is ours, from a row that no decision of ours wrote."""
    values = {"finagent_origin": DISOWNED, "finagent_key": None}
    connection.execute(table.update().where(table.c.id == artifact_id).values(**values))


def is_as_written(connection: Connection, stored: Artifact, new: NewArtifact) -> bool:
    """Return whether the row of ours `stored` says what `new` says."""
    new = _round_confidence(connection, new, stored)
    if stored.type == "llm" and stored.signal_data is None:
        new = new.model_copy(update={"signal_data": None})  # older code wrote none
    elif stored.type == "signal" and isinstance(stored.signal_data, dict):
        stored = stored.model_copy(update={"signal_data": fill_later_fields(stored.signal_data)})
    columns = [table.c.finagent_status, table.c.finagent_as_of]
    query = select(*columns).where(table.c.id == stored.id)
    return (
        isinstance(stored.metadata, dict)
        and all(
            getattr(stored, name) == getattr(new, name)
            for name in DECISION_FIELDS
            if name not in DRAWN_FIELDS
        )
        and all(
            stored.metadata.get(name) == new.metadata.get(name)
            for name in DECISION_METADATA
            if name not in UNCOMPARED_METADATA
        )
        # Rows are searched by these.
        and tuple(connection.execute(query).one()) == (new.status, new.as_of)
    )


def read_artifact(connection: Connection, artifact_id: int, lock: bool = False) -> Artifact:
    """Return the artifact with this id; `lock` keeps its row from other writers.

    Raises UnknownArtifactError.
    """
    query = select(*_COLUMNS).where(table.c.id == artifact_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise UnknownArtifactError(artifact_id)
    return _from_row(row)


def find_by_key(connection: Connection, key: str, origin: Origin) -> Artifact | None:
    """Return the artifact of this origin with this key; None if there is none."""
    is_its = (table.c.finagent_key == key) & (table.c.finagent_origin == origin)
    query = select(*_COLUMNS).where(is_its)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _from_row(row)


def _from_row(row: RowMapping) -> Artifact:
    values = dict(row)
    values["metadata"] = values.pop(METADATA) or {}
    values["origin"] = values.pop(_COLUMN_NAMES["origin"])
    try:
        return Artifact.model_validate(values)
    except ValidationError:
        # Another system's row may break the rules for new ones; it is shown as it is stored.
        return Artifact.model_construct(**values)


def column_values(new: NewArtifact) -> dict[str, Any]:
    """Return the values of the table's columns, without its id and its stamps."""
    values = new.model_dump()
    values[METADATA] = values.pop("metadata")
    return values | {
        "finagent_key": new.key,
        "finagent_status": new.status,
        "finagent_as_of": new.as_of,
        **filter_values(new),
    }


def filter_values(new: NewArtifact) -> dict[str, str | None]:
    """Return the columns by which a signal is found; a value of another type is none."""
    # Another system may write metadata of any form.
    found = new.metadata if new.type == "signal" else {}
    values = {name: found.get(key) for name, key in FILTER_COLUMNS.items()}
    return {name: value if isinstance(value, str) else None for name, value in values.items()}


def _with_lengths(new: NewArtifact, before: Mapping[str, Any] | None = None) -> NewArtifact:
    """Return `new` with the lengths of a prompt and a response that lack one.

    A text that differs from the one in `before` is counted anew.
    """
    before = before or {}
    lengths = {
        f"{name}_length": len(text)
        for name in ("prompt", "response")
        if (text := getattr(new, name)) is not None
        and (getattr(new, f"{name}_length") is None or text != before.get(name, text))
    }
    return new.model_copy(update=lengths)


def _round_confidence(connection: Connection, new: NewArtifact, stored: Artifact) -> NewArtifact:
    """Return `new` with its confidence as the column would store it."""
    if new.confidence is None or new.confidence == stored.confidence:
        return new
    # The platform's column has two decimals: without this the same value would look changed.
    types = {
        column["name"]: column["type"] for column in inspect(connection).get_columns(table.name)
    }
    rounded = type_coerce(cast(literal(new.confidence), types["confidence"]), Float)
    return new.model_copy(update={"confidence": connection.execute(select(rounded)).scalar_one()})


def _check_changes(stored: Artifact, new: NewArtifact) -> None:
    """Raise ArtifactConflictError if `new` changes a key, what a settled signal says, or anything
    that a row of ours says.
    """
    if stored.key is None and stored.origin != OURS:
        return  # another system's row, whose rules are not ours
    is_settled = stored.status is not None and stored.status not in FAILED_STATUSES
    fixed_fields: tuple[str, ...] = SETTLED_FIELDS if is_settled else ()
    fixed: tuple[str, ...] = SETTLED_METADATA if is_settled else ("key",)
    if stored.origin == OURS:
        fixed_fields, fixed = DECISION_FIELDS, DECISION_METADATA
    changed = [f"metadata.{n}" for n in fixed if stored.metadata.get(n) != new.metadata.get(n)]
    changed += [n for n in fixed_fields if getattr(stored, n) != getattr(new, n)]
    if changed:
        raise ArtifactConflictError(
            f"artifact {stored.id} is {stored.key!r}"
            + (f" and settled as {stored.status!r}" if is_settled else "")
            + f"; its {', '.join(changed)} can't be changed, leave it out or as it is"
        )


def _limit_bytes(artifacts: Iterable[Artifact], max_bytes: int | None) -> Iterator[Artifact]:
    """Yield artifacts until their JSON exceeds `max_bytes`; the first one in any case."""
    size = 0
    for i, artifact in enumerate(artifacts):
        if max_bytes is not None:
            size += len(artifact.model_dump_json(warnings=False).encode())
            if i and size > max_bytes:
                return
        yield artifact

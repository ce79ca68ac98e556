"""The table of artifacts: pages of it, one row, a new row, a changed one.

A signal that is settled (`Status.is_failure` is false) is never decided anew: its action,
confidence and whatever else says what was decided, and where it came from, stay as they are. One
that failed may be replaced by a later result, in its place. A row of ours is in the table once, by
`metadata.key`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    RowMapping,
    cast,
    func,
    inspect,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite

from finagent_model.domain.artifact import Artifact, NewArtifact
from finagent_model.domain.signal import Status
from finagent_model.errors import ArtifactConflictError, UnknownArtifactError
from finagent_model.store.database import Database
from finagent_model.store.schema import METADATA
from finagent_model.store.schema import artifacts as table
from finagent_model.store.wanted import Wanted

FAILURES = tuple(status.value for status in Status if status.is_failure)
DECIDED = (
    *("type", "symbol", "action", "confidence", "signal_data", "model_name"),
    *("run_id", "experiment_id", "workflow_id", "execution_id", "dag_id", "task_id"),
)
"""What a settled signal says and where it came from; of its metadata `TOLD`."""
TOLD = (
    *("key", "status", "signal_id", "as_of", "model_uri", "model_version", "conversation_id"),
    *("dag_run_id", "map_index", "tokens", "cost_usd", "evidence", "calibrated", "trained_by"),
)
BATCH = 20
"""Rows of a page that are read at a time."""
Order = Literal["newest", "oldest", "step"]
_COLUMNS = [table.c[METADATA if name == "metadata" else name] for name in Artifact.model_fields]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Page:
    """Some of the artifacts that were asked for, and how many there are."""

    artifacts: tuple[Artifact, ...]
    total: int


class ArtifactStore:
    """Every method raises StoreError where the database can't be used."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    def page(
        self,
        wanted: Wanted,
        limit: int = 50,
        offset: int = 0,
        order: Order = "newest",
        largest: int | None = None,
    ) -> Page:
        """In the order in which they were first written, or, for one execution, of its steps. With
        `largest`, fewer than `limit` where they would be more bytes of JSON, but at least one.
        """
        clauses = wanted.clauses()
        by: dict[Order, list[ColumnElement[Any]]] = {
            "newest": [table.c.id.desc()],
            "oldest": [table.c.id],
            "step": [table.c.step_name, table.c.id],
        }
        rows = select(*_COLUMNS).where(*clauses).order_by(*by[order]).limit(limit).offset(offset)
        with self._database.reading() as connection:
            with connection.execute(rows.execution_options(yield_per=BATCH)) as read:
                found = tuple(_up_to(largest, map(_artifact, read.mappings())))
            total = connection.execute(select(func.count()).select_from(table).where(*clauses))
            return Page(found, total.scalar_one())

    def get(self, number: int) -> Artifact:
        """Raises UnknownArtifactError."""
        with self._database.reading() as connection:
            return artifact_of(connection, number)

    def named(self, key: str) -> Artifact | None:
        """The one with this `metadata.key`."""
        with self._database.reading() as connection:
            return _of_key(connection, key)

    def add(self, new: NewArtifact) -> tuple[Artifact, bool]:
        """The artifact, and whether it is new: the same one again adds nothing. Raises
        ArtifactConflictError where its key has another content.
        """
        new = measured(new)
        with self._database.writing() as connection:
            number = insert(connection, new, self._clock())
            if number is not None:
                return artifact_of(connection, number), True
            assert new.key is not None
            there = _of_key(connection, new.key)
            assert there is not None
            new = _as_stored(connection, new, there)
        if any(getattr(there, name) != value for name, value in new):
            raise ArtifactConflictError(
                f"artifact {there.id} has the key {new.key!r} and another content; "
                f"change it with PATCH /api/artifacts/{there.id}"
            )
        return there, False

    def change(self, number: int, changes: Mapping[str, Any]) -> Artifact:
        """With the fields of `changes` put in place of what was there, `metadata` as a whole.

        Raises UnknownArtifactError, ArtifactConflictError where a key or a settled signal would
        change, and pydantic's ValidationError for a value that no artifact may have.
        """
        with self._database.writing() as connection:
            there = artifact_of(connection, number, lock=True)
            merged = {name: getattr(there, name) for name in NewArtifact.model_fields}
            new = measured(NewArtifact.model_validate(merged | dict(changes)), merged)
            _refuse_to_rewrite(there, _as_stored(connection, new, there))
            if there.key is None and new.key and _of_key(connection, new.key):
                raise ArtifactConflictError(f"another artifact has the key {new.key!r} already")
            overwrite(connection, number, new, self._clock())
            return artifact_of(connection, number)


def measured(new: NewArtifact, before: Mapping[str, Any] | None = None) -> NewArtifact:
    """With the lengths of a prompt and a response that came without, or with another text."""
    before = before or {}
    found = {
        f"{name}_length": len(text)
        for name in ("prompt", "response")
        if (text := getattr(new, name)) is not None
        and (getattr(new, f"{name}_length") is None or text != before.get(name, text))
    }
    return new.model_copy(update=found)


def insert(connection: Connection, new: NewArtifact, now: datetime) -> int | None:
    """The new row's number; None: its key is there already."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    adding = dialect.insert(table).values(**_columns(new), created_at=now)
    adding = adding.on_conflict_do_nothing(index_elements=["finagent_key"])
    number: int | None = connection.execute(adding.returning(table.c.id)).scalar_one_or_none()
    return number


def overwrite(connection: Connection, number: int, new: NewArtifact, now: datetime) -> None:
    values = _columns(new) | {"updated_at": now}
    connection.execute(table.update().where(table.c.id == number).values(**values))


def replace(
    connection: Connection, new: NewArtifact, now: datetime, settled_in: str | None = None
) -> int | None:
    """Put a signal in the place of another run's that failed, or that was `settled_in` this one, of
    the same key; None: the one that is there is settled, or is this one.
    """
    replacing = (
        table.update()
        .where(
            table.c.finagent_key == new.key,
            table.c.finagent_status.in_(FAILURES) | (table.c.run_id == settled_in),
            table.c.run_id != new.run_id,
        )
        .values(**_columns(new), updated_at=now)
    )
    number: int | None = connection.execute(replacing.returning(table.c.id)).scalar_one_or_none()
    return number


def artifact_of(connection: Connection, number: int, lock: bool = False) -> Artifact:
    """Raises UnknownArtifactError."""
    query = select(*_COLUMNS).where(table.c.id == number)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise UnknownArtifactError(number)
    return _artifact(row)


def _refuse_to_rewrite(there: Artifact, new: NewArtifact) -> None:
    if there.key is None:
        return
    settled = there.status is not None and there.status not in FAILURES
    fixed = TOLD if settled else ("key",)
    changed = [f"metadata.{n}" for n in fixed if there.metadata.get(n) != new.metadata.get(n)]
    if settled:
        changed += [name for name in DECIDED if getattr(there, name) != getattr(new, name)]
    if changed:
        raise ArtifactConflictError(
            f"artifact {there.id} is {there.key!r}"
            + (f" and settled as {there.status!r}" if settled else "")
            + f"; its {', '.join(changed)} can't be changed, leave it out or as it is"
        )


def _as_stored(connection: Connection, new: NewArtifact, there: Artifact) -> NewArtifact:
    """With its confidence as the table's column keeps it: the platform's has two decimals."""
    if new.confidence is None or new.confidence == there.confidence:
        return new
    kinds = {each["name"]: each["type"] for each in inspect(connection).get_columns(table.name)}
    kept = type_coerce(cast(literal(new.confidence), kinds["confidence"]), Float)
    return new.model_copy(update={"confidence": connection.execute(select(kept)).scalar_one()})


def _columns(new: NewArtifact) -> dict[str, Any]:
    """Values of the table's columns, but for its number and its stamps."""
    values = new.model_dump()
    values[METADATA] = values.pop("metadata")
    return values | {
        "finagent_key": new.key,
        "finagent_status": new.status,
        "finagent_as_of": new.as_of,
    }


def _up_to(largest: int | None, found: Iterator[Artifact]) -> Iterator[Artifact]:
    size = 0
    for number, artifact in enumerate(found):
        if largest is not None:
            size += len(artifact.model_dump_json(warnings=False).encode())
            if number and size > largest:
                return
        yield artifact


def _of_key(connection: Connection, key: str) -> Artifact | None:
    query = select(*_COLUMNS).where(table.c.finagent_key == key)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _artifact(row)


def _artifact(row: RowMapping) -> Artifact:
    """As the table has it: another system's row may break the rules for new ones."""
    values = dict(row)
    values["metadata"] = values.pop(METADATA) or {}
    try:
        return Artifact.model_validate(values)
    except ValidationError:
        return Artifact.model_construct(**values)

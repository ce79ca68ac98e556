"""What the trading platform stores of a decision: a signal, a reply of a chat model, a chart.

Field names are the platform's. What it has no column for is in `metadata`. `metadata.key` names a
row of ours, here and on the platform, whatever number a database gave it: for a signal it is
`TradingSignal.signal_id`.

Which artifacts a reader wants: the filters of REST and pages alike.

The table of artifacts: pages of it, one row, a new row, a changed one.

A signal that is settled (`Status.is_failure` is false) is never decided anew: its action,
confidence and whatever else says what was decided, and where it came from, stay as they are. One
that failed may be replaced by a later result, in its place. A row of ours is in the table once, by
`metadata.key`.

Signals by execution: what one run of a workflow came to, over all of its symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
)
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

from finagent_model._base import FrozenModel
from finagent_model.decision.signal import Action, Status
from finagent_model.errors import ArtifactConflictError, UnknownArtifactError
from finagent_model.store.database import Database
from finagent_model.store.schema import METADATA
from finagent_model.store.schema import artifacts as table

Kind = Literal["signal", "llm", "chart"]
NUMBER = 2**31 - 1
"""The largest that PostgreSQL's `integer` holds."""


class NewArtifact(FrozenModel):
    """An artifact before a database has it."""

    name: str = Field(min_length=1, max_length=200)
    type: Kind
    symbol: str | None = Field(None, max_length=50)  # the platform's column takes no more
    run_id: str | None = Field(None, description="MLflow run that holds the whole record.")
    experiment_id: str | None = Field(None, description="MLflow experiment of that run.")
    workflow_id: str | None = None
    execution_id: str | None = Field(None, description="Groups what one run of a workflow made.")
    step_name: str | None = Field(None, description="Orders the artifacts of one execution.")
    dag_id: str | None = None
    task_id: str | None = None

    prompt: str | None = Field(None, description="What a model was asked; null where it is large.")
    response: str | None = Field(None, description="What it said; null where it is large.")
    prompt_length: int | None = Field(None, ge=0, le=NUMBER, description="Characters.")
    response_length: int | None = Field(None, ge=0, le=NUMBER, description="Characters.")
    model_name: str | None = None

    image_path: str | None = Field(None, description="Path among the artifacts of the MLflow run.")
    chart_type: str | None = None
    chart_data: JsonValue = None

    action: Action | None = None
    confidence: float | None = Field(None, ge=0, le=1, description="0 to 1.")
    signal_data: dict[str, JsonValue] | None = Field(None, description="The whole TradingSignal.")

    metadata: dict[str, JsonValue] = Field(
        {}, description="Also `key`, `status`, `as_of`, `model_uri`, `model_version`, ..."
    )

    @field_validator("*", mode="after")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return storable(value)

    @field_validator("metadata")
    @classmethod
    def _searchable(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in ("key", "status"):
            if not isinstance(value.get(name), str | None):
                raise ValueError(f"{name} is no text")
        if value.get("as_of") is not None and _moment(value["as_of"]) is None:
            raise ValueError(
                "as_of is no moment of the years 2 to 9998; write it like 2012-06-29T20:00:00+00:00"
            )
        return value

    @property
    def key(self) -> str | None:
        """What names it wherever it is stored; None where another system made it."""
        key = self.metadata.get("key")
        return key if isinstance(key, str) else None

    @property
    def status(self) -> str | None:
        """How the decision came about; of a signal."""
        status = self.metadata.get("status")
        return status if isinstance(status, str) else None

    @property
    def as_of(self) -> datetime | None:
        """What was known to whoever decided."""
        return _moment(self.metadata.get("as_of"))


class Artifact(NewArtifact):
    """A row of the table `artifacts`. One that another system wrote is told as it stands there,
    whether or not it follows the rules for new ones.
    """

    id: int
    created_at: datetime
    updated_at: datetime | None = None


def storable(value: Any) -> Any:
    """The value, of text, lists and objects. Raises ValueError for what is in it that some database
    can't store: PostgreSQL has no NUL, JSON knows no NaN, no encoding has half a surrogate pair.
    """
    match value:
        case str():
            if "\0" in value:
                raise ValueError("holds a NUL character; leave it out")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("holds half a surrogate pair; send valid Unicode") from None
        case float() if not math.isfinite(value):
            raise ValueError("holds a number that is not finite, which JSON can't say; use null")
        case dict():
            for name, each in value.items():
                storable(name)
                storable(each)
        case list():
            for each in value:
                storable(each)
    return value


def has_date_everywhere(moment: datetime) -> bool:
    """Whether every zone has a date for it; a driver fails to tell one that has none."""
    return MINYEAR < moment.year < MAXYEAR


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment and moment.tzinfo and has_date_everywhere(moment) else None


def _date_or_moment(value: object, end_of_day: bool) -> object:
    """A date alone stands for the whole of it, in UTC."""
    if isinstance(value, str) and len(value) == 10:
        value = date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time.max if end_of_day else time.min, tzinfo=UTC)
    return value


def _dated(moment: datetime) -> datetime:
    if not has_date_everywhere(moment):
        raise ValueError("has no date in some zones; name one of the years 2 to 9998")
    return moment


Text = Annotated[str, AfterValidator(storable)]
Moment = Annotated[AwareDatetime, AfterValidator(_dated)]
From = Annotated[Moment, BeforeValidator(lambda value: _date_or_moment(value, False))]
To = Annotated[Moment, BeforeValidator(lambda value: _date_or_moment(value, True))]


class ArtifactFilter(FrozenModel):
    """Which artifacts; what is left out asks for any. Ranges hold both of their ends, and a date
    alone stands for the whole of it, in UTC.
    """

    type: Kind | None = None
    symbol: Text | None = Field(None, description="As it is stored; ours have no lower case.")
    execution_id: Text | None = None
    run_id: Text | None = None
    key: Text | None = Field(None, description="`metadata.key`; of a signal its `signal_id`.")
    status: Status | None = Field(None, description="Of a signal.")
    action: Action | None = None
    as_of_from: From | None = None
    as_of_to: To | None = None
    created_from: From | None = None
    created_to: To | None = None

    def clauses(self) -> list[ColumnElement[bool]]:
        equal = {
            "type": self.type,
            "symbol": self.symbol,
            "execution_id": self.execution_id,
            "run_id": self.run_id,
            "finagent_key": self.key,
            "finagent_status": self.status and self.status.value,
            "action": self.action,
        }
        low = {"finagent_as_of": self.as_of_from, "created_at": self.created_from}
        high = {"finagent_as_of": self.as_of_to, "created_at": self.created_to}
        return [
            *(table.c[name] == value for name, value in equal.items() if value is not None),
            *(table.c[name] >= value for name, value in low.items() if value is not None),
            *(table.c[name] <= value for name, value in high.items() if value is not None),
        ]


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
        wanted: ArtifactFilter,
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


@dataclass(frozen=True)
class ExecutionSummary:
    """Of those signals that were asked for. An action counts where it was decided, a failure is
    none.
    """

    execution_id: str | None
    """None: what persons asked for, all of it."""
    dag_id: str | None
    signals: int
    buys: int
    sells: int
    holds: int
    failed: int
    first_as_of: datetime | None
    last_as_of: datetime | None
    created_at: datetime
    """Of the newest."""


def executions(
    database: Database, wanted: ArtifactFilter, limit: int = 50, offset: int = 0
) -> tuple[list[ExecutionSummary], int]:
    """The newest first, and how many there are. Raises StoreError."""
    clauses = wanted.clauses()
    is_failure = table.c.finagent_status.in_(FAILURES)

    def times(condition: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.sum(case((condition, 1), else_=0))

    def decided(action: str) -> ColumnElement[Any]:
        # A row of another system has no status.
        return times((table.c.action == action) & func.coalesce(~is_failure, True))

    rows = (
        select(
            table.c.execution_id,
            func.max(table.c.dag_id).label("dag_id"),
            func.count().label("signals"),
            decided("BUY").label("buys"),
            decided("SELL").label("sells"),
            decided("HOLD").label("holds"),
            times(is_failure).label("failed"),
            func.min(table.c.finagent_as_of).label("first_as_of"),
            func.max(table.c.finagent_as_of).label("last_as_of"),
            func.max(table.c.created_at).label("created_at"),
        )
        .where(*clauses)
        .group_by(table.c.execution_id)
        .order_by(func.max(table.c.id).desc())
    )
    with database.reading() as connection:
        found = connection.execute(rows.limit(limit).offset(offset)).mappings().all()
        counted = select(func.count()).select_from(rows.order_by(None).subquery())
        total: int = connection.execute(counted).scalar_one()
    return [ExecutionSummary(**row) for row in found], total

"""Artifacts of a decision as REST and the tables have them, and the filters that select them.

An artifact is a signal, a reply of a chat model or a chart. Field names are the trading platform's;
whatever it has no column for is in `metadata`. `metadata.key` names a row of ours, here and on the
platform, whatever id a database gave it: for a signal it is `TradingSignal.signal_id`. Whose row it
is says `origin`, which the store sets and no caller can: a key alone can be computed by anybody.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, time
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    JsonValue,
    field_validator,
)
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    FromClause,
    Select,
    and_,
    cast,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy import Text as TextColumn
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from finagent_model._base import FrozenModel
from finagent_model.config.rules import Grade
from finagent_model.decision.signal import LEAST_TO_ACT, Action, Status
from finagent_model.store._schema import FILTER_COLUMNS, METADATA, is_json, json_text, signal_texts
from finagent_model.store._schema import artifacts as table

Kind = Literal["signal", "llm", "chart"]
Order = Literal["newest", "oldest", "step"]
Origin = Literal["finagent", "rest", "disowned"]
SortColumn = Literal["as_of", "recorded", "symbol", "confidence"]
OURS: Origin = "finagent"
REST: Origin = "rest"
DISOWNED: Origin = "disowned"
MAX_INTEGER = 2**31 - 1
"""The largest value of PostgreSQL's `integer`."""
NUL, NUL_SUBSTITUTE = "\0", "\N{REPLACEMENT CHARACTER}"
FAILED_STATUSES = tuple(status.value for status in Status if status.is_failure)
"""Statuses without a decision behind them; a signal of any other status is settled."""


def check_storable(value: Any) -> Any:
    """Return `value`, of text, numbers, lists and objects, if every database can store it.

    Raises ValueError for a NUL character, half a surrogate pair or a number that is not finite, at
    any depth.
    """
    match value:
        case str():
            # PostgreSQL has no NUL in a text, and no encoding has half a surrogate pair.
            if NUL in value:
                raise ValueError("holds a NUL character; leave it out")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("holds half a surrogate pair; send valid Unicode") from None
        case float() if not math.isfinite(value):
            raise ValueError("holds a number that is not finite, which JSON can't say; use null")
        case dict():
            for name, item in value.items():
                check_storable(name)
                check_storable(item)
        case list():
            for item in value:
                check_storable(item)
    return value


def replace_unstorable(value: Any) -> Any:
    """Return `value` with substitutes for characters that some database can't store."""
    match value:
        case str():
            # PostgreSQL has no NUL in a text; encoding replaces half surrogate pairs.
            return value.replace(NUL, NUL_SUBSTITUTE).encode(errors="replace").decode()
        case dict():
            return {replace_unstorable(k): replace_unstorable(v) for k, v in value.items()}
        case list():
            return [replace_unstorable(v) for v in value]
    return value


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

    prompt: str | None = Field(None, description="The prompt; null where it is large.")
    response: str | None = Field(None, description="The model's reply; null where it is large.")
    prompt_length: int | None = Field(None, ge=0, le=MAX_INTEGER, description="Characters.")
    response_length: int | None = Field(None, ge=0, le=MAX_INTEGER, description="Characters.")
    model_name: str | None = None

    image_path: str | None = Field(
        None,
        description="The MLflow run of finagent's charts; `metadata.chart_artifact` is the "
        "file in it.",
    )
    chart_type: str | None = None
    chart_data: JsonValue = None

    action: Action | None = None
    confidence: float | None = Field(None, ge=0, le=1, description="0 to 1.")
    signal_data: dict[str, JsonValue] | None = Field(
        None, description="The whole TradingSignal, with its levels also by the platform's names."
    )

    metadata: dict[str, JsonValue] = Field(
        {}, description="Also `key`, `status`, `as_of`, `model_uri`, `model_version`, ..."
    )

    # Checked here, so that a bad value is a 422 that names its field and no error of a driver.
    @field_validator("*", mode="after")
    @classmethod
    def _check_storable(cls, value: Any) -> Any:
        return check_storable(value)

    @field_validator("metadata")
    @classmethod
    def _check_searchable(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        # These values are repeated in columns, by which rows are searched.
        for name in ("key", "status"):
            if not isinstance(value.get(name), str | None):
                raise ValueError(f"{name} is not text")
        if value.get("as_of") is not None and _parse_moment(value["as_of"]) is None:
            raise ValueError(
                "as_of is not a moment of the years 2 to 9998; "
                "write it like 2012-06-29T20:00:00+00:00"
            )
        return value

    @property
    def key(self) -> str | None:
        """Name of the row wherever it is stored; None for a row of another system."""
        return _text_of(self.metadata, "key")

    @property
    def status(self) -> str | None:
        """Status of a signal's decision; None for other artifacts and other systems' rows."""
        return _text_of(self.metadata, "status")

    @property
    def as_of(self) -> datetime | None:
        """Moment up to which the decider knew the market, with a zone; None if it is not given."""
        return _parse_moment(self.metadata.get("as_of"))


class Artifact(NewArtifact):
    """A row of the table `artifacts`. A row that another system wrote may break the rules for new
    ones; it is returned as it is stored.
    """

    id: int
    created_at: datetime
    updated_at: datetime | None = None
    origin: str | None = Field(
        None,
        description="The writer: `finagent` (a decision of this code), `rest` (a caller of this "
        "API), `disowned` (somebody who wrote it in finagent's name) or null (another system).",
    )


def _text_of(metadata: object, name: str) -> str | None:
    # Another system's row may have any JSON there.
    value = metadata.get(name) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else None


def _has_date_in_every_zone(moment: datetime) -> bool:
    # In the first and the last year a zone's offset may leave the calendar, and drivers then fail.
    return MINYEAR < moment.year < MAXYEAR


def _parse_moment(value: object) -> datetime | None:
    """Return the moment that an ISO text names; None if it names none, or one without a zone."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment and moment.tzinfo and _has_date_in_every_zone(moment) else None


def _expand_date(value: object, end_of_day: bool) -> object:
    """Return the first or last moment, in UTC, of a date; any other value as it is."""
    # A page's form sends dates: they have no zone, and the end of a range is the end of its day.
    if isinstance(value, str) and len(value) == 10:
        value = date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time.max if end_of_day else time.min, tzinfo=UTC)
    return value


def _check_moment(moment: datetime) -> datetime:
    if not _has_date_in_every_zone(moment):
        raise ValueError("has no date in some zones; name one of the years 2 to 9998")
    return moment


Text = Annotated[str, AfterValidator(check_storable)]
Moment = Annotated[AwareDatetime, AfterValidator(_check_moment)]
From = Annotated[Moment, BeforeValidator(lambda value: _expand_date(value, False))]
To = Annotated[Moment, BeforeValidator(lambda value: _expand_date(value, True))]


class ArtifactFilter(FrozenModel):
    """Which artifacts to select; a field that is left out selects any. Ranges include both of
    their ends, and a date alone stands for the whole of it, in UTC.
    """

    type: Kind | None = None
    symbol: Text | None = Field(None, description="As it is stored; ours have no lower case.")
    execution_id: Text | None = None
    run_id: Text | None = None
    key: Text | None = Field(None, description="`metadata.key`; of a signal its `signal_id`.")
    status: Status | None = Field(None, description="Status of a signal.")
    action: Action | None = None
    origin: Origin | None = Field(None, description="`finagent` selects what the desk decided.")
    as_of_from: From | None = None
    as_of_to: To | None = None
    created_from: From | None = None
    created_to: To | None = None

    def where_clauses(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the table `artifacts`, all of which must hold."""
        equal = {
            "type": self.type,
            "symbol": self.symbol,
            "execution_id": self.execution_id,
            "run_id": self.run_id,
            "finagent_key": self.key,
            "finagent_status": self.status and self.status.value,
            "action": self.action,
            "finagent_origin": self.origin,
        }
        low = {"finagent_as_of": self.as_of_from, "created_at": self.created_from}
        high = {"finagent_as_of": self.as_of_to, "created_at": self.created_to}
        return [
            *(table.c[name] == value for name, value in equal.items() if value is not None),
            *(table.c[name] >= value for name, value in low.items() if value is not None),
            *(table.c[name] <= value for name, value in high.items() if value is not None),
        ]


class SignalSort(NamedTuple):
    """An order of signals; rows without a value come last, and the newest row first of equals."""

    column: SortColumn = "as_of"
    ascending: bool = False

    @property
    def key(self) -> Column[Any]:
        """The column of the table `artifacts`."""
        names = {"as_of": "finagent_as_of", "recorded": "created_at"}
        return table.c[names.get(self.column, self.column)]

    @property
    def order_by(self) -> list[ColumnElement[Any]]:
        """The columns to order by."""
        key = self.key.asc() if self.ascending else self.key.desc()
        # SQLite puts NULL last by itself when it counts down, and then the index is enough.
        return [key.nulls_last(), table.c.id.desc()]

    def value_of(self, row: Artifact) -> datetime | str | float | None:
        """Return what `row` has in the column; None: nothing."""
        return {
            "as_of": row.as_of,
            "recorded": row.created_at,
            "symbol": row.symbol,
            "confidence": row.confidence,
        }[self.column]

    def rows_beyond(self, row: Artifact, later: bool) -> ColumnElement[bool]:
        """Return the condition for rows after `row` in this order, or before it.

        Rows without a value have none after or before them.
        """
        value = self.value_of(row)
        is_beyond = self.key > value if self.ascending == later else self.key < value
        same = (self.key == value) & (table.c.id < row.id if later else table.c.id > row.id)
        return is_beyond | same


NEWEST_DECISION = SignalSort()
SignalKind = Literal["act", "failed"]
MAX_SEARCH_CHARS = 100


class SignalFilter(ArtifactFilter):
    """Which trading signals to select; a symbol selects its upper and lower case as well.

    The action HOLD selects choices to hold, and no failure that has HOLD as its action.
    """

    kind: SignalKind | None = None
    """`act`: decisions of the desk that may be acted on; `failed`: those that could not be made."""
    version: Text | None = Field(None, max_length=250)
    """The version's number, or its URI such as `models:/finagent/3`."""
    trained_by: Text | None = Field(None, max_length=100)
    """Run of the training whose version decided."""
    evidence: Grade | Literal["unknown"] | None = None
    """`unknown`: evidence was not assessed."""
    text: Text | None = Field(None, max_length=MAX_SEARCH_CHARS)
    """Words in one of the signal's texts, as they stand there. Case does not matter; in signals of
    another system that is so for ASCII."""

    @property
    def _lineage(self) -> dict[str, str | None]:
        """The columns that are asked about, and their values; None: those that have none."""
        found: dict[str, str | None] = {}
        if self.version is not None:
            is_uri = ":" in self.version
            found["finagent_model_uri" if is_uri else "finagent_model_version"] = self.version
        if self.trained_by is not None:
            found["finagent_trained_by"] = self.trained_by
        if self.evidence is not None:
            found["finagent_evidence"] = None if self.evidence == "unknown" else self.evidence
        return found

    def where_clauses(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the table `artifacts`, all of which must hold."""
        clauses = ArtifactFilter.where_clauses(self.model_copy(update={"symbol": None}))
        if self.symbol is not None:
            spellings = (self.symbol, self.symbol.upper(), self.symbol.lower())
            clauses.append(table.c.symbol.in_(spellings))
        status = table.c.finagent_status
        if self.action == "HOLD":
            clauses.append(or_(status.is_(None), status == Status.OK.value))
        if self.kind == "failed":
            clauses.append(status.in_(FAILED_STATUSES))
        if self.kind == "act":
            is_call = table.c.action.in_(("BUY", "SELL")) & (status == Status.OK.value)
            is_sure = table.c.confidence >= LEAST_TO_ACT / 100
            clauses.append(is_call & is_sure & _IS_OURS)
        lineage = self._lineage
        # Ours by columns, which the index has; of others no column can be relied on.
        ours = [_equals(table.c[name], value) for name, value in lineage.items()]
        if self.text is not None:
            ours.append(_has_text(self.text))
        # The query of the others' rows runs only where there is one of them.
        foreign = and_(not_(_IS_OURS), table.c.id.in_(_foreign_signals(lineage, self.text)))
        clauses.append(or_(and_(_IS_OURS, *ours), foreign))
        return clauses


def searched_text(signal: JsonValue) -> str:
    """Return all texts of a signal's JSON, a line each and without case, as a search reads them."""
    return "\n".join(_texts_of(signal)).casefold()


def _texts_of(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts_of(item)
        case list():
            for item in value:
                yield from _texts_of(item)


def _has_text(words: str) -> ColumnElement[bool]:
    """Return whether the texts of a signal of ours hold `words`."""
    # Row by row, so that the next one in the list is found without reading all of them.
    return exists().where(
        signal_texts.c.artifact_id == table.c.id,
        signal_texts.c.texts.like(_like_pattern(words.casefold()), escape="/"),
    )


def _equals(column: ColumnElement[Any], value: str | None) -> ColumnElement[bool]:
    return column.is_(None) if value is None else column == value


# Not a plain comparison: by the index of origins SQLite would read every row to look at the rest.
_IS_OURS = func.coalesce(table.c.finagent_origin, "") == OURS


def _is_foreign_signal(row: FromClause) -> ColumnElement[bool]:
    """Return whether a row of type `signal` is another system's."""
    origin = row.c.finagent_origin
    # The type is no plain comparison: by its index SQLite would read all of our signals.
    is_signal = func.coalesce(row.c.type, "") == "signal"
    return and_(is_signal, or_(origin.is_(None), origin.in_((REST, DISOWNED))))


def _foreign_signals(lineage: Mapping[str, str | None], words: str | None) -> Select[Any]:
    """Return the query for the ids of other systems' signals that say this of themselves."""
    # In a query of its own, since for ours no JSON need be read: an index has all that is asked.
    row = table.alias("foreign_row")
    # A platform stores orders, trades and portfolios under the type `signal`, too, and says in
    # `signal_data.artifact_type` which of them a row is.
    artifact_type = json_text(row.c.signal_data, "artifact_type")
    return select(row.c.id).where(
        _is_foreign_signal(row),
        or_(row.c.signal_data.is_(None), is_json(row.c.signal_data)),
        or_(artifact_type.is_(None), artifact_type == "signal"),
        *(
            _equals(json_text(row.c[METADATA], FILTER_COLUMNS[name]), value)
            for name, value in lineage.items()
        ),
        *([] if words is None else [_contains(row.c.signal_data, words)]),
    )


def unreadable_signals() -> list[ColumnElement[bool]]:
    """Return the conditions for other systems' signals that are no JSON, and so in no list."""
    return [
        _is_foreign_signal(table),
        table.c.signal_data.is_not(None),
        ~is_json(table.c.signal_data),
    ]


class _HasWords(FunctionElement[bool]):
    """Whether one of the texts in a JSON value has some words; the case of ASCII does not matter.

    Its arguments: the JSON as a text; patterns of LIKE, in which `/` escapes, for the words as JSON
    escapes them and as they are; and a regular expression for a text of JSON that has them.
    """

    type = Boolean()
    inherit_cache = True


@compiles(_HasWords)
def _compile_words(element: _HasWords, compiler: SQLCompiler, **options: Any) -> str:
    # By the text that is stored: PostgreSQL makes no `jsonb` of a NUL or half a surrogate pair, and
    # one such row of another program would end the search.
    text, escaped, plain, regex = (compiler.process(e, **options) for e in element.clauses)
    return (
        f"CASE WHEN lower({text}) LIKE lower({escaped}) ESCAPE '/' "
        f"OR lower({text}) LIKE lower({plain}) ESCAPE '/' THEN {text} ~* {regex} ELSE false END"
    )


@compiles(_HasWords, "sqlite")
def _compile_sqlite_words(element: _HasWords, compiler: SQLCompiler, **options: Any) -> str:
    # Only where the words stand anywhere is the JSON taken apart, which takes ten times as long.
    text, escaped, plain, _ = (compiler.process(e, **options) for e in element.clauses)
    return (
        f"CASE WHEN ({text} LIKE {escaped} ESCAPE '/' OR {text} LIKE {plain} ESCAPE '/') "
        f"AND json_valid({text}) THEN EXISTS (SELECT 1 FROM json_tree({text}) AS part "
        f"WHERE part.type = 'text' AND part.atom LIKE {plain} ESCAPE '/') ELSE 0 END"
    )


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return whether the JSON of `column` has `text` in one of its texts; names of keys, numbers
    and literals are none.
    """
    # JSON is stored with ASCII alone, so that other letters stand there as escapes; another
    # program may store them as they are.
    escaped, plain = json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]
    either = "|".join(_SPECIAL.sub(r"\\\g<0>", each) for each in (escaped, plain))
    # A text that is a value has no colon after it, as the name of a key has.
    regex = rf'"([^"\\]|\\.)*({either})([^"\\]|\\.)*"[[:space:]]*([],}}]|$)'
    return _HasWords(
        cast(column, TextColumn), _like_pattern(escaped), _like_pattern(text), literal(regex)
    )


_SPECIAL = re.compile(r"[!-/:-@[-`{-~]")


def _like_pattern(words: str) -> ColumnElement[str]:
    for special in ("/", "%", "_"):
        words = words.replace(special, f"/{special}")
    return literal(f"%{words}%")

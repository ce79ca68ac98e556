"""What pydantic refuses is told in sentences of ours, with the value and what it must be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from finagent_model._base import InputModel, first_error_message
from finagent_model.config.desk_config import DeskConfig
from finagent_model.data._record_fields import RecordHints
from finagent_model.data.bar_columns import Hints
from finagent_model.errors import BadInputError
from finagent_model.market.news import Fact, NewsItem
from finagent_model.pipeline.evaluate import RuleRequest
from finagent_model.serving.approval_routes import ApprovalReply
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import NewArtifact, SignalFilter
from finagent_model.training.request import EvaluationRequest, TrainRequest


class Colour(StrEnum):
    A = "a"
    B = "b"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    value: int = 0


Short = Annotated[str, Field(min_length=2, max_length=3)]
Items = Annotated[list[int], Field(min_length=1, max_length=2)]
DATE, TIME = "a date such as 2012-06-29", "a time such as 2012-06-29T20:00:00+00:00"
MAPPING = "a mapping of keys to values"


@pytest.mark.parametrize(
    ("annotation", "value", "sentence"),
    [
        (int, "abc", "must be a whole number, not 'abc'"),
        (int, [1], "must be a whole number, not [...]"),
        (int, None, "must be a whole number, not null"),
        (int, 1.5, "must be a whole number, not 1.5"),
        (int, "9" * 5000, f"must be a whole number of fewer digits, not '{'9' * 40}'..."),
        (float, "abc", "must be a number, not 'abc'"),
        (float, {}, "must be a number, not {}"),
        (Annotated[float, Field(allow_inf_nan=False)], "inf", "must be a finite number, not 'inf'"),
        (Annotated[int, Field(gt=0)], 0, "must be above 0, not 0"),
        (Annotated[int, Field(ge=1)], 0, "must be at least 1, not 0"),
        (Annotated[int, Field(lt=9)], 9, "must be below 9, not 9"),
        (Annotated[int, Field(le=8)], 9, "must be at most 8, not 9"),
        (bool, "perhaps", "must be true or false, not 'perhaps'"),
        (bool, [], "must be true or false, not []"),
        (str, 5, "must be text, not 5"),
        (str, True, "must be text, not true"),
        (Short, "a", "must have 2 or more characters, not 'a'"),
        (Short, "abcd", "must have at most 3 characters, not 'abcd'"),
        (Annotated[str, Field(pattern="^a+$")], "b", "must match the pattern ^a+$, not 'b'"),
        (Literal["a", "b"], "c", "must be 'a' or 'b', not 'c'"),
        (Colour, "c", "must be 'a' or 'b', not 'c'"),
        (Path, 5, "must be a path, not 5"),
        (SecretStr, 5, "must be text, not 5"),
        (Items, [], "must have 1 or more items, not []"),
        (Items, [1, 2, 3], "must have at most 2 items, not [...]"),
        (list[int], "x", "must be a list, not 'x'"),
        (tuple[int, ...], "x", "must be a list, not 'x'"),
        (frozenset[int], "x", "must be a list, not 'x'"),
        (dict[str, int], "x", f"must be {MAPPING}, not 'x'"),
        (Inner, "x", f"must be {MAPPING}, not 'x'"),
        (date, "soon", f"must be {DATE}, not 'soon'"),
        (date, [], f"must be {DATE}, not []"),
        (datetime, "soon", f"must be {TIME}, not 'soon'"),
        (datetime, [], f"must be {TIME}, not []"),
        (
            AwareDatetime,
            "2012-06-29T20:00:00",
            "must be a time with its zone, such as 2012-06-29T20:00:00+00:00, "
            "not '2012-06-29T20:00:00'",
        ),
    ],
)
def test_first_error_message_says_what_value_must_be(
    annotation: Any, value: object, sentence: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(annotation).validate_python(value)
    assert first_error_message(caught.value) == sentence


class Asked(InputModel):
    count: int = Field(3, ge=1, le=9)
    kind: bool | Literal["change"] = True
    names: tuple[str, ...] = ("GOOG", "IBM")
    inner: Inner = Inner()
    needed: str
    day: str = "2012-06-29"

    @field_validator("day")
    @classmethod
    def _check_day(cls, value: str) -> str:
        if value == "quoted":
            raise ValueError(f"{value!r} is not a day")
        if value == "soon":
            raise ValueError("write a day of the past 9 years")
        return value


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"count": "abc"},
            "parameter count: must be a whole number, not 'abc'; allowed: at least 1, at most 9; "
            "default: 3",
        ),
        (
            {"kind": "x"},
            "parameter kind: must be true or false or 'change', not 'x'; default: True",
        ),
        ({"names": 3}, "parameter names: must be a list, not 3; default: GOOG,IBM"),
        ({"inner": {"value": "x"}}, "parameter inner.value: must be a whole number, not 'x'"),
        (
            {"inner": {"vlaue": 1}},
            "unknown parameter 'inner.vlaue'; did you mean 'value'?",
        ),
        ({"counts": 1}, "unknown parameter 'counts'; did you mean 'count'?"),
        ({"x": 1}, "unknown parameter 'x'; there is: count, kind, names, inner, needed, day"),
        (
            {"needed": date(2012, 6, 29)},
            "parameter needed: must be text, not 2012-06-29; put it in quotes",
        ),
        ({"needed": None}, "parameter needed: must be text, not null"),
        ({"day": "quoted"}, "parameter day: 'quoted' is not a day; default: 2012-06-29"),
        (
            {"day": "soon"},
            "parameter day: write a day of the past 9 years (given: 'soon'); default: 2012-06-29",
        ),
    ],
)
def test_parse_names_parameter_value_and_bounds(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInputError) as caught:
        Asked.parse(**{"needed": "x", **given})
    assert str(caught.value).startswith(sentence)


def test_parse_names_missing_parameter() -> None:
    with pytest.raises(BadInputError, match=r"^parameter needed: is missing$"):
        Asked.parse()


def kinds_of(schema: object) -> Iterator[str]:
    """Yield the kinds of values in a core schema of pydantic."""
    if isinstance(schema, dict):
        if isinstance(kind := schema.get("type"), str):
            yield kind
        for name, part in schema.items():
            if name not in ("metadata", "serialization", "default"):
                yield from kinds_of(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from kinds_of(part)


def test_inputs_have_no_kind_without_sentences() -> None:
    """A field of a new kind needs a row in `_REQUIREMENTS` and a case above."""
    inputs = (TrainRequest, EvaluationRequest, RuleRequest, DeskConfig, Hints, RecordHints)
    inputs += (NewsItem, Fact, ApprovalReply, NewArtifact, SignalFilter, Settings)
    kinds = {kind for each in inputs for kind in kinds_of(each.__pydantic_core_schema__)}
    with_sentences = {"int", "float", "bool", "str", "literal", "enum", "list", "tuple", "dict"}
    with_sentences |= {"model", "model-field", "model-fields", "date", "datetime", "is-instance"}
    # What only wraps other kinds, or takes everything.
    wrappers = {"any", "none", "nullable", "default", "union", "tagged-union", "json-or-python"}
    wrappers |= {"lax-or-strict", "definitions", "definition-ref", "no-info", "with-info"}
    wrappers |= {"function-before", "function-after"}
    assert kinds - wrappers == with_sentences

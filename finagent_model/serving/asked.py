"""Whether a scoring request asks what the model knows: MLflow drops an unknown parameter, column or
key before the model sees it, and a misspelt `mode` would be answered by the default.

What is refused here is refused in one sentence; what passes goes on to MLflow, which checks types.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from mlflow.models import ModelSignature

from finagent_model.errors import BadInputError

FORMS = ("dataframe_records", "dataframe_split", "inputs")
PARAMS = "params"


@dataclass(frozen=True)
class Names:
    """What a request may and must name."""

    columns: tuple[str, ...]
    required: tuple[str, ...]
    params: tuple[str, ...]

    @classmethod
    def of(cls, signature: ModelSignature) -> Names:
        params = signature.params.params if signature.params else []
        return cls(
            tuple(signature.inputs.input_names()),
            tuple(signature.inputs.required_input_names()),
            tuple(param.name for param in params),
        )


def read_request(body: bytes, names: Names) -> dict[str, Any]:
    """The JSON object of a request. Raises BadInputError."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadInputError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadInputError(f"the body must be a JSON object with {FORMS[0]!r}")
    _require_known("key", request, (*FORMS, PARAMS))
    forms = [form for form in FORMS if form in request]
    if len(forms) != 1:
        given = " and ".join(forms) or "none"
        raise BadInputError(f"send exactly one of {', '.join(FORMS)}; got {given}")
    for where, columns in _rows(forms[0], request[forms[0]]):
        _require_known(f"{where}column", columns, names.columns)
        for name in names.required:
            if name not in columns:
                raise BadInputError(
                    f"{where}{name} is missing; give {' and '.join(names.required)}"
                )
    params = request.get(PARAMS)
    if params is not None:
        if not isinstance(params, dict):
            raise BadInputError(f"{PARAMS} must be a JSON object with {', '.join(names.params)}")
        _require_known("parameter", params, names.params)
    return request


def _rows(form: str, data: Any) -> Iterable[tuple[str, Collection[str]]]:
    """Where columns are named, and which."""
    if form == "dataframe_split":
        if not isinstance(data, dict) or not isinstance(data.get("columns"), list):
            raise BadInputError(f"{form} must be an object with 'columns' and 'data'")
        yield "", [str(name) for name in data["columns"]]
        return
    for i, row in enumerate(data if isinstance(data, list) else [data]):
        if not isinstance(data, list) or not isinstance(row, dict):
            raise BadInputError(f"{form} must be a list of objects, one a row")
        yield f"row {i}: ", row


def _require_known(what: str, given: Iterable[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            hint = "" if name != "instances" else ", which turns rows into columns,"
            raise BadInputError(f"{what} {name!r}{hint} is unknown; known: {', '.join(known)}")

"""Which artifacts a reader wants: the filters of REST and pages alike."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field
from sqlalchemy import ColumnElement

from finagent_model.domain.artifact import Kind, has_date_everywhere, storable
from finagent_model.domain.row import Row
from finagent_model.domain.signal import Action, Status
from finagent_model.store.schema import artifacts as table


def _moment(value: object, end_of_day: bool) -> object:
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
From = Annotated[Moment, BeforeValidator(lambda value: _moment(value, False))]
To = Annotated[Moment, BeforeValidator(lambda value: _moment(value, True))]


class Wanted(Row):
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

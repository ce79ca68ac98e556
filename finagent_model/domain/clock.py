"""Dates as this package understands them.

`as_of = D` (a date alone) means after D's close: the whole of D, in UTC. A time of day must carry
its zone. Nothing here reads the clock.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from finagent_model.errors import BadInputError


def parse_as_of(value: str | date | datetime) -> datetime:
    """The instant, in UTC, that `value` stands for; raises BadInputError for anything else."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime.combine(value, time.max, tzinfo=UTC)
    else:
        moment = _parse_text(value)
    if moment.tzinfo is None:
        raise BadInputError(
            f"as_of {value!r} has no time zone; "
            "write a date (2012-06-29) or add one (2012-06-29T21:00:00+00:00)"
        )
    return moment.astimezone(UTC)


def _parse_text(value: object) -> datetime:
    wrong = BadInputError(f"as_of {value!r} is not a date; write it as 2012-06-29")
    if not isinstance(value, str):
        raise wrong
    text = value.strip()
    try:
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), time.max, tzinfo=UTC)
        return datetime.fromisoformat(text)
    except ValueError:
        raise wrong from None

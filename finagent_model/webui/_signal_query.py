"""Queries for signals: what a URL of the list asks for, and links to pages of the same query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from finagent_model.reports.signal_summary import OVER_AFTER
from finagent_model.store.artifact_models import SignalFilter, SignalSort, SortColumn

PAGE_SIZE = 50
"""Signals or executions on a page."""
MAX_PAGE = 1_000_000
FILTER_FIELDS = (
    *("symbol", "execution_id", "status", "action", "as_of_from", "as_of_to"),
    *("version", "trained_by", "evidence", "text"),
)
GROUP_BY_EXECUTION = "execution"
"""Value of the query's `group`."""
CHIPS = {"": "All", "act": "To act", "waiting": "Waiting", "failed": "Failed", "today": "Today"}
"""Names by value of the query's `show`."""
SORTS: Mapping[str, SortColumn] = {
    "as_of": "as_of",
    "recorded": "recorded",
    "symbol": "symbol",
    "confidence": "confidence",
}
"""Columns by value of the query's `sort`; a minus before it sorts downwards."""
DEFAULT_SORT = "-as_of"


@dataclass(frozen=True)
class SignalQuery:
    """A query for signals: the form's fields, the filter that they mean, and what is wrong."""

    fields: Mapping[str, str]
    criteria: SignalFilter
    page: int
    """From 1 on."""
    is_grouped: bool
    """Whether executions are asked for."""
    show: str
    """A key of `CHIPS`."""
    sort: str
    """A key of `SORTS`, with a minus before it to sort downwards."""
    errors: Mapping[str, str]
    """Messages by field."""

    @classmethod
    def read(cls, params: Mapping[str, str], now: datetime) -> SignalQuery:
        """Return the query of a URL's parameters; an empty field selects any signal.

        What was recorded today is counted by the day of `now`, in UTC.
        """
        fields = {name: params.get(name, "").strip() for name in FILTER_FIELDS}
        show, sort = params.get("show", ""), params.get("sort", "") or DEFAULT_SORT
        criteria, errors = SignalFilter(type="signal"), {}
        try:
            values = {name: text for name, text in fields.items() if text}
            if show in ("act", "failed"):
                values["kind"] = show
            # What a signal says of a day long past is nothing to act on.
            if show == "act" and "as_of_from" not in values:
                values["as_of_from"] = f"{now - OVER_AFTER:%Y-%m-%d}"
            if show == "today":
                values["created_from"] = f"{now.astimezone(UTC):%Y-%m-%d}"
            criteria = SignalFilter.model_validate({"type": "signal", **values})
        except ValidationError as error:
            errors = {
                str(e["loc"][0]): f"{str(e['input'])[:80]!r} can't be used" for e in error.errors()
            }
        if show not in CHIPS:
            errors["show"] = f"{show[:80]!r} is none of: {', '.join(filter(None, CHIPS))}"
        if sort.removeprefix("-") not in SORTS:
            errors["sort"] = f"{sort[:80]!r} is none of: {', '.join(SORTS)}"
        # A number that no page has is the nearest page; the offset must fit the database's integer.
        number = params.get("page", "1")
        page = min(int(number), MAX_PAGE) if number.isdecimal() and number.isascii() else 1
        is_grouped = params.get("group") == GROUP_BY_EXECUTION
        return cls(fields, criteria, max(page, 1), is_grouped, show, sort, errors)

    @property
    def offset(self) -> int:
        """How many rows come before this page."""
        return (self.page - 1) * PAGE_SIZE

    @property
    def order(self) -> SignalSort:
        """The order of the signals."""
        column = SORTS.get(self.sort.removeprefix("-"), "as_of")
        return SignalSort(column, ascending=not self.sort.startswith("-"))

    @property
    def has_filter(self) -> bool:
        """Whether this query selects fewer than all signals."""
        return bool(self.show or any(self.fields.values()))

    @property
    def link_params(self) -> dict[str, str]:
        """Parameters of a link to another page of the same query."""
        return {
            **self.fields,
            "show": self.show,
            "sort": self.sort if self.sort != DEFAULT_SORT else "",
            "group": GROUP_BY_EXECUTION if self.is_grouped else "",
        }

    @property
    def signal_params(self) -> dict[str, str]:
        """Parameters of a link to a signal, so that its neighbours are those of this query."""
        return self.link_params | {"group": ""}

    def sorted_by(self, name: str) -> str:
        """Return the `sort` of a column's header: the other way round if it is in force."""
        return name if self.sort == f"-{name}" else f"-{name}"

"""Everything this package raises on purpose: one class per thing a caller does differently.

`exit_code` is what the shell sees. A message names the value that was wrong and the way out.
"""

from __future__ import annotations

from datetime import datetime

MAX_LISTED = 20
"""Names that a message lists before it only counts."""


class FinagentError(Exception):
    """Root of the tree; never raised itself."""

    exit_code = 1


class BadInputError(FinagentError):
    """The caller asked for something that can't be asked for; asking again won't help."""

    exit_code = 2


class ConfigError(BadInputError):
    """A desk or training configuration that can't be used."""


class InvalidBarsError(BadInputError):
    """Bars that break a rule of the market: the series is refused whole, nothing is repaired."""


class InvalidNewsError(BadInputError):
    """A news record that can't be read."""


class InvalidFundamentalsError(BadInputError):
    """A fact about a company that can't be read."""


class DamagedCassetteError(BadInputError):
    """A file of recordings that can't be read, whole or in part; callers may leave it alone."""


class UnknownApprovalError(BadInputError):
    """There is no approval of that id."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no approval {key!r}; `finagent approvals` lists what waits")


class ApprovalSettledError(BadInputError):
    """It was approved, rejected or expired before; what is settled stays so."""

    def __init__(self, key: str, how: str) -> None:
        super().__init__(f"approval {key} {how}; it stays so")


class UnknownArtifactError(BadInputError):
    """There is no artifact of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"no artifact {number}; GET /api/artifacts lists what there is")


class ArtifactConflictError(BadInputError):
    """What is stored forbids it: a key that is taken, or a signal that is settled."""


class ApprovalPendingError(FinagentError):
    """A human has yet to answer; whoever asks again later gets what became of it."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(
            f"waiting for approval {', '.join(keys)}; `finagent approve` or `finagent reject` "
            "settles one"
        )
        self.keys = keys


class TrackingError(BadInputError):
    """The MLflow store can't be used as it is configured."""


class UnknownRunError(TrackingError):
    """MLflow has no run of that id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"no run {run_id!r} in the MLflow store; set MLFLOW_TRACKING_URI to the one that has it"
        )


class ExternalSourceError(BadInputError):
    """The files of an external analyst are missing, or are not what they should be."""


class ExternalAnalystError(FinagentError):
    """The external analyst called `name` gave nothing usable; `code` is one word for how."""

    exit_code = 3

    def __init__(self, name: str, code: str, reason: str) -> None:
        super().__init__(f"{name} {code}: {reason}")
        self.code = code


class DataError(FinagentError):
    """There is nothing to decide on."""

    exit_code = 3


class DataSourceError(DataError):
    """A vendor, file or table failed; says nothing about whether bars exist."""


class UnknownSymbolError(DataError):
    """The source has never heard of the symbol."""

    def __init__(self, symbol: str, known: tuple[str, ...] | None, source: str) -> None:
        """`known` is None for a source that has no list."""
        said = f"unknown symbol {symbol!r} in {source}"
        if known is None:
            said += "; check how it is written there"
        else:
            listed = ", ".join(known[:MAX_LISTED]) or "none"
            more = f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
            said += f"; it has: {listed}{more}"
            if symbol.upper() in known:
                said += f"; did you mean {symbol.upper()!r}?"
        super().__init__(said)
        self.symbol = symbol


class NoBarsError(DataError):
    """No bar for `symbol` at or before `as_of`; callers skip the symbol."""

    def __init__(self, symbol: str, as_of: datetime, first: datetime | None = None) -> None:
        hint = (
            f"; its first bar closed {first:%Y-%m-%d}"
            if first
            else "; send bars or widen the range"
        )
        super().__init__(f"no bars for {symbol!r} at or before {as_of:%Y-%m-%d}{hint}")
        self.symbol, self.as_of = symbol, as_of


class ShortHistoryError(DataError):
    """Too few bars to compute what was asked for."""


class UndefinedFeatureError(DataError):
    """There are bars enough, but a number can't be computed from them."""


class BeforeFirstFitError(DataError):
    """The model was not yet trained at `as_of`: to answer would use the future."""

    def __init__(self, as_of: datetime, first: datetime) -> None:
        super().__init__(
            f"as_of {as_of:%Y-%m-%d} lies before the model's first fit could be used "
            f"({first:%Y-%m-%d}); ask for a later date or train with an earlier start"
        )


class LocalStateError(BadInputError):
    """A file in FINAGENT_HOME is locked or can't be used. Whoever runs the process can mend it; who
    asks a server can only ask again later.
    """


class DeadlineError(FinagentError):
    """The work did not end within the time that its caller gave it; nothing of it goes on."""

    def __init__(self, within_s: float) -> None:
        super().__init__(
            f"not done within {within_s:g} s and stopped; ask for fewer rows at a time, or allow "
            "more time"
        )
        self.within_s = within_s


class ShutdownError(FinagentError):
    """The work was stopped because its process is about to end."""

    def __init__(self) -> None:
        super().__init__("stopped: the process is shutting down; ask again later")


class StoreError(FinagentError):
    """The database can't be used; a decision is safe in its run."""

    exit_code = 3


class ValueTooLargeError(BadInputError):
    """A value that the database has no room for; others may be stored. `column` is None where the
    database doesn't tell.
    """

    def __init__(self, message: str, column: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.column, self.value = column, value


class PlatformRefusedError(FinagentError):
    """The platform refused one artifact; another one may go through."""

    exit_code = 3


class PlatformUnavailableError(FinagentError):
    """The platform can't be used now. `passes`: asking again soon may help."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        status: int | None = None,
        retry_after_s: float | None = None,
        *,
        passes: bool = True,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after_s, self.passes = status, retry_after_s, passes


class ModelLoadError(FinagentError):
    """A packaged model that can't be loaded."""

    exit_code = 4


class PackageFormatError(ModelLoadError):
    """The package was written by a version with another layout."""


class CorruptPackageError(ModelLoadError):
    """A file of the package is missing or differs from what was registered."""


class GateRefusedError(FinagentError):
    """The gate did not let a version become champion."""

    exit_code = 5


def is_retryable_error(error: FinagentError) -> bool:
    """Whether the same may succeed later though nobody mends the question: a store, a file or a
    vendor can come back.
    """
    if isinstance(error, TrackingError | LocalStateError | DataSourceError):
        return True
    return not isinstance(error, BadInputError | DataError | GateRefusedError)

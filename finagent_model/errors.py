"""The exceptions of this package: one class for each thing that a caller does differently.

`exit_code` is the exit status of the CLI. A message names the wrong value and the way out.
"""

from __future__ import annotations

from datetime import datetime

from finagent_model._secrets import redact_message

MAX_LISTED = 20
"""Names that a message lists before it only counts."""


class FinagentError(Exception):
    """Base of all errors of this package; never raised itself.

    A message names values as they were written and quotes what other libraries said, so that every
    one is redacted as it is made: no secret of the environment is in it.
    """

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact_message(str(each)) for each in args))


# What the caller can correct: requests, configuration, files.
class BadInputError(FinagentError):
    """The request is invalid; repeating it will not help."""

    exit_code = 2


class ConfigError(BadInputError):
    """A desk or training configuration is invalid."""


class InvalidBarsError(BadInputError):
    """Bars break a rule of the market: the whole series is refused, nothing is repaired."""


class InvalidNewsError(BadInputError):
    """A news record can't be read."""


class InvalidFundamentalsError(BadInputError):
    """A fact about a company can't be read."""


class DamagedCassetteError(BadInputError):
    """A file of recorded replies can't be read, whole or in part; callers may skip it."""


class UnknownApprovalError(BadInputError):
    """There is no approval of that id."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(f"no approval {approval_id[:40]!r}; `finagent approvals` lists what waits")


class ApprovalSettledError(BadInputError):
    """The approval was approved, rejected or expired before, which is final."""

    def __init__(self, approval_id: str, outcome: str) -> None:
        super().__init__(f"approval {approval_id} {outcome}; it stays so")


class UnknownArtifactError(BadInputError):
    """There is no artifact of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"no artifact {number}; GET /api/artifacts lists what there is")


class UnknownKeyError(BadInputError):
    """No signal has that key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no signal has the key {key[:80]!r}; it may be in another database")


class ArtifactConflictError(BadInputError):
    """An artifact conflicts with a stored one: its key is taken, or the signal is final."""


# Not bad input: the same request succeeds once somebody has answered.
class ApprovalPendingError(FinagentError):
    """A human has yet to answer; repeat the request later for the outcome."""

    def __init__(self, approval_ids: tuple[str, ...]) -> None:
        super().__init__(
            f"waiting for approval {', '.join(approval_ids)}; `finagent approve` or "
            "`finagent reject` settles one"
        )
        self.approval_ids = approval_ids


class TrackingError(BadInputError):
    """The MLflow tracking store can't be used as it is configured."""


class UnknownRunError(TrackingError):
    """MLflow has no run of that id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"no run {run_id!r} in the MLflow store; set MLFLOW_TRACKING_URI to the one that has it"
        )


class UnverifiedRunError(TrackingError):
    """The run holds no decision, or not as it was recorded."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id} holds no decision as it was recorded: {reason}")


class ExternalSourceError(BadInputError):
    """The files of an external analyst are missing or differ from the pin."""


class ExternalAnalystError(FinagentError):
    """The external analyst `name` failed; `code` is one word for the kind of failure."""

    exit_code = 3

    def __init__(self, name: str, code: str, reason: str) -> None:
        super().__init__(f"{name} {code}: {reason}")
        self.code = code


# Market data: the symbol, the date or the vendor is the problem.
class DataError(FinagentError):
    """There is no data to decide on."""

    exit_code = 3


class DataSourceError(DataError):
    """A vendor, file or table failed; whether bars exist is unknown."""


class UnknownSymbolError(DataError):
    """The source does not have the symbol."""

    def __init__(self, symbol: str, symbols: tuple[str, ...] | None, source: str) -> None:
        """`symbols` is what the source has; None for a source that has no list."""
        message = f"unknown symbol {symbol!r} in {source}"
        if symbols is None:
            message += "; check how it is written there"
        else:
            listed = ", ".join(symbols[:MAX_LISTED]) or "none"
            more = f" and {len(symbols) - MAX_LISTED} more" if len(symbols) > MAX_LISTED else ""
            message += f"; it has: {listed}{more}"
            if symbol.upper() in symbols:
                message += f"; did you mean {symbol.upper()!r}?"
        super().__init__(message)
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
    """There are too few bars for the computation."""


class MixedBarsError(DataError):
    """Bars of different lengths were given where they must agree."""


class UndefinedFeatureError(DataError):
    """There are enough bars, but a feature is undefined for them."""


class BeforeFirstFitError(DataError):
    """The model was not yet trained at `as_of`: an answer would be look-ahead."""

    def __init__(self, as_of: datetime, first: datetime) -> None:
        super().__init__(
            f"as_of {as_of:%Y-%m-%d} lies before the model's first fit could be used "
            f"({first:%Y-%m-%d}); ask for a later date or train with an earlier start"
        )


# The machine's own state, deadlines and shutdown. Bad input, since the CLI's user can act.
class LocalStateError(BadInputError):
    """A file in FINAGENT_HOME is locked or can't be used.

    The person who runs the process can repair it; a client of a server can only retry later.
    """


class DeadlineError(FinagentError):
    """The work did not finish before its caller's deadline and was cancelled."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"not done within {timeout_s:g} s and stopped; ask for fewer rows at a time, or allow "
            "more time"
        )
        self.timeout_s = timeout_s


class ShutdownError(FinagentError):
    """The work was cancelled because its process is shutting down."""

    def __init__(self) -> None:
        super().__init__("stopped: the process is shutting down; ask again later")


# The database and the platform: no decision is lost, since its run has it.
class StoreError(FinagentError):
    """The database can't be used; the decision is safe in its MLflow run."""

    exit_code = 3


class ValueTooLargeError(BadInputError):
    """A value is too large for the database; other rows may be stored.

    `column` is None where the database does not name it.
    """

    def __init__(self, message: str, column: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.column, self.value = column, value


class PlatformRefusedError(FinagentError):
    """The platform refused one artifact; others may be accepted."""

    exit_code = 3


class PlatformUnavailableError(FinagentError):
    """The platform can't be used now; `retryable` tells whether a retry soon may help."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        status: int | None = None,
        retry_after_s: float | None = None,
        *,
        retryable: bool = True,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after_s, self.retryable = status, retry_after_s, retryable


# Packages and versions.
class ModelLoadError(FinagentError):
    """A packaged model can't be loaded."""

    exit_code = 4


class PackageFormatError(ModelLoadError):
    """The package has the layout of another version of this code."""


class CorruptPackageError(ModelLoadError):
    """A file of the package is missing or differs from what was registered."""


class SignatureError(ModelLoadError):
    """A version has no signature of a trusted key where one is required, or a wrong one."""


class OtherCodeFailedError(FinagentError):
    """The code of another wheel could not verify; `exit_code` is what it ended with."""

    def __init__(self, message: str, exit_code: int, *, is_told: bool) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.is_told = is_told
        """Whether it has said why, in a line of its own on the standard error."""


class EarlyCheckError(FinagentError):
    """A training can't be proven: a check of its first decisions failed, and no more are made."""

    exit_code = 5


class GateRefusedError(FinagentError):
    """The gate refused to make a version champion."""

    exit_code = 5


class ServerFailedError(FinagentError):
    """The processes of a server end as soon as they are started."""


class DagRunFailedError(FinagentError):
    """A DAG run lacks something that was asked of it, so that it must not look green."""


def is_retryable_error(error: FinagentError) -> bool:
    """Whether the same request may succeed on a later retry."""
    # These are kinds of bad input or missing data, yet a store, a file or a vendor can come back.
    if isinstance(error, TrackingError | LocalStateError | DataSourceError):
        return True
    final = BadInputError | DataError | EarlyCheckError | GateRefusedError | DagRunFailedError
    return not isinstance(error, final)

"""What a run or a package holds, read again: another schema is a typed error, never a traceback
after hours of work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from yaml import YAMLError

from finagent_model.errors import (
    BadInputError,
    CorruptPackageError,
    PackageFormatError,
    TrackingError,
)
from finagent_model.serving.package import Package
from finagent_model.training.request import TrainRequest


@contextmanager
def reading(run_id: str) -> Iterator[None]:
    """Raises TrackingError where what the block reads was written by another version."""
    try:
        yield
    except TrackingError:
        raise
    except (ValidationError, YAMLError, BadInputError, CorruptPackageError) as error:
        raise _another(run_id, str(error)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise _another(run_id, repr(error)) from None


def request_of(package: Package) -> TrainRequest:
    """The request that led to a package. Raises PackageFormatError."""
    try:
        return TrainRequest.read(**package.backtest["request"])
    except (BadInputError, KeyError, TypeError) as error:
        raise PackageFormatError(
            f"backtest.json of the package has a request that this code can't read: {error}; "
            "load the model in its own environment (--env-manager uv) or train again"
        ) from None


def _another(run_id: str, said: str) -> TrackingError:
    told = " ".join(said.split())
    return TrackingError(
        f"run {run_id} was recorded by another version: {told}; start the training again"
    )

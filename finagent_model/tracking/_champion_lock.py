"""The lock that whoever moves a champion holds, on any store of MLflow.

MLflow has no locks, but a registered model of a name can be created only once. The wait is bounded
by the waiter's own monotonic clock: what the lock says of the time may be another machine's, or lie
in the future. A lock whose process is dead, or that nobody renewed for a minute, is broken; its
owner, should it live after all, then changes nothing any more.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from finagent_model._local_files import pause
from finagent_model.errors import TrackingError
from finagent_model.tracking.local_store import open_client
from finagent_model.tracking.runs import is_process_dead

STALE_S = 60.0
"""A lock that one owner holds for so long is broken: a change takes less than a second."""
WAIT_S = 120.0
"""How long to wait for all owners together."""
OWNER, PROCESS, SINCE = "owner", "process", "since"


@contextmanager
def hold_champion_lock(name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock on the champion of `name` during the block.

    Yields a check to call before each write: it raises TrackingError once the lock was broken. So
    does the wait, where other processes keep the lock for too long.
    """
    client, lock, owner = open_client(), f"{name}-champion-is-changing", uuid.uuid4().hex
    _acquire(client, lock, owner)

    def require_lock() -> None:
        tags = _read_tags(client, lock)
        if tags is None or tags.get(OWNER) != owner:
            raise TrackingError(
                f"the change of the champion of {name} took so long that another one began; "
                "`finagent models` shows what came of both, then try again"
            )

    try:
        yield require_lock
    finally:
        with suppress(MlflowException):
            if (_read_tags(client, lock) or {}).get(OWNER) == owner:
                client.delete_registered_model(lock)


def _acquire(client: MlflowClient, lock: str, owner: str) -> None:
    started = time.monotonic()
    holder, seen_at = "", started
    while True:
        tags = {
            OWNER: owner,
            PROCESS: f"{socket.gethostname()}:{os.getpid()}",
            SINCE: datetime.now(UTC).isoformat(),
        }
        try:
            client.create_registered_model(lock, tags=tags)
            return
        except MlflowException as error:
            # The second: it was there, and gone when MLflow looked whose it is.
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
        now, theirs = time.monotonic(), _read_tags(client, lock)
        if theirs is None:
            continue  # its owner has finished meanwhile
        if (other := _name_holder(theirs)) != holder:
            holder, seen_at = other, now
        if is_process_dead(theirs.get(PROCESS, "")) or now - seen_at > STALE_S:
            _break_lock(client, lock, holder)
        elif now - started > WAIT_S:
            raise TrackingError(
                f"the champion is being changed by others for {WAIT_S:g} s, now by {holder}; try "
                f"again, or delete the registered model {lock!r} if nobody is"
            )
        pause()


def _break_lock(client: MlflowClient, lock: str, holder: str) -> None:
    """Delete the lock, unless another owner has it by now."""
    tags = _read_tags(client, lock)
    if tags is not None and _name_holder(tags) == holder:
        with suppress(MlflowException):  # another waiter was faster
            client.delete_registered_model(lock)


def _name_holder(tags: Mapping[str, str]) -> str:
    """Return what tells this holding of the lock from others; older code left only the time."""
    return " ".join(tags.get(name, "unknown") for name in (PROCESS, OWNER, SINCE))


def _read_tags(client: MlflowClient, lock: str) -> Mapping[str, str] | None:
    """Return the lock's tags; None where nobody holds it."""
    try:
        tags: Mapping[str, str] = client.get_registered_model(lock).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return tags

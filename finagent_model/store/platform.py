"""The trading platform's `/api/artifacts`, as its client knows it.

The platform gives each row a number of its own and would store the same row twice. So where an
earlier try may have arrived, we look first, by the `key` in the row's metadata. Its answers are of
three kinds: it has the row, it refuses this row (`PlatformRefusedError`), or it is not to be had
now (`PlatformDownError`), which is tried a few times. A redirect that would make another request of
ours (301, 302, 303) is not followed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from finagent_model._event_loop import NO_DEADLINE, Deadline, LoopThread
from finagent_model._retry_after import retry_after
from finagent_model.errors import (
    BadInputError,
    DeadlineError,
    PlatformRefusedError,
    PlatformUnavailableError,
)
from finagent_model.store.artifacts import Artifact

PATH = "/api/artifacts"
OURS = {"id", "created_at", "updated_at"}
"""The platform sets its own."""
BUSY = (408, 425, 429)
NOT_LET_IN, NOT_THERE = (401, 403), (404, 405)
"""Answers that every row would get: the token or the address is wrong, not the row."""
LOOKED_AT = 1000
"""Rows of one symbol, type and execution among which a row that may have arrived is looked for."""
ODD = "see that FINAGENT_PLATFORM_URL is the platform's"
CALL_S, SHORTEST_S, TRIES = 10.0, 0.5, 4
SAME_AGAIN, REDIRECTS = (307, 308), 5
"""Redirects that ask for the same request elsewhere, and how many are followed."""
_LOOP = LoopThread()
"""Of all clients: what is awaited there can be cut off, whatever of an answer has come."""
_backoff = wait_exponential_jitter(multiplier=0.25, max=10, jitter=0.25)


class PlatformClient:
    """One platform. Nothing is kept open between calls of `put` but an HTTP connection."""

    def __init__(
        self,
        url: str,
        token: SecretStr | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects nowhere yet. Raises BadInputError for an address that can't be read."""
        bearer = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self.url, self._sleep = url.rstrip("/"), sleep
        self._deadline = NO_DEADLINE
        try:
            self._http = httpx.AsyncClient(base_url=self.url, headers=bearer, timeout=CALL_S)
        except httpx.InvalidURL as error:
            raise BadInputError(f"FINAGENT_PLATFORM_URL {url!r} can't be read: {error}") from None

    def close(self) -> None:
        with suppress(DeadlineError):
            _LOOP.run(self._http.aclose(), CALL_S)

    def put(
        self,
        artifact: Artifact,
        remote_id: str | None = None,
        *,
        sent_before: bool = False,
        within_s: float = 30.0,
    ) -> str:
        """Store it there, or bring what is stored there under `remote_id` up to date; its id there.

        `sent_before` says that it may be there already. Raises PlatformRefusedError, and
        PlatformDownError after some tries; all of them end within `within_s`, but for half a
        second, which they get in any case.
        """
        self._deadline = Deadline.after(max(within_s, SHORTEST_S))
        unsure = sent_before

        def once() -> str:
            nonlocal unsure
            known = remote_id or (self._find(artifact) if unsure else None)
            unsure = True
            return self._update(artifact, known) if known else self._create(artifact)

        tries = Retrying(
            stop=stop_after_attempt(TRIES) | stop_before_delay(within_s),
            wait=_pause,
            retry=retry_if_exception(
                lambda e: isinstance(e, PlatformUnavailableError) and e.retryable
            ),
            sleep=self._sleep,
            reraise=True,
        )
        return tries(once)

    def _create(self, artifact: Artifact) -> str:
        # The platform counts the letters of a prompt that it is given, and stumbles over null.
        body = artifact.model_dump(mode="json", exclude=OURS, exclude_none=True)
        return self._id(self._ask("POST", PATH, json=body))

    def _update(self, artifact: Artifact, remote_id: str) -> str:
        body = artifact.model_dump(mode="json", exclude=OURS)
        answer = self._ask("PATCH", f"{PATH}/{quote(remote_id, safe='')}", json=body)
        return self._create(artifact) if answer.status_code == 404 else self._id(answer)

    def _find(self, artifact: Artifact) -> str | None:
        """Our row's id there; None: it never arrived. The platform knows no filter by key: the
        rows that it gives are searched.
        """
        known = {n: getattr(artifact, n) for n in ("type", "symbol", "execution_id")}
        query = {n: v for n, v in known.items() if v} | {"key": artifact.key, "limit": LOOKED_AT}
        answer = self._ask("GET", PATH, params=query)
        rows = self._json(answer).get("artifacts")
        for row in rows if isinstance(rows, list) else []:
            metadata = row.get("metadata") if isinstance(row, dict) else None
            if isinstance(metadata, dict) and metadata.get("key") == artifact.key:
                return str(row.get("id"))
        return None

    def _ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        left = self._deadline.remaining_s()
        within_s = CALL_S if left is None else min(CALL_S, left)
        try:
            answer = _LOOP.run(self._answer(method, path, **how), within_s)
        except DeadlineError:
            said = f"{self.url} did not answer within {within_s:.1f} s"
            raise PlatformUnavailableError(said) from None
        except httpx.HTTPError as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise PlatformUnavailableError(f"{self.url} can't be reached: {said}") from None
        status = answer.status_code
        if answer.has_redirect_location:
            raise PlatformUnavailableError(f"{self._said(answer)}; {ODD}", status, retryable=False)
        if status in BUSY or status >= 500:
            raise PlatformUnavailableError(self._said(answer), status, retry_after(answer.headers))
        if status in NOT_LET_IN or (status in NOT_THERE and method != "PATCH"):
            hint = "see FINAGENT_PLATFORM_URL and FINAGENT_PLATFORM_TOKEN"
            raise PlatformUnavailableError(f"{self._said(answer)}; {hint}", status, retryable=False)
        return answer

    async def _answer(self, method: str, path: str, **how: Any) -> httpx.Response:
        answer = await self._http.request(method, path, **how)
        for _ in range(REDIRECTS):
            if answer.status_code not in SAME_AGAIN or answer.next_request is None:
                break
            answer = await self._http.send(answer.next_request)
        return answer

    def _id(self, answer: httpx.Response) -> str:
        found = self._json(answer).get("id")
        if not isinstance(found, int | str):
            raise PlatformUnavailableError(
                f"{self.url} answered without an id; {ODD}", retryable=False
            )
        return str(found)

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            raise PlatformRefusedError(self._said(answer))
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise PlatformUnavailableError(
                f"{self.url} answered with no JSON; {ODD}", retryable=False
            )
        return body

    def _said(self, answer: httpx.Response) -> str:
        said = " ".join(answer.text.replace("\0", " ").split())[:300]
        return f"{self.url} answered HTTP {answer.status_code}: {said}"


def _pause(state: RetryCallState) -> float:
    """Growing, with jitter, and never shorter than the platform asked for."""
    assert state.outcome is not None
    error = state.outcome.exception()
    asked = error.retry_after_s if isinstance(error, PlatformUnavailableError) else None
    return max(_backoff(state), asked or 0.0)

"""Client of the trading platform's `/api/artifacts`.

The platform gives each row an id of its own and would store the same row twice. So if an earlier
try may have arrived, the client looks for it first, by the `key` in the row's metadata. The outcome
of `put` is one of three: the platform has the row, it refuses this row (`PlatformRefusedError`), or
it is unavailable (`PlatformUnavailableError`), after a few retries.
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

from finagent_model._base import retry_after
from finagent_model._event_loop import NO_DEADLINE, Deadline, LoopThread
from finagent_model._secrets import redact_message
from finagent_model.errors import (
    BadInputError,
    DeadlineError,
    PlatformRefusedError,
    PlatformUnavailableError,
)
from finagent_model.store.artifact_models import Artifact

PATH = "/api/artifacts/"
"""With the slash: without it the platform answers with a redirect, and each row is sent twice."""
SERVER_FIELDS = {"id", "created_at", "updated_at", "origin"}
"""Fields that the platform sets itself."""
BUSY = (408, 425, 429)
UNAUTHORIZED, NOT_FOUND = (401, 403), (404, 405)
"""Answers that every row would get: the token or the address is wrong, not the row."""
SEARCH_LIMIT = 1000
"""Rows of one symbol, type and execution among which a row that may have arrived is searched."""
URL_HINT = "see that FINAGENT_PLATFORM_URL is the platform's"
REQUEST_TIMEOUT_S, MIN_TIMEOUT_S, MAX_TRIES = 10.0, 0.5, 4
REDIRECTS, MAX_REDIRECTS = (307, 308), 5
"""Redirects that keep the method and the body, and how many of them are followed."""
# Shared by all clients. A request on a loop of its own can be cut off at its deadline, even while
# the answer comes in drips, which no timeout of httpx does.
_LOOP = LoopThread()
_backoff = wait_exponential_jitter(multiplier=0.25, max=10, jitter=0.25)


class PlatformClient:
    """Client of one platform; between calls it keeps only an HTTP connection open."""

    def __init__(
        self,
        url: str,
        token: SecretStr | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take an address, without connecting. Raises BadInputError if it can't be read."""
        bearer = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self._secrets = (token.get_secret_value(),) if token else ()
        self.url, self._sleep = url.rstrip("/"), sleep
        self._deadline = NO_DEADLINE
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url, headers=bearer, timeout=REQUEST_TIMEOUT_S
            )
        except httpx.InvalidURL as error:
            raise BadInputError(f"FINAGENT_PLATFORM_URL {url!r} can't be read: {error}") from None

    def close(self) -> None:
        """Close the connection."""
        with suppress(DeadlineError):
            _LOOP.run(self._http.aclose(), REQUEST_TIMEOUT_S)

    def put(
        self,
        artifact: Artifact,
        remote_id: str | None = None,
        *,
        sent_before: bool = False,
        timeout_s: float = 30.0,
    ) -> str:
        """Store an artifact, or update the one with `remote_id`; return its id on the platform.

        `sent_before` says that it may be there already. All tries together end within `timeout_s`,
        but have half a second in any case. Raises PlatformRefusedError and
        PlatformUnavailableError.
        """
        self._deadline = Deadline.after(max(timeout_s, MIN_TIMEOUT_S))
        may_exist = sent_before

        def attempt() -> str:
            nonlocal may_exist
            existing_id = remote_id or (self._find(artifact) if may_exist else None)
            # From the first request on, a lost answer may hide that the row was stored.
            may_exist = True
            return self._update(artifact, existing_id) if existing_id else self._create(artifact)

        retry = Retrying(
            stop=stop_after_attempt(MAX_TRIES) | stop_before_delay(timeout_s),
            wait=_retry_wait,
            retry=retry_if_exception(
                lambda e: isinstance(e, PlatformUnavailableError) and e.retryable
            ),
            sleep=self._sleep,
            reraise=True,
        )
        return retry(attempt)

    def _create(self, artifact: Artifact) -> str:
        # Without nulls: the platform counts the letters of any prompt it gets, and fails over null.
        body = artifact.model_dump(mode="json", exclude=SERVER_FIELDS, exclude_none=True)
        return self._read_id(self._request("POST", PATH, json=body))

    def _update(self, artifact: Artifact, remote_id: str) -> str:
        body = artifact.model_dump(mode="json", exclude=SERVER_FIELDS)
        response = self._request("PATCH", f"{PATH}{quote(remote_id, safe='')}", json=body)
        # A row that was deleted there is created again.
        return self._create(artifact) if response.status_code == 404 else self._read_id(response)

    def _find(self, artifact: Artifact) -> str | None:
        """Return the id of our row on the platform; None if it never arrived."""
        fields = {n: getattr(artifact, n) for n in ("type", "symbol", "execution_id")}
        query = {n: v for n, v in fields.items() if v} | {
            "key": artifact.key,
            "limit": SEARCH_LIMIT,
        }
        response = self._request("GET", PATH, params=query)
        # The platform ignores the filter by key, so its rows are searched here.
        rows = self._read_json(response).get("artifacts")
        for row in rows if isinstance(rows, list) else []:
            metadata = row.get("metadata") if isinstance(row, dict) else None
            if isinstance(metadata, dict) and metadata.get("key") == artifact.key:
                return str(row.get("id"))
        return None

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the response to a request, which may still refuse the row.

        Raises PlatformUnavailableError for whatever any other row would get as well.
        """
        remaining_s = self._deadline.remaining_s()
        timeout_s = (
            REQUEST_TIMEOUT_S if remaining_s is None else min(REQUEST_TIMEOUT_S, remaining_s)
        )
        try:
            response = _LOOP.run(self._send(method, path, **options), timeout_s)
        except DeadlineError:
            message = f"{self.url} did not answer within {timeout_s:.1f} s"
            raise PlatformUnavailableError(message) from None
        except httpx.HTTPError as error:
            reason = " ".join(redact_message(str(error), self._secrets).split())
            reason = reason or type(error).__name__
            raise PlatformUnavailableError(f"{self.url} can't be reached: {reason}") from None
        status = response.status_code
        if response.has_redirect_location:
            message = f"{self._describe(response)}; {URL_HINT}"
            raise PlatformUnavailableError(message, status, retryable=False)
        if status in BUSY or status >= 500:
            message, retry_after_s = self._describe(response), retry_after(response.headers)
            raise PlatformUnavailableError(message, status, retry_after_s)
        if status in UNAUTHORIZED or (status in NOT_FOUND and method != "PATCH"):
            hint = "see FINAGENT_PLATFORM_URL and FINAGENT_PLATFORM_TOKEN"
            message = f"{self._describe(response)}; {hint}"
            raise PlatformUnavailableError(message, status, retryable=False)
        return response

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = await self._http.request(method, path, **options)
        # httpx would follow every redirect; 301, 302 and 303 turn a POST into a GET.
        for _ in range(MAX_REDIRECTS):
            if response.status_code not in REDIRECTS or response.next_request is None:
                break
            response = await self._http.send(response.next_request)
        return response

    def _read_id(self, response: httpx.Response) -> str:
        row_id = self._read_json(response).get("id")
        if not isinstance(row_id, int | str):
            raise PlatformUnavailableError(
                f"{self.url} answered without an id; {URL_HINT}", retryable=False
            )
        return str(row_id)

    def _read_json(self, response: httpx.Response) -> dict[str, Any]:
        if response.is_error:
            raise PlatformRefusedError(self._describe(response))
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise PlatformUnavailableError(
                f"{self.url} answered with no JSON; {URL_HINT}", retryable=False
            )
        return body

    def _describe(self, response: httpx.Response) -> str:
        # The message is stored as the row's reason, and an answer may quote the request's header.
        # Redacted before it is cut: half a token would no longer be recognised.
        text = redact_message(response.text, self._secrets)
        # PostgreSQL has no NUL in a text.
        text = " ".join(text.replace("\0", " ").split())[:300]
        return f"{self.url} answered HTTP {response.status_code}: {text}"


def _retry_wait(state: RetryCallState) -> float:
    """Return the seconds to wait before a retry: growing, with jitter, at least Retry-After."""
    assert state.outcome is not None
    error = state.outcome.exception()
    retry_after_s = error.retry_after_s if isinstance(error, PlatformUnavailableError) else None
    return max(_backoff(state), retry_after_s or 0.0)

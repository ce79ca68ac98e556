"""What a provider says when it gives no reply, in its own words.

Servers word an error in many ways: `{"error": {"message": ...}}`, `{"error": "text"}`,
`{"detail": ...}`, a list of errors, a page of HTML, and some with HTTP status 200.
`read_provider_error` finds the words and the status in all of them.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_WORDS = 300
"""Characters of a provider's words that are passed on."""
MAX_READ = 4000
"""Characters of them that are looked at."""
STATUS_OF_CODE = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "unauthorized": 401,
    "insufficient_quota": 402,
    "permission_denied": 403,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
}
"""HTTP status that stands for a provider's word, where the answer had status 200."""
NO_CREDIT = re.compile(
    r"insufficient[ _](quota|credits?|balance|funds)|credit balance (is )?too low"
    r"|billing[ _]hard[ _]limit|exceeded your current quota|requires more credits"
    r"|payment required|requires a subscription",
    re.IGNORECASE,
)
"""What a provider says where no waiting helps, only money."""
ZERO_QUOTA = re.compile(r"\blimit: 0\b(?!\.)")
"""How Gemini says that an account has none of a quota, though it names a time to retry."""
_PAUSE = re.compile(r"(?:retry|try again) in (\d+(?:\.\d+)?) ?s", re.IGNORECASE)
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
# Where an error keeps its words, the most telling first.
_WORD_KEYS = ("message", "msg", "detail", "error", "errors", "error_description", "title", "reason")
_CODE_KEYS = ("code", "status", "status_code", "type", "error", "detail")


class ProviderError(Exception):
    """A provider answered with an error; the text is in its own words."""

    def __init__(
        self,
        words: str,
        status: int | None,
        response: Any = None,
        *,
        code: str = "",
        billed: bool = False,
    ) -> None:
        super().__init__(words[:MAX_WORDS])
        self.words = words
        """In full; the exception's own text is cut."""
        self.status_code = status
        """HTTP status, or the one that the answer names itself; None where it names none."""
        self.response = response
        """The HTTP response, for its headers."""
        self.code = code
        """The provider's own word for the error; empty without one."""
        self.billed = billed
        """Whether part of a reply came before the error."""

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the words say to come back; None where they don't."""
        pause = _PAUSE.search(self.words)
        return float(pause[1]) if pause else None

    @property
    def has_no_credit(self) -> bool:
        """Whether no waiting helps, only money."""
        if ZERO_QUOTA.search(self.words):
            return True
        # Who names a time to come back means a limit that passes, whatever it is called.
        return bool(NO_CREDIT.search(self.words)) and self.retry_after_s is None


class UnusableReplyError(ValueError):
    """A provider's answer holds no reply; the text says what is wrong with it."""

    def __init__(self, reason: str, *, retryable: bool = True) -> None:
        super().__init__(reason)
        self.retryable = retryable


def parse_json(data: bytes | str) -> Any:
    """Return the JSON value of `data`. Raises ValueError."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_provider_error(data: bytes, status: int, response: Any = None) -> ProviderError:
    """Return the error of an answer with `status` that is no reply."""
    try:
        body = parse_json(data)
    except ValueError:
        body = _page_text(data.decode("utf-8", "replace"))
    words = " ".join(_words(body).split())[:MAX_READ]
    own = status if status >= 300 else _named_status(body)
    code = next((code for code in _codes(body) if isinstance(code, str)), "")
    return ProviderError(words or "no reason was given", own, response, code=code)


def find_error(body: Mapping[str, Any]) -> Any:
    """Return the error that a body of JSON names, whatever its HTTP status; None without one."""
    if body.get("error"):
        return body["error"]
    if body.get("object") == "error" or body.get("type") == "error":
        return body
    # FastAPI's and Gemini's forms; no reply has one of them.
    for key in ("detail", "errors"):
        if body.get(key) and not any(name in body for name in ("choices", "content", "message")):
            return body[key]
    return None


def _words(value: Any) -> str:
    if isinstance(value, str):
        # A gateway may quote the provider's own answer as JSON in a text.
        if value.lstrip().startswith(("{", "[")):
            try:
                return _words(parse_json(value))
            except ValueError:
                return value
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words, value[:5])))
    if isinstance(value, Mapping):
        parts = [_words(value[key]) for key in _WORD_KEYS if value.get(key)]
        # OpenRouter keeps the words of the model's own provider here.
        metadata = value.get("metadata")
        if isinstance(metadata, Mapping) and isinstance(metadata.get("raw"), str):
            parts.append(_words(metadata["raw"]))
        codes = [value[key] for key in ("code", "type") if isinstance(value.get(key), str)]
        return ": ".join(dict.fromkeys(filter(None, parts))) or ", ".join(codes)
    return ""


def _page_text(text: str) -> str:
    """Return the text of a page without its tags; other text as it is."""
    if "<" not in text:
        return text
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
    body = _TAG.sub(" ", text[: 10 * MAX_WORDS])
    return "a page, not JSON: " + html.unescape(title[1] if title and title[1].strip() else body)


def _named_status(body: Any) -> int | None:
    for code in _codes(body):
        if isinstance(code, str):
            number = int(code) if re.fullmatch(r"[45]\d\d", code) else None
            code = number or STATUS_OF_CODE.get(code.lower())
        if type(code) is int and 400 <= code <= 599:
            return code
    return None


def _codes(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value[:5]:
            yield from _codes(part)
    elif isinstance(value, Mapping):
        for key in _CODE_KEYS:
            part = value.get(key)
            if isinstance(part, Mapping | list):
                yield from _codes(part)
            elif part is not None:
                yield part

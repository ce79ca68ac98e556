"""Keep the secrets of the environment out of messages, and out of what a command prints.

A driver, a vendor or a server may quote in its error whatever it was given: an address with its
password, a header, a whole request. So a message is redacted where it is made (`FinagentError`)
and where it leaves the process (`redact_output`, `redact_process`): by what the environment holds,
in every spelling that is usual, and by shape.
"""

from __future__ import annotations

import logging
import os
import re
import string
import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from finagent_model._redact import KEY_MARK, MIN_SECRET_CHARS, redact_key_shapes, redact_secrets

FILE_SUFFIX = "_FILE"
"""Ending of a variable that names the file which holds the value."""
MAX_FILE_BYTES = 64 * 1024
MIN_LINE_CHARS = 16
"""A shorter line of a key that has several is no secret by itself."""
MIN_TOKEN_CHARS = 16
"""A word of an address this long, with letters and digits, may be a token."""

_SECRET_WORD = (
    r"pass(?:w(?:or)?d|phrase|code)?|pwd|secret|token|credentials?|api-?key|access-?key"
    r"|private-?key|key|auth|sig(?:nature)?|dsn"
)
_SECRET_NAME = re.compile(
    rf"(?:^|[^a-z])(?:{_SECRET_WORD})s?(?:$|[^a-z])|passw|secret|token|apikey|pgpass",
    re.IGNORECASE,
)
"""Names of variables, of parameters of an address, and of fields."""
_LOCATION_NAME = re.compile(r"DATABASE|_UR[IL]$|CONN|DSN", re.IGNORECASE)
_SHELL_NAMES = {"PWD", "OLDPWD"}
# The lookaheads let a match begin inside the one before: `http:` is followed by a query's names.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?=(\S+))")
_PAIR = re.compile(r"([\w.-]+)[\"']?\s*[=:]\s*(?=\"([^\"]+)\"|'([^']+)'|[\"']?([^\s&;,\"'}#]+))")
# Also where the scheme is missing, or its slashes are.
_USER_PASSWORD = re.compile(r"(?<![\w.%+-])/{0,2}[\w.%+-]*:([^\s@/:][^\s@]*)@")
_TOKEN = re.compile(rf"(?=[\w.~%+=-]*\d)(?=[\w.~%+=-]*[A-Za-z])[\w.~%+=-]{{{MIN_TOKEN_CHARS},}}")

# What messages are searched for beside the secrets that are known. An address that hides its
# password itself, as SQLAlchemy's do, is left as it is, and so is a hint on how to write one. What
# is redacted already is not redacted again.
_USER_PART = re.compile(r"(?<=//)(?!user:password@|[^\s/@]*:\*\*\*@)[^\s\"'<>/?#]*@")
_PARAMETER = re.compile(
    rf"([?&;][\w.%-]*(?:{_SECRET_WORD})[\w.%-]*=)(?!\[redacted)[^\s&;#\"'<>]+", re.IGNORECASE
)
_HEADER = re.compile(
    r"((?:authorization|api-?key|(?:auth|access)-?token|cookie)"
    r"(?:[\"']?\s*[:=]\s*b?[\"']?|[\"'],\s*b?[\"'])"
    r"(?:(?:basic|bearer|token|digest|negotiate)\s+)?)(?!\[redacted)[^\s\"',;}\])]{8,}",
    re.IGNORECASE,
)
_BASIC = re.compile(r"(?<=\bBasic )(?=[A-Za-z+/]*[\d=])[A-Za-z0-9+/]{8,}={0,2}")
_CUT = re.compile(r"[\"']?\s*(?:\.\.\.|…)|\Z")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL
)


def find_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets of an environment, each once.

    These are the values of variables that are named like one, and the credentials in every address.
    A file that such a variable names (`..._FILE`) is read.
    """
    found: dict[str, None] = {}
    for name, value in environ.items():
        stem = name.removesuffix(FILE_SUFFIX)
        is_secret = _SECRET_NAME.search(stem.replace("_", "-")) and name not in _SHELL_NAMES
        if stem != name and (is_secret or _LOCATION_NAME.search(stem)):
            value = _read_file(value)
        if is_secret and "://" not in value and not (value[:1] == "/" and Path(value).exists()):
            found.update(dict.fromkeys(_lines(value)))
        found.update(dict.fromkeys(find_address_secrets(value)))
    return tuple(found)


def find_address_secrets(text: str) -> Iterator[str]:
    """Yield what may be a credential of the addresses and `name=value` pairs in `text`.

    An address may be misspelt: whatever a reader could take for its password is given.
    """
    found = _find_written(text)
    # A driver may quote it as it was written or decoded.
    yield from (spelling for each in found for spelling in (each, unquote(each)))


def _find_written(text: str) -> Iterator[str]:
    for match in _ADDRESS.finditer(text):
        for address in (match[1], text[match.end() :]):
            yield from _user_secrets(address)
        path, _, rest = match[1].partition("?")
        rest = rest or path.partition("#")[2]
        words = [part.rpartition("=")[2] for part in re.split("[&;#]", rest)]
        if match[0].lower().startswith(("http", "ws")):
            words += path.rpartition("@")[2].split("#")[0].split("/")[1:]
        yield from (word for word in words if _TOKEN.fullmatch(word))
    yield from _USER_PASSWORD.findall(text)
    for name, *values in _PAIR.findall(text):
        if _SECRET_NAME.search(name.replace("_", "-")):
            yield from values


def environment_secrets() -> tuple[str, ...]:
    """Return the secrets of this process's environment, in every spelling, each once."""
    known = _environment_secrets(tuple(os.environ.items()))
    spellings = [each for secret in known for each in (secret, *_other_spellings(secret))]
    return tuple(dict.fromkeys(each for each in spellings if len(each) >= MIN_SECRET_CHARS))


def may_carry_key(address: str) -> bool:
    """Return whether an address has a user, a password, a query or a fragment."""
    # Anywhere: a password that was not encoded may hold a /, and the scheme may be missing.
    return any(mark in address for mark in "@?#")


def redact_message(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without `secrets`, those of the environment, and what is shaped like one."""
    text = _USER_PART.sub("", text)
    if "-----BEGIN" in text:
        text = _PRIVATE_KEY.sub(KEY_MARK, text)
    # The shapes first: they take a header's value as a whole, of which a secret may be a part.
    text = _PARAMETER.sub(rf"\g<1>{KEY_MARK}", text)
    text = _HEADER.sub(rf"\g<1>{KEY_MARK}", text)
    return redact_known(redact_key_shapes(_BASIC.sub(KEY_MARK, text)), secrets)


def redact_known(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without `secrets` and those of the environment, and otherwise as it is."""
    known = _environment_secrets(tuple(os.environ.items()))
    # The longest first: a secret that contains another one must go as a whole.
    ordered = sorted({*secrets, *known}, key=len, reverse=True)
    folded = text.casefold()
    for spelling in (other for secret in ordered for other in _other_spellings(secret)):
        if spelling.casefold() in folded:
            text = re.sub(re.escape(spelling), KEY_MARK, text, flags=re.IGNORECASE)
    return _redact_cut_secret(redact_secrets(text, ordered), known)


@contextmanager
def redact_output() -> Iterator[None]:
    """Redact what this process prints in the block, its logs, warnings and tracebacks included.

    Only known secrets are taken out of the standard output: it has results, and they stay as they
    are.
    """
    before = sys.stdout, sys.stderr
    # A proxy of a stream has all that a stream has; the stub's class has no such thing.
    sys.stdout = cast(Any, _RedactedStream(sys.stdout, redact_known))
    sys.stderr = cast(Any, _RedactedStream(sys.stderr, redact_message))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def redact_process() -> None:
    """Redact what this process prints from now on, as `redact_output` does, for good.

    For a process that another program began, such as a web server. The streams of log handlers that
    are there already are redacted, too.
    """
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {h for each in loggers if isinstance(each, logging.Logger) for h in each.handlers}
    for name, redact in (("stdout", redact_known), ("stderr", redact_message)):
        stream = getattr(sys, name)
        if isinstance(stream, _RedactedStream):
            continue
        redacted = cast(Any, _RedactedStream(stream, redact))
        setattr(sys, name, redacted)
        for handler in handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                handler.setStream(redacted)


class _RedactedStream:
    """A text stream that redacts whatever is written to another one."""

    def __init__(self, stream: Any, redact: Any) -> None:
        self._stream, self._redact = stream, redact

    def write(self, text: str) -> int:
        self._stream.write(self._redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        # Joined: a secret of several lines is found as a whole.
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        # Whoever writes bytes below would not pass through `write`.
        if name in ("buffer", "detach"):
            raise AttributeError(name)
        return getattr(self._stream, name)


@lru_cache(maxsize=4)
def _environment_secrets(items: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return find_secrets(dict(items))


def _user_secrets(address: str) -> Iterator[str]:
    """Yield what may be a password or a token before the host of `address`."""
    if "@" not in address:
        return
    # SQLAlchemy ends the user part at the first @, other parsers at the last one.
    for part in (address.partition("@")[0], address.rpartition("@")[0]):
        user, _, password = part.partition(":")
        yield password
        # Git's hosts take a token in the place of the user's name.
        if _TOKEN.fullmatch(user):
            yield user
        if password:
            yield b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _redact_cut_secret(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the beginning of a secret where something has cut it.

    That is at the end, or before the dots that stand for the rest of a value.
    """
    folded = text.casefold()
    beginnings = [each.casefold() for each in secrets]
    beginnings = [each for each in beginnings if each[:MIN_SECRET_CHARS] in folded]
    if not beginnings:
        return text
    # The last one first, so that the places before it stay where they are.
    for end in reversed([match.start() for match in _CUT.finditer(text)]):
        for secret in beginnings:
            lengths = range(len(secret) - 1, MIN_SECRET_CHARS - 1, -1)
            length = next((n for n in lengths if folded.endswith(secret[:n], 0, end)), None)
            if length is not None:
                text = f"{text[: end - length]}{KEY_MARK}{text[end:]}"
                break
    return text


def _lines(value: str) -> Iterator[str]:
    """Yield a secret; of one with several lines each line, since a message may quote one."""
    # In a variable, line ends are often written as \n.
    whole = value.strip("\ufeff" + string.whitespace)  # a byte order mark is no part of a key
    lines = [line.strip() for line in re.split(r"\r?\n|(?:\\r)?\\n", whole)]
    yield from lines if len(lines) == 1 else (x for x in lines if len(x) >= MIN_LINE_CHARS)


@lru_cache(maxsize=1024)
def _other_spellings(secret: str) -> tuple[str, ...]:
    """Return how else a secret may be quoted: decoded, in a query, on a page, in a header."""
    plain = unquote(secret)
    spellings = (plain, unquote_plus(secret), quote(plain), quote(plain, safe=""))
    twice = quote(quote(plain, safe=""), safe="")
    encoded = b64encode(plain.encode()).decode()
    more = (quote_plus(plain), twice, escape(plain), encoded, encoded.rstrip("="))
    found = {x for x in (*spellings, *more) if len(x) >= MIN_SECRET_CHARS}
    return tuple(sorted(found - {secret}, key=len, reverse=True))


def _read_file(path: str) -> str:
    try:
        with Path(path).open(errors="replace") as file:
            return file.read(MAX_FILE_BYTES)
    except (OSError, ValueError):
        return ""  # whoever needs the value says what is wrong with the file

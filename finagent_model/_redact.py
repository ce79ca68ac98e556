"""Keys have no place in a recording or a message: known ones are struck out, whatever is shaped
like one, and what an address holds beside the place.

What a reply must not carry out of the desk: passages of its prompts, and keys.

A model that obeys its news can be told to recite what it was given, so code looks at every text of
a signal before it is handed out. This finds copies, not paraphrases: a passage counts when 40 or
more characters of a prompt come one after the other, whatever the case, the blanks, the invisible
characters and the accents between them, and also where it is spread over several texts. A key is
found by its value, or by a shape that keys have.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

_SHAPES = re.compile(
    r"""
      (?<![\w-])sk-[\w-]{16,}                      # OpenAI and those who imitate it
    | (?<![\w-])(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)    # AWS
    | (?<![\w-])AIza[\w-]{35}                      # Google
    | (?<![\w-])(?:gh[pousr]_\w{36}|github_pat_\w{22})\w*  # GitHub
    | (?<![\w-])hf_[A-Za-z0-9]{30,}                # Hugging Face
    | (?<![\w-])xox[abeprs]-[\w-]{10,}             # Slack
    | (?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+ # a signed JSON token
    | (?<=\bBearer\ )(?=\S*\d)[\w.~+/=-]{16,}
    | (?<=\bbearer\ )(?=\S*\d)[\w.~+/=-]{16,}
    """,
    re.VERBOSE | re.ASCII,
)
_ADDRESS = re.compile(r"(?<=://)[^\s\"'<>]+")
_QUERY = re.compile(r"\?[^\s?]*=\S*")
_SIGNS = (
    *("sk-", "AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("hf_", "xox", "eyJ", "earer "),
)
"""Without one of these there is no such shape: looking for them is a hundred times quicker."""


def without_key_shapes(text: str) -> str:
    """`text` with everything that is shaped like a key struck out."""
    return _SHAPES.sub(KEY, text) if any(sign in text for sign in _SIGNS) else text


def without_private(text: str) -> str:
    """`text` with each address in it without user, password and query, which may hold a key."""
    return _QUERY.sub("", _ADDRESS.sub(_public, text))


def _public(address: re.Match[str]) -> str:
    """Host and path. A password may hold an @ or a /, and where a ? is before the last @ nobody can
    tell it from a query.
    """
    private, _, rest = address[0].rpartition("@")
    return "***" if "?" in private else rest


def make_redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that strikes out these secrets and everything that is shaped like a key."""
    known = sorted(set(secrets), key=len, reverse=True)

    def redact(text: str) -> str:
        return without_key_shapes(without_keys(text, known))

    return redact


PASSAGE = 40
"""Characters of a prompt, its blanks single, that are a copy and no coincidence."""
SEED = 12
"""Folded characters that are looked up at once; a passage has at least 2 * SEED - 1 of them."""
SECRET = 8
"""A shorter key is a placeholder such as `none`: a word that replies may need."""
LONG_RUN = 32
NEAR = 24
"""Characters that may lie between a long run and the word that makes it a key."""
KEY = "[struck out: key]"
PROMPT = "[struck out: prompt]"
NOTES = {
    KEY: "a key, or what is shaped like one, was struck out of the reply",
    PROMPT: "a passage copied from a prompt was struck out of the reply",
}
_SK = re.compile(r"sk-(?<![A-Za-z0-9]sk-)[A-Za-z0-9_-]{8,}")
_BEARER = re.compile(
    r"(?<![a-z])bearer[\s:]+(?:(?=[^\s\d]*\d)[\w.~+/=-]{8,}|[\w.~+/=-]{16,})", re.IGNORECASE
)
_RUN = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{LONG_RUN},}}=*")
_WORDS = ("key", "token", "secret")
_WORD = rf"(?<![a-z])(?<!out: )(?:{'|'.join(_WORDS)})s?(?![a-z])"
_BEFORE = re.compile(rf"{_WORD}.{{0,{NEAR}}}\Z", re.IGNORECASE)
_AFTER = re.compile(rf".{{0,{NEAR}}}?{_WORD}", re.IGNORECASE)
_BETWEEN = r"(?:[\s\u00ad\u200b-\u200f\u2060\ufeff]|\\[nrt]|\\u(?:00ad|200[b-f]|2060|feff))*"
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Me", "Mn"}
RedactedSpan = tuple[int, int, str]
"""From, to, and the mark that takes its place."""


def redact(
    text: str, secrets: Sequence[str], prompts: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """`text` with a mark in place of each leak, and a note for each kind of mark in it."""
    (kept,), notes = redact_all((text,), secrets, prompts)
    return kept, notes


def without_keys(text: str, secrets: Sequence[str]) -> str:
    """`text`, which may be JSON, without `secrets`, also where they are spelled with escapes, in
    another case or with blanks between; what was JSON stays JSON.

    Done before a reply is recorded: a replay must not need the key to give the same signal.
    """
    for secret in secrets:
        if len(secret) >= SECRET:
            text = _spelled(secret).sub(KEY, text)
    return text


def redact_all(
    texts: Sequence[str], secrets: Sequence[str], prompts: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Looks at the texts as if they were one, since a passage may be spread over them."""
    whole = "\n".join(texts)
    folded = whole.translate(_FOLDS)
    copies = [*_secrets(folded, secrets), *_passages(folded, _book(tuple(prompts)))]
    spans = _apart([*_in_full(copies, whole), *_shapes(whole, folded)])
    kept, start = [], 0
    for text in texts:
        kept.append(_marked(text, start, spans))
        start += len(text) + 1
    return kept, tuple(note for mark, note in NOTES.items() if any(mark in text for text in kept))


def _secrets(folded: str, secrets: Sequence[str]) -> Iterator[RedactedSpan]:
    for secret in secrets:
        if len(secret) >= SECRET:
            plain = secret.translate(_FOLDS)
            for found in re.finditer(re.escape(plain), folded):
                yield (*found.span(), KEY)


def _shapes(text: str, folded: str) -> Iterator[RedactedSpan]:
    """What looks like a key; `folded` rules most texts out at a glance."""
    for found in _SK.finditer(text):
        yield (*found.span(), KEY)
    if "bearer" in folded:
        for found in _BEARER.finditer(text):
            yield (*found.span(), KEY)
    if not any(word in folded for word in _WORDS) or max(map(len, text.split())) < LONG_RUN:
        return
    for found in _RUN.finditer(text):
        start, end = found.span()
        around = NEAR + len("secrets") + 1
        before, after = text[max(0, start - around) : start], text[end : end + around]
        if _BEFORE.search(before) or _AFTER.match(after):
            yield start, end, KEY


class _Book(NamedTuple):
    """Prompts, folded and in a row, to look passages up in."""

    text: str
    at: tuple[int, ...]
    """Where each folded character stands in the prompts with single blanks."""
    seeds: dict[str, list[int]]


@lru_cache(maxsize=8)
def _book(prompts: tuple[str, ...]) -> _Book:
    text, at, start = [], [], 0
    for prompt in prompts:
        line = " ".join(prompt.split())
        for i, char in enumerate(line):
            for folded in _FOLDS[ord(char)] or "":
                text.append(folded)
                at.append(start + i)
        text.append("\n")  # no folded text has one, so no passage crosses it
        at.append(start + len(line))
        start += len(line) + 1
    whole, seeds = "".join(text), dict[str, list[int]]()
    for i in range(len(whole) - SEED + 1):
        seeds.setdefault(whole[i : i + SEED], []).append(i)
    return _Book(whole, tuple(at), seeds)


def _passages(folded: str, book: _Book) -> Iterator[RedactedSpan]:
    """One look every SEED characters: a passage is too long to slip through between two."""
    looks = range(0, len(folded) - SEED + 1, SEED)
    done = 0
    for here in [i for i in looks if folded[i : i + SEED] in book.seeds]:
        if here + SEED <= done:
            continue
        for there in book.seeds[folded[here : here + SEED]]:
            back = _shared_before(folded, here, book.text, there)
            on = _shared_from(folded, here, book.text, there)
            if book.at[there + on - 1] - book.at[there - back] + 1 >= PASSAGE:
                yield here - back, here + on, PROMPT
                done = max(done, here + on)


def _shared_before(one: str, i: int, other: str, j: int) -> int:
    """How many characters before `i` and `j` agree. Fewer than SEED are of interest: with more, the
    look before this one would have met them.
    """
    n, most = 0, min(SEED - 1, i, j)
    while n < most and one[i - n - 1] == other[j - n - 1]:
        n += 1
    return n


def _shared_from(one: str, i: int, other: str, j: int) -> int:
    """How many characters from `i` and `j` on agree, a seed at least: in strides that grow while
    they succeed and shrink where they fail.
    """
    n, stride = SEED, 1
    while stride:
        part = one[i + n : i + n + stride]
        if len(part) == stride and part == other[j + n : j + n + stride]:
            n, stride = n + stride, 2 * stride
        else:
            stride //= 2
    return n


def _in_full(spans: Sequence[RedactedSpan], text: str) -> Iterator[RedactedSpan]:
    """Spans of the folded text as spans of `text`."""
    if not spans:
        return
    at = [i for i, char in enumerate(text) for _ in _FOLDS[ord(char)] or ""]
    for start, end, mark in spans:
        yield at[start], at[end - 1] + 1, mark


def _apart(spans: Sequence[RedactedSpan]) -> list[RedactedSpan]:
    """In order, and those that overlap made one: a key where one of them is."""
    apart: list[RedactedSpan] = []
    for start, end, mark in sorted(spans):
        if apart and start < apart[-1][1]:
            first, last, other = apart.pop()
            start, end, mark = first, max(last, end), KEY if KEY in (mark, other) else PROMPT
        apart.append((start, end, mark))
    return apart


def _marked(text: str, start: int, spans: Sequence[RedactedSpan]) -> str:
    """`text`, which begins at `start` of the whole, with its share of the spans marked."""
    kept, done = [], 0
    for first, last, mark in spans:
        left, right = max(first - start, 0), min(last - start, len(text))
        if left < right:
            kept += [text[done:left], mark]
            done = right
    return "".join([*kept, text[done:]])


class _Folds(dict[int, str | None]):
    """For `str.translate`: a character as it counts in a comparison, None where it doesn't. Grows
    by one entry for each different character met.
    """

    def __missing__(self, code: int) -> str | None:
        plain = unicodedata.normalize("NFKD", chr(code)).casefold()
        seen = (c for c in plain if unicodedata.category(c) not in _UNSEEN and not c.isspace())
        self[code] = "".join(seen) or None
        return self[code]


_FOLDS = _Folds()


@lru_cache(maxsize=8)
def _spelled(secret: str) -> re.Pattern[str]:
    chars = (rf"(?:\\?{re.escape(c)}|\\u{ord(c):04x})" for c in secret)
    return re.compile(_BETWEEN.join(chars), re.IGNORECASE)

"""Redact secrets and copied prompts from recordings, messages and replies.

A key is found by its value or by a shape that keys have. A model that obeys its news can be told to
recite its prompts, so every text of a signal is searched for passages of them: 40 or more
characters in a row, whatever the case, the blanks, the invisible characters and the accents between
them, also where the passage is spread over several texts. Copies are found, paraphrases are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

MIN_PASSAGE_CHARS = 40
"""Characters of a prompt, its blanks single, that are a copy and no coincidence."""
MIN_SECRET_CHARS = 8
"""A shorter key is a placeholder such as `none`: a word that replies may need."""
KEY_MARK = "[redacted: key]"
PROMPT_MARK = "[redacted: prompt]"
NOTES = {
    KEY_MARK: "a key, or what is shaped like one, was redacted in the reply",
    PROMPT_MARK: "a passage copied from a prompt was redacted in the reply",
}
_SEED_CHARS = 12
"""Length of the folded pieces that are looked up; a passage has at least 2 * _SEED_CHARS - 1."""
_LONG_RUN = 32
_NEARBY_CHARS = 24
"""Characters that may lie between a long run and the word that makes it a key."""

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
_KEY_PREFIXES = (
    *("sk-", "AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("hf_", "xox", "eyJ", "earer "),
)
"""Without one of these no shape can match: testing for them is a hundred times quicker."""
_ADDRESS = re.compile(r"(?<=://)[^\s\"'<>]+")
_QUERY = re.compile(r"\?[^\s?]*=\S*")
_SK_KEY = re.compile(r"sk-(?<![A-Za-z0-9]sk-)[A-Za-z0-9_-]{8,}")
_BEARER_KEY = re.compile(
    r"(?<![a-z])bearer[\s:]+(?:(?=[^\s\d]*\d)[\w.~+/=-]{8,}|[\w.~+/=-]{16,})", re.IGNORECASE
)
_KEY_RUN = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{_LONG_RUN},}}=*")
_KEY_WORDS = ("key", "token", "secret")
# `redacted: ` before the word is KEY_MARK itself: what is redacted is not redacted again.
_KEY_WORD = rf"(?<![a-z])(?<!redacted: )(?:{'|'.join(_KEY_WORDS)})s?(?![a-z])"
_WORD_BEFORE = re.compile(rf"{_KEY_WORD}.{{0,{_NEARBY_CHARS}}}\Z", re.IGNORECASE)
_WORD_AFTER = re.compile(rf".{{0,{_NEARBY_CHARS}}}?{_KEY_WORD}", re.IGNORECASE)
_SEPARATORS = r"(?:[\s\u00ad\u200b-\u200f\u2060\ufeff]|\\[nrt]|\\u(?:00ad|200[b-f]|2060|feff))*"
_IGNORED_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Cs", "Me", "Mn"}
RedactedSpan = tuple[int, int, str]
"""From, to, and the mark that takes its place."""


def redact_key_shapes(text: str) -> str:
    """Return `text` with everything that is shaped like a key replaced by `KEY_MARK`."""
    return _SHAPES.sub(KEY_MARK, text) if any(p in text for p in _KEY_PREFIXES) else text


def redact_addresses(text: str) -> str:
    """Return `text` with every URL in it stripped of user, password and query."""
    return _QUERY.sub("", _ADDRESS.sub(_strip_credentials, text))


def make_redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that redacts `secrets` and everything that is shaped like a key."""
    # The longest first: a secret that contains another one must go as a whole.
    longest_first = sorted(set(secrets), key=len, reverse=True)

    def redact(text: str) -> str:
        return redact_key_shapes(redact_secrets(text, longest_first))

    return redact


def redact_secrets(text: str, secrets: Sequence[str]) -> str:
    """Return `text` with `secrets` replaced by `KEY_MARK`; what was JSON stays JSON.

    Spellings with escapes, in another case or with blanks between are found as well. Secrets below
    `MIN_SECRET_CHARS` are left.
    """
    # Done before a reply is recorded: a replay must give the same signal without the key.
    for secret in secrets:
        if len("".join(secret.split())) >= MIN_SECRET_CHARS:
            text = _spelling_pattern(secret).sub(KEY_MARK, text)
    return text


def redact(
    text: str, secrets: Sequence[str], prompts: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """Return `text` with a mark in place of each leak, and a note for each kind of mark in it."""
    (redacted,), notes = redact_texts((text,), secrets, prompts)
    return redacted, notes


def redact_texts(
    texts: Sequence[str], secrets: Sequence[str], prompts: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Return `texts` with a mark in place of each leak, and a note for each kind of mark in them.

    A leak that is spread over several texts is found.
    """
    joined = "\n".join(texts)
    folded = joined.translate(_FOLDS)
    index = _index_prompts(tuple(prompts))
    copies = [*_find_secrets(folded, secrets), *_find_passages(folded, index)]
    spans = _merge_overlaps([*_unfold_spans(copies, joined), *_find_key_shapes(joined, folded)])
    redacted, start = [], 0
    for text in texts:
        redacted.append(_apply_marks(text, start, spans))
        start += len(text) + 1
    notes = [note for mark, note in NOTES.items() if any(mark in text for text in redacted)]
    return redacted, tuple(notes)


def _strip_credentials(address: re.Match[str]) -> str:
    """Return host and path of an address, `***` where they can't be told from a password."""
    # A password may hold an @ or a /. A ? before the last @ may be in a password or start a query.
    credentials, _, location = address[0].rpartition("@")
    return "***" if "?" in credentials else location


def _find_secrets(folded: str, secrets: Sequence[str]) -> Iterator[RedactedSpan]:
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARS:
            plain = secret.translate(_FOLDS)
            for match in re.finditer(re.escape(plain), folded):
                yield (*match.span(), KEY_MARK)


def _find_key_shapes(text: str, folded: str) -> Iterator[RedactedSpan]:
    for match in _SK_KEY.finditer(text):
        yield (*match.span(), KEY_MARK)
    if "bearer" in folded:
        for match in _BEARER_KEY.finditer(text):
            yield (*match.span(), KEY_MARK)
    # The searches below are slow; most texts have no such word, or no run that is long enough.
    if not any(word in folded for word in _KEY_WORDS) or max(map(len, text.split())) < _LONG_RUN:
        return
    for match in _KEY_RUN.finditer(text):
        start, end = match.span()
        margin = _NEARBY_CHARS + len("secrets") + 1
        before, after = text[max(0, start - margin) : start], text[end : end + margin]
        if _WORD_BEFORE.search(before) or _WORD_AFTER.match(after):
            yield start, end, KEY_MARK


class _PromptIndex(NamedTuple):
    """The prompts in one folded text, with what is needed to look passages up in it."""

    text: str
    positions: tuple[int, ...]
    """Where each folded character stands in the prompts with single blanks."""
    seeds: dict[str, list[int]]
    """Positions in `text` of each piece of _SEED_CHARS characters."""


@lru_cache(maxsize=8)
def _index_prompts(prompts: tuple[str, ...]) -> _PromptIndex:
    chars, positions, start = [], [], 0
    for prompt in prompts:
        line = " ".join(prompt.split())
        for i, char in enumerate(line):
            for folded in _FOLDS[ord(char)] or "":
                chars.append(folded)
                positions.append(start + i)
        chars.append("\n")  # no folded text has one, so no passage crosses it
        positions.append(start + len(line))
        start += len(line) + 1
    text, seeds = "".join(chars), dict[str, list[int]]()
    for i in range(len(text) - _SEED_CHARS + 1):
        seeds.setdefault(text[i : i + _SEED_CHARS], []).append(i)
    return _PromptIndex(text, tuple(positions), seeds)


def _find_passages(folded: str, index: _PromptIndex) -> Iterator[RedactedSpan]:
    # Every passage contains a piece that begins at a multiple of _SEED_CHARS: others are skipped.
    starts = range(0, len(folded) - _SEED_CHARS + 1, _SEED_CHARS)
    covered = 0
    for i in [i for i in starts if folded[i : i + _SEED_CHARS] in index.seeds]:
        if i + _SEED_CHARS <= covered:
            continue
        for j in index.seeds[folded[i : i + _SEED_CHARS]]:
            before = _count_equal_before(folded, i, index.text, j)
            after = _count_equal_from(folded, i, index.text, j)
            length = index.positions[j + after - 1] - index.positions[j - before] + 1
            if length >= MIN_PASSAGE_CHARS:
                yield i - before, i + after, PROMPT_MARK
                covered = max(covered, i + after)


def _count_equal_before(one: str, i: int, other: str, j: int) -> int:
    """Return how many characters before `i` and `j` are equal, at most _SEED_CHARS - 1."""
    # With more equal characters, the piece before this one would have matched.
    n, limit = 0, min(_SEED_CHARS - 1, i, j)
    while n < limit and one[i - n - 1] == other[j - n - 1]:
        n += 1
    return n


def _count_equal_from(one: str, i: int, other: str, j: int) -> int:
    """Return how many characters from `i` and `j` on are equal; a seed is known to be."""
    # The stride doubles while slices are equal and halves where not: few comparisons in Python.
    n, stride = _SEED_CHARS, 1
    while stride:
        part = one[i + n : i + n + stride]
        if len(part) == stride and part == other[j + n : j + n + stride]:
            n, stride = n + stride, 2 * stride
        else:
            stride //= 2
    return n


def _unfold_spans(spans: Sequence[RedactedSpan], text: str) -> Iterator[RedactedSpan]:
    """Yield spans of the folded text as spans of `text`."""
    if not spans:
        return
    positions = [i for i, char in enumerate(text) for _ in _FOLDS[ord(char)] or ""]
    for start, end, mark in spans:
        yield positions[start], positions[end - 1] + 1, mark


def _merge_overlaps(spans: Sequence[RedactedSpan]) -> list[RedactedSpan]:
    """Return the spans in order, overlapping ones merged; a key's mark wins."""
    merged: list[RedactedSpan] = []
    for start, end, mark in sorted(spans):
        if merged and start < merged[-1][1]:
            first, last, other = merged.pop()
            start, end = first, max(last, end)
            mark = KEY_MARK if KEY_MARK in (mark, other) else PROMPT_MARK
        merged.append((start, end, mark))
    return merged


def _apply_marks(text: str, start: int, spans: Sequence[RedactedSpan]) -> str:
    """Return `text`, which begins at `start` of the whole, with its part of the spans marked."""
    parts, position = [], 0
    for first, last, mark in spans:
        left, right = max(first - start, 0), min(last - start, len(text))
        if left < right:
            parts += [text[position:left], mark]
            position = right
    return "".join([*parts, text[position:]])


class _Folds(dict[int, str | None]):
    """A table for `str.translate`: a character as it is compared, None where it is ignored."""

    def __missing__(self, code: int) -> str | None:
        # Filled lazily: one entry for each different character that occurs.
        plain = unicodedata.normalize("NFKD", chr(code)).casefold()
        chars = (
            c
            for c in plain
            if unicodedata.category(c) not in _IGNORED_CATEGORIES and not c.isspace()
        )
        self[code] = "".join(chars) or None
        return self[code]


_FOLDS = _Folds()


@lru_cache(maxsize=1024)
def _spelling_pattern(secret: str) -> re.Pattern[str]:
    """Return a pattern of `secret` in any case, with escapes, and with blanks between."""
    # Not its own blanks: a key of several lines may be quoted in one.
    chars = (rf"(?:\\?{re.escape(c)}|\\u{ord(c):04x})" for c in secret if not c.isspace())
    return re.compile(_SEPARATORS.join(chars), re.IGNORECASE)

"""Words that report, page and model card share: grade, a model's memory, and foreign text."""

from __future__ import annotations

import re
import sys
from html import escape

from finagent_model.evaluation.evidence import Evidence
from finagent_model.market.news import sanitize_text

MAX_GRADE_CHARS = 400
"""Characters of a sentence about the grade, which may name a model."""
GRADE_SENTENCES = {
    "none": "NO evidence of an edge after costs: what was earned may well be chance.",
    "weak": "WEAK evidence of an edge after costs: more than chance, but not every check passed.",
    "strong": "STRONG evidence of an edge after costs: every check against chance passed.",
}
_MARKDOWN = re.compile(r"[\\`*\[\]]|(?<!\w)[_~]|[_~](?!\w)|(?<=:)(?=//)")


def escape_markdown(text: str, limit: int = 160) -> str:
    """Return foreign text as one line of Markdown that shows it and obeys nothing in it.

    It is cut to `limit` characters before its escapes are added.
    """
    # A model's own words, a model's name or a symbol: no tag, link, code or cell of a table.
    line = sanitize_text(text, sys.maxsize)
    line = line if len(line) <= limit else f"{line[: limit - 1]}…"
    return _MARKDOWN.sub(r"\\\g<0>", escape(line.replace("|", "/"), quote=False))


def grade_sentence(evidence: Evidence) -> str:
    """Return the sentence of the grade of evidence, with the reason where nothing is graded."""
    if reason := evidence.ungraded_reason:
        return f"NO evidence of an edge after costs: {reason}."
    return GRADE_SENTENCES[evidence.grade]


def memory_lines(evidence: Evidence) -> list[str]:
    """Return Markdown on the days before and after a chat model's cut-off; empty without one."""
    if (memory := evidence.memory) is None:
        return []
    sentences = memory.sentences(evidence.numbers)
    lines = ["", *(escape_markdown(sentence, MAX_GRADE_CHARS) for sentence in sentences)]
    lines += ["", "| | may be remembered, not graded | after the cut-off |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in memory.rows(evidence.numbers)]
    return lines


def memory_section(evidence: Evidence) -> list[str]:
    """Return HTML on the days before and after a chat model's cut-off; empty without one."""
    if (memory := evidence.memory) is None:
        return []
    head = "<tr><th></th><th>may be remembered, not graded</th><th>after the cut-off</th></tr>"
    cells = "".join(
        f"<tr><td>{name}</td><td>{before}</td><td>{after}</td></tr>"
        for name, before, after in memory.rows(evidence.numbers)
    )
    return [
        "<h2>What the model may remember</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in memory.sentences(evidence.numbers)),
        f"<table class=memory>{head}{cells}</table>",
    ]

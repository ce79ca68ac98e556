"""A linter of the prose that people read: constructions and words that a reader stumbles over.

A rule finds what a regular expression can find without many false alarms; it does not replace a
reader. Code, quoted output and URLs are left out. `python -m support.prose` prints what is found.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from support.places import ROOT
from support.site import pages


@dataclass(frozen=True)
class Rule:
    """One thing that prose should not have."""

    name: str
    pattern: re.Pattern[str]
    advice: str
    bad: str
    good: str


def rule(name: str, pattern: str, advice: str, bad: str, good: str) -> Rule:
    """Return a rule; `bad` is an example that it finds, `good` the sentence in other words."""
    return Rule(name, re.compile(pattern), advice, bad, good)


def word(name: str, pattern: str, standard: str, bad: str, good: str) -> Rule:
    """Return a rule for a word of the house that has a standard term."""
    return Rule(f"word:{name}", re.compile(pattern, re.IGNORECASE), f"write {standard}", bad, good)


START = r"(?:^|(?<=[.:;] ))"
"""Where a sentence or a part of one begins."""
RULES = (
    rule(
        "headless relative",
        START + r"(?:What|Whatever|Who|Whoever|Whose)\s(?=[a-z])(?=[^.?]{25,}\.)",
        "name the noun: callers that ..., the file that ...",
        "Who sends it as a bearer token may approve.",
        "A caller that sends this token may approve.",
    ),
    rule(
        "inversion",
        START + r"(?:Of|Under|Beside|Among) (?:a|an|the|its|all|those|these|what|ours)\b",
        "subject, verb, object",
        "Of a sender that was killed the rows are free again.",
        "If a sender is killed, its rows are released.",
    ),
    rule(
        "missing referent",
        r"\b(?:set|give|add|name|wants?) (?:one|another)\b(?=[.;,:]|$)",
        "repeat the noun",
        "A proxy makes every caller local: set one.",
        "A proxy makes every caller local, so set a token.",
    ),
    rule(
        "by then",
        r"\bby then\b",
        "say by when",
        "Who is back by then has not been missed.",
        "A server that returns within four minutes causes no failure.",
    ),
    rule(
        "personification",
        r"(?i)\b(?:nobody|somebody|anybody)(?: here)? (?:is told|is asked|says so|knows|listens)\b",
        "name who or what",
        "Nobody here says so.",
        "There is no evidence of it.",
    ),
    rule(
        "is no",
        r"(?<!here )\b(?:is|are|was|were) no (?!longer\b|more\b|such\b|fewer\b)[A-Za-z]+",
        "write 'is not a' or 'has no'",
        "The value is no number.",
        "The value is not a number.",
    ),
    rule(
        "of its own",
        r"\bof (?:its|their|our) own\b",
        "write 'its own' before the noun, or 'separate'",
        "It has a token of its own.",
        "It has its own token.",
    ),
    rule(
        "stands for listed",
        r"\bstands? (?:in|here|there|beside|below|above)\b",
        "write 'is listed in', 'is in'",
        "Every parameter stands in MLproject.",
        "MLproject lists every parameter.",
    ),
    rule(
        "a row a symbol",
        r"\b(?:one|a|an) \w+ a (?:symbol|day|row|file|minute|run|fold|task|caller)\b",
        "write 'per'",
        "It writes one file a symbol.",
        "It writes one file per symbol.",
    ),
    rule(
        "semicolon chain",
        r";[^.;|]*;[^.;|]*;",
        "make it sentences or a list",
        "Files have bars; rows have dates; columns have names; zones are UTC.",
        "Files have bars. Rows have dates.",
    ),
    word(
        "by comma", r"\bby comma\b", "'comma-separated'", "Tickers, by comma.", "Comma-separated."
    ),
    word("anew", r"\banew\b", "'again'", "It is made anew.", "It is made again."),
    word("seat", r"\bseat(?:s|ed|ing)?\b", "'agent'", "Seat fewer agents.", "Use fewer agents."),
    word("purse", r"\bpurses?\b", "'budget'", "The purse is empty.", "The budget is used up."),
    word(
        "deepest drawdown",
        r"\bdeepest (?:fall|drawdown)\b",
        "'max drawdown'",
        "deepest drawdown 3 %",
        "max drawdown 3 %",
    ),
    word("mended", r"\bmend(?:ed|s|ing)?\b", "'repaired'", "It was mended.", "It was repaired."),
    word(
        "look after",
        r"\blooks? after\b",
        "'manage'",
        "Look after recorded replies.",
        "Manage recorded replies.",
    ),
    word(
        "doors", r"\b(?:any|every|all) doors?\b", "'interface'", "by any door", "by any interface"
    ),
    word(
        "hang on",
        r"\bhangs? on\b",
        "'depends on'",
        "The stop hangs on the fill.",
        "The stop depends on the fill.",
    ),
    word(
        "struck out", r"\bstruck out\b", "'redacted'", "Keys are struck out.", "Keys are redacted."
    ),
    word(
        "embedded",
        r"\bembedded (?:bars?|data|events|daily)\b",
        "'bundled'",
        "the embedded bars",
        "the bundled bars",
    ),
    word(
        "unseen",
        r"\bunseen\b",
        "'out-of-sample'",
        "It decides on unseen days.",
        "It decides on out-of-sample days.",
    ),
    word(
        "call to act",
        r"\bcalls? to act\b",
        "'BUY or SELL signal'",
        "Each call to act is judged.",
        "Each BUY or SELL signal is judged.",
    ),
    word("kept bars", r"\bkept bars\b", "'cached bars'", "The kept bars.", "The cached bars."),
    word(
        "platform elsewhere",
        r"\bplatform elsewhere\b",
        "'external trading platform'",
        "a trading platform elsewhere",
        "an external trading platform",
    ),
    word(
        "way out",
        r"\bthe way out\b",
        "'the fix'",
        "An error names the way out.",
        "An error names the fix.",
    ),
)


def plain_markdown(text: str) -> Iterator[str]:
    """Yield the paragraphs, cells and items of a page, without headings and code."""
    text = re.sub(r"(?ms)^( *)(```|~~~).*?^\1\2", "", text)
    text = re.sub(r"(?s)<!--.*?-->", "", text)
    text = re.sub(r"`[^`\n]*`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            yield from (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|")))
        elif not line.strip() or line.startswith("#") or re.match(r"\s*(?:[*-]|\d+\.) ", line):
            yield " ".join(block)
            block = []
            if line.strip() and not line.startswith("#"):
                block = [re.sub(r"^\s*(?:[*-]|\d+\.) ", "", line)]
        else:
            block.append(line.strip())
    yield " ".join(block)


def plain_template(text: str) -> Iterator[str]:
    """Yield the texts of an HTML template."""
    text = re.sub(r"(?s)<(script|style)\b.*?</\1>|{#.*?#}|{%.*?%}", "\n", text)
    text = re.sub(r"(?s){{.*?}}", "VALUE", text)
    titles = re.findall(r'(?:title|aria-label|placeholder)="([^"]+)"', text)
    # Elements within a sentence are a part of it.
    text = re.sub(r"(?s)</?(?:a|b|i|em|strong|span|code|button)\b[^>]*>", "", text)
    for piece in [*re.split(r"(?s)<[^>]*>", text), *titles]:
        yield html.unescape(" ".join(piece.split()))


def plain_comments(text: str) -> Iterator[str]:
    """Yield the comments of a file of variables, a block each."""
    for block in re.findall(r"(?m)(?:^#+ .*\n)+", text):
        yield " ".join(line.lstrip("# ") for line in block.splitlines())


def plain_messages(text: str) -> Iterator[str]:
    """Yield the string literals of a module that may be sentences: messages, reports, help texts.

    Docstrings have rules of another kind, and are left out as expressions that stand alone.
    """
    tree = ast.parse(text)
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inside.add(node.value)
        if node in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            inside.update(node.values)
            parts = (v.value if isinstance(v, ast.Constant) else "VALUE" for v in node.values)
            literal = "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            literal = node.value
        else:
            continue
        # A Content-Security-Policy has semicolons, and is read by browsers alone.
        if literal.count(" ") >= 2 and "-src " not in literal:
            yield literal


def texts() -> Iterator[tuple[str, Iterator[str]]]:
    """Yield each file that people read, with its pieces of prose."""
    for path in pages():
        # Docstrings have rules of another kind, and a glossary names the words that it replaces.
        if path.name in ("python.md", "glossary.md"):
            continue
        yield str(path.relative_to(ROOT)), plain_markdown(path.read_text())
    for path in sorted((ROOT / "finagent_model/webui/templates").glob("*.html")):
        yield str(path.relative_to(ROOT)), plain_template(path.read_text())
    for path in sorted((ROOT / "finagent_model").rglob("*.py")):
        yield str(path.relative_to(ROOT)), plain_messages(path.read_text())
    for name in ("env.example", "airflow/env.example"):
        yield name, plain_comments((ROOT / name).read_text())


def find(pieces: Iterator[str]) -> Iterator[tuple[Rule, str]]:
    """Yield each place that breaks a rule, with the words around it."""
    for piece in pieces:
        for each in RULES:
            for match in each.pattern.finditer(piece):
                start = max(0, match.start() - 30)
                yield each, piece[start : match.end() + 30]


def offences() -> list[str]:
    """Return a line for each place that breaks a rule."""
    return [
        f"{name}: {each.name} ({each.advice}): ...{around}..."
        for name, pieces in texts()
        for each, around in find(pieces)
    ]


if __name__ == "__main__":
    print(*offences(), sep="\n")

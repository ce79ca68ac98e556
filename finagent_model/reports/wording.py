"""Sentences that report, page and model card share, and the report of a training in Markdown.

Foreign text is shown in them and obeyed in nothing.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType

from finagent_model.data.bundled import BUNDLED, SURVIVORS
from finagent_model.evaluation.evidence import Evidence, EvidenceCheck
from finagent_model.evaluation.memory_probes import SIGNS, MemoryReport, ProbeResult
from finagent_model.market.news import sanitize_text
from finagent_model.policy.trained_state import HORIZON, Calibration

MAX_FOUND_CHARS = 1000
"""Characters of what a probe found."""
MAX_GRADE_CHARS = 400
"""Characters of a sentence about the grade, which may name a model."""
GRADE_SENTENCES = {
    "none": "NO evidence of an edge after costs: what was earned may well be chance.",
    "weak": "WEAK evidence of an edge after costs: more than chance, but not every check passed.",
    "strong": "STRONG evidence of an edge after costs: every check against chance passed.",
}
REPORT_METRICS = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "exposure",
    "turnover",
)
NO_WARNINGS: Mapping[str, Sequence[str]] = MappingProxyType({})
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
        f"<div class=scroll><table class=memory>{head}{cells}</table></div>",
    ]


PROBES_BEGIN, PROBES_END = "<!-- memory probes -->", "<!-- end of memory probes -->"
"""Marks of the section on memory probes, which are made after a report was written."""
NOT_PROBED = "The model's memory was not probed: `finagent memory` does that."


def probe_lines(report: MemoryReport | None) -> str:
    """Return the Markdown section on the memory probes, between its marks."""
    if report is None:
        return f"{PROBES_BEGIN}\n{NOT_PROBED}\n{PROBES_END}"
    lines = [
        PROBES_BEGIN,
        escape_markdown(report.verdict, MAX_GRADE_CHARS),
        "",
        "| probe | days | adjusted p | sign | found |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.name} | {p.days} | {_p_value(p)} | {_describe_sign(p)} "
        f"| {escape_markdown(p.found, MAX_FOUND_CHARS)} |"
        for p in report.probes
    ]
    return "\n".join([*lines, "", report.power_sentence, PROBES_END])


def probe_section(report: MemoryReport | None) -> str:
    """Return the HTML section on the memory probes, between its marks."""
    if report is None:
        return f"{PROBES_BEGIN}<p>{escape(NOT_PROBED)}</p>{PROBES_END}"
    cells = "".join(
        f"<tr><td>{p.name}</td><td>{p.days}</td><td>{_p_value(p)}</td>"
        f"<td>{_describe_sign(p)}</td><td>{escape(p.found[:MAX_FOUND_CHARS])}</td></tr>"
        for p in report.probes
    )
    head = "<tr><th>probe</th><th>days</th><th>adjusted p</th><th>sign</th><th>found</th></tr>"
    return (
        f"{PROBES_BEGIN}<h2>Memory probes</h2><p>{escape(report.verdict)}</p>"
        f"<div class=scroll><table class=probes>{head}{cells}</table></div>"
        f"<p class=small>{escape(report.power_sentence)}</p>{PROBES_END}"
    )


def replace_probes(text: str, section: str) -> str:
    """Return a report with `section` in place of the one that it has; added where it has none."""
    before, found, rest = text.partition(PROBES_BEGIN)
    _, ended, after = rest.partition(PROBES_END)
    if found and ended:
        return before + section + after
    body, end, tail = text.rpartition("</body>")
    return f"{body}{section}{end}{tail}" if end else f"{text}\n{section}\n"


def _p_value(probe: ProbeResult) -> str:
    value = probe.adjusted_p_value
    return "undefined" if value is None else f"{value:.2g}"


def _describe_sign(probe: ProbeResult) -> str:
    if not probe.is_sign:
        return "no"
    return "of memory" if probe.name in SIGNS else "news is not read"


def survivor_warnings(sources: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return what a reader must know of bars from these sources: that the bundled are survivors."""
    return {BUNDLED: (SURVIVORS,)} if BUNDLED in sources else {}


def warning_sentences(bar_warnings: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each warning about bars, with its symbol."""
    # A file's own words may be in a warning.
    return [
        f"{escape_markdown(symbol)}: {escape_markdown(text)}."
        for symbol, texts in bar_warnings.items()
        for text in texts
    ]


def describe_purpose(check: EvidenceCheck) -> str:
    """Return the grade that needs the check; `confidence` for one that no grade needs."""
    return "confidence" if check.needed_for == "none" else check.needed_for


def trials_sentence(evidence: Evidence) -> str:
    """Return how many policies were tried, and how often such a desk was trained before."""
    tried, earlier = (evidence.numbers[n] for n in ("configurations", "earlier_trainings"))
    sentence = f"Policies tried: {tried:.0f}."
    if earlier:
        times = "once" if earlier == 1 else f"{earlier:.0f} times"
        sentence += f" Trained {times} before on these bars, with other settings or code."
    return sentence


def verdict_sentence(symbol: str, metrics: Mapping[str, float]) -> str:
    """Return one sentence: lost or made money out of sample, after costs, and against holding."""
    # Nobody decided to hold cash: what such a curve shows is no result of the desk.
    if metrics.get("failed_share") == 1:
        return f"{symbol}: every decision FAILED, so nothing was traded; there is no verdict."
    desk, benchmark = metrics["total_return"], metrics["benchmark_total_return"]
    if not (math.isfinite(desk) and math.isfinite(benchmark)):
        return f"{symbol}: what the desk earned out of sample is undefined; there is no verdict."
    result = "LOST money" if desk < 0 else "made money" if desk > 0 else "made nothing"
    rank = "behind" if desk < benchmark else "ahead of" if desk > benchmark else "level with"
    return (
        f"{symbol}: the desk {result} out of sample after costs ({desk:+.1%}), "
        f"{rank} buying and holding ({benchmark:+.1%})."
    )


def confidence_sentences(evidence: Evidence, calibration: Calibration) -> list[str]:
    """Return sentences on how far the confidence of this version's signals can be trusted."""
    method = {
        "none": "not calibrated",
        "base_rate": "the base rate",
        "platt": "calibrated by Platt scaling",
        "isotonic": "calibrated by isotonic regression",
    }[calibration.method]
    if calibration.method == "base_rate" and calibration.base_rate is not None:
        method += f", {calibration.base_rate:.0%} for each call"
    sentences = [f"Confidence is {method}: {calibration.reason}."]
    numbers = evidence.numbers
    calls, brier = numbers["calibrated_calls"], numbers["brier"]
    if calls and brier is not None:
        sentences.append(
            f"Of {calls:.0f} calls made with a calibrated confidence {numbers['came_true']:.0%} "
            f"made money within {HORIZON} bars; Brier score {brier:.4f} "
            f"({numbers['brier_uncalibrated']:.4f} before calibration, "
            f"{numbers['brier_climatology']:.4f} for always saying the share known on that day)."
        )
    if (skill := numbers["brier_skill"]) is not None:
        low, high = numbers["brier_skill_low"], numbers["brier_skill_high"]
        bounds = (
            "with too few independent calls for an interval"
            if low is None or high is None
            else f"between {low:+.3f} and {high:+.3f}"
        )
        sentences.append(
            f"The desk's confidence adds a Brier skill of {skill:+.3f} to that share, {bounds}; 0 "
            "means that it adds nothing."
        )
    return sentences


def render_report(
    metrics: Mapping[str, Mapping[str, float]],
    model_used: str,
    evidence: Evidence,
    calibration: Calibration,
    bar_warnings: Mapping[str, Sequence[str]] = NO_WARNINGS,
    team_sentence: str | None = None,
    probes: MemoryReport | None = None,
) -> str:
    """Return the Markdown report: grade, a sentence a symbol, checks, a table of metrics a symbol.

    `metrics` are by symbol, and so is what `bar_warnings` says of the bars; `calibration` is the
    one in force from now on; `team_sentence` says what the package's AutoGen team repeated,
    `probes` what was found of a chat model's memory.
    """
    lines = [
        # The reason may name a model, whose name is anybody's words.
        escape_markdown(grade_sentence(evidence), MAX_GRADE_CHARS),
        "",
        *(verdict_sentence(escape_markdown(symbol), m) for symbol, m in metrics.items()),
    ]
    lines += ["", f"Decided by: {escape_markdown(model_used)}. {trials_sentence(evidence)}"]
    lines += ["", team_sentence] if team_sentence else []
    lines += memory_lines(evidence)
    if evidence.memory:
        lines += ["", probe_lines(probes)]
    lines += ["", "| check | for | found | needed | passed |", "|---|---|---|---|---|"]
    lines += [
        f"| {c.name} | {describe_purpose(c)} | {escape_markdown(c.number_text)} "
        f"| {'>=' if c.at_least else '<='} {c.threshold:.4g} | {'yes' if c.passed else 'NO'} |"
        for c in evidence.checks
    ]
    lines += ["", *confidence_sentences(evidence, calibration)]
    if sentences := warning_sentences(bar_warnings):
        lines += ["", "Look at the bars before you trust this:", ""]
        lines += [f"- {sentence}" for sentence in sentences]
    for symbol, m in metrics.items():
        lines += [
            "",
            f"## {escape_markdown(symbol)}",
            "",
            "| metric | desk | buy and hold |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {_format(m[name])} | {_format(m[f'benchmark_{name}'])} |"
            for name in REPORT_METRICS
        ]
        lines += [
            "",
            f"HOLD share {_format(m['hold_share'])}, failed share {_format(m['failed_share'])}, "
            f"hit rate {_format(m['hit_rate'])}, profit factor {_format(m['profit_factor'])}.",
        ]
    return "\n".join(lines) + "\n"


def _format(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "undefined"

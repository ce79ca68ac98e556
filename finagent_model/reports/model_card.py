"""Render the model card of a registered version: what it is, what the gate found, what it is not.

It is written from the training's record, so that it can't say more than was found, and advertises
nothing: the first section is the verdict, and what the desk earned stands beside what holding
earned. What may be long, the lists, comes last, where the registry's limit cuts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from finagent_model.config.desk_config import DeskConfig
from finagent_model.data.bundled import BUNDLED, SURVIVORS
from finagent_model.data.snapshots import Dataset
from finagent_model.evaluation.gate import GateReport
from finagent_model.market.timeframe import DAILY
from finagent_model.market.view import MAX_STALE_SESSIONS
from finagent_model.policy.trained_state import Calibration
from finagent_model.reports.wording import (
    MAX_GRADE_CHARS,
    confidence_sentences,
    describe_purpose,
    escape_markdown,
    grade_sentence,
    memory_lines,
    trials_sentence,
    verdict_sentence,
)
from finagent_model.training.request import TrainRequest

CARD_FILE = "MODEL_CARD.md"
MAX_DESCRIPTION_CHARS = 5000
"""Characters that MLflow's registry keeps of a description."""
MIN_ABSENCE = timedelta(days=31)
"""How much later a symbol begins, or earlier it ends, for the card to say so."""
MAX_SYMBOLS = 5
"""Symbols whose verdict the card spells out."""
MODEL_DESCRIPTION = (
    "Multi-agent trading decisions, each version one package: agents, prompts, trained policy, "
    "calibrated confidence, memory and recorded replies.\n\n"
    "`champion` is the version that is served; it moves only to one that the gate let pass, or by "
    "force with a reason. `candidate` is the newest, whatever the gate said. Each version has "
    "its own card. None of it is advice, and no return is promised."
)
"""Description of the registered model, whatever its versions are."""


@dataclass(frozen=True)
class ModelCard:
    """Facts of a registered version, and their rendering as Markdown."""

    name: str
    version: str
    run_id: str
    config: DeskConfig
    request: TrainRequest
    gate: GateReport
    metrics: Mapping[str, Mapping[str, float]]
    """Out of sample, by symbol; nan where undefined."""
    calibration: Calibration
    """The one in force from now on."""
    example: Mapping[str, str]
    """A request that the version answers from its record: symbol and `as_of`."""
    decided: Mapping[str, tuple[date, date]]
    """First and last day that was decided on, by symbol."""
    first_day: str
    """The first day about which it answers."""
    datasets: Sequence[Dataset]
    prompts: Sequence[str]
    """Versions in MLflow's prompt registry, as text."""
    bar_length: str
    """How long a bar is, in words."""
    hashes: Mapping[str, str]
    """Hashes of package, code and configuration by name, and the commit where there is one."""

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    # The sections' order is that of importance: the registry's limit cuts the end off.
    def to_markdown(self) -> str:
        """Return the whole card."""
        parts = (
            self._what_it_is(),
            self._verdict(),
            self._limits(),
            self._load(),
            self._origin(),
            self._desk(),
            self._data(),
        )
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    def description(self) -> str:
        """Return the card cut to `MAX_DESCRIPTION_CHARS`, ending with a whole line."""
        text = self.to_markdown()
        if len(text) <= MAX_DESCRIPTION_CHARS:
            return text
        rest = f"\n\n(The whole card is `{CARD_FILE}` of run {self.run_id}.)\n"
        return text[: text.rfind("\n", 0, MAX_DESCRIPTION_CHARS - len(rest))] + rest

    def _what_it_is(self) -> list[str]:
        agents = len(self.config.agents)
        decider = (
            "fixed rules, no language model"
            if self.config.uses_only_rules
            else escape_markdown(self.config.model_used)
        )
        return [
            f"# {self.name}, version {self.version}",
            "",
            f"A desk of {agents} agents that says BUY, SELL or HOLD about one symbol at the close "
            "of one day. Each answer has levels, a confidence and a status, which says whether a "
            f"HOLD was chosen or stands for a failure. Decided by: {decider}.",
        ]

    def _verdict(self) -> list[str]:
        gate = self.gate
        lines = [
            "## Verdict",
            "",
            f"The gate **{gate.verdict}** it. Evidence of an edge after costs: "
            f"**{gate.evidence.grade}** (required: {gate.required}).",
        ]
        if gate.refusals:
            lines += ["", f"Refused for: {escape_markdown(gate.refusals, 600)}"]
        lines += ["", escape_markdown(grade_sentence(gate.evidence), MAX_GRADE_CHARS)]
        lines += [
            "",
            *(
                f"- {verdict_sentence(escape_markdown(symbol), m)}"
                for symbol, m in list(self.metrics.items())[:MAX_SYMBOLS]
            ),
        ]
        if (more := len(self.metrics) - MAX_SYMBOLS) > 0:
            lines.append(f"- and {more} more symbols: `report.md` of the training run")
        lines += ["", trials_sentence(gate.evidence)]
        lines += memory_lines(gate.evidence)
        lines += ["", "| check of evidence | for | found | needed | passed |"]
        lines.append("|---|---|---|---|---|")
        lines += [
            f"| {c.name} | {describe_purpose(c)} | {escape_markdown(c.number_text)} "
            f"| {'>=' if c.at_least else '<='} {c.threshold:.4g} | {'yes' if c.passed else 'NO'} |"
            for c in gate.evidence.checks
        ]
        passed = [c.name for c in gate.integrity if c.passed]
        failed = [f"{c.name} ({escape_markdown(c.found)})" for c in gate.integrity if not c.passed]
        lines += ["", f"Integrity: {len(passed)} checks passed, {len(failed)} failed"]
        lines[-1] += f": {'; '.join(failed)}." if failed else "."
        lines += ["", *confidence_sentences(gate.evidence, self.calibration)]
        return lines

    def _other_clocks(self) -> str:
        if self.bar_length == DAILY.label:
            return "trading within a day: it sees daily bars"
        return f"another length of bar than its own: it sees bars of {self.bar_length}"

    def _limits(self) -> list[str]:
        request = self.request
        lines = [
            "## What it is not",
            "",
            "- Advice, or a promise: what a backtest earned is simulated and past.",
            f"- Tested on anything but {_join_names(request.symbols)}. They were "
            "chosen by somebody who knew how they had fared and that they had survived; the "
            "evidence does not count that choice.",
            *self._spans(),
            *self._survivors(),
            f"- For {self._other_clocks()} and fills at the next open, at "
            f"a commission of {request.commission:.2%} and slippage of {request.slippage:.2%}; "
            "how its own orders would move the price is not simulated.",
            f"- Able to answer about days before {self.first_day}, or from bars that end more "
            f"than {MAX_STALE_SESSIONS} sessions before the day (`data_missing`).",
        ]
        # Fixed rules remember nothing; a language model may have read about these years.
        if not self.config.uses_only_rules:
            lines.append(
                "- Free of hindsight: the prompts name no date, yet a language model may know days "
                "up to its knowledge cut-off from its own training. They are not graded. The "
                "cut-off is its maker's word, or that of the desk's author; no check here can "
                "prove it."
            )
        return lines

    def _spans(self) -> list[str]:
        """Return the limit that not all symbols were there all the time; empty where they were."""
        first = min(start for start, _ in self.decided.values())
        last = max(end for _, end in self.decided.values())
        partial = [
            f"{symbol} from {start} to {end}"
            for symbol, (start, end) in self.decided.items()
            # A schedule and holidays move the ends by days.
            if start - first > MIN_ABSENCE or last - end > MIN_ABSENCE
        ]
        if not partial:
            return []
        return [
            f"- Tested on all symbols all the time. It decided from {first} to {last}, but on "
            f"{_join_names(partial, MAX_SYMBOLS)} only. A fold is fitted on the symbols that had "
            "bars then, and a day's result is the mean of those that were there."
        ]

    def _survivors(self) -> list[str]:
        """Return the limit of the bundled bars; empty where there are none of them."""
        if not any(each.source == BUNDLED for each in self.datasets):
            return []
        return [f"- A finding about markets: of the bundled bars, {SURVIVORS}."]

    def _load(self) -> list[str]:
        example = dict(self.example)
        return [
            "## Load it",
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("{self.uri}")',
            f"model.predict([{example}])",
            "```",
            "",
            f"From a shell: `finagent predict {example['symbol']} --as-of {example['as_of'][:10]} "
            f"--model {self.uri}`, `finagent verify {self.uri}`, "
            f"`finagent lineage --version {self.version} --name {self.name}`.",
        ]

    def _origin(self) -> list[str]:
        return [
            "## Where it comes from",
            "",
            f"Training run `{self.run_id}`: folds of {self.request.train_bars} bars to fit and "
            f"{self.request.test_bars} out of sample, {self.request.candidates} policies, "
            f"seed {self.request.seed}.",
            *(f"- {name}: `{value}`" for name, value in self.hashes.items()),
        ]

    def _desk(self) -> list[str]:
        lines = ["## Desk", "", "| agent | role | model | prompt |", "|---|---|---|---|"]
        lines += [
            f"| {row.name} | {row.role} | {escape_markdown(self.config.model_for(row).author)} "
            f"| {escape_markdown(row.prompt)} |"
            for row in self.config.agents
        ]
        if self.config.mask != "none":
            hidden = "the symbol" if self.config.mask == "names" else "symbol and price level"
            lines += [
                "",
                f"Mask: `{self.config.mask}`. The models are not shown {hidden}, neither in "
                "training nor when it is served.",
            ]
        if self.prompts:
            lines += ["", f"Prompts in MLflow's registry: {', '.join(self.prompts)}."]
        return lines

    def _data(self) -> list[str]:
        lines = ["## Data", "", "| data | rows | from | to | source | digest |"]
        lines.append("|---|---|---|---|---|---|")
        lines += [
            f"| {escape_markdown(d.name)} | {d.rows} | {d.first:%Y-%m-%d} | {d.last:%Y-%m-%d} "
            f"| {escape_markdown(d.source)} "
            f"| `{d.digest}` |"
            for d in self.datasets
        ]
        return lines


def _join_names(names: Sequence[str], limit: int = 10) -> str:
    more = len(names) - limit
    return ", ".join(map(escape_markdown, names[:limit])) + (
        f" and {more} more" if more > 0 else ""
    )

"""An external analyst that reads its one opinion from a file: the smallest plug-in there can be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finagent_model.agents._replies import AnalystReply
from finagent_model.agents.external import ExternalRequest
from finagent_model.agents.session import ExternalReport
from finagent_model.errors import ExternalAnalystError, ExternalSourceError
from finagent_model.market.bars import BarSeries
from finagent_model.settings import Settings


@dataclass(frozen=True)
class ToySource:
    text: str = "0.5"

    def package_files(self) -> Mapping[str, bytes]:
        return {"score.txt": self.text.encode()}


@dataclass(frozen=True)
class ToyAnalyst:
    """Always of the opinion that its file has; fails about IBM."""

    text: str
    name: str = "toy"
    author: str = "toy@1"

    def require_available(self) -> None:
        float(self.text)

    def prepare(self, bars: BarSeries) -> ExternalRequest:
        return ExternalRequest(bars.symbol, {"toy": self.text, "close": float(bars.close[-1])})

    def ask(self, request: ExternalRequest) -> Mapping[str, Any]:
        if request.payload == "IBM":
            raise ExternalAnalystError("toy", "speechless", "it knows nothing of IBM")
        return {"score": float(self.text)}

    def read(self, request: ExternalRequest, reply: Mapping[str, Any]) -> ExternalReport:
        return ExternalReport(json.dumps(reply), reply["score"])

    def close(self) -> None: ...


class ToyPlugin:
    knowledge_cutoff = None

    def find_source(self, settings: Settings) -> ToySource:
        return ToySource()

    def open_source(self, folder: Path, remedy: str) -> ToySource:
        if sorted(path.name for path in folder.iterdir()) != ["score.txt"]:
            raise ExternalSourceError(f"{folder} has more than a score; {remedy}")
        return ToySource((folder / "score.txt").read_text())

    def connect(self, settings: Settings, source: Any) -> ToyAnalyst:
        return ToyAnalyst((source or ToySource()).text)

    def input_digest(self, bars: BarSeries) -> str:
        return str(bars.close[-1])

    def rule_reply(self, report: str) -> AnalystReply:
        score = json.loads(report)["score"]
        return AnalystReply(
            trend="bullish", score=score, summary="As the report has it.", key_factors=["toy"]
        )


plugin = ToyPlugin()

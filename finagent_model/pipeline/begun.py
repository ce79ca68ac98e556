"""What the first stage of a training leaves in its run for the stages after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import yaml

from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.policy import PolicyBook
from finagent_model.domain.seen import Seen
from finagent_model.pipeline.bars_seen import BARS, log_seen, read_seen
from finagent_model.pipeline.recorded import reading
from finagent_model.tracking import RunLog
from finagent_model.training.evidence import Trials
from finagent_model.training.request import TrainRequest


@dataclass(frozen=True)
class Begun:
    """A training whose policies are fitted."""

    request: TrainRequest
    config: DeskConfig
    policies: PolicyBook
    trials: Trials
    bars: dict[str, Seen]
    """What was read of each symbol, for the stages after it: they see the same, however late."""

    def write(self, run: RunLog) -> None:
        run.json("request.json", self.request.model_dump(mode="json"))
        config = self.config.model_dump(mode="json")
        run.text("config.yaml", yaml.safe_dump(config, sort_keys=False))
        run.json("policy.json", self.policies.model_dump(mode="json"))
        run.json("trials.json", self.trials.model_dump(mode="json"))
        log_seen(run, self.bars)

    @classmethod
    def read(cls, run: RunLog) -> Self:
        """Raises TrackingError for what another version wrote."""
        with reading(run.run_id):
            return cls(
                request=TrainRequest.read(**run.read_json("request.json")),
                config=DeskConfig.model_validate(yaml.safe_load(run.read("config.yaml"))),
                policies=PolicyBook.model_validate(run.read_json("policy.json")),
                trials=Trials.model_validate(run.read_json("trials.json")),
                bars=read_seen(run.read_json(BARS)),
            )

"""What a record of replies can't tell by itself: that money was short or time was up.

It is recorded beside the replies, so that a replay leaves out the same agents and stops at the same
point as the decision did.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import get_args

from finagent_model.cassette.cassette import Cassette, RecordedReply, fingerprint
from finagent_model.domain.roster import Group


@dataclass(frozen=True)
class Remark:
    """On one decision."""

    left_out: tuple[Group, ...] = ()
    cut_off: str | None = None
    """Why it was broken off."""
    tokens: int = 0
    cost_usd: float | None = 0.0
    """What the replies until then had taken."""


def remark_key(roster_digest: str, question: str) -> str:
    """Of the decision on `question` by that roster."""
    return fingerprint({"remark on": question, "roster": roster_digest})


def read_remark(cassette: Cassette, key: str) -> Remark | None:
    """None where nothing was remarkable."""
    recorded = cassette.get(key, errors=True)
    if recorded is None:
        return None
    said = json.loads(recorded.content)
    groups = tuple(g for g in get_args(Group) if g in said["left_out"])
    return Remark(groups, said["cut_off"], said["tokens"], said["cost_usd"])


def write_remark(cassette: Cassette, key: str, remark: Remark) -> None:
    cassette.put(key, RecordedReply(json.dumps(asdict(remark), sort_keys=True), "remark", 0, 0))

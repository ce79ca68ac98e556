"""`autogen_conversation.jsonl`: every message of every decision, one a line, readable without
tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from finagent_model.domain.decision import Decision, Turn

FILE = "autogen_conversation.jsonl"


def conversation_lines(decisions: Iterable[Decision]) -> str:
    """JSON lines in speaking order; `tokens` holds prompt and completion."""
    return "".join(
        json.dumps(
            {
                "conversation_id": decision.signal.conversation_id,
                "symbol": decision.signal.symbol,
                "as_of": decision.signal.as_of.isoformat(),
                "agent_name": turn.agent_name,
                "message_type": turn.message_type,
                "message_content": turn.message_content,
                "timestamp": turn.timestamp.isoformat(),
                "tokens": {"prompt": turn.prompt_tokens, "completion": turn.completion_tokens},
                "model": turn.model,
                "cached": turn.cached,
            },
            ensure_ascii=False,
        )
        + "\n"
        for decision in decisions
        for turn in decision.turns
    )


def read_turns(lines: str) -> tuple[Turn, ...]:
    """The turns of one decision's file, as they were. Raises ValueError for another file."""
    try:
        return tuple(_turn(line) for line in lines.split("\n") if line)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{FILE}: a line has no {error}") from None


def _turn(line: str) -> Turn:
    row = json.loads(line)
    return Turn(
        agent_name=row["agent_name"],
        message_type=row["message_type"],
        message_content=row["message_content"],
        timestamp=datetime.fromisoformat(row["timestamp"]),
        prompt_tokens=row["tokens"]["prompt"],
        completion_tokens=row["tokens"]["completion"],
        model=row["model"],
        cached=row["cached"],
    )

"""Read what a backtest left in its run, each file whole and typed.

Other code may have written these files. Whatever is wrong with one is a TrackingError of one
sentence that names run and file, so that a page can show the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from finagent_model._documents import split_json_lines
from finagent_model.audit.chain import CONVERSATION_FILE
from finagent_model.decision.decision import LedgerRow, Turn, count_ledger_rows, read_ledger
from finagent_model.decision.signal import Action
from finagent_model.errors import TrackingError
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.pipeline.backtest import CALLS
from finagent_model.policy.trained_state import TradeOutcome, load_outcomes
from finagent_model.tracking.runs import RunLog

FACTS, LEDGER = "facts.json", "ledger.parquet"
MAX_MS = 10**13
"""Milliseconds since 1970, of the year 2286; a greater number is no moment of ours."""
MAX_LEDGER_ROWS = 1_000_000
"""Decisions of a backtest; a small file may name many more."""
MAX_RETURN = 1e6
"""A day's return of which equity can still be compounded."""
MAX_WHY_CHARS = 300
Text = str | None
Texts = tuple[str, ...] | None


class _LedgerFields(BaseModel):
    """The fields of a ledger's row on which pages rely; the others may be anything."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    as_of: AwareDatetime
    action: Action
    status: str
    raw_confidence_score: Annotated[float, Field(ge=0, le=100)] | None
    symbol: str = ""
    reasoning: Text = None
    key_factors: Texts = None
    clamps: Texts = None
    warnings: Texts = None


class _Tokens(BaseModel):
    prompt: int = Field(ge=0)
    completion: int = Field(ge=0)


class TranscriptMessage(BaseModel):
    """What a line of a transcript says, without when, by which model and at what cost."""

    as_of: AwareDatetime
    agent_name: str
    message_type: Literal["request", "response", "skipped", "failed"]
    message_content: str


class _TranscriptLine(TranscriptMessage):
    """A line of a transcript, as `audit.chain.dump_turns` writes it."""

    timestamp: datetime
    tokens: _Tokens
    model: str
    cached: bool

    def to_turn(self) -> Turn:
        return Turn(
            agent_name=self.agent_name,
            message_type=self.message_type,
            message_content=self.message_content,
            timestamp=self.timestamp,
            prompt_tokens=self.tokens.prompt,
            completion_tokens=self.tokens.completion,
            model=self.model,
            cached=self.cached,
        )


M = TypeVar("M", bound=TranscriptMessage)
_ROWS = TypeAdapter(list[_LedgerFields])
COMPARED_COLUMNS = ("as_of", "action", "status", "raw_confidence_score")
"""Columns of a ledger that a comparison of two needs."""


def read_facts(run_id: str) -> SymbolFacts:
    """Return the facts of a backtest's run. Raises TrackingError."""
    content = RunLog(run_id).read_artifact(FACTS)
    with _errors_of(run_id, FACTS):
        facts = SymbolFacts.model_validate_json(content)
        for name in ("returns", "benchmark_returns"):
            values = np.array(getattr(facts, name), dtype=np.float64)
            if not (np.abs(values) <= MAX_RETURN).all():
                raise ValueError(f"{name} holds a number that is not a return")
            if len(values) != len(facts.closed_at):
                raise ValueError(f"{len(facts.closed_at)} closes, but {len(values)} {name}")
        if any(abs(each) > MAX_MS for each in facts.closed_at):
            raise ValueError("closed_at holds a number that is not a moment")
        if any(a >= b for a, b in zip(facts.closed_at, facts.closed_at[1:], strict=False)):
            raise ValueError("closed_at does not ascend")
        return facts


def read_ledger_rows(
    run_id: str, columns: Collection[str] | None = None
) -> dict[datetime, LedgerRow]:
    """Return a backtest's decisions by moment, with all columns or some. Raises TrackingError."""
    content = RunLog(run_id).read_artifact(LEDGER)
    with _errors_of(run_id, LEDGER):
        count = count_ledger_rows(pa.BufferReader(content))
        if count > MAX_LEDGER_ROWS:
            raise ValueError(f"it has {count:,} rows; at most {MAX_LEDGER_ROWS:,} are read")
        rows = read_ledger(pa.BufferReader(content), columns)
        return {
            fields.as_of: row for fields, row in zip(_ROWS.validate_python(rows), rows, strict=True)
        }


def read_outcomes(run_id: str) -> dict[datetime, TradeOutcome]:
    """Return what became of a backtest's calls, by moment. Raises TrackingError."""
    content = RunLog(run_id).read_artifact(CALLS)
    with _errors_of(run_id, CALLS):
        return {call.as_of: call for call in load_outcomes(content.decode())}


def read_transcript(run_id: str) -> Iterator[tuple[datetime, Turn]]:
    """Yield the messages of a backtest with their moment, in speaking order.

    Raises TrackingError, also while it is read.
    """
    for line in _read_lines(run_id, _TranscriptLine):
        yield line.as_of, line.to_turn()


def read_messages(run_id: str) -> Iterator[TranscriptMessage]:
    """Yield what `read_transcript` does, in a third of the time: of a message only what it says."""
    return _read_lines(run_id, TranscriptMessage)


def _read_lines(run_id: str, kind: type[M]) -> Iterator[M]:
    content = RunLog(run_id).read_artifact(CONVERSATION_FILE)
    with _errors_of(run_id, CONVERSATION_FILE):
        for line in split_json_lines(content.decode()):
            yield kind.model_validate_json(line)


@contextmanager
def _errors_of(run_id: str, name: str) -> Iterator[None]:
    """Raise TrackingError where the block can't read a file's content."""
    try:
        yield
    except ValidationError as error:
        # Of thousands of rows each may be wrong: the first one tells the kind.
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(run_id, name, f"{where}: {first['msg']}".lstrip(": ")) from None
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise _unreadable(run_id, name, str(error)) from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(run_id, name, str(error)) from None


def _unreadable(run_id: str, name: str, why: str) -> TrackingError:
    one_line = " ".join(why.split())[:MAX_WHY_CHARS]
    return TrackingError(
        f"{name} of run {run_id} is not as a backtest writes it: {one_line}; train again, or "
        "restore the file"
    )

"""Who speaks where money is short: groups are left out in a declared order until what a decision
may take fits into what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from finagent_model.agents.clients import ClientPool
from finagent_model.agents.graph import heard_by
from finagent_model.agents.prompts import Prompts
from finagent_model.agents.purse import left
from finagent_model.agents.session import Session
from finagent_model.domain.roster import AgentRow, Group, without


def affordable(
    seated: Sequence[AgentRow],
    question: str,
    session: Session,
    pool: ClientPool,
) -> tuple[tuple[AgentRow, ...], tuple[Group, ...]]:
    """Those who may speak, and the groups that may not. What can't be afforded even so is refused
    when it is called.
    """
    rows, dropped = tuple(seated), list[Group]()
    tokens_left, usd_left = left(session.accounts)
    for group in session.config.spending.drop_first:
        tokens, usd = _may_take(rows, question, session, pool)
        if tokens <= tokens_left and usd <= usd_left:
            break
        members = {row.name for row in rows if row.group == group}
        if members:
            rows = without(rows, members)
            dropped.append(group)
    return rows, tuple(dropped)


def _may_take(
    rows: Sequence[AgentRow], question: str, session: Session, pool: ClientPool
) -> tuple[int, float]:
    """Tokens and dollars, if every reply is as long as it may be."""
    tokens, usd, texts = 0, 0.0, Prompts(session.config.prompts)
    lengths = {row.name: pool.model_of(row).sampling.max_tokens for row in rows}
    for row in rows:
        model = pool.model_of(row)
        if model.client == "rules":
            continue
        asked = (len(texts.text(row.prompt)) + len(question)) // 4
        asked += sum(lengths[name] for name in heard_by(row, rows))
        tokens += asked + model.sampling.max_tokens
        usd += session.price(model, asked, model.sampling.max_tokens) or 0.0
    return tokens, usd

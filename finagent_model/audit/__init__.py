"""The audit of decisions: a hash chain of everything on the way to each, and its verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.audit.chain import AuditChain, ChainWriter, audit_decisions
    from finagent_model.audit.verification import ChainFault, verify_chain
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "chain": ["AuditChain", "ChainWriter", "audit_decisions"],
            "verification": ["ChainFault", "verify_chain"],
        },
    )

__all__ = ["AuditChain", "ChainFault", "ChainWriter", "audit_decisions", "verify_chain"]

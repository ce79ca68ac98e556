"""What people look at afterwards: conversation, ledger, charts, report."""

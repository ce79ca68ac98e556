"""What people look at afterwards: conversation, ledger, chart, report."""

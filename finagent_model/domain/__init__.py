"""What the words mean: bars, news, view, signal, decision, policy, desk. No I/O in here."""

"""Proofs by experiment that nothing of a backtest came from its future."""

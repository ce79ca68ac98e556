"""Signals, replies, charts and conversations in a database, as the trading platform reads them."""

"""Recorded replies: what was asked in outline, what came back, and the files that keep it."""

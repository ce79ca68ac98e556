"""`python -m finagent_model.cli` is `finagent`."""

from __future__ import annotations

from finagent_model.cli import app

if __name__ == "__main__":
    app()

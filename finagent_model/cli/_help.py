"""Lay out help pages: commands under headings, summaries that wrap, examples at the end.

Typer's own layout with headings needs Rich, whose import takes longer than a help page should.
"""

from __future__ import annotations

from collections import defaultdict

import typer
from typer.core import TyperGroup


class HelpGroup(TyperGroup):
    """List commands under their `rich_help_panel`, each with the first sentence of its help."""

    def format_commands(self, ctx: typer.Context, formatter: typer.HelpFormatter) -> None:  # type: ignore[override, name-defined]
        """Write a section a heading, in the order in which the headings were first registered."""
        sections = defaultdict(list)
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                heading = getattr(command, "rich_help_panel", None) or "Commands"
                sections[heading].append((name, summarize_help(command.help or "")))
        # One width for all sections, so that the summaries stand below each other.
        width = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


def summarize_help(text: str) -> str:
    """Return the first paragraph of a help text on one line, without its full stop."""
    return " ".join(text.split("\n\n")[0].split()).removesuffix(".")


def format_examples(*commands: str) -> str:
    """Return the end of a help page that shows `commands`, one on a line."""
    # \b keeps Click from filling the lines as one paragraph.
    return "\n".join(["\b", "Examples:", *(f"  {command}" for command in commands)])

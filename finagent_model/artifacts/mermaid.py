"""A desk's graph as Mermaid text: who listens to whom."""

from __future__ import annotations

from finagent_model.domain.desk_config import DeskConfig


def mermaid(config: DeskConfig) -> str:
    """A flowchart from the market view to the signal; a dashed box takes part only at times."""
    rows = config.roster
    lines = ["flowchart LR", "    view([market view])"]
    for row in rows:
        when = "" if row.when == "always" else f"<br/>only with {row.when}"
        lines.append(f"    {row.name}[{row.name}<br/>{row.role}{when}]")
        sources = row.after or ("view",)
        lines += [f"    {source} --> {row.name}" for source in sources]
        if row.when != "always":
            lines.append(f"    style {row.name} stroke-dasharray: 5 5")
    lines += [f"    {rows[-1].name} --> checks[levels and size<br/>checked by code]"]
    lines += ["    checks --> signal([trading signal])"]
    return "\n".join(lines) + "\n"

"""What people read of a training, a signal or an ablation: reports, charts and the model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.reports.charts import (
        render_ablation_table,
        render_mermaid,
        write_equity_charts,
        write_price_chart,
    )
    from finagent_model.reports.model_card import ModelCard
    from finagent_model.reports.report import render_report_page
    from finagent_model.reports.tearsheet import SymbolPage
    from finagent_model.reports.wording import render_report
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "charts": [
                "render_ablation_table",
                "render_mermaid",
                "write_equity_charts",
                "write_price_chart",
            ],
            "model_card": ["ModelCard"],
            "report": ["render_report_page"],
            "tearsheet": ["SymbolPage"],
            "wording": ["render_report"],
        },
    )

__all__ = [
    "ModelCard",
    "SymbolPage",
    "render_ablation_table",
    "render_mermaid",
    "render_report",
    "render_report_page",
    "write_equity_charts",
    "write_price_chart",
]

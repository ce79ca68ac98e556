"""Fit a desk's policy walk-forward: the request, the folds, and the search within each.

Pure computation on bars: nothing here opens a run or asks a model. `finagent_model.pipeline.train`
calls it and records what it returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.training.request import EvaluationRequest, TrainRequest
    from finagent_model.training.search import ScoreSources, Trials
    from finagent_model.training.walk_forward import (
        FittedPolicies,
        Fold,
        bars_to_decide,
        fit_policies,
        out_of_sample_part,
        walk_forward_folds,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "request": ["EvaluationRequest", "TrainRequest"],
            "search": ["ScoreSources", "Trials"],
            "walk_forward": [
                "FittedPolicies",
                "Fold",
                "bars_to_decide",
                "fit_policies",
                "out_of_sample_part",
                "walk_forward_folds",
            ],
        },
    )

__all__ = [
    "EvaluationRequest",
    "FittedPolicies",
    "Fold",
    "ScoreSources",
    "TrainRequest",
    "Trials",
    "bars_to_decide",
    "fit_policies",
    "out_of_sample_part",
    "walk_forward_folds",
]

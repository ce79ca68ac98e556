"""What a served model takes and gives, column by column.

The output follows `TradingSignal` field by field, so that the two can't drift apart.
"""

from __future__ import annotations

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Object, Property

from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.signal import signal_columns

NUMBER = AnyType()
"""In a nested column MLflow takes 500.0 for a double but refuses 500, as JavaScript writes it.
So MLflow lets any value pass here, and `BarSeries` refuses what is no number.
"""
BAR = Object(
    [
        Property("closed_at", DataType.string),
        *(
            Property(name, NUMBER, required=False)
            for name in ("open", "high", "low", "close", "volume", "split", "dividend")
        ),
    ]
)
NEWS = Object(
    [
        Property("headline", DataType.string),
        *(
            Property(name, DataType.string, required=False)
            for name in ("published_at", "body", "source", "url")
        ),
    ]
)
INPUTS = Schema(
    [
        ColSpec(DataType.string, "symbol"),
        ColSpec(DataType.string, "as_of"),
        ColSpec(Array(BAR), "bars", required=False),
        ColSpec(Array(NEWS), "news", required=False),
    ]
)
_TYPES: dict[str, DataType | Array] = {
    "string": DataType.string,
    "number": DataType.double,
    "integer": DataType.long,
    "boolean": DataType.boolean,
    "array": Array(DataType.string),
}


def signature(config: DeskConfig) -> ModelSignature:
    """The limits' defaults are the packaged desk's own."""
    return ModelSignature(
        inputs=INPUTS,
        outputs=Schema(_outputs()),
        params=ParamSchema(
            [
                ParamSpec("mode", DataType.string, "cached"),
                ParamSpec("budget_usd", DataType.double, config.limits.budget_usd),
                ParamSpec("max_rounds", DataType.long, config.limits.max_rounds),
            ]
        ),
    )


def _outputs() -> list[ColSpec | TensorSpec]:
    return [
        ColSpec(_TYPES[column.kind], column.name, required=not column.optional)
        for column in signal_columns()
    ]

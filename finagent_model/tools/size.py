"""How large a position may be, and what it risks and promises: arithmetic that a model should not
do in its head.

The bounds are the policy's: `risk_fraction` of equity is lost at the stop, and the position is at
most `max_position` of equity. Either side is a trade: the stop below the price and the target above
it, or the other way round.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from finagent_model.context import Context, rounded
from finagent_model.domain.market_view import MarketView
from finagent_model.tools.tool import Answer, Arguments, Tool

Price = Annotated[float, Field(ge=1e-6, le=1e9)]


class Asked(Arguments):
    current_price: Price
    target_price: Price
    stop_loss: Price
    account_equity: float = Field(ge=1e-6, le=1e15)

    @model_validator(mode="after")
    def _sides(self) -> Self:
        to_stop = self.stop_loss - self.current_price
        if not to_stop * (self.target_price - self.current_price) < 0:
            raise ValueError(
                "stop_loss and target_price must lie on opposite sides of current_price; got "
                f"{self.stop_loss:g} and {self.target_price:g} around {self.current_price:g}"
            )
        return self


def _run(view: MarketView, context: Context, asked: Asked) -> Answer:
    price = asked.current_price
    risk, gain = abs(price - asked.stop_loss), abs(asked.target_price - price)
    fraction = float(context.policy.size(risk / price))
    shares = fraction * asked.account_equity / price
    return {
        "r_coefficient": rounded(gain / risk),
        "position_size": rounded(shares),
        "risk_amount": rounded(shares * risk),
        "profit_potential": rounded(shares * gain),
    }


TOOL = Tool(
    "size",
    "Size of a position within the desk's risk rules. r_coefficient is reward over risk, "
    "position_size is in shares, risk_amount and profit_potential are in the currency of "
    "account_equity. stop_loss and target_price lie on opposite sides of current_price.",
    Asked,
    _run,
)

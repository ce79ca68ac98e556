"""A stand-in for `ib_async`: its client, and a gateway that answers from memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from types import ModuleType
from typing import Any


@dataclass
class BarData:
    """One bar, with the fields of the real one."""

    date: date | datetime
    open: float
    high: float
    low: float
    close: float
    volume: float = 1000.0
    average: float = 0.0
    barCount: int = 1


@dataclass
class Contract:
    """A stock or a pair of currencies."""

    symbol: str
    exchange: str = ""
    currency: str = ""


@dataclass
class ContractDetails:
    """What is known of a contract."""

    contract: Contract
    timeZoneId: str = "US/Eastern"
    liquidHours: str = ""


class RequestError(Exception):
    """An error of the API that belongs to a request."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"[reqId 3] API error: {code}: {message}")
        self.code = code


@dataclass
class Gateway:
    """What TWS would answer, and what it was asked."""

    bars: dict[tuple[str, str], list[BarData]] = field(default_factory=dict)
    """By symbol and kind of price."""
    hours: str = ""
    error: Exception | None = None
    """Raised by each request."""
    refuses: Exception | None = None
    """Raised by a connection."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    connected: int = 0

    def module(self) -> ModuleType:
        """Return a module to stand for `ib_async`."""
        gateway = self

        class IB:
            RaiseRequestErrors = False

            async def connectAsync(self, host: str, port: int, **options: Any) -> None:
                gateway.asked.append({"host": host, "port": port, **options})
                if gateway.refuses is not None:
                    raise gateway.refuses
                gateway.connected += 1

            async def reqContractDetailsAsync(self, contract: Contract) -> list[ContractDetails]:
                if not any(symbol == contract.symbol for symbol, _ in gateway.bars):
                    raise RequestError(200, "No security definition has been found")
                return [ContractDetails(contract, liquidHours=gateway.hours)]

            async def reqHistoricalDataAsync(
                self, contract: Contract, **options: Any
            ) -> list[BarData]:
                gateway.asked.append({"symbol": contract.symbol, **options})
                if gateway.error is not None:
                    raise gateway.error
                return gateway.bars[contract.symbol, options["whatToShow"]]

            def disconnect(self) -> None:
                gateway.connected = max(0, gateway.connected - 1)

        module = ModuleType("ib_async")
        module.__dict__.update(
            IB=IB,
            Stock=Contract,
            Forex=lambda pair: Contract(pair, "IDEALPRO"),
            StartupFetchNONE=0,
        )
        return module

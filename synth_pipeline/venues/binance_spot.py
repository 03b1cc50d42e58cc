"""Binance spot."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.venues.binance import BinanceVenue, Depth, Print, SpotRule, Ticker


class BinanceSpot(BinanceVenue):
    """Spot pairs.

    On the wire::

        {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1700000000105,"s":"BTCUSDT","U":1004,"u":1009,
         "b":[["37000.10000000","0.25000000"]],"a":[["37000.20000000","0.00000000"]]}}
        {"stream":"btcusdt@bookTicker","data":{"u":1009,"s":"BTCUSDT","b":"37000.10000000","B":"0.25000000",
         "a":"37000.30000000","A":"1.00000000"}}
        {"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000107,"s":"BTCUSDT","t":71,"p":"37000.30000000",
         "q":"0.01000000","T":1700000000106,"m":false,"M":true}}

    `bookTicker` carries no time and no event type, the REST snapshot neither time nor symbol.
    """

    websocket_url: ClassVar[str] = "wss://stream.binance.com:9443"
    rest_url: ClassVar[str] = "https://api.binance.com"
    snapshot_path: ClassVar[str | None] = "/api/v3/depth?symbol={symbol}&limit=5000"
    snapshot_weight: ClassVar[int] = 250
    weight_per_minute: ClassVar[int] = 6000
    time_path: ClassVar[str] = "/api/v3/time"
    streams: ClassVar[tuple[str, ...]] = ("depth@100ms", "bookTicker", "trade")

    def check_segment(self, event: Depth | Ticker | Print) -> str | None:
        """Spot events carry neither `pu`, nor `ps`, nor `X`; its quotes have no event type."""
        if isinstance(event, Print):
            return None if event.X is None else f"trade with the futures field X={event.X!r}"
        if event.ps is not None:
            return f"event with the COIN-M field ps={event.ps!r}"
        if isinstance(event, Depth):
            return None if event.pu is None else f"depthUpdate with the futures field pu={event.pu}"
        return None if event.e is None else "bookTicker with an event type, as futures send it"

    def sequence_rule(self) -> SpotRule:
        """The U/u chain."""
        return SpotRule()

"""Binance USD-M futures (linear contracts, sizes in base currency)."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.venues.binance import BinanceVenue, Depth, FuturesRule, Print, Ticker


class BinanceUsdm(BinanceVenue):
    """USD-M perpetuals and futures.

    On the wire::

        {"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1700000000105,"T":1700000000101,"s":"BTCUSDT",
         "U":1005,"u":1009,"pu":1003,"b":[["37000.10","0.250"]],"a":[["37000.20","0.000"]]}}
        {"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":1009,"s":"BTCUSDT","b":"37000.10","B":"0.250",
         "a":"37000.30","A":"1.000","T":1700000000101,"E":1700000000105}}
        {"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000107,"T":1700000000106,"s":"BTCUSDT","t":71,
         "p":"37000.30","q":"0.010","X":"MARKET","m":false}}

    `X` other than MARKET (INSURANCE_FUND, ADL, NA) is a transfer that no order in the book took part in.
    """

    websocket_url: ClassVar[str] = "wss://fstream.binance.com"
    rest_url: ClassVar[str] = "https://fapi.binance.com"
    snapshot_path: ClassVar[str | None] = "/fapi/v1/depth?symbol={symbol}&limit=1000"
    snapshot_weight: ClassVar[int] = 20
    weight_per_minute: ClassVar[int] = 2400
    time_path: ClassVar[str] = "/fapi/v1/time"
    streams: ClassVar[tuple[str, ...]] = ("depth@0ms", "bookTicker", "trade")

    def path_of(self, stream: str) -> str:
        """Since 2026-04-23 the segment serves book and quotes on one entry point, everything else on another.

        https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/Important-WebSocket-Change-Notice
        """
        routed = "public" if self.stream_kind(stream) in {"book_levels", "quotes"} else "market"
        return f"/{routed}{self.websocket_path}"

    def check_segment(self, event: Depth | Ticker | Print) -> str | None:
        """USD-M depth has `pu`; its events have no pair (`ps`), its quotes have an event type, its trades no `M`."""
        if isinstance(event, Print):
            return None if event.M is None else "trade with the spot field M"
        if event.ps is not None:
            return f"event with the COIN-M field ps={event.ps!r}"
        if isinstance(event, Depth):
            return None if event.pu is not None else "depthUpdate without pu, as spot sends it"
        return None if event.e is not None else "bookTicker without an event type, as spot sends it"

    def sequence_rule(self) -> FuturesRule:
        """The pu/u chain."""
        return FuturesRule()

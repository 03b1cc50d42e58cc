"""Binance COIN-M futures (inverse contracts, sizes in contracts of a fixed USD value)."""

from __future__ import annotations

from typing import ClassVar

from synth_pipeline.venues.binance import BinanceVenue, Depth, FuturesRule, Print, Ticker


class BinanceCoinm(BinanceVenue):
    """COIN-M perpetuals and futures: the USD-M wire format with the pair `ps` added.

    On the wire::

        {"stream":"btcusd_perp@depth@0ms","data":{"e":"depthUpdate","E":1700000000105,"T":1700000000101,
         "s":"BTCUSD_PERP","ps":"BTCUSD","U":1005,"u":1009,"pu":1003,"b":[["37000.1","250"]],"a":[["37000.2","0"]]}}
        {"stream":"btcusd_perp@bookTicker","data":{"u":1009,"e":"bookTicker","s":"BTCUSD_PERP","ps":"BTCUSD",
         "b":"37000.1","B":"250","a":"37000.3","A":"10","T":1700000000101,"E":1700000000105}}
        {"stream":"btcusd_perp@trade","data":{"e":"trade","E":1700000000107,"T":1700000000106,"s":"BTCUSD_PERP",
         "t":71,"p":"37000.3","q":"4","X":"MARKET","m":false}}

    One BTC contract is worth 100 USD, every other contract 10 USD.
    """

    websocket_url: ClassVar[str] = "wss://dstream.binance.com"
    rest_url: ClassVar[str] = "https://dapi.binance.com"
    snapshot_path: ClassVar[str | None] = "/dapi/v1/depth?symbol={symbol}&limit=1000"
    snapshot_weight: ClassVar[int] = 20
    weight_per_minute: ClassVar[int] = 2400
    time_path: ClassVar[str] = "/dapi/v1/time"
    streams: ClassVar[tuple[str, ...]] = ("depth@0ms", "bookTicker", "trade")
    inverse: ClassVar[bool] = True

    def check_segment(self, event: Depth | Ticker | Print) -> str | None:
        """COIN-M depth and quotes carry the pair `ps`; its trades have no `M` and its symbols an underscore."""
        if isinstance(event, Print):
            if event.M is not None:
                return "trade with the spot field M"
            return None if "_" in event.s else f"trade of {event.s}, which is not a COIN-M symbol such as BTCUSD_PERP"
        return None if event.ps is not None else "event without the COIN-M field ps"

    def sequence_rule(self) -> FuturesRule:
        """The pu/u chain."""
        return FuturesRule()

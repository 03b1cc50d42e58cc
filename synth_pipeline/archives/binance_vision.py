"""Binance's public dumps (data.binance.vision): trades, aggTrades and bookTicker of spot, USD-M and COIN-M.

Format: https://github.com/binance/binance-public-data. A ZIP of one CSV a symbol and day or month, with a header or
without; times in ms, on spot in µs since 2025:

    spot trades        id,price,qty,quote_qty,time,is_buyer_maker,is_best_match
    futures trades     id,price,qty,quote_qty (COIN-M: base_qty),time,is_buyer_maker
    spot aggTrades     agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker and
                       is_best_match, which futures lack
    bookTicker         update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time

There is one clock, the exchange's. klines are bars, bookDepth holds sums over bands: neither is ticks, both are named
and refused. A `.CHECKSUM` file beside the dump is verified.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from synth_pipeline.archives import columns
from synth_pipeline.archives.csv import CsvArchive, Layout, Reading, first_lines, peek
from synth_pipeline.archives.drafts import Piece
from synth_pipeline.archives.fields import Fields
from synth_pipeline.errors import InputError

_TRADES = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker")
_AGGREGATES = (
    "agg_trade_id",
    "price",
    "quantity",
    "first_trade_id",
    "last_trade_id",
    "transact_time",
    "is_buyer_maker",
)
_TICKER = (
    "update_id",
    "best_bid_price",
    "best_bid_qty",
    "best_ask_price",
    "best_ask_qty",
    "transaction_time",
    "event_time",
)
_KLINES = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count")
_DEPTH = ("timestamp", "percentage", "depth", "notional")
_NUMBER, _ID, _TIME, _FLAG = r"\d+\.?\d*(?:[eE]-?\d+)?", r"-?\d+", r"\d{13}(?:\d{3})?", r"(?i:true|false)"
_FORMS = {
    "trades": ((_ID, _NUMBER, _NUMBER, _NUMBER, _TIME, _FLAG), _TRADES),
    "spot trades": ((_ID, _NUMBER, _NUMBER, _NUMBER, _TIME, _FLAG, _FLAG), (*_TRADES, "is_best_match")),
    "aggTrades": ((_ID, _NUMBER, _NUMBER, _ID, _ID, _TIME, _FLAG), _AGGREGATES),
    "spot aggTrades": ((_ID, _NUMBER, _NUMBER, _ID, _ID, _TIME, _FLAG, _FLAG), (*_AGGREGATES, "is_best_match")),
    "bookTicker": ((_ID, *(_NUMBER,) * 4, _TIME, _TIME), _TICKER),
    "klines": ((_TIME, *(_NUMBER,) * 5, _TIME, *(_NUMBER,) * 5), (*_KLINES, "taker_volume", "taker_quote", "ignore")),
}
"""A first record and the columns by kind of dump, for files without a header."""
_NAME = re.compile(r"([A-Z0-9_]+)-(?:trades|aggTrades|bookTicker|bookDepth|[0-9]+(?:s|m|h|d|w|mo))-\d{4}-\d\d")
_REFUSED = {
    "klines": "bars, not ticks: read them with `synth-pipeline bars`",
    "bookDepth": "sums of the depth within percent bands, out of which no level can be told: give bookTicker dumps",
}


class BinanceVision(CsvArchive):
    """Binance's public dumps."""

    one_clock = True
    trade_ids_count_up = True

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A header of one of the dumps, or a first record that only one of them has."""
        return _kind(first_lines(head)[1]) is not None

    def layout(self, path: Path) -> Layout:
        """Return the columns. Raises `InputError` for klines and bookDepth."""
        preamble, line = first_lines(peek(path))
        kind = _kind(line)
        if kind is None:
            raise InputError(f"{path} is no dump of Binance that holds ticks: give trades, aggTrades or bookTicker")
        if kind in _REFUSED:
            raise InputError(f"{path} holds {kind}, {_REFUSED[kind]}")
        names = _names(line)
        has_header = not names[0].lstrip("-").isdigit()
        return Layout(names if has_header else _FORMS[kind][1], preamble + (line if has_header else b""))

    def symbols(self, path: Path) -> list[str]:
        """Return the symbol of the file's name."""
        match = _NAME.match(path.name)
        return [match[1]] if match else []

    def venue_of(self, path: Path) -> str | None:
        """Return the market segment: columns tell spot, and COIN-M's symbols have the form BTCUSD_PERP."""
        layout, symbols = self.layout(path), self.symbols(path)
        if "is_best_match" in layout.columns:
            return "binance_spot"
        if "base_qty" in layout.columns or any("USD_" in symbol for symbol in symbols):
            return "binance_coinm"
        return "binance_usdm" if symbols else None

    def tables(self, path: Path) -> tuple[str, ...]:
        """Return trades or quotes."""
        return ("quotes",) if "update_id" in self.layout(path).columns else ("trades",)

    def keep(self, path: Path, symbol: str, day: date, place: Path) -> Path:
        """Keep the day's lines. Raises `InputError` when the file is not what its CHECKSUM says."""
        from synth_pipeline.archives.checksums import check_sha256

        check_sha256(path, path.with_name(f"{path.name}.CHECKSUM"))
        return super().keep(path, symbol, day, place)

    def read(self, path: Path, layout: Layout, fields: Fields, first: int) -> Reading:  # noqa: ARG002
        """Read trades, aggregated trades (one row each) or quotes."""
        if "update_id" in layout.columns:
            sent, _ = fields.times(layout.index("event_time"))
            matched, _ = fields.times(layout.index("transaction_time"))
            update_ids = columns.ids(fields, 0, first)
            return Reading(sent, matched, lambda: [columns.quotes(fields, (1, 2), (3, 4), update_ids)])
        times, _ = fields.times(layout.index("time", "transact_time"))
        return Reading(times, times, lambda: [self._trades(layout, fields, first)])

    @staticmethod
    def _trades(layout: Layout, fields: Fields, first: int) -> Piece:
        # Where the buyer rested, the seller was the aggressor.
        side = columns.sides(fields, layout.index("is_buyer_maker"), ("false", "true"))
        return columns.trades(fields, 1, 2, side, columns.ids(fields, 0, first))


def _names(line: bytes) -> tuple[str, ...]:
    return tuple(_snake(field) for field in line.decode("utf-8", "replace").strip().split(","))


def _snake(name: str) -> str:
    """Return `isBuyerMaker` as `is_buyer_maker`; both spellings occur."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name.strip()).lower()


def _kind(line: bytes) -> str | None:
    names = _names(line)
    for kind, (patterns, header) in _FORMS.items():
        expected = header[:9] if kind == "klines" else header
        plain = tuple("quote_qty" if name == "base_qty" else name for name in names)
        if plain[: len(expected)] == expected and (kind == "klines" or len(names) == len(header)):
            return kind
        if len(names) == len(patterns) and all(map(re.fullmatch, patterns, names)):
            return kind
    return "bookDepth" if names == _DEPTH else None

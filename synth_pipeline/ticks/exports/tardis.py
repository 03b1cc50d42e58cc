"""Tardis.dev CSV: incremental_book_L2, trades and quotes, a gzip file each, of what the day has.

Format: https://docs.tardis.dev/downloadable-csv-files; files are named `EXCHANGE_KIND_DAY_SYMBOL.csv.gz`:

    exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount
    exchange,symbol,timestamp,local_timestamp,id,side,price,amount
    exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount

Both times are µs: what was received within one microsecond is one event, and of full books within one only the last is
told. Where the exchange's clock is unknown, `timestamp` is the receipt. Sides of a quote without orders are empty. The
format has no marks: a print off the market is a trade like others, and a gap shows as the full book after it.
"""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from synth_pipeline.archives.tardis import VENUES
from synth_pipeline.errors import NoDataError
from synth_pipeline.schema import Flag, Instrument
from synth_pipeline.ticks.exports import Columns, Source, TickExport, Written
from synth_pipeline.ticks.exports.decimal_columns import csv, exact

_KINDS = {"book_levels": "incremental_book_L2", "trades": "trades", "quotes": "quotes"}
_EXCHANGES = {venue: exchange for exchange, venue in VENUES.items()} | dict.fromkeys(
    ("bybit_linear", "bybit_inverse"), "bybit"
)
_SHARED = "exchange,symbol,timestamp,local_timestamp"
_HEADERS = {
    "book_levels": "is_snapshot,side,price,amount",
    "trades": "id,side,price,amount",
    "quotes": "ask_amount,ask_price,bid_price,bid_amount",
}
_NS_PER_US = 1000
_GZIP = 6
"""Level 9, the default of Python, takes three times as long for files as large."""


class Tardis(TickExport):
    """Up to three files."""

    def names(self, source: Source) -> list[str]:
        """Return the names of the files."""
        return list(_files(source).values())

    def write(self, source: Source, place: Path) -> Written:
        """Write the files."""
        rows, left_out = Counter[str](), Counter[str]()
        for table, name in _files(source).items():
            kind = _KINDS[table]
            with (place / name).open("wb") as raw, gzip.GzipFile("", "wb", _GZIP, raw, mtime=0) as file:
                file.write(f"{_SHARED},{_HEADERS[table]}\n".encode())
                for piece in source.pieces(table):
                    kept = _last_books(piece[table]) if table == "book_levels" else piece[table]
                    rows[kind] += kept["seq"].size
                    left_out["full book replaced within a microsecond"] += piece[table]["seq"].size - kept["seq"].size
                    file.write(csv(_frame(table, kept, source)))
        return Written(rows, +left_out, {"exchange": exchange_of(source.instrument)})


def exchange_of(instrument: Instrument) -> str:
    """Return Tardis' name of a venue's exchange; a venue that it does not know keeps its own."""
    return _EXCHANGES.get(instrument.venue, instrument.venue.replace("_", "-"))


def _files(source: Source) -> dict[str, str]:
    found = {
        table: f"{exchange_of(source.instrument)}_{kind}_{source.date}_{source.instrument.symbol}.csv.gz"
        for table, kind in _KINDS.items()
        if source.has(table)
    }
    if not found:
        raise NoDataError(f"{source.instrument} has no rows on {source.date}: ingest a recording that has some")
    return found


def _last_books(levels: Columns) -> Columns:
    """Leave out full books that another one follows within the same microsecond: they would be read as one."""
    is_full = levels["flags"] & Flag.SNAPSHOT > 0
    key = 2 * (levels["recv_ns"] // _NS_PER_US) + is_full
    run = np.cumsum(np.append(False, key[1:] != key[:-1])[: key.size])
    event = np.cumsum(np.append(False, levels["flags"][:-1] & Flag.LAST > 0)[: key.size])
    last_of_run = event[np.searchsorted(run, run, side="right") - 1]
    kept = ~is_full | (event == last_of_run)
    return levels if kept.all() else {name: column[kept] for name, column in levels.items()}


def _frame(table: str, rows: Columns, source: Source) -> pl.DataFrame:
    event_ns = np.where(rows["event_ns"] > 0, rows["event_ns"], rows["recv_ns"])
    names = {"exchange": pl.lit(exchange_of(source.instrument)), "symbol": pl.lit(source.instrument.symbol)}
    times = {"timestamp": event_ns // _NS_PER_US, "local_timestamp": rows["recv_ns"] // _NS_PER_US}
    columns: dict[str, Any] = times | _own(table, rows, source)
    return pl.DataFrame(columns).select(**names, **{name: pl.col(name) for name in columns})


def _own(table: str, rows: Columns, source: Source) -> dict[str, Any]:
    """Return the columns that a kind does not share."""
    tick, lot = source.scale.tick_size, source.scale.lot_size
    if table == "quotes":
        shown = {side: rows[f"{side}_size"] > 0 for side in ("bid", "ask")}
        return {
            "ask_amount": exact(rows["ask_size"], lot, shown["ask"]),
            "ask_price": exact(rows["ask_price"], tick, shown["ask"]),
            "bid_price": exact(rows["bid_price"], tick, shown["bid"]),
            "bid_amount": exact(rows["bid_size"], lot, shown["bid"]),
        }
    words = ("bid", "ask") if table == "book_levels" else ("buy", "sell")
    first = {"is_snapshot": rows["flags"] & Flag.SNAPSHOT > 0} if table == "book_levels" else {"id": rows["trade_id"]}
    side = np.select([rows["side"] > 0, rows["side"] < 0], words, "unknown")
    return first | {"side": side, "price": exact(rows["price"], tick), "amount": exact(rows["size"], lot)}

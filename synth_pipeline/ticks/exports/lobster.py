"""LOBSTER: a message and an orderbook file, one row a message in each, of days that have orders.

Format: https://lobsterdata.com/info/DataStructure.php; `archives/lobster.py` shows both files and reads them. What the
format settles, and how other instruments come to it:

- Times are seconds after midnight in New York, and a file is of one date there: a UTC day whose market never closes
  becomes two pairs. They have the nanoseconds of receipt, without closing zeros.
- Prices count 1e-4: a finer tick cannot be written. Sizes are whole shares: of other markets they count lots, and
  `Written.facts` says what a share is.
- Types are 1 to 5, and 7 of halts. Messages are those that the visible levels tell of, hidden executions and halts; the
  others are counted. Missing levels are 9999999999 and -9999999999 of size 0.
- The book of a message is the one after it, also where the source tells several events at once. Orders that stand when
  the stretch begins, or when a full book comes, are in the book and are no messages.
- An incoming order is told by the executions of those that it meets, and what is left of it as a new order. Where a
  source tells it before it trades, its book crossed for that moment, its own reports are left out (`order_books`).

Level changes and trades alone do not say which order was placed or left, so such days are refused: ids would be
made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND, Scale
from synth_pipeline.ticks.exports import Columns, Source, TickExport, Written
from synth_pipeline.ticks.exports.decimal_columns import csv
from synth_pipeline.ticks.exports.order_books import told

LEVELS = 10
_NEW_YORK = ZoneInfo("America/New_York")
_UNIT_PLACES = 4
_EMPTY = 9_999_999_999
_NS_PER_MS = 1_000_000
_EXECUTE_HIDDEN, _HALT = 5, 7


class _Session(NamedTuple):
    """The part of a stretch that is of one date in New York."""

    day: date
    midnight_ns: int
    start_ns: int
    end_ns: int

    def name(self, what: str, source: Source, levels: int) -> str:
        """Return the name of a file; underscores would end the ticker."""
        start, end = (self.start_ns - self.midnight_ns) // _NS_PER_MS, -((self.midnight_ns - self.end_ns) // _NS_PER_MS)
        ticker = source.instrument.symbol.replace("_", "-")
        return f"{ticker}_{self.day}_{start}_{end}_{what}_{levels}.csv"


class Lobster(TickExport):
    """A pair of files a session."""

    has_levels = True

    def names(self, source: Source) -> list[str]:
        """Return the names of the files."""
        source.require("orders", "LOBSTER")
        _units(source.scale)
        levels = _levels(source)
        return [each.name(what, source, levels) for each in _sessions(source) for what in ("message", "orderbook")]

    def write(self, source: Source, place: Path) -> Written:
        """Write the files."""
        rows, left_out, levels = Counter[str](), Counter[str](), _levels(source)
        for session in _sessions(source):
            names = [place / session.name(what, source, levels) for what in ("message", "orderbook")]
            with names[0].open("wb") as messages, names[1].open("wb") as books:
                for orders, before, after, untold in told(source.within(session.start_ns, session.end_ns), levels):
                    seen = is_seen(orders, before, after)
                    left_out.update(untold)
                    rows["messages"] += int(seen.sum())
                    left_out["beyond the visible levels"] += int((~seen).sum())
                    messages.write(csv(_messages(orders, session, source.scale).filter(seen)))
                    books.write(csv(_rows(after[:, seen], source.scale)))
        gaps = {"gaps": source.gaps()} if source.gaps() else {}
        return Written(rows, +left_out, {"levels": levels, "share": f"{source.scale.lot_size:f}"} | gaps)


def _levels(source: Source) -> int:
    """Return how many levels the files have. Raises `InputError` for more than the source shows."""
    shown = int(source.day.metadata["visible_levels"])
    wanted = source.levels or min(LEVELS, shown or LEVELS)
    if shown and wanted > shown:
        raise InputError(
            f"{source.instrument} on {source.date} shows {shown} levels a side, not {wanted}: ask for fewer (--levels)"
        )
    return wanted


def _units(scale: Scale) -> int:
    """Return how many 1e-4 a tick is. Raises `InputError` for a finer one."""
    units = scale.tick_size.scaleb(_UNIT_PLACES)
    if units % 1:
        raise InputError(
            f"tick {scale.tick_size} is no multiple of 0.0001, LOBSTER's unit of price: use another format"
        )
    return int(units)


def _sessions(source: Source) -> list[_Session]:
    """Return the sessions of a stretch, from the first to the last moment recorded of each, in whole ms."""
    found = []
    first = datetime.fromtimestamp(source.start_ns // NS_PER_SECOND, _NEW_YORK).date()
    for number in range(3):
        day = first + timedelta(days=number)
        begin, end = (
            int(datetime.combine(each, time(), _NEW_YORK).timestamp()) * NS_PER_SECOND
            for each in (day, day + timedelta(days=1))
        )
        parts = [(max(start, begin), min(stop, end)) for start, stop in source.coverage]
        parts = [(start, stop) for start, stop in parts if start < stop]
        if parts:
            found.append(_Session(day, begin, parts[0][0], parts[-1][1]))
    return found


def is_seen(orders: Columns, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return which events the visible levels tell of: their price is among them, before or after."""
    seen: np.ndarray = np.isin(orders["kind"], (_EXECUTE_HIDDEN, _HALT)) | (orders["kind"] == 6)
    for ladder in (before, after):
        for side, price in ((1, 0), (-1, 2)):
            worst, is_full = ladder[price, :, -1], ladder[price + 1, :, -1] > 0
            seen |= (orders["side"] == side) & (~is_full | (orders["price"] * side >= worst * side))
    return seen


def _messages(orders: Columns, session: _Session, scale: Scale) -> pl.DataFrame:
    since = orders["recv_ns"] - session.midnight_ns
    price = np.where(orders["kind"] == _HALT, orders["price"], orders["price"] * _units(scale))
    fraction = (pl.col("ns") % NS_PER_SECOND).cast(pl.String).str.zfill(9)
    seconds = (pl.col("ns") // NS_PER_SECOND).cast(pl.String) + "." + fraction
    columns = {"ns": since, "kind": orders["kind"], "id": orders["order_id"], "size": orders["size"]}
    frame = pl.DataFrame(columns | {"price": price, "side": orders["side"]})
    return frame.with_columns(seconds.str.strip_chars_end("0").str.strip_chars_end(".").alias("ns"))


def _rows(ladder: np.ndarray, scale: Scale) -> pl.DataFrame:
    bid, bid_size, ask, ask_size = ladder
    bid, ask = (
        np.where(size > 0, price * _units(scale), empty)
        for price, size, empty in ((bid, bid_size, -_EMPTY), (ask, ask_size, _EMPTY))
    )
    return pl.DataFrame(dict(_columns((ask, ask_size, bid, bid_size))))


def _columns(parts: tuple[np.ndarray, ...]) -> Iterator[tuple[str, np.ndarray]]:
    for level in range(parts[0].shape[1]):
        for number, part in enumerate(parts):
            yield f"{number}_{level}", part[:, level]

"""hftbacktest 2.x: one `.npz` whose array `data` has the dtype of its events, `SYMBOL_YYYYMMDD.npz`.

Format: https://hftbacktest.readthedocs.io/en/latest/data.html. An event is 64 bytes:

    ev u8, exch_ts i8, local_ts i8, px f8, qty f8, order_id u8, ival i8, fval f8

`ev` is a kind (DEPTH 1, TRADE 2, DEPTH_CLEAR 3, DEPTH_SNAPSHOT 4) with a bit each for the side (BUY, SELL) and for
whose processor handles it: EXCH events rise in `exch_ts`, LOCAL ones in `local_ts`. An event that both may handle at
the same place of the file is one row; any other is two.

- A full book is a DEPTH_CLEAR of each side (no price: all of it), then DEPTH_SNAPSHOT rows.
- At the same moment trades come before changes of the book: hftbacktest takes a trade from a queue that still holds it.
- The streams arrive in their order, so exchange times of one never fall: an earlier one becomes that of the event
  before. One that is unknown or later than the receipt becomes the receipt, one that is over a minute earlier a minute.
- A print that no order of the book took part in would fill orders in a backtest, so it is left out.
- Prices and sizes are the doubles nearest to the exact decimals; the dtype has no others.
"""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from synth_pipeline.schema import NS_PER_SECOND, Flag, Scale
from synth_pipeline.ticks.exports import Columns, Source, TickExport, Written
from synth_pipeline.ticks.exports.decimal_columns import parts

DEPTH, TRADE, CLEAR, SNAPSHOT = 1, 2, 3, 4
EXCH, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28
EVENT = np.dtype(
    [
        ("ev", "<u8"),
        ("exch_ts", "<i8"),
        ("local_ts", "<i8"),
        ("px", "<f8"),
        ("qty", "<f8"),
        ("order_id", "<u8"),
        ("ival", "<i8"),
        ("fval", "<f8"),
    ],
    align=True,
)
LATEST_NS = 60 * NS_PER_SECOND
"""The longest way from the exchange that an event is believed to have taken; so far rows wait to be put in order."""
_FIRST = np.iinfo(np.int64).min
_COPY_BYTES = 2**20


class Hftbacktest(TickExport):
    """One array."""

    def names(self, source: Source) -> list[str]:
        """Return the name of the file."""
        source.require("book_levels", "hftbacktest")
        return [f"{source.instrument.symbol.lower()}_{source.date:%Y%m%d}.npz"]

    def write(self, source: Source, place: Path) -> Written:
        """Write the file: rows first, since its header says how many they are."""
        rows, left_out = Counter[str](), Counter[str]()
        streams, order = (_Stream(), _Stream()), Order()
        raw = place / "events"
        with raw.open("wb") as file:
            for piece in source.pieces("trades", "book_levels"):
                off_market = piece["trades"]["flags"] & Flag.OFF_MARKET > 0
                left_out["off market"] += int(off_market.sum())
                trades = {name: column[~off_market] for name, column in piece["trades"].items()}
                deals, levels = trade_events(trades, source.scale), level_events(piece["book_levels"], source.scale)
                rows["trades"] += deals.size
                rows["depth"] += levels.size
                arrived = np.concatenate((streams[0].timed(deals), streams[1].timed(levels)))
                arrived = arrived[np.argsort(arrived["local_ts"], kind="stable")]
                until = int(arrived["local_ts"][-1]) if arrived.size else order.reached
                file.write(order.feed(arrived, until - LATEST_NS).tobytes())
            file.write(order.feed(np.empty(0, EVENT), np.iinfo(np.int64).max).tobytes())
        rows["events"] = raw.stat().st_size // EVENT.itemsize
        _pack(raw, place / self.names(source)[0], rows["events"])
        steps = {"tick_size": f"{source.scale.tick_size:f}", "lot_size": f"{source.scale.lot_size:f}"}
        return Written(rows, +left_out, steps | {"inverse": source.scale.inverse})


def trade_events(trades: Columns, scale: Scale) -> np.ndarray:
    """Return trades; the side is the aggressor's, none where it is unknown."""
    found = _events(trades, trades["side"].astype(np.int64), scale)
    found["ev"] |= np.uint64(TRADE)
    return found


def level_events(levels: Columns, scale: Scale) -> np.ndarray:
    """Return level changes, and full books with the clearing before them."""
    is_full = levels["flags"] & Flag.SNAPSHOT > 0
    ended = np.append(True, levels["flags"][:-1] & Flag.LAST > 0)[: is_full.size]
    begins = np.flatnonzero(is_full & (ended | ~np.append(False, is_full[:-1])[: is_full.size]))
    found = _events(levels, levels["side"].astype(np.int64), scale)
    found["ev"] |= np.where(is_full, np.uint64(SNAPSHOT), np.uint64(DEPTH))
    clears = np.repeat(found[begins], 2)
    clears["ev"] = np.tile(np.array([CLEAR | BUY, CLEAR | SELL], np.uint64), begins.size)
    clears["px"], clears["qty"] = np.nan, 0.0
    return np.insert(found, np.repeat(begins, 2), clears)


def _events(rows: Columns, side: np.ndarray, scale: Scale) -> np.ndarray:
    found = np.zeros(side.size, EVENT)
    found["ev"] = np.select([side > 0, side < 0], [np.uint64(BUY), np.uint64(SELL)], np.uint64(0))
    found["exch_ts"], found["local_ts"] = rows["event_ns"], rows["recv_ns"]
    found["px"], found["qty"] = _doubles(rows["price"], scale.tick_size), _doubles(rows["size"], scale.lot_size)
    return found


def _doubles(counts: np.ndarray, step: Decimal) -> np.ndarray:
    """Return the doubles nearest to counts of a step: one division of whole numbers, which rounds once."""
    times, places = parts(step)
    return (counts * times).astype(np.float64) / 10.0**places


class _Stream:
    """Lets the exchange's time of a stream rise."""

    def __init__(self) -> None:
        self._latest = _FIRST

    def timed(self, events: np.ndarray) -> np.ndarray:
        """Return the stream's next events with the exchange's time set."""
        local = events["local_ts"]
        known = np.where(events["exch_ts"] > 0, events["exch_ts"], local)
        within = np.clip(known, local - LATEST_NS, local)
        events["exch_ts"] = np.maximum.accumulate(np.append(self._latest, within))[1:]
        self._latest = int(events["exch_ts"][-1]) if events.size else self._latest
        return events


class Order:
    """Puts events, which come in order of arrival, into the order of both clocks.

    The file runs in order of the exchange's clock. A row is LOCAL too if all that arrived before it stands before it;
    else the LOCAL copy follows as soon as that is so.
    """

    def __init__(self) -> None:
        self._waiting = np.empty(0, EVENT)
        """Events that are not LOCAL yet, in order of arrival."""
        self._is_told = np.empty(0, np.bool_)
        """Whether they were EXCH already."""
        self.reached = _FIRST + LATEST_NS
        """The last moment of arrival."""

    def feed(self, events: np.ndarray, safe_ns: int) -> np.ndarray:
        """Take the next events; return rows up to a moment of the exchange's clock that no later event is before."""
        pool = np.concatenate((self._waiting, events))
        is_told = np.append(self._is_told, np.zeros(events.size, np.bool_))
        self.reached = int(pool["local_ts"][-1]) if pool.size else self.reached
        now = np.flatnonzero(~is_told & (pool["exch_ts"] <= safe_ns))
        now = now[np.lexsort((now, pool["ev"][now] & np.uint64(7) != TRADE, pool["exch_ts"][now]))]
        place = np.full(pool.size, pool.size)
        place[is_told], place[now] = -1, np.arange(now.size)
        after = np.maximum.accumulate(place)
        arrived = int(np.searchsorted(after, pool.size))  # so many are LOCAL after this
        before = np.append(-1, after[:-1])[: pool.size]
        in_place = (place > before) & (np.arange(pool.size) < arrived)
        copies = np.flatnonzero(~in_place[:arrived])
        told, copied = pool[now], pool[copies]
        told["ev"] |= np.uint64(EXCH) | np.where(in_place[now], np.uint64(LOCAL), np.uint64(0))
        copied["ev"] |= np.uint64(LOCAL)
        order = np.lexsort(
            (
                np.append(np.full(now.size, -1), copies),
                np.append(np.arange(now.size), after[copies]),
            )
        )
        is_told[now] = True
        self._waiting, self._is_told = pool[arrived:], is_told[arrived:]
        found: np.ndarray = np.concatenate((told, copied))[order]
        return found


def _pack(raw: Path, target: Path, count: int) -> None:
    """Move raw rows into an `.npz`, compressed, with the documented header of `.npy` before them."""
    member = zipfile.ZipInfo("data.npy")  # a fixed date: the same events are the same bytes
    member.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(target, "w") as archive, archive.open(member, "w", force_zip64=True) as file:
        header = {"descr": npy.dtype_to_descr(EVENT), "fortran_order": False, "shape": (count,)}
        npy.write_array_header_1_0(file, header)
        with raw.open("rb") as rows:
            shutil.copyfileobj(rows, file, _COPY_BYTES)
    raw.unlink()

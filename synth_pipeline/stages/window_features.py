"""Grid features of any window of the tick store, without featurizing whole days; and of a day, a piece at a time.

What belongs here: how rows of `ticks.store` become rows of `features.grid`. Every day is worked on by itself, in pieces
of some hundred thousand rows that `featurize` writes one by one and a window joins: where pieces begin changes no bit,
so a window's rows are those of the days' feature files, cut to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from synth_pipeline import schema
from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.features.buckets import lost_time
from synth_pipeline.features.depth import NAMES as LADDER_NAMES
from synth_pipeline.features.grid import grid_features
from synth_pipeline.features.lean import lean_grid
from synth_pipeline.schema import NS_PER_DAY, Flag, Instrument
from synth_pipeline.series import IntArray
from synth_pipeline.storage import Place
from synth_pipeline.ticks import pages, store
from synth_pipeline.ticks.book import DEPTH, Book, depth_of, ladder_of
from synth_pipeline.ticks.hot import EVERY, HotDay
from synth_pipeline.ticks.rowgroups import DayRows, ParquetDay
from synth_pipeline.ticks.store import Day

Columns = dict[str, np.ndarray]

_LEAN = {"label_ns", "mid", "spread", "vwap", "volume"}
_OF_DEPTH, _OF_THE_LADDER = {"imbalance_10", "flags"}, {*LADDER_NAMES}
_QUOTES = ("recv_ns", "bid_price", "bid_size", "ask_price", "ask_size", "flags")
_TRADES = ("recv_ns", "price", "size", "side", "flags")
_BOOK_LEVELS = ("recv_ns", "side", "price", "size", "flags")
_NO_DEPTH = {name: np.empty(0, dtype=np.int64) for name in ("recv_ns", "bid_size_10", "ask_size_10", "known")}
PIECE_ROWS, PIECE_BUCKETS = 1 << 18, 1 << 16
"""About how many rows of a table and at most how many buckets are worked on at once."""
_LEVELS_SHARE, _LEAN_TIMES = 4, 4
"""Of book levels it is fewer by so much: of each event they make a ladder of 320 bytes. The lean grid takes more."""


def window_features(
    data: Place,
    instrument: Instrument,
    start_ns: int,
    end_ns: int,
    *,
    step_ns: int = 500_000_000,
    columns: Sequence[str] | None = None,
    hot: bool = False,
    home: Path | None = None,
) -> Columns:
    """Return the features of every bucket that starts in [start_ns, end_ns), by column, `label_ns` among them.

    The book of a day is rebuilt only where a column needs it. With `hot` ticks are read from the hot tier, under
    `home`, or where the data lie if that is a local folder. Raises `NoDataError` when no day of the window is in the
    store, `InputError` for a step that does not divide a day.
    """
    if step_ns <= 0 or NS_PER_DAY % step_ns:
        raise InputError(f"step of {step_ns} ns does not divide a day: a bucket would lie over midnight")
    for name in columns or ():
        if name not in schema.GRID.names:
            raise UnknownNameError("feature", name, schema.GRID.names)
    names = [*schema.GRID.names] if columns is None else [*dict.fromkeys(("label_ns", *columns))]
    first, stop = -(-start_ns // step_ns) * step_ns, -(-end_ns // step_ns) * step_ns
    parts = [
        piece
        for day in store.days(data, instrument, start_ns, end_ns, home=home)
        for piece in day_pieces(
            day, max(first, day.start_ns), min(stop, day.start_ns + NS_PER_DAY), step_ns, {*names}, hot=hot
        )
    ]
    if len(parts) == 1:
        return {name: parts[0][name] for name in names}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def day_pieces(
    day: Day, start_ns: int, end_ns: int, step_ns: int, names: set[str], *, hot: bool = False
) -> Iterator[Columns]:
    """Yield at least the columns `names` of every bucket that starts in [start_ns, end_ns) of a day, in order.

    Memory is that of one piece, or one bucket if that holds more.
    """
    tables, depth = ["quotes", "trades"], None
    if names & (_OF_DEPTH | _OF_THE_LADDER):
        tables, depth = [*tables, "book_levels"], _Depth(day, hot=hot)
        for cut in _cuts(day, ("book_levels",), day.start_ns, start_ns, step_ns, rows=PIECE_ROWS, hot=hot)[1:]:
            depth.upto(cut)
    rows = PIECE_ROWS * (_LEAN_TIMES if names <= _LEAN else 1)
    for start, end in pairwise(_cuts(day, tables, start_ns, end_ns, step_ns, rows=rows, hot=hot)):
        yield _piece(day, depth, start, end, step_ns, names, hot=hot)


def book_pieces(day: Day, step_ns: int) -> Iterator[tuple[IntArray, Columns]]:
    """Yield the labels of a day's buckets, a piece at a time, with the ladder of the events that lie before them."""
    end_ns, depth = day.start_ns + NS_PER_DAY, _Depth(day, hot=False)
    cuts = _cuts(day, ("book_levels",), day.start_ns, end_ns, step_ns, rows=PIECE_ROWS, hot=False)
    for start, end in pairwise(cuts):
        yield np.arange(start + step_ns, end + step_ns, step_ns), depth.upto(end)[1]


def _cuts(
    day: Day, tables: Sequence[str], start_ns: int, end_ns: int, step_ns: int, *, rows: int, hot: bool
) -> list[int]:
    """Return the edges of the grid where the pieces of a window begin, and its end; a window of few rows is one."""
    first, last = day.coverage[0][0] // step_ns * step_ns, day.coverage[-1][1]
    cuts = {start_ns, *range(max(start_ns, first), min(end_ns, last), PIECE_BUCKETS * step_ns)}
    for table in tables:
        times, between = _times(day.rows(table, hot=hot))
        every = max((rows // _LEVELS_SHARE if table == "book_levels" else rows) // between, 1)
        within = times[np.searchsorted(times, start_ns) : np.searchsorted(times, end_ns)]
        cuts |= {-(-time // step_ns) * step_ns for time in within[every - 1 :: every].tolist()}
    return [*sorted(cut for cut in cuts if cut < end_ns or cut == start_ns), end_ns]


def _times(table: DayRows) -> tuple[np.ndarray, int]:
    """Return when some rows were received, and how many rows lie from one of them to the next."""
    if isinstance(table, HotDay):
        return table.index, EVERY
    assert isinstance(table, ParquetDay)
    return table.first_ns, table.footer.row_group(0).num_rows if table.first_ns.size else 1


def _piece(
    day: Day, depth: _Depth | None, start_ns: int, end_ns: int, step_ns: int, names: set[str], *, hot: bool
) -> Columns:
    quotes, trades = (day.rows(name, hot=hot) for name in ("quotes", "trades"))
    if names <= _LEAN:
        touch = _touch(quotes, start_ns, end_ns)
        if not _touches_loss(day, touch["recv_ns"], start_ns, end_ns):
            traded = _traded(trades, start_ns, end_ns)
            return lean_grid(touch, traded, quotes.scale, step_ns=step_ns, start_ns=start_ns, end_ns=end_ns)
    sums, ladder = (_NO_DEPTH, None) if depth is None else depth.upto(end_ns)
    return grid_features(
        quotes.read(start_ns, end_ns, _QUOTES, carry_in=True),
        trades.read(start_ns, end_ns, _TRADES, carry_in=False),
        sums,
        day.gaps,
        day.coverage,
        quotes.scale,
        step_ns=step_ns,
        start_ns=start_ns,
        end_ns=end_ns,
        ladder=ladder if names & _OF_THE_LADDER else None,
        names=tuple(name for name in schema.GRID.names if name in names),
    )


def _touch(quotes: DayRows, start_ns: int, end_ns: int) -> Columns:
    """Read what the lean grid needs of quotes: a side of size 0 is empty, and where none is, sizes stay unread."""
    is_two_sided = all(quotes.bounds(name, start_ns, end_ns)[0] > 0 for name in ("bid_size", "ask_size"))
    names = ("recv_ns", "bid_price", "ask_price") if is_two_sided else _QUOTES[:-1]
    return pages.read(quotes, start_ns, end_ns, names, carry_in=True)


def _traded(trades: DayRows, start_ns: int, end_ns: int) -> Columns:
    """Read what the lean grid needs of trades: the side is not looked at, nor are flags where none is OFF_MARKET."""
    has_off_market = trades.bounds("flags", start_ns, end_ns)[1] >= Flag.OFF_MARKET
    rows = pages.read(
        trades, start_ns, end_ns, ("recv_ns", "price", "size", "flags")[: 3 + has_off_market], carry_in=False
    )
    count = rows["recv_ns"].size
    return {"side": np.zeros(count, dtype=np.int8), "flags": np.zeros(count, dtype=np.uint8)} | rows


def _touches_loss(day: Day, recv_ns: np.ndarray, start_ns: int, end_ns: int) -> bool:
    """Return whether anything was lost in the window, or of the quotes since the one carried in."""
    since_ns = min(int(recv_ns[0]), start_ns) if recv_ns.size else start_ns
    lost = [(start_ns, time) for time in lost_time("trades", day.gaps, day.coverage)]
    lost += [(since_ns, time) for time in lost_time("quotes", day.gaps, day.coverage)]
    return any(time.last_ns >= since and time.first_ns < end_ns for since, time in lost)


class _Depth:
    """The book of a day, replayed to the end of one piece after the other."""

    def __init__(self, day: Day, *, hot: bool) -> None:
        self._rows, self._at = day.rows("book_levels", hot=hot), day.start_ns
        self._visible_levels = int(day.metadata["visible_levels"])
        self._book = Book()
        self._last: tuple[Columns, Columns] | None = None

    def upto(self, end_ns: int) -> tuple[Columns, Columns]:
        """Return depth and ladder of the events before a moment that were not returned yet, and of the last before."""
        replay = self._book.feed(self._rows.read(self._at, end_ns, _BOOK_LEVELS, carry_in=False), DEPTH)
        self._at = end_ns
        depth, ladder = depth_of(replay, self._visible_levels), ladder_of(replay, self._visible_levels)
        if self._last is not None:
            depth, ladder = _joined(self._last[0], depth), _joined(self._last[1], ladder)
        if depth["recv_ns"].size:
            self._last = _last_row(depth), _last_row(ladder)
        return depth, ladder


def _joined(before: Columns, rows: Columns) -> Columns:
    return {name: np.concatenate((before[name], column)) for name, column in rows.items()}


def _last_row(rows: Columns) -> Columns:
    return {name: column[-1:].copy() for name, column in rows.items()}

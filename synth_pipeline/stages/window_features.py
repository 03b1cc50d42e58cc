"""Grid features of any window of the tick store, without featurizing whole days.

What belongs here: how windows of `ticks.window` become rows of `features.grid`. Every day is worked on by itself, as
`featurize` does: its rows are those of the day's features file, bit for bit, cut to the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synth_pipeline import schema
from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.features.buckets import lost_time
from synth_pipeline.features.depth import NAMES as LADDER_NAMES
from synth_pipeline.features.grid import grid_features
from synth_pipeline.features.lean import lean_grid
from synth_pipeline.schema import NS_PER_DAY, Flag, Instrument
from synth_pipeline.ticks import book, window
from synth_pipeline.ticks.ladder import Ladders
from synth_pipeline.ticks.rowgroups import DayRows
from synth_pipeline.ticks.window import Day

Columns = dict[str, np.ndarray]

_LEAN = {"label_ns", "mid", "spread", "vwap", "volume"}
_OF_DEPTH, _OF_THE_LADDER = {"imbalance_10", "flags"}, {*LADDER_NAMES}
_QUOTES = ("recv_ns", "bid_price", "bid_size", "ask_price", "ask_size", "flags")
_TRADES = ("recv_ns", "price", "size", "side", "flags")


def window_features(
    home: Path,
    instrument: Instrument,
    start_ns: int,
    end_ns: int,
    *,
    step_ns: int = 500_000_000,
    columns: Sequence[str] | None = None,
    hot: bool = False,
) -> Columns:
    """Return the features of every bucket that starts in [start_ns, end_ns), by column, `label_ns` among them.

    The book of a day is rebuilt only where a column needs it. With `hot` ticks are read from the hot tier. Raises
    `NoDataError` when no day of the window is in the store, `InputError` for a step that does not divide a day.
    """
    if step_ns <= 0 or NS_PER_DAY % step_ns:
        raise InputError(f"step of {step_ns} ns does not divide a day: a bucket would lie over midnight")
    for name in columns or ():
        if name not in schema.GRID.names:
            raise UnknownNameError("feature", name, schema.GRID.names)
    names = [*schema.GRID.names] if columns is None else [*dict.fromkeys(("label_ns", *columns))]
    first, stop = -(-start_ns // step_ns) * step_ns, -(-end_ns // step_ns) * step_ns
    parts = [
        _of_day(day, max(first, day.start_ns), min(stop, day.start_ns + NS_PER_DAY), step_ns, {*names}, hot=hot)
        for day in window.days(home, instrument, start_ns, end_ns)
    ]
    if len(parts) == 1:
        return {name: parts[0][name] for name in names}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _of_day(day: Day, start_ns: int, end_ns: int, step_ns: int, names: set[str], *, hot: bool) -> Columns:
    quotes, trades = (day.rows(name, hot=hot) for name in ("quotes", "trades"))
    if names <= _LEAN:
        touch = _touch(quotes, start_ns, end_ns)
        if not _touches_loss(day, touch["recv_ns"], start_ns, end_ns):
            traded = _traded(trades, start_ns, end_ns)
            return lean_grid(touch, traded, quotes.scale, step_ns=step_ns, start_ns=start_ns, end_ns=end_ns)
    depth, ladder = _book(day, end_ns, names, hot=hot)
    return grid_features(
        quotes.read(start_ns, end_ns, _QUOTES, carry_in=True),
        trades.read(start_ns, end_ns, _TRADES, carry_in=False),
        depth,
        day.gaps,
        day.coverage,
        quotes.scale,
        step_ns=step_ns,
        start_ns=start_ns,
        end_ns=end_ns,
        ladder=ladder,
        names=tuple(name for name in schema.GRID.names if name in names),
    )


def _touch(quotes: DayRows, start_ns: int, end_ns: int) -> Columns:
    """Read what the lean grid needs of quotes: a side of size 0 is empty, and where none is, sizes stay unread."""
    is_two_sided = all(quotes.bounds(name, start_ns, end_ns)[0] > 0 for name in ("bid_size", "ask_size"))
    names = ("recv_ns", "bid_price", "ask_price") if is_two_sided else _QUOTES[:-1]
    return quotes.read(start_ns, end_ns, names, carry_in=True)


def _traded(trades: DayRows, start_ns: int, end_ns: int) -> Columns:
    """Read what the lean grid needs of trades: the side is not looked at, nor are flags where none is OFF_MARKET."""
    has_off_market = trades.bounds("flags", start_ns, end_ns)[1] >= Flag.OFF_MARKET
    rows = trades.read(start_ns, end_ns, ("recv_ns", "price", "size", "flags")[: 3 + has_off_market], carry_in=False)
    count = rows["recv_ns"].size
    return {"side": np.zeros(count, dtype=np.int8), "flags": np.zeros(count, dtype=np.uint8)} | rows


def _touches_loss(day: Day, recv_ns: np.ndarray, start_ns: int, end_ns: int) -> bool:
    """Return whether anything was lost in the window, or of the quotes since the one carried in."""
    since_ns = min(int(recv_ns[0]), start_ns) if recv_ns.size else start_ns
    lost = [(start_ns, time) for time in lost_time("trades", day.gaps, day.coverage)]
    lost += [(since_ns, time) for time in lost_time("quotes", day.gaps, day.coverage)]
    return any(time.last_ns >= since and time.first_ns < end_ns for since, time in lost)


def _book(day: Day, end_ns: int, names: set[str], *, hot: bool) -> tuple[Columns, Columns | None]:
    """Rebuild depth and ladder from the day's first row to the end of the window, what of them a column needs."""
    levels: Columns = schema.BOOK_LEVELS.empty()
    if names & (_OF_DEPTH | _OF_THE_LADDER):
        levels = day.rows("book_levels", hot=hot).read(day.start_ns, end_ns, schema.BOOK_LEVELS.names, carry_in=False)
    visible_levels = int(day.metadata["visible_levels"])
    ladder = Ladders(visible_levels).feed(levels) if names & _OF_THE_LADDER else None
    return book.depth_of(book.replay(levels), visible_levels), ladder

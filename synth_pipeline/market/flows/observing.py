"""A run seen as a record would show it: its tape as messages, order by order or as published level changes.

Level changes are published together, at times whose distances are drawn from those of a real source: what came and went
between two publications is not seen. They go through the builder that real ticks go through (`ticks.messages`).
"""

from collections.abc import Iterator

import numpy as np

from synth_pipeline.market.book import Book, depth
from synth_pipeline.market.engine import ASK, BID
from synth_pipeline.market.flows import Run
from synth_pipeline.market.flows.sizes import POINTS, quantiles
from synth_pipeline.market.tape import rewind
from synth_pipeline.schema import Flag, Scale
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, Messages, Standing, of_levels

CONTINUOUS = np.zeros(POINTS)
"""Times between publications of a source that shows every change by itself."""
_FEWEST_TOGETHER = 2.0
_CODES = np.array([0, LIMIT, CANCEL, CANCEL, MARKET, 0])


def publication_gaps(messages: Messages) -> FloatArray:
    """Return quantiles of the ns between times of changes, shape (POINTS,); `CONTINUOUS` where few share a time."""
    shown = np.isin(messages.kind, (LIMIT, CANCEL))
    times = np.unique(messages.time_ns[shown & (messages.order_id == 0)])
    if times.size < 2 or shown.sum() < _FEWEST_TOGETHER * times.size:
        return CONTINUOUS
    return quantiles(np.diff(times))


def orders_of(run: Run, until_ns: int, scale: Scale) -> Messages:
    """Run up to a time and return every order's messages, with ids."""
    start_ns, initial = run.now_ns, _standing(run.market.book)
    pieces = [_orders(*piece) for piece in _pieces(run, until_ns)]
    time_ns, kind, side, price, size, order_id, ends = (np.concatenate(each) for each in zip(*pieces, strict=True))
    return Messages(
        time_ns, _CODES[kind].astype(np.int8), (1 - 2 * side).astype(np.int8), price, size, order_id, ends,
        np.array([0]), np.array([[start_ns, until_ns]]), (initial,), scale, 0, (),
    )  # fmt: skip


def levels_of(run: Run, until_ns: int, scale: Scale, gaps: FloatArray, *, rng: np.random.Generator) -> Messages:
    """Run up to a time and return the messages that its published level changes and trades come to."""
    start_ns, initial = run.now_ns, _standing(run.market.book)
    changes, trades = zip(*((_changes(*piece), _trades(*piece)) for piece in _pieces(run, until_ns)), strict=True)
    clock = start_ns + np.cumsum(gaps[rng.integers(0, gaps.size, int((until_ns - start_ns) / gaps.mean()) + 1)])
    clock = np.append(clock[clock < until_ns], until_ns).astype(np.int64)
    rows = _published(np.concatenate(changes), clock)
    rows = rows[rows[:, 0] < until_ns]
    levels = _table(np.concatenate((_snapshot(initial, start_ns), rows)))
    levels["flags"][: len(initial.bids) + len(initial.asks)] |= int(Flag.SNAPSHOT)
    found = np.concatenate(trades)
    columns = {"recv_ns": found[:, 0], "event_ns": found[:, 0], "side": found[:, 1].astype(np.int8),
               "price": found[:, 2], "size": found[:, 3], "flags": np.zeros(len(found), np.uint8)}  # fmt: skip
    return of_levels(levels, columns, span=(start_ns, until_ns), scale=scale)


def _pieces(run: Run, until_ns: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Run, and yield the tape and its lists, piece by piece."""
    done = False
    while not done:
        done = run.advance(until_ns)
        journal, rows = run.market.journal, run.market.journal.rows[0]
        tape = run.market.tape[: run.market.clock.events[0]]
        lists = (journal.levels[: rows.levels], journal.trades[: rows.trades], journal.events[: rows.events])
        yield (tape.copy(), *(each.copy() for each in lists))
        rewind(run.market)


def _orders(tape: np.recarray, _: np.recarray, __: np.recarray, events: np.recarray) -> tuple[IntArray, ...]:
    counts = np.diff(tape.event_rows, prepend=0)
    ends = np.zeros(events.size, dtype=bool)
    ends[tape.event_rows[counts > 0] - 1] = True
    time_ns = np.repeat(tape.time_ns, counts)
    return (time_ns, events.kind, events.side, events.price, events.lots, events.order_id, ends)


def _changes(tape: np.recarray, levels: np.recarray, _: np.recarray, __: np.recarray) -> IntArray:
    time_ns = np.repeat(tape.time_ns, np.diff(tape.level_rows, prepend=0))
    return np.column_stack((time_ns, 1 - 2 * levels.side, levels.price, levels.after, levels.before))


def _trades(tape: np.recarray, _: np.recarray, trades: np.recarray, __: np.recarray) -> IntArray:
    time_ns = np.repeat(tape.time_ns, np.diff(tape.trade_rows, prepend=0))
    return np.column_stack((time_ns, 1 - 2 * trades.taker_side, trades.price, trades.lots))


def _published(changes: IntArray, clock: IntArray) -> IntArray:
    """Return rows (time, side, price, size) of what differs at each tick of a clock from the tick before."""
    tick = clock[np.searchsorted(clock, changes[:, 0])]
    order = np.lexsort((np.arange(len(changes)), changes[:, 2], -changes[:, 1], tick))
    rows, tick = changes[order], tick[order]
    is_new = np.append(True, (np.diff(np.column_stack((tick, rows[:, 1], rows[:, 2])), axis=0) != 0).any(axis=1))
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(rows)) - 1
    found = np.column_stack((tick[last], rows[last, 1], rows[last, 2], rows[last, 3]))
    return found[rows[first, 4] != rows[last, 3]]


def _snapshot(book: Standing, time_ns: int) -> IntArray:
    sides = ((1, book.bids), (-1, book.asks))
    parts = [np.column_stack((np.full((len(levels), 1), time_ns), np.full(len(levels), side), levels)) for side, levels in sides]
    return np.concatenate(parts)


def _table(rows: IntArray) -> dict[str, np.ndarray]:
    flags = np.zeros(len(rows), dtype=np.uint8)
    flags[np.append(rows[1:, 0] != rows[:-1, 0], True)] = int(Flag.LAST)
    return {"recv_ns": rows[:, 0].copy(), "event_ns": rows[:, 0].copy(), "side": rows[:, 1].astype(np.int8),
            "price": rows[:, 2].copy(), "size": rows[:, 3].copy(), "flags": flags}  # fmt: skip


def _standing(book: Book) -> Standing:
    bids, asks = (np.column_stack(depth(book, side, book.levels.shape[1]))[::-1].copy() for side in (BID, ASK))
    return Standing(bids, asks)



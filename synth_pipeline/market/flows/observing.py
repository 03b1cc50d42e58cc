"""A run seen as a record of the source would show it: its tape as messages, with or without the ids of orders.

Rates are fitted to messages as the source publishes them, and a run sends messages of that kind; so nothing is put
together here. A source that publishes level changes together shows those between two ticks of its clock at the later
one, or with the trade that comes before that; the distances of its ticks are drawn from the real ones.
"""

from collections.abc import Iterator

import numpy as np

from synth_pipeline.market.book import Book, depth
from synth_pipeline.market.engine import ASK, BID
from synth_pipeline.market.flows import Run
from synth_pipeline.market.flows.sizes import POINTS, quantiles
from synth_pipeline.market.tape import rewind
from synth_pipeline.schema import Scale
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, Messages, Standing

CONTINUOUS = np.zeros(POINTS)
"""Times between publications of a source that shows every change by itself."""
_FEWEST_TOGETHER = 2.0
_CODES = np.array([0, LIMIT, CANCEL, CANCEL, MARKET, 0])
"""Kinds of message by kind of order event."""


def publication_gaps(messages: Messages) -> FloatArray:
    """Return quantiles of the ns between times of changes, shape (POINTS,); `CONTINUOUS` where few share a time."""
    shown = np.isin(messages.kind, (LIMIT, CANCEL)) & (messages.order_id == 0)
    times = np.unique(messages.time_ns[shown])
    if times.size < 2 or shown.sum() < _FEWEST_TOGETHER * times.size:
        return CONTINUOUS
    return quantiles(np.diff(times))


def orders_of(run: Run, until_ns: int, scale: Scale) -> Messages:
    """Run up to a time and return every order's messages, with ids."""
    start_ns, initial = run.now_ns, _standing(run.market.book)
    number, *columns = (np.concatenate(each) for each in zip(*_pieces(run, until_ns), strict=True))
    ends = np.append(number[1:] != number[:-1], True)[: number.size]
    return Messages(
        *columns, ends, np.array([0]), np.array([[start_ns, until_ns]]), (initial,), scale, 0, (),
    )  # fmt: skip


def levels_of(run: Run, until_ns: int, scale: Scale, gaps: FloatArray, *, rng: np.random.Generator) -> Messages:
    """Run up to a time and return the messages without ids; what leaves or joins a price at once is one.

    `gaps` are what `publication_gaps` returned.
    """
    start_ns, initial = run.now_ns, _standing(run.market.book)
    rows = np.stack([np.concatenate(each) for each in zip(*_pieces(run, until_ns), strict=True)], axis=1)
    number, time_ns, kind, side, price, size, _ = _merged(rows).T
    if gaps.any():
        clock = start_ns + np.cumsum(gaps[rng.integers(0, gaps.size, int(2 * (until_ns - start_ns) / gaps.mean()) + 9)])
        ticks = np.unique(np.concatenate((clock.astype(np.int64), time_ns[kind == MARKET])))
        time_ns = np.minimum(ticks[np.searchsorted(ticks, time_ns)], until_ns - 1)
        number = time_ns
    return Messages(
        time_ns, kind.astype(np.int8), side.astype(np.int8), price, size, np.zeros_like(size),
        np.append(number[1:] != number[:-1], True)[: number.size], np.array([0]), np.array([[start_ns, until_ns]]),
        (initial,), scale, 0, ("order ids", "number of orders", "queue position"),
    )  # fmt: skip


def _pieces(run: Run, until_ns: int) -> Iterator[tuple[IntArray, ...]]:
    """Run, and yield number of the event, time, kind, side, price, size and id of messages, piece by piece."""
    done, first = False, 0
    while not done:
        done = run.advance(until_ns)
        tape = run.market.tape[: run.market.clock.events[0]]
        events = run.market.journal.events[: run.market.journal.rows.events[0]]
        counts = np.diff(tape.event_rows, prepend=0)
        number = np.repeat(np.arange(first, first + tape.size), counts)
        time_ns, first = np.repeat(tape.time_ns, counts), first + tape.size
        kind, side = _CODES[events.kind].astype(np.int8), (1 - 2 * events.side).astype(np.int8)
        yield (number, time_ns, kind, side, events.price.copy(), events.lots.copy(), events.order_id.copy())
        rewind(run.market)


def _merged(rows: IntArray) -> IntArray:
    """Add up what one event cancels, and what it places, at one price."""
    same = np.append(False, (rows[1:, [0, 2, 3, 4]] == rows[:-1, [0, 2, 3, 4]]).all(axis=1) & (rows[1:, 2] != MARKET))
    first = np.flatnonzero(~same)
    found = rows[first].copy()
    found[:, 5] = np.add.reduceat(rows[:, 5], first)
    return found


def _standing(book: Book) -> Standing:
    bids, asks = (np.column_stack(depth(book, side, book.levels.shape[1]))[::-1].copy() for side in (BID, ASK))
    return Standing(bids, asks)

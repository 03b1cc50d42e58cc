"""A run seen as a record of the source would show it: its tape as messages, with or without the ids of orders.

Rates are fitted to messages as the source publishes them, and a run sends messages of that kind; so nothing is put
together here. A source that publishes level changes together shows those between two ticks of its clock at the later
one, or with the trade that comes before that; the distances of its ticks are drawn from the real ones.
"""

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
    rows = _rows(run, until_ns)
    return _messages(rows, rows[:, _EVENT], (start_ns, until_ns), initial, scale, ())


def levels_of(run: Run, until_ns: int, scale: Scale, gaps: FloatArray, *, rng: np.random.Generator) -> Messages:
    """Run up to a time and return the messages without ids; what leaves or joins a price at once is one.

    `gaps` are what `publication_gaps` returned.
    """
    start_ns, initial = run.now_ns, _standing(run.market.book)
    rows = _merged(_rows(run, until_ns))
    rows[:, _ID] = 0
    events = rows[:, _EVENT]
    if gaps.any():
        most = int(2 * (until_ns - start_ns) / gaps.mean()) + 9
        clock = start_ns + np.cumsum(gaps[rng.integers(0, gaps.size, most)]).astype(np.int64)
        ticks = np.unique(np.concatenate((clock, rows[rows[:, _KIND] == MARKET, _TIME])))
        rows[:, _TIME] = np.minimum(ticks[np.searchsorted(ticks, rows[:, _TIME])], until_ns - 1)
        events = rows[:, _TIME]
    return _messages(rows, events, (start_ns, until_ns), initial, scale, _HIDDEN)


_EVENT, _TIME, _KIND, _SIDE, _PRICE, _SIZE, _ID = range(7)
"""Columns of rows."""
_HIDDEN = ("order ids", "number of orders", "queue position")


def _messages(
    rows: IntArray,
    events: IntArray,
    span: tuple[int, int],
    initial: Standing,
    scale: Scale,
    unobserved: tuple[str, ...],
) -> Messages:
    return Messages(
        time_ns=rows[:, _TIME].copy(),
        kind=rows[:, _KIND].astype(np.int8),
        side=rows[:, _SIDE].astype(np.int8),
        price=rows[:, _PRICE].copy(),
        size=rows[:, _SIZE].copy(),
        order_id=rows[:, _ID].copy(),
        ends=np.append(events[1:] != events[:-1], True)[: len(rows)],
        opens=np.array([0]),
        spans=np.array([span]),
        initial=(initial,),
        scale=scale,
        depth=0,
        unobserved=unobserved,
    )


def _rows(run: Run, until_ns: int) -> IntArray:
    """Run, and return number of the event, time, kind, side, price, size and id of each message."""
    done, first, pieces = False, 0, []
    while not done:
        done = run.advance(until_ns)
        tape = run.market.tape[: run.market.clock["events"][0]]
        events = run.market.journal.events[: run.market.journal.rows["events"][0]]
        counts = np.diff(tape["event_rows"], prepend=0)
        number, time_ns = np.repeat(np.arange(first, first + tape.size), counts), np.repeat(tape["time_ns"], counts)
        columns = (_CODES[events["kind"]], 1 - 2 * events["side"], events["price"], events["lots"], events["order_id"])
        pieces.append(np.column_stack((number, time_ns, *columns)))
        first += tape.size
        rewind(run.market)
    return np.concatenate(pieces)


def _merged(rows: IntArray) -> IntArray:
    """Add up what one event cancels, and what it places, at one price."""
    key = rows[:, [_EVENT, _KIND, _SIDE, _PRICE]]
    same = (key[1:] == key[:-1]).all(axis=1) & (key[1:, 1] != MARKET)
    first = np.flatnonzero(np.append(True, ~same)[: len(rows)])
    found = rows[first].copy()
    if first.size:
        found[:, _SIZE] = np.add.reduceat(rows[:, _SIZE], first)
    return found


def _standing(book: Book) -> Standing:
    bids, asks = (np.column_stack(depth(book, side, book.levels.shape[1]))[::-1].copy() for side in (BID, ASK))
    return Standing(bids, asks)

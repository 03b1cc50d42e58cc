"""Messages: what was done to the book, one limit order, cancellation or execution each, from any source of ticks.

Level changes and trades (L2), events of orders (L3) and LOBSTER's messages all come to the same form, which order-flow
models are fitted on and simulated ticks are compared in. `docs/order-messages.md` has the rules; in short:

- A stretch is a time without a gap; it has the book at its start, and **its messages lead exactly from that book over
  every book of the store** (over every sound one, where a source shows orders crossing before they trade).
- From level changes: a trade is an execution at its price, of the event whose time it lies in and that lost most there.
  What else left was cancelled, what came was placed; both share the event's time. A trade of more than stood there
  tells of an order that came in between. Trades that the book contradicts are counted as unmatched.
- From orders: an order that comes across the spread takes; what is left of it after its trades is a limit order. Hidden
  executions do not touch the book. A modification is a cancellation and a limit order.
- A level that comes into sight, goes out of it or is not explained by orders is a message of its own kind, `SHOWN`,
  which nobody sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_SECOND, Instrument, Scale
from synth_pipeline.storage import Place
from synth_pipeline.ticks import message_kernels as kernels
from synth_pipeline.ticks import store
from synth_pipeline.ticks.message_kernels import CANCEL, LIMIT, MARKET, SHOWN
from synth_pipeline.ticks.message_writers import (
    Columns,
    LevelWriter,
    OrderWriter,
    Span,
    Standing,
    State,
    Writer,
    merged,
)

__all__ = ["CANCEL", "LIMIT", "MARKET", "SHOWN", "Messages", "Standing", "books", "of_levels", "of_orders", "of_store"]

CHUNK = 65_536
PIECE_NS = 600 * NS_PER_SECOND
"""How much of a store is read at a time."""
_FIELDS = {
    "time_ns": (kernels.TIME, np.int64),
    "kind": (kernels.KIND, np.int8),
    "side": (kernels.SIDE, np.int8),
    "price": (kernels.PRICE, np.int64),
    "size": (kernels.SIZE, np.int64),
    "order_id": (kernels.ORDER_ID, np.int64),
    "ends": (kernels.ENDS, np.bool_),
}
"""Where the columns of messages stand in the rows of a writer."""


@dataclass(frozen=True)
class Messages:
    """Messages in order of time, and the books they begin from."""

    time_ns: np.ndarray
    kind: np.ndarray
    """`LIMIT` adds size, `CANCEL` removes it, `MARKET` is executed; `SHOWN` sets what is seen at the price (0: nothing
    any more) and is no order."""
    side: np.ndarray
    """Of the resting order: 1 bid, -1 ask."""
    price: np.ndarray
    """Ticks."""
    size: np.ndarray
    """Lots."""
    order_id: np.ndarray
    """0 where it is unknown."""
    ends: np.ndarray
    """Whether a message is the last of an event of the source: only then is the book one that was published."""
    opens: np.ndarray
    """First message of each stretch."""
    spans: np.ndarray
    """Shape (stretches, 2): from when to when each stretch was watched, ns."""
    initial: tuple[Standing, ...]
    """The book at the start of each stretch."""
    scale: Scale
    depth: int
    """Levels a side that the source shows; 0 when all."""
    unobserved: tuple[str, ...]
    """What this source cannot tell."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What became of trades, and what only they told of."""

    def __len__(self) -> int:
        return self.time_ns.size

    @property
    def seconds(self) -> float:
        """How long the market was watched."""
        return float((self.spans[:, 1] - self.spans[:, 0]).sum()) / NS_PER_SECOND

    @property
    def stretch(self) -> np.ndarray:
        """The number of each message's stretch."""
        numbers: np.ndarray = np.searchsorted(self.opens, np.arange(len(self)), side="right") - 1
        return numbers

    def slice(self, start_ns: int, end_ns: int) -> Self:
        """Return the messages of [start_ns, end_ns), with the books as they stood then."""
        bounds = [*self.opens[1:].tolist(), len(self)]
        parts = []
        for number, (first, stop) in enumerate(zip(self.opens.tolist(), bounds, strict=True)):
            begin, end = max(int(self.spans[number, 0]), start_ns), min(int(self.spans[number, 1]), end_ns)
            if begin >= end:
                continue
            low, high = (first + np.searchsorted(self.time_ns[first:stop], (begin, end))).tolist()
            # A stretch ends with the message at its last moment.
            high = stop if end == self.spans[number, 1] < end_ns else high
            standing = _after(self.initial[number], self, first, low)
            parts.append((low, high, (begin, end), standing))
        if not parts:
            raise NoDataError(f"no messages from {start_ns} to {end_ns} ns: the stretches are {self.spans.tolist()}")
        return self._of(parts)

    def _of(self, parts: Sequence[tuple[int, int, Span, Standing]]) -> Self:
        rows = np.concatenate([np.arange(low, high) for low, high, _, _ in parts])
        lengths = [high - low for low, high, _, _ in parts]
        columns = {name: getattr(self, name)[rows] for name in _FIELDS}
        return replace(
            self,
            **columns,
            opens=np.cumsum([0, *lengths[:-1]]),
            spans=np.array([span for _, _, span, _ in parts]),
            initial=tuple(standing for *_, standing in parts),
        )

    def split(self, fraction: float) -> tuple[Self, Self]:
        """Return the messages before and after a share of the watched time.

        Raises `InputError` for a fraction that is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise InputError(f"fraction {fraction} does not cut anything: give one between 0 and 1")
        watched = np.concatenate(([0], np.cumsum(self.spans[:, 1] - self.spans[:, 0])))
        wanted = int(fraction * watched[-1])
        number = int(np.searchsorted(watched, wanted, side="right")) - 1
        at = int(self.spans[number, 0]) + wanted - int(watched[number])
        return self.slice(int(self.spans[0, 0]), at), self.slice(at, int(self.spans[-1, 1]) + 1)


def _after(standing: Standing, messages: Messages, first: int, stop: int) -> Standing:
    """Return the book after messages [first, stop) of a stretch."""
    if first == stop:
        return standing
    state = State.of(standing, stop - first)
    rows = slice(first, stop)
    each = (messages.kind[rows], messages.side[rows], messages.price[rows], messages.size[rows])
    kernels.apply_all(*each, state.book, state.counts, state.known)
    return state.standing()


def books(messages: Messages, levels: int, chunk: int = CHUNK) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield, chunk by chunk, which messages and the best levels *before* each of them.

    Arrays have shape (4, messages, levels): bid price, bid size, ask price, ask size, best first, as
    `ticks.book.Replay.ladder`; 0 where a side has fewer levels.
    """
    bounds = [*messages.opens[1:].tolist(), len(messages)]
    for standing, first, stop in zip(messages.initial, messages.opens.tolist(), bounds, strict=True):
        state = State.of(standing, 0)
        for low in range(first, stop, chunk):
            rows = slice(low, min(low + chunk, stop))
            state.make_room(chunk)
            ladder = np.empty((4, rows.stop - low, levels), np.int64)
            each = (messages.kind[rows], messages.side[rows], messages.price[rows], messages.size[rows])
            kernels.replay(*each, state.book, state.counts, state.known, ladder)
            yield rows, ladder


def of_levels(
    levels: Columns,
    trades: Columns,
    gaps: Sequence[Span] = (),
    *,
    span: Span,
    scale: Scale,
    depth: int = 0,
) -> Messages:
    """Return the messages that level changes and trades come to; rows as `schema.BOOK_LEVELS` and `schema.TRADES`.

    `span` is when the market was watched, [start, end) ns; `gaps` are (last known, first known) moments; `depth` is how
    many levels a side the source shows, 0 for all. Raises `NoDataError` when the book is never known.
    """
    writer = LevelWriter(span[0], gaps, depth)
    writer.feed(trades, levels, span[0] - 1, span[1] - 1)
    return _messages(writer, span[1], scale)


def of_orders(
    orders: Columns,
    levels: Columns,
    gaps: Sequence[Span] = (),
    *,
    span: Span,
    scale: Scale,
    depth: int = 0,
) -> Messages:
    """Return the messages that events of orders come to; rows as `schema.ORDERS` and `schema.BOOK_LEVELS`.

    The rest is as of `of_levels`.
    """
    writer = OrderWriter(span[0], gaps, depth)
    writer.feed(orders, levels, span[0] - 1, span[1] - 1)
    return _messages(writer, span[1], scale)


def _messages(writer: Writer, end_ns: int, scale: Scale) -> Messages:
    told = writer.told(end_ns)
    if not told.opens:
        raise NoDataError("nothing was done to the book while it was known: take a longer stretch of ticks")
    columns: dict[str, Any] = {
        name: np.concatenate([rows[:, place].astype(dtype) for rows in told.rows])
        for name, (place, dtype) in _FIELDS.items()
    }
    return Messages(
        **columns,
        opens=np.array(told.opens),
        spans=np.array(told.spans),
        initial=tuple(told.initial),
        scale=scale,
        depth=writer.depth,
        unobserved=writer.unobserved(),
        counts=told.tally,
    )


def of_store(
    data: Place | str, instrument: Instrument | str, start: store.Moment, end: store.Moment, *, home: Path | None = None
) -> Messages:
    """Return the messages of [start, end), from orders where the days have them, else from levels and trades.

    The store is read piece by piece. Raises `NoDataError` where no day has a book, else as `store.read`.
    """
    found = store.days(data, instrument, start, end, home=home)
    if not all(_has(day, "book_levels") for day in found):
        raise NoDataError(f"{instrument} has no book from {start} to {end}: take a recording with book updates")
    has_orders = all(_has(day, "orders") for day in found)
    table, streams = ("orders", {"all", "quotes"}) if has_orders else ("trades", {"all", "book_levels", "trades"})
    watched = _watched(found, store.moment_ns(start), store.moment_ns(end))
    span = watched[0][0], watched[-1][1]
    gaps = [(first, last) for day in found for stream, first, last in day.gaps if stream in streams]
    gaps += [(before[1], after[0]) for before, after in pairwise(watched)]
    depth = max(int(day.metadata["visible_levels"]) for day in found)
    scale = store.common_scale(day.rows("book_levels").scale for day in found)
    writer = (OrderWriter if has_orders else LevelWriter)(span[0], gaps, depth)
    for begin in range(*span, PIECE_NS):
        piece = begin, min(begin + PIECE_NS, span[1])
        window = store.read(data, instrument, "book_levels", *piece, carry_in=begin == span[0], home=home)
        levels = _on(scale, window)
        if window.carried:
            writer.take_over({name: column[: window.carried] for name, column in levels.items()})
        events = _on(scale, store.read(data, instrument, table, *piece, home=home))
        levels = {name: column[window.carried :] for name, column in levels.items()}
        writer.feed(events, levels, piece[0] - 1, piece[1] - 1)
    return _messages(writer, span[1], scale)


def _has(day: store.Day, table: str) -> bool:
    return table in day.manifest.outputs and day.parquet(table).footer.num_rows > 0


def _watched(days: Sequence[store.Day], start_ns: int, end_ns: int) -> list[Span]:
    """Return when the recording ran. Raises `NoDataError` when it never did."""
    spans = merged([span for day in days for span in day.coverage])
    found = [(max(start, start_ns), min(end, end_ns)) for start, end in spans]
    found = [(start, end) for start, end in found if start < end]
    if not found:
        raise NoDataError(f"nothing was recorded from {start_ns} to {end_ns} ns: the recording ran {spans}")
    return found


def _on(scale: Scale, window: store.Window) -> dict[str, np.ndarray]:
    """Return the rows of a window in ticks and lots of another scale."""
    steps = {"price": (window.scale.tick_size, scale.tick_size), "size": (window.scale.lot_size, scale.lot_size)}
    factors = {name: int(own / common) for name, (own, common) in steps.items()}
    return {
        name: column * factors[name] if factors.get(name, 1) > 1 else column for name, column in window.columns.items()
    }

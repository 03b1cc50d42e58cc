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

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np

from synth_pipeline.errors import InputError, NoDataError
from synth_pipeline.schema import NS_PER_SECOND, Flag, Instrument, Scale
from synth_pipeline.storage import Place
from synth_pipeline.ticks import message_kernels as kernels
from synth_pipeline.ticks import store
from synth_pipeline.ticks.message_kernels import CANCEL, LIMIT, MARKET, SHOWN

__all__ = ["CANCEL", "LIMIT", "MARKET", "SHOWN", "Messages", "Standing", "books", "of_levels", "of_orders", "of_store"]

Columns = Mapping[str, np.ndarray]
Span = tuple[int, int]
SLACK_NS = 10_000_000
"""How far the exchange's stamps of a trade and of the book event that holds it may lie apart across an event's end."""
CHUNK = 65_536
PIECE_NS = 600 * NS_PER_SECOND
"""How much of a store is read at a time."""
_LOWEST = -(2**62)
_ADD, _HIDDEN, _HALT = 1, 5, 7
_NAMES = ("time_ns", "kind", "side", "price", "size", "order_id", "ends")


class Standing(NamedTuple):
    """A book as it stands; both sides have shape (levels, 2): price and size, best last."""

    bids: np.ndarray
    asks: np.ndarray


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
        columns = {name: getattr(self, name)[rows] for name in _NAMES}
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
    state = _State.of(standing, stop - first)
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
        state = _State.of(standing, 0)
        for low in range(first, stop, chunk):
            rows = slice(low, min(low + chunk, stop))
            state.make_room(chunk)
            ladder = np.empty((4, rows.stop - low, levels), np.int64)
            each = (messages.kind[rows], messages.side[rows], messages.price[rows], messages.size[rows])
            kernels.replay(*each, state.book, state.counts, state.known, ladder)
            yield rows, ladder


class _State:
    """A book that kernels work on."""

    def __init__(self) -> None:
        self.book, self.counts = np.zeros((2, 0, 2), np.int64), np.zeros(2, np.int64)
        self.known = np.full(2, _LOWEST)

    @classmethod
    def of(cls, standing: Standing, room: int) -> Self:
        """Take a book of which nothing is hidden."""
        state = cls()
        state.counts[:] = len(standing.bids), len(standing.asks)
        state.make_room(room)
        state.book[0, : state.counts[0]] = standing.bids
        state.book[1, : state.counts[1]] = standing.asks * [-1, 1]
        return state

    def make_room(self, rows: int) -> None:
        """Let each of so many rows add a level."""
        needed = int(self.counts.max()) + rows + 1
        if needed > self.book.shape[1]:
            larger = np.zeros((2, needed + needed // 2, 2), np.int64)
            larger[:, : self.book.shape[1]] = self.book
            self.book = larger

    def standing(self) -> Standing:
        """Return the levels that have a size."""
        sides = [side[:count][side[:count, 1] > 0] for side, count in zip(self.book, self.counts.tolist(), strict=True)]
        return Standing(sides[0], sides[1] * [-1, 1])


class _Writer:
    """Takes rows of a source piece by piece and keeps what messages and stretches they come to."""

    def __init__(self, start_ns: int, gaps: Sequence[Span], depth: int) -> None:
        self.state, self.depth = _State(), depth
        self.tally = np.zeros(3, np.int64)
        self._gaps = sorted(gaps)
        self._rows: list[np.ndarray] = []
        self._written = 0
        self._opens: list[int] = []
        self._spans: list[Span] = []
        self._initial: list[Standing] = []
        self._open: tuple[int, int, Standing] | None = (start_ns, 0, Standing(*np.zeros((2, 0, 2), np.int64)))

    def walk(self, start_ns: int, end_ns: int, full_books: np.ndarray) -> None:
        """Take what was received in (start_ns, end_ns]; the book is not told of in gaps and where it comes whole."""
        silences = [(max(start, start_ns), min(end, end_ns)) for start, end in self._gaps]
        silences += [(int(time) - 1, int(time)) for time in full_books]
        for begin, end in _merged([(begin, end) for begin, end in silences if begin < end]):
            self._tell(start_ns, begin)
            self._close(begin)
            self.pass_over(begin, end)
            self._open = (end, self._written, self.state.standing())
            start_ns = end
        self._tell(start_ns, end_ns)

    def _tell(self, start_ns: int, end_ns: int) -> None:
        rows = self.tell(start_ns, end_ns)
        self._rows.append(rows)
        self._written += len(rows)

    def tell(self, start_ns: int, end_ns: int) -> np.ndarray:
        """Return the messages of (start_ns, end_ns]."""
        raise NotImplementedError

    def pass_over(self, start_ns: int, end_ns: int) -> None:
        """Bring the book from one time to another without telling how."""
        raise NotImplementedError

    def _close(self, end_ns: int) -> None:
        if self._open is not None and self._written > self._open[1]:
            start_ns, first, standing = self._open
            self._opens.append(first)
            self._spans.append((start_ns, end_ns))
            self._initial.append(standing)
        self._open = None

    def messages(self, end_ns: int, scale: Scale, unobserved: tuple[str, ...]) -> Messages:
        """Return all messages. Raises `NoDataError` when there is none."""
        self._close(end_ns)
        if not self._opens:
            raise NoDataError("nothing was done to the book while it was known: take a longer stretch of ticks")
        rows = np.concatenate(self._rows)
        kind, side = rows[:, kernels.KIND].astype(np.int8), rows[:, kernels.SIDE].astype(np.int8)
        names = ("executions", "unmatched_trades", "inferred_orders")
        return Messages(
            rows[:, kernels.TIME].copy(), kind, side, rows[:, kernels.PRICE].copy(), rows[:, kernels.SIZE].copy(),
            rows[:, kernels.ORDER_ID].copy(), rows[:, kernels.ENDS] > 0,
            np.array(self._opens), np.array(self._spans), tuple(self._initial), scale, self.depth, unobserved,
            Counter(dict(zip(names, self.tally.tolist(), strict=True))),
        )  # fmt: skip


def _merged(spans: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


class _LevelWriter(_Writer):
    """Level changes and trades."""

    def __init__(self, start_ns: int, gaps: Sequence[Span], depth: int) -> None:
        super().__init__(start_ns, gaps, depth)
        self.state.known[:] = _LOWEST if depth else -_LOWEST
        self._levels: dict[str, np.ndarray] = {}
        self._trades = np.zeros((0, 5), np.int64)
        self._last = (start_ns, _LOWEST)
        """Receipt and clock of the last event."""

    def feed(self, levels: Columns, trades: Columns, start_ns: int, end_ns: int) -> None:
        """Take the rows of (start_ns, end_ns]."""
        self._levels = dict(levels)
        self.state.make_room(levels["flags"].size + trades["flags"].size)
        # The exchange's clock stamps both streams; where one lacks it, receipt has to do.
        is_stamped = min(levels["event_ns"].min(initial=1), trades["event_ns"].min(initial=1)) > 0
        self._clock = np.maximum.accumulate(levels["event_ns" if is_stamped else "recv_ns"])
        off_market = (trades["flags"] & Flag.OFF_MARKET) > 0
        names = ("event_ns" if is_stamped else "recv_ns", "side", "price", "size", "recv_ns")
        found = np.stack([trades[name].astype(np.int64) for name in names], axis=1)[~off_market]
        found[:, 1] *= -1
        pool = np.concatenate((self._trades, found))
        self._trades = pool[np.argsort(pool[:, 0], kind="stable")]
        full = (levels["flags"] & Flag.SNAPSHOT) > 0
        self.walk(start_ns, end_ns, np.unique(levels["recv_ns"][full]))

    def _slice(self, start_ns: int, end_ns: int) -> slice:
        return slice(*np.searchsorted(self._levels["recv_ns"], (start_ns, end_ns), side="right").tolist())

    def tell(self, start_ns: int, end_ns: int) -> np.ndarray:
        """Return the messages of whole events."""
        rows = self._slice(start_ns, end_ns)
        side, price, size, flags, times = (
            self._levels[name][rows] for name in ("side", "price", "size", "flags", "recv_ns")
        )
        stops = np.flatnonzero(flags & Flag.LAST) + 1
        if not stops.size:
            return np.zeros((0, 7), np.int64)
        first, event_ns, clock = np.append(0, stops), times[stops - 1], self._clock[rows][stops - 1]
        state = self.state
        scratch = state.copy()
        before = kernels.sizes_before(side, price, size, scratch.book, scratch.counts, scratch.known)
        trades = self._taken(int(clock[-1]))
        drop = np.maximum(before - size, 0)
        event = kernels.assign(trades, clock, first, side, price, drop, SLACK_NS)
        order = np.argsort(event, kind="stable")
        trades, event = trades[order], event[order]
        earliest = np.append(max(self._last[0], start_ns), event_ns[:-1])[event]
        trade_ns = np.clip(trades[:, 4], earliest, event_ns[event])
        trade_ns = np.maximum.accumulate(trade_ns)
        trade_first = np.searchsorted(event, np.arange(stops.size + 1))
        self._last = (int(event_ns[-1]), int(clock[-1]))
        return kernels.of_changes(
            event_ns, first, side, price, size, before, trades, trade_ns, trade_first, self.depth,
            state.book, state.counts, state.known, self.tally,
        )  # fmt: skip

    def _taken(self, until: int) -> np.ndarray:
        """Take the trades since the last event out of the pool."""
        since, stop = np.searchsorted(self._trades[:, 0], (self._last[1], until), side="right").tolist()
        taken, self._trades = self._trades[since:stop], self._trades[stop:]
        return taken

    def pass_over(self, start_ns: int, end_ns: int) -> None:
        """Apply level changes; a full book takes the place of the one before."""
        rows, state = self._slice(start_ns, end_ns), self.state
        columns = [self._levels[name][rows] for name in ("side", "price", "size")]
        full = (self._levels["flags"][rows] & Flag.SNAPSHOT) > 0
        starts = np.flatnonzero(full & ~np.append(False, full[:-1]))
        ends = np.flatnonzero(full & ~np.append(full[1:], False)) + 1
        for begin, end in _alternating(starts, ends, full.size):
            is_full = begin < full.size and bool(full[begin])
            if is_full:
                state.counts[:] = 0
                state.known[:] = _LOWEST
            kernels.sizes_before(*(column[begin:end] for column in columns), state.book, state.counts, state.known)
            if is_full and not self.depth:
                # Beyond the last level that it shows, a full book says nothing.
                state.known[:] = [side[0, 0] if count else _LOWEST for side, count in zip(state.book, state.counts)]
        if full.size:
            self._last = (end_ns, int(self._clock[rows][-1]))


def _alternating(starts: np.ndarray, ends: np.ndarray, size: int) -> list[Span]:
    """Return the stretches of full books and those between."""
    edges = sorted({0, size, *starts.tolist(), *ends.tolist()})
    return [(begin, end) for begin, end in zip(edges, edges[1:], strict=False) if begin < end]


class _OrderWriter(_Writer):
    """Events of orders, and the levels that the store has of them."""

    def __init__(self, start_ns: int, gaps: Sequence[Span], depth: int) -> None:
        super().__init__(start_ns, gaps, depth)
        self._takers, self._taker_count = np.zeros((64, 4), np.int64), np.zeros(1, np.int64)
        self.hidden = 0

    def feed(self, orders: Columns, levels: Columns, start_ns: int, end_ns: int) -> None:
        """Take the rows of (start_ns, end_ns]."""
        self.state.make_room(2 * orders["flags"].size + levels["flags"].size)
        names = ("recv_ns", "seq", "kind", "side", "price", "size", "order_id")
        self._orders = np.stack([orders[name].astype(np.int64) for name in names], axis=1)
        names = ("recv_ns", "seq", "side", "price", "size", "flags")
        self._levels = np.stack([levels[name].astype(np.int64) for name in names], axis=1)
        is_full, is_halt = (self._levels[:, 5] & Flag.SNAPSHOT) > 0, self._orders[:, 2] == _HALT
        cuts = np.concatenate((self._levels[is_full, 0], self._orders[is_halt, 0]))
        self.walk(start_ns, end_ns, np.unique(cuts))

    def tell(self, start_ns: int, end_ns: int) -> np.ndarray:
        """Return the messages of orders and levels, event by event."""
        orders, levels = (
            table[slice(*np.searchsorted(table[:, 0], (start_ns, end_ns), side="right").tolist())]
            for table in (self._orders, self._levels)
        )
        self.hidden += int((orders[:, 2] == _HIDDEN).sum())
        if (full := np.flatnonzero(levels[:, 5] & Flag.SNAPSHOT)).size:
            levels = levels[full[0] :]
            self.state.counts[:] = self._taker_count[:] = 0
            orders = orders[:0]
        self._make_room_for_takers(len(orders))
        state = self.state
        return kernels.of_orders(
            orders, levels[:, :5].copy(), self._takers, self._taker_count,
            state.book, state.counts, state.known, self.tally,
        )  # fmt: skip

    def _make_room_for_takers(self, orders: int) -> None:
        needed = int(self._taker_count[0]) + orders
        if needed > len(self._takers):
            self._takers = np.concatenate((self._takers, np.zeros((needed, 4), np.int64)))

    def pass_over(self, start_ns: int, end_ns: int) -> None:
        """Let the book go on unheard."""
        tally = self.tally.copy()
        self.tell(start_ns, end_ns)
        self.tally[:] = tally

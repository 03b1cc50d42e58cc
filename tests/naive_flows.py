"""Order flows, slow and obvious: the book of a replay, and what the fits count along it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from synth_pipeline.ticks.messages import CANCEL, LIMIT, SHOWN, Messages, Standing


@dataclass
class NaiveBook:
    """Lots and orders by (side, price), side 1 bid and -1 ask; orders are inferred."""

    unit: float
    lots: dict[tuple[int, int], int] = field(default_factory=dict)
    orders: dict[tuple[int, int], int] = field(default_factory=dict)

    def show(self, side: int, price: int, lots: int) -> None:
        self.lots[side, price] = lots
        self.orders[side, price] = min(max(int(lots / self.unit + 0.5), 1), 100, lots) if lots > 0 else 0

    def best(self, side: int) -> int | None:
        prices = [price for (each, price), lots in self.lots.items() if each == side and lots > 0]
        return (max(prices) if side == 1 else min(prices)) if prices else None

    def change(self, kind: int, side: int, price: int, size: int) -> None:
        if kind == SHOWN:
            return self.show(side, price, size)
        before, orders = self.lots.get((side, price), 0), self.orders.get((side, price), 0)
        left = before + (size if kind == LIMIT else -size)
        if kind == LIMIT:
            orders += 1
        elif kind == CANCEL:
            orders -= 1
        elif before > 0:
            orders = int(orders * max(left, 0) / before + 0.5)
        self.lots[side, price] = left
        self.orders[side, price] = max(orders, 1) if left > 0 else 0
        return None


def states(messages: Messages, unit: float) -> Iterator[tuple[NaiveBook, int, float]]:
    """Yield the book before every message, the message's row and the seconds since the one before."""
    bounds = [*messages.opens.tolist(), len(messages)]
    for number, standing in enumerate(messages.initial):
        book = NaiveBook(unit)
        for side, levels in ((1, standing.bids), (-1, standing.asks)):
            for price, lots in levels.tolist():
                book.show(side, price, lots)
        before = int(messages.spans[number, 0])
        for row in range(bounds[number], bounds[number + 1]):
            now = int(messages.time_ns[row])
            yield book, row, (now - before) / 1e9
            columns = (messages.kind, messages.side, messages.price, messages.size)
            book.change(*(int(column[row]) for column in columns))
            before = now
        yield book, -1, (int(messages.spans[number, 1]) - before) / 1e9


def tally(messages: Messages, unit: float, edges: list[int]) -> dict[str, np.ndarray]:
    """Count limit orders and cancellations, ticks and orders in time, by class of distance from the other best."""
    found = {name: np.zeros(len(edges) - 1) for name in ("limits", "cancels", "tick_seconds", "order_seconds")}
    for book, row, seconds in states(messages, unit):
        best = {side: book.best(side) for side in (1, -1)}
        for side in (1, -1):
            other = best[-side]
            if best[1] is None or best[-1] is None or other is None:
                continue
            for which, (low, high) in enumerate(pairwise(edges)):
                found["tick_seconds"][which] += seconds * (high - low)
                prices = [other - side * distance for distance in range(low, high)]
                found["order_seconds"][which] += seconds * sum(book.orders.get((side, price), 0) for price in prices)
        if row < 0 or messages.kind[row] not in (LIMIT, CANCEL):
            continue
        side = int(messages.side[row])
        if (other := best[-side]) is not None:
            distance = max((other - int(messages.price[row])) * side, 1)
            if distance < edges[-1]:
                name = "limits" if messages.kind[row] == LIMIT else "cancels"
                found[name][np.searchsorted(edges, distance, side="right") - 1] += 1
    return found


def best_seconds(messages: Messages) -> dict[tuple[int, int, int], float]:
    """Return for how long (lots at the best, lots at the other best, spread) stood, both sides together."""
    found: dict[tuple[int, int, int], float] = defaultdict(float)
    for book, _, seconds in states(messages, 1.0):
        bid, ask = book.best(1), book.best(-1)
        if bid is not None and ask is not None and seconds > 0:
            lots = book.lots[1, bid], book.lots[-1, ask]
            found[lots[0], lots[1], ask - bid] += seconds
            found[lots[1], lots[0], ask - bid] += seconds
    return found


def positions(messages: Messages) -> list[float]:
    """Return the share of lots ahead of the middle of each cancelled order, among at least two."""
    queues: dict[tuple[int, int], list[list[int]]] = defaultdict(list)
    found = []
    for kind, side, price, size, order_id in zip(
        messages.kind.tolist(), messages.side.tolist(), messages.price.tolist(), messages.size.tolist(),
        messages.order_id.tolist(), strict=True,
    ):  # fmt: skip
        queue = queues[side, price]
        if kind == LIMIT:
            queue.append([order_id, size])
            continue
        for place, order in enumerate(queue):
            if order[0] == order_id:
                if kind == CANCEL and len(queue) > 1:
                    ahead = sum(lots for _, lots in queue[:place])
                    found.append((ahead + order[1] / 2) / sum(lots for _, lots in queue))
                order[1] -= size
                queues[side, price] = [each for each in queue if each[1] > 0]
                break
    return found


def top_only(messages: Messages) -> Messages:
    """Return what a source of one level a side would have told of messages of one stretch."""
    rows: list[tuple[int, int, int, int, int, int]] = []
    shown: dict[int, tuple[int, int] | None] = {1: None, -1: None}
    first: list[tuple[int, int]] = []
    for book, row, _ in states(messages, 1.0):
        tops = {side: book.best(side) for side in (1, -1)}
        if not first:
            first = [(top, book.lots[side, top]) for side, top in tops.items() if top is not None]
            shown = {1: first[0], -1: first[1]}
        if row < 0:
            continue
        kind, side, price, size = (
            int(column[row]) for column in (messages.kind, messages.side, messages.price, messages.size)
        )
        time, order_id, before = int(messages.time_ns[row]), int(messages.order_id[row]), shown[side]
        after = NaiveBook(1.0, dict(book.lots), dict(book.orders))
        after.change(kind, side, price, size)
        top = after.best(side)
        assert before is not None
        assert top is not None
        if price == before[0] or (kind == LIMIT and (price - before[0]) * side > 0):
            rows.append((time, kind, side, price, size, order_id))
        if top != before[0]:
            rows.append((time, SHOWN, side, before[0], 0, 0)) if kind == LIMIT else None
            rows.append((time, SHOWN, side, top, after.lots[side, top], 0)) if kind != LIMIT else None
        shown[side] = (top, after.lots[side, top])
    columns = np.array(rows, dtype=np.int64)
    opening = Standing(*(np.array([each]) for each in first))
    return replace(
        messages, time_ns=columns[:, 0], kind=columns[:, 1].astype(np.int8), side=columns[:, 2].astype(np.int8),
        price=columns[:, 3], size=columns[:, 4], order_id=columns[:, 5], ends=np.ones(len(columns), dtype=bool),
        initial=(opening,), depth=1, unobserved=("levels beyond 1",),
    )  # fmt: skip

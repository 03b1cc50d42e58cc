"""Days of ticks put into a store by hand, and order-book days made at random."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import schema
from synth_pipeline.lineage import commit
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import NS_PER_DAY, Flag, Instrument, Scale, day_start_ns
from synth_pipeline.ticks import parquet, rowgroups, store

Columns = dict[str, np.ndarray]
Gap = tuple[str, int, int]


def put_day(
    home: Path,
    instrument: Instrument,
    day: date,
    tables: Mapping[str, Columns],
    scale: Scale,
    *,
    coverage: Sequence[tuple[int, int]] = (),
    gaps: Sequence[Gap] = (),
    visible_levels: int = 0,
    **facts: Any,
) -> None:
    """Commit a day; what is not given of trades, quotes, levels is empty, and it was recorded all day."""
    start = day_start_ns(day)
    covered = [*coverage] or [(start, start + NS_PER_DAY)]
    metadata = {"visible_levels": str(visible_levels), "coverage": json.dumps(covered)}
    whole = {name: schema.TICK_TABLES[name].empty() for name in ("trades", "quotes", "book_levels")} | dict(tables)
    whole["gaps"] = {
        "start_ns": np.array([gap[1] for gap in gaps], np.int64),
        "end_ns": np.array([gap[2] for gap in gaps], np.int64),
        "stream": np.array([gap[0] for gap in gaps], dtype=object),
        "reason": np.array(["test"] * len(gaps), dtype=object),
        "missing": np.full(len(gaps), -1),
    }
    folder = home / "ticks" / instrument.venue / instrument.symbol / day.isoformat()
    draft = Manifest(stage="ticks", key=f"{instrument}/{day}", inputs={}, code_version="", config={})
    with commit.staging(folder) as place:
        files = {name: place / f"{name}.parquet" for name in whole}
        for name, columns in whole.items():
            parquet.write_table(files[name], schema.TICK_TABLES[name], columns, scale, **metadata)
        groups = {name: rowgroups.described(files[name]) for name in store.TABLES if name in files}
        commit.commit(folder, draft, files, groups=groups, facts=facts)


def rows_of(table: schema.Table, rows: Sequence[Mapping[str, int]]) -> Columns:
    """Return rows said by column; what is left out is 0, and `event_ns` is `recv_ns`."""
    return {
        column.name: np.array(
            [row.get(column.name, row["recv_ns"] if column.name == "event_ns" else 0) for row in rows], column.dtype
        )
        for column in table.columns
    }


def order_day(rng: np.random.Generator, times: Sequence[int]) -> dict[str, Columns]:
    """Return `orders`, `book_levels` and `trades` of a record at each time; the book is never crossed."""
    day = _OrderDay()
    for number, at in enumerate(times):
        day.begin(number, at)
        side, action = int(rng.choice([-1, 1])), int(rng.integers(0, 10))
        if action < 5 or day.best(side) is None:
            day.place(side, 1000 - side * int(rng.integers(-3, 7)), int(rng.integers(1, 90)))
        elif action == 5:
            day.tell(0, 5, side, abs(day.best(side) or 0), int(rng.integers(1, 9)))
        else:
            mine = sorted((key for key, order in day.live.items() if order[0] == side), key=day.rank)
            for key in mine[:3] if action >= 8 else [int(rng.choice(mine))]:
                day.take(key, int(rng.integers(1, day.live[key][2] + 1)), trades=action >= 8)
    forms = {"orders": schema.ORDERS, "book_levels": schema.BOOK_LEVELS, "trades": schema.TRADES}
    return {name: rows_of(form, day.rows[name]) for name, form in forms.items()}


class _OrderDay:
    """Orders by id as [side, price, size]; of a record's changes of a level only the last is told."""

    def __init__(self) -> None:
        self.live: dict[int, list[int]] = {}
        self.rows: dict[str, list[dict[str, int]]] = {"orders": [], "book_levels": [], "trades": []}

    def begin(self, number: int, at: int) -> None:
        self._shared = {"recv_ns": at, "seq": number, "flags": int(Flag.LAST)}

    def best(self, side: int) -> int | None:
        return max((price * side for own, price, _ in self.live.values() if own == side), default=None)

    def rank(self, key: int) -> tuple[int, int]:
        side, price, _ = self.live[key]
        return -price * side, key

    def place(self, side: int, price: int, size: int) -> None:
        """Place an order at a price or, where that would cross, just behind the other side."""
        other = self.best(-side)
        price = price if other is None else min(price * side, -other - 1) * side
        key = self._shared["seq"] + 1
        self.live[key] = [side, price, size]
        self.tell(key, 1, side, price, size)

    def take(self, key: int, size: int, *, trades: bool) -> None:
        side, price, left = self.live[key]
        self.live[key][2] -= size
        if size == left:
            del self.live[key]
        self.tell(key, 4 if trades else (3 if size == left else 2), side, price, size)

    def tell(self, key: int, kind: int, side: int, price: int, size: int) -> None:
        row, levels = self._shared | {"price": price, "side": side}, self.rows["book_levels"]
        self.rows["orders"].append(row | {"order_id": key, "kind": kind, "size": size})
        if kind in (4, 5):
            self.rows["trades"].append(row | {"trade_id": len(self.rows["orders"]), "size": size, "side": -side})
        if kind != 5:
            if levels and (levels[-1]["seq"], levels[-1]["price"]) == (row["seq"], price):
                levels.pop()
            left = sum(order[2] for order in self.live.values() if order[:2] == [side, price])
            levels.append(row | {"update_id": row["seq"] + 1, "size": left})

"""Blocks of fields to pieces of one table: what the delimited formats have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synth_pipeline.archives.drafts import Fault, Piece
from synth_pipeline.archives.fields import Decimals, Fields

BUY_SELL = ("buy", "sell", "b", "s", "bid", "ask", "1", "-1")
"""Words for the two sides, the buying one first of each pair."""


def sides(fields: Fields, column: int, words: tuple[str, ...], unknown: tuple[str, ...] = ()) -> np.ndarray:
    """Return 1 or -1 for words that stand in pairs, 0 for those that say unknown, 2 for anything else."""
    found = fields.one_of(column, (*words, *unknown))
    return np.where(found < 0, 2, np.where(found >= len(words), 0, 1 - 2 * (found % 2))).astype(np.int8)


def ids(fields: Fields, column: int | None, first: int) -> np.ndarray:
    """Return the ids of a column, the row's number from 1 where there is none or it is no whole number."""
    numbers = first + 1 + np.arange(len(fields.start))
    if column is None:
        return numbers
    values, whole = fields.integers(column)
    return np.where(whole, values, numbers)


def optional(fields: Fields, column: int) -> Decimals:
    """Read a column as exact numbers; an empty field is 0, which stands for nothing there."""
    numbers = fields.decimals(column)
    return numbers._replace(valid=numbers.valid | (fields.start[:, column] == fields.end[:, column]))


def trades(fields: Fields, price: int, size: int, side: np.ndarray, trade_ids: np.ndarray) -> Piece:
    """Return one trade a row."""
    rows = len(fields.start)
    columns = {"trade_id": trade_ids, "side": np.where(side == 2, 0, side), "flags": np.zeros(rows, np.uint8)}
    prices, sizes = {"price": fields.decimals(price)}, {"size": fields.decimals(size)}
    return Piece("trades", np.arange(rows), columns, prices, sizes, _side_faults(side))


def quotes(fields: Fields, bid: tuple[int, int], ask: tuple[int, int], update_ids: np.ndarray) -> Piece:
    """Return one top of book a row; columns of price and size by side."""
    rows = len(fields.start)
    columns = {"update_id": update_ids, "flags": np.zeros(rows, np.uint8)}
    prices = {"bid_price": optional(fields, bid[0]), "ask_price": optional(fields, ask[0])}
    sizes = {"bid_size": optional(fields, bid[1]), "ask_size": optional(fields, ask[1])}
    return Piece("quotes", np.arange(rows), columns, prices, sizes, np.zeros(rows, np.uint8))


def levels(
    fields: Fields, price: int, size: int, side: np.ndarray, flags: np.ndarray, event: np.ndarray, first: int
) -> Piece:
    """Return one level a row; rows of one `event` belong together."""
    rows = len(fields.start)
    numbers, marks = np.arange(first + 1, first + 1 + rows), flags.astype(np.uint8)
    columns = {"update_id": numbers, "side": side, "flags": marks, "event": event}
    prices, sizes = {"price": fields.decimals(price)}, {"size": fields.decimals(size)}
    faults = np.where(np.abs(side) == 1, 0, Fault.UNKNOWN_SIDE).astype(np.uint8)
    return Piece("book_levels", np.arange(rows), columns, prices, sizes, faults)


def windows(fields: Fields, asks: Sequence[tuple[int, int]], bids: Sequence[tuple[int, int]], first: int) -> Piece:
    """Return one visible window a row; columns of price and size by level, best first."""
    rows = len(fields.start)
    numbers = np.arange(first + 1, first + 1 + rows)
    columns: dict[str, np.ndarray] = {"update_id": numbers, "event": numbers, "flags": np.zeros(rows, np.uint8)}
    prices, sizes = (
        {name: _stacked([[optional(fields, pair[part]) for pair in level] for level in zip(asks, bids, strict=True)])}
        for part, name in enumerate(("price", "size"))
    )
    return Piece("books", np.arange(rows), columns, prices, sizes, np.zeros(rows, np.uint8))


def _stacked(parts: Sequence[Sequence[Decimals]]) -> Decimals:
    """Return (rows, levels, sides) out of levels of sides of columns."""
    stacks = (
        np.stack([np.stack([getattr(side, name) for side in level], axis=1) for level in parts], axis=1)
        for name in Decimals._fields
    )
    return Decimals(*stacks)


def _side_faults(side: np.ndarray) -> np.ndarray:
    return np.where(side == 2, Fault.UNKNOWN_SIDE, 0).astype(np.uint8)

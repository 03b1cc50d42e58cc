"""How far a block of records is in order: the venues' documented sequence rules, over columns.

A stretch is in order while every update follows the one before it, quote ids rise, trade ids count up by one, and while
nothing is known of the book, updates only wait. About such a stretch the `Assembler`, which states the rules, has
nothing to say but that its rows are taken; at the first record that is otherwise it is asked.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from synth_pipeline.ticks.assemble import IMPLAUSIBLE_JUMP, Known
from synth_pipeline.ticks.scan_kernels import CODE, DEPTH, FIRST_ID, ID, IGNORED, NOTE, OTHER, PREVIOUS_ID, QUOTE, TRADE
from synth_pipeline.venues import SequenceRule
from synth_pipeline.venues.binance import FuturesRule, SpotRule

WAITING, TAKEN_BY_HAND = NOTE + 1, NOTE + 2
"""Codes besides those of `scan`: an update that waits for a snapshot; a record that went to the assembler."""
_SPOT, _FUTURES = 1, 2
_RULES: dict[type[SequenceRule], int] = {SpotRule: _SPOT, FuturesRule: _FUTURES}


def rule_number(rule: SequenceRule) -> int:
    """Return the number under which this file knows a rule, 0 for one that it does not."""
    return _RULES.get(type(rule), 0)


def in_order(records: np.ndarray, at: int, rule: int, known: Known) -> tuple[int, Known, int, int, int]:
    """Go on from record `at` of `scan.Block.records` while they are in order.

    Returns where that ends, what is known there, how many book events were applied, and the last record that was one
    and that was a trade, -1 for none. Updates that wait are given the code WAITING.
    """
    reached, book, bridging, quote, trade, applied, last_book, last_trade = _in_order(records, at, rule, *known)
    return reached, Known(book, bool(bridging), known.id_before_gap, quote, trade), applied, last_book, last_trade


@njit(cache=True, nogil=True)
def _in_order(
    records: np.ndarray,
    at: int,
    rule: int,
    book_id: int,
    bridging: bool,
    id_before_gap: int,
    quote_id: int,
    trade_id: int,
) -> tuple[int, int, bool, int, int, int, int, int]:
    applied, last_book, last_trade = 0, -1, -1
    while at < len(records):
        code, new = records[at, CODE], records[at, ID]
        if code == QUOTE:
            if quote_id >= 0 and not 0 < new - quote_id < IMPLAUSIBLE_JUMP:
                break
            quote_id = new
        elif code == TRADE:
            if trade_id >= 0 and new != trade_id + 1:
                break
            trade_id, last_trade = new, at
        elif code == DEPTH:
            last = book_id if book_id >= 0 else id_before_gap
            follows = last >= 0 and _follows(records[at], rule, last, bridging)
            if rule == 0 or follows != (book_id >= 0) or (follows and new - last >= IMPLAUSIBLE_JUMP):
                break
            if follows:
                book_id, bridging, last_book, applied = new, False, at, applied + 1
            else:
                records[at, CODE] = WAITING
        elif code != IGNORED and code != OTHER:
            break
        at += 1
    return at, book_id, bridging, quote_id, trade_id, applied, last_book, last_trade


@njit(cache=True, nogil=True)
def _follows(update: np.ndarray, rule: int, last_id: int, bridging: bool) -> bool:
    """Whether the rule answers IN_ORDER; see `venues.binance` for what each says and why."""
    if rule == _SPOT:
        return bool(update[ID] > last_id and update[FIRST_ID] <= last_id + 1)
    if rule == _FUTURES:
        previous = update[FIRST_ID] if update[PREVIOUS_ID] < 0 else update[PREVIOUS_ID]
        if bridging:
            return bool(update[ID] >= last_id and min(previous, update[FIRST_ID]) <= last_id)
        return bool(update[ID] > last_id and previous == last_id)
    return False

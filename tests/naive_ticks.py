"""Slow, obvious twins of the kernels that take captures in: what they compute, said plainly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from synth_pipeline.errors import BadMessage
from synth_pipeline.schema import Flag
from synth_pipeline.ticks.assemble import IMPLAUSIBLE_JUMP
from synth_pipeline.venues import BookUpdate, Head, Ignored, Quote, SequenceRule, Trade, Venue, Verdict

Read = tuple[Any, ...]


def units(text: str) -> int | None:
    """A plain decimal in units of 1e-8; None for anything else."""
    if not text or not set(text) <= set("0123456789.") or text.count(".") > 1 or text == ".":
        return None
    value = Decimal(text).scaleb(8)
    return int(value) if value == value.to_integral_value() and value < 2**63 else None


def read(venue: Venue, symbol: str, payload: bytes, received_ns: int) -> Read | None:
    """What the plain parser makes of one payload, in the words of the scanner; None where it refuses the payload."""
    try:
        (message,) = venue.parse(payload, received_ns)
    except BadMessage:
        return None
    match message:
        case Ignored():
            return ("ignored", message.kind)
        case _ if message.symbol != symbol:
            return ("other", message.symbol)
        case Trade():
            numbers = (units(message.price), units(message.size))
            return ("trade", message.event_ns, message.trade_id, *numbers, message.side, int(message.off_market))
        case Quote():
            texts = (message.bid_price, message.bid_size, message.ask_price, message.ask_size)
            return ("quote", message.event_ns, message.update_id, *map(units, texts))
        case BookUpdate():
            previous = -1 if message.previous_id is None else message.previous_id
            levels = [(units(price), units(size)) for side in (message.bids, message.asks) for price, size in side]
            counts = (len(message.bids), len(message.asks))
            return ("depth", message.event_ns, message.last_id, message.first_id, previous, *counts, levels)


def coarsest_step(values: Iterable[int], majority: float) -> int:
    """The coarsest step of 1, 2 or 5 × 10^k on which this share of the positive values lies."""
    positive = [value for value in values if value > 0]
    for step in (leading * 10**power for power in range(14, -1, -1) for leading in (5, 2, 1)):
        if positive and sum(value % step == 0 for value in positive) >= majority * len(positive):
            return step
    return 1


def in_order(
    heads: Sequence[Head], rule: SequenceRule, id_before_gap: int | None, quote: int | None, trade: int | None
) -> tuple[int, list[int]]:
    """How many of the events are in order, and which of them wait; `rule` is advanced."""
    waiting = []
    for number, head in enumerate(heads):
        if head.stream == "quotes":
            if quote is not None and (head.last_id <= quote or head.last_id - quote >= IMPLAUSIBLE_JUMP):
                return number, waiting
            quote = head.last_id
        elif head.stream == "trades":
            if trade is not None and head.last_id != trade + 1:
                return number, waiting
            trade = head.last_id
        elif rule.last_id is None:
            if id_before_gap is not None and rule.judge(head, id_before_gap, bridging=False) is Verdict.IN_ORDER:
                return number, waiting
            waiting.append(number)
        else:
            far = head.last_id - rule.last_id >= IMPLAUSIBLE_JUMP
            if far or rule.judge(head, rule.last_id, rule.bridging) is not Verdict.IN_ORDER:
                return number, waiting
            rule.check(head)
    return len(heads), waiting


def times(stamps: Sequence[tuple[int, int]], step_ns: int, settled_ns: int, silence_ns: int) -> list[tuple[int, int]]:
    """`recv_ns` and flags of records with these wall and monotonic stamps."""
    found: list[tuple[int, int]] = []
    latest, ticks_before, stepped_at, ahead = 0, 0, None, 0
    for wall, ticks in stamps:
        comparable = ticks > 0 and ticks_before > 0 and ticks >= ticks_before
        expected = latest + ticks - ticks_before
        if comparable and wall > expected + step_ns:
            if stepped_at is None or abs(wall - ticks - ahead) > step_ns:
                stepped_at, ahead = ticks, wall - ticks
                time = expected
            elif ticks - stepped_at >= settled_ns:
                stepped_at, time = None, wall
            else:
                time = expected
        else:
            stepped_at = None
            time = expected if comparable and latest - wall > silence_ns else max(wall, latest)
        found.append((time, int(Flag.BAD_CLOCK) if time != wall else 0))
        latest, ticks_before = time, ticks
    return found

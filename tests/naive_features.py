"""The grid features again, slow and obvious: one bucket after another, one moment after another.

Times must be small and positive, since lost time is kept as the set of its moments. Numbers are exact fractions for as
long as they can be.
"""

import math
from fractions import Fraction
from itertools import pairwise

from synth_pipeline.schema import Flag, GridFlag

NAN = math.nan
TRADE_COLUMNS = ("vwap", "volume", "signed_volume", "trade_count")


def grid_features(quotes, trades, depth, gaps, coverage, scale, *, step_ns, start_ns, end_ns):
    """Return a list of rows as `synth_pipeline.features.grid.grid_features` promises its columns."""
    covered = {moment for start, end in coverage for moment in range(start, end)}
    if not covered:
        return []
    horizon = range(-step_ns, max(*covered, end_ns) + 3 * step_ns)
    lost = {stream: lost_moments(stream, gaps, covered, horizon) for stream in ("trades", "quotes", "book_levels")}
    return [
        one_bucket(rows_of(quotes), rows_of(trades), rows_of(depth), lost, scale, start, start + step_ns)
        for start in range(min(covered) // step_ns * step_ns, max(covered) + 1, step_ns)
        if start_ns <= start < end_ns
    ]


def one_bucket(quotes, trades, depth, lost, scale, start, label):
    tick, lot = Fraction(scale.tick_size), Fraction(scale.lot_size)
    bucket = set(range(start, label))
    arrived = [q for q in quotes if q["recv_ns"] in bucket and not q["flags"] & Flag.SNAPSHOT]
    traded = [t for t in trades if t["recv_ns"] in bucket and not t["flags"] & Flag.OFF_MARKET]
    quote = last_known(quotes, label, lost["quotes"])
    row = touch(quote, tick) | changes(quotes, bucket, lost["quotes"], lot) | sums(traded, tick, lot, scale.inverse)
    if quote is None or bucket & lost["quotes"]:
        row["ofi"] = row["realized_variance"] = NAN
    if bucket & lost["trades"]:
        row |= dict.fromkeys(TRADE_COLUMNS, NAN)
    book = last_known(depth, label, lost["book_levels"])
    is_book = book is not None and book["known"]
    has_both = is_book and book["bid_size_10"] > 0 and book["ask_size_10"] > 0
    flags = GridFlag(0)
    flags |= GridFlag.GAP if any(bucket & moments for moments in lost.values()) else 0
    flags |= 0 if arrived else GridFlag.STALE
    flags |= GridFlag.ONE_SIDED if quote is not None and not is_two_sided(quote) else 0
    flags |= GridFlag.ONE_SIDED if is_book and not has_both else 0
    flags |= 0 if is_book else GridFlag.NO_BOOK
    return row | {
        "label_ns": label,
        "imbalance_10": imbalance(book["bid_size_10"], book["ask_size_10"]) if has_both else NAN,
        "flags": int(flags),
    }


def rows_of(columns):
    """Return a table as a list of rows of Python numbers."""
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*(columns[name].tolist() for name in names), strict=True)]


def lost_moments(stream, gaps, covered, horizon):
    """Return every moment of the horizon at which the stream is not known."""
    lost = {moment for moment in horizon if moment not in covered}
    for name, known, known_again in gaps:
        if name in (stream, "all"):
            lost |= set(range(known + 1, known_again)) or {known}
    return lost


def last_known(rows, label, lost):
    """Return the last row before the label, unless a moment since it is lost."""
    before = [row for row in rows if row["recv_ns"] < label]
    if not before or set(range(before[-1]["recv_ns"], label)) & lost:
        return None
    return before[-1]


def is_two_sided(quote):
    return quote["bid_size"] > 0 and quote["ask_size"] > 0


def imbalance(bid, ask):
    return float(Fraction(bid - ask, bid + ask))


def touch(quote, tick):
    if quote is None or not is_two_sided(quote):
        return dict.fromkeys(("mid", "microprice", "spread", "imbalance_1"), NAN)
    bid, ask, bid_size, ask_size = (quote[name] for name in ("bid_price", "ask_price", "bid_size", "ask_size"))
    return {
        "mid": float((bid + ask) * tick / 2),
        "microprice": float(Fraction(bid * ask_size + ask * bid_size, bid_size + ask_size) * tick),
        "spread": float((ask - bid) * tick),
        "imbalance_1": imbalance(bid_size, ask_size),
    }


def changes(quotes, bucket, lost, lot):
    flow, squares = 0, 0.0
    for before, after in pairwise(quotes):
        is_bridged = lost & set(range(before["recv_ns"], after["recv_ns"]))
        if after["recv_ns"] in bucket and not is_bridged and is_two_sided(before) and is_two_sided(after):
            flow += order_flow(before, after)
            mid, mid_after = (quote["bid_price"] + quote["ask_price"] for quote in (before, after))
            squares += (math.log(mid_after) - math.log(mid)) ** 2
    return {"ofi": float(flow * lot), "realized_variance": squares}


def order_flow(before, after):
    """Return e_n of Cont, Kukanov and Stoikov (2014), term by term."""
    flow = 0
    if after["bid_price"] >= before["bid_price"]:
        flow += after["bid_size"]
    if after["bid_price"] <= before["bid_price"]:
        flow -= before["bid_size"]
    if after["ask_price"] <= before["ask_price"]:
        flow -= after["ask_size"]
    if after["ask_price"] >= before["ask_price"]:
        flow += before["ask_size"]
    return flow


def sums(trades, tick, lot, inverse):
    volume = sum(t["size"] for t in trades)
    vwap = NAN
    if volume and inverse:
        vwap = float(volume / sum(Fraction(t["size"], t["price"]) for t in trades) * tick)
    elif volume:
        vwap = float(Fraction(sum(t["size"] * t["price"] for t in trades), volume) * tick)
    return {
        "vwap": vwap,
        "volume": float(volume * lot),
        "signed_volume": float(sum(t["side"] * t["size"] for t in trades) * lot),
        "trade_count": float(len(trades)),
    }

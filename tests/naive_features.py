"""The grid features again, slow and obvious: one bucket after another, one moment after another.

Times must be small and positive, since lost time is kept as the set of its moments. Numbers are exact fractions for as
long as they can be.
"""

import math
from fractions import Fraction
from itertools import pairwise

from synth_pipeline.schema import Flag, GridFlag

NAN = math.nan
TRADE_COLUMNS = (
    *("vwap", "volume", "signed_volume", "trade_count"),
    *("last_price", "trade_first", "trade_last", "trade_interval_squares"),
)
QUOTE_COLUMNS = ("quote_count", "quote_first", "quote_last", "quote_interval_squares")


def grid_features(quotes, trades, depth, ladder, gaps, coverage, scale, *, step_ns, start_ns, end_ns):
    """Return a list of rows as `synth_pipeline.features.grid.grid_features` promises its columns."""
    covered = {moment for start, end in coverage for moment in range(start, end)}
    if not covered:
        return []
    horizon = range(-step_ns, max(*covered, end_ns) + 3 * step_ns)
    lost = {stream: lost_moments(stream, gaps, covered, horizon) for stream in ("trades", "quotes", "book_levels")}
    return [
        one_bucket(
            rows_of(quotes), rows_of(trades), rows_of(depth), rows_of(ladder), lost, scale, start, start + step_ns
        )
        for start in range(min(covered) // step_ns * step_ns, max(covered) + 1, step_ns)
        if start_ns <= start < end_ns
    ]


def one_bucket(quotes, trades, depth, ladder, lost, scale, start, label):
    tick, lot = Fraction(scale.tick_size), Fraction(scale.lot_size)
    bucket = set(range(start, label))
    arrived = [q for q in quotes if q["recv_ns"] in bucket and not q["flags"] & Flag.SNAPSHOT]
    traded = [t for t in trades if t["recv_ns"] in bucket and not t["flags"] & Flag.OFF_MARKET]
    quote = last_known(quotes, label, lost["quotes"])
    row = touch(quote, tick) | changes(quotes, bucket, lost["quotes"], lot) | sums(traded, tick, lot, scale.inverse)
    if quote is None or bucket & lost["quotes"]:
        row["ofi"] = row["realized_variance"] = NAN
    row |= arrived_at("quote", arrived, start) | arrived_at("trade", traded, start)
    row |= {"quote_count": float(len(arrived)), "last_price": float(traded[-1]["price"] * tick) if traded else NAN}
    if bucket & lost["quotes"]:
        row |= dict.fromkeys(QUOTE_COLUMNS, NAN)
    if bucket & lost["trades"]:
        row |= dict.fromkeys(TRADE_COLUMNS, NAN)
    rungs = last_known(ladder, label, lost["book_levels"])
    row |= levels(rungs, tick, lot) | level_changes(ladder, bucket, lost["book_levels"], lot)
    if rungs is None or bucket & lost["book_levels"]:
        row |= dict.fromkeys((*(f"ofi_{level}" for level in range(1, 6)), "depth_added", "depth_removed"), NAN)
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


def arrived_at(name, rows, start):
    """Return when the first and last row of a bucket arrived, and the squared times between them, in seconds."""
    times = [Fraction(row["recv_ns"] - start, 10**9) for row in rows]
    squares = sum(((after - before) ** 2 for before, after in pairwise(times)), Fraction(0))
    return {
        f"{name}_first": float(times[0]) if times else NAN,
        f"{name}_last": float(times[-1]) if times else NAN,
        f"{name}_interval_squares": float(squares),
    }


def sides(rungs):
    """Return both sides of a ladder as lists of (price, size), best first."""
    return [
        [(p, q) for p, q in zip(rungs[f"{side}_price"], rungs[f"{side}_size"], strict=True) if q]
        for side in ("bid", "ask")
    ]


def levels(rungs, tick, lot):
    names = ("depth_mid", "book_slope", "imbalance_5")
    if rungs is None or not all(sides(rungs)):
        return dict.fromkeys(names, NAN)
    bids, asks = sides(rungs)
    mid = Fraction(bids[0][0] + asks[0][0], 2)
    weighted = Fraction(sum(p * q for p, q in bids + asks), sum(q for _, q in bids + asks))
    slopes = [side_slope(side, mid) for side in (bids, asks)]
    slope = NAN if None in slopes or asks[0][0] < bids[0][0] else float(sum(slopes) / 2 * lot / tick)
    five = imbalance(sum(q for _, q in bids[:5]), sum(q for _, q in asks[:5]))
    return dict(zip(names, (float(weighted * tick), slope, five), strict=True))


def side_slope(side, mid):
    distances = [abs(price - mid) for price, _ in side]
    depths = [sum(size for _, size in side[: level + 1]) for level in range(len(side))]
    square = sum(d * d for d in distances)
    return sum(d * q for d, q in zip(distances, depths, strict=True)) / square if square else None


def level_changes(ladder, bucket, lost, lot):
    flows, added, removed = [0] * 5, 0, 0
    for before, after in pairwise(ladder):
        if after["recv_ns"] not in bucket or lost & set(range(before["recv_ns"], after["recv_ns"])):
            continue
        old, new = sides(before), sides(after)
        for level in range(min(5, *(len(side) for side in (*old, *new)))):
            (bid, bid_size), (ask, ask_size) = (side[level] for side in old)
            touch = {"bid_price": bid, "bid_size": bid_size, "ask_price": ask, "ask_size": ask_size}
            (bid, bid_size), (ask, ask_size) = (side[level] for side in new)
            later = {"bid_price": bid, "bid_size": bid_size, "ask_price": ask, "ask_size": ask_size}
            flows[level] += order_flow(touch, later)
        for sign, one, other in zip((1, -1), old, new, strict=True):
            shown = [sign * side[-1][0] for side in (one, other) if len(side) == 10]
            one, other = dict(one), dict(other)
            for price in {*one, *other}:
                if all(sign * price >= worst for worst in shown):
                    change = other.get(price, 0) - one.get(price, 0)
                    added, removed = added + max(change, 0), removed + max(-change, 0)
    found = {f"ofi_{level + 1}": float(flow * lot) for level, flow in enumerate(flows)}
    return found | {"depth_added": float(added * lot), "depth_removed": float(removed * lot)}


def rolling_feature(name, rows, length, step):
    """Return one rolling feature at every row of a list of grid rows (dictionaries), window by window."""
    return [window_feature(name, rows, end, length, step) for end in range(len(rows))]


def window_feature(name, rows, end, length, step):
    labels = [row["label_ns"] for row in rows[max(end - length + 1, 0) : end + 1]]
    if len(labels) < length or labels[-1] - labels[0] != (length - 1) * step:
        return NAN
    window = rows[end - length + 1 : end + 1]
    moves = [move(rows, row, step) for row in range(end - length + 1, end + 1)]
    if name in ("quote_interval", "quote_interval_cv", "trade_interval", "trade_interval_cv"):
        return interval_feature(name, window, step)
    if name == "roll_spread":
        return roll_spread(window)
    if name in ("return_variance", "bipower_variance", "jump_share"):
        return volatility(name, log_changes(moves))
    if name == "kyle_lambda":
        return kyle_lambda([row["signed_volume"] for row in window], moves)
    return liquidity(name, window, log_changes(moves))


def log_changes(moves):
    return [math.log(after / before) if before is not None else NAN for before, after in moves]


def volatility(name, logs):
    variance = sum(r * r for r in logs)
    bipower = math.pi / 2 * len(logs) / (len(logs) - 1) * sum(abs(a) * abs(b) for a, b in pairwise(logs))
    if name == "jump_share":
        return NAN if math.isnan(variance) or not variance else max(0.0, 1 - bipower / variance)
    return variance if name == "return_variance" else bipower


def kyle_lambda(sizes, moves):
    changes = [after - before if before is not None else NAN for before, after in moves]
    if any(math.isnan(x) for x in (*sizes, *changes)) or len(set(sizes)) == 1:
        return NAN
    mean = sum(sizes) / len(sizes)
    return sum((x - mean) * y for x, y in zip(sizes, changes, strict=True)) / sum((x - mean) ** 2 for x in sizes)


def liquidity(name, window, logs):
    volume, signed, removed = (sum(row[key] for row in window) for key in ("volume", "signed_volume", "depth_removed"))
    if name == "trade_imbalance":
        return signed / volume if volume else NAN
    if name == "integrated_ofi":
        return sum(row[f"ofi_{level}"] for row in window for level in range(1, 6))
    if name == "cancel_rate":
        return NAN if not removed or math.isnan(volume + removed) else max(0.0, 1 - volume / removed)
    assert name == "amihud"
    if any(math.isnan(x) for x in (*logs, volume)):
        return NAN
    costs = [abs(r) / (row["vwap"] * row["volume"]) for r, row in zip(logs, window, strict=True) if row["volume"]]
    return sum(costs) / len(costs) if costs else NAN


def move(rows, at, step):
    """Return the mids that a row's change goes from and to, (None, None) where one is not known."""
    before, row = rows[at - 1] if at else None, rows[at]
    is_known = before is not None and row["label_ns"] - before["label_ns"] == step and not math.isnan(row["ofi"])
    known = is_known and not math.isnan(before["mid"] + row["mid"])
    return (before["mid"], row["mid"]) if known else (None, None)


def interval_feature(name, window, step):
    stream = name.split("_")[0]
    if any(math.isnan(row[f"{stream}_count"]) for row in window):
        return NAN
    arrivals = sorted((row["label_ns"] - step) / 1e9 + second for row in window for second in row[f"{stream}_arrivals"])
    intervals = [after - before for before, after in pairwise(arrivals)]
    if not name.endswith("cv"):
        return sum(intervals) / len(intervals) if intervals else NAN
    if len(intervals) < 2:
        return NAN
    mean = sum(intervals) / len(intervals)
    return math.sqrt(sum((x - mean) ** 2 for x in intervals) / len(intervals)) / mean


def roll_spread(window):
    if any(math.isnan(row["volume"]) for row in window):
        return NAN
    prices = [row["last_price"] for row in window if not math.isnan(row["last_price"])]
    changes = [after - before for before, after in pairwise(prices)]
    if len(changes) < 3:
        return NAN
    early, late = changes[:-1], changes[1:]
    means = sum(early) / len(early), sum(late) / len(late)
    covariance = sum((a - means[0]) * (b - means[1]) for a, b in zip(early, late, strict=True)) / (len(early) - 1)
    return 2 * math.sqrt(-covariance) if covariance <= 0 else NAN

"""The verb `compare_books`: a day's order book against a real day's, by the statistics of LOB-Bench."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_pipeline import schema
from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND, Flag, Instrument, Scale, day_start_ns
from synth_pipeline.stages.workspace import Built, Workspace, draft_of, materialize

if TYPE_CHECKING:
    from synth_pipeline.fidelity.book_comparison import BookComparison
    from synth_pipeline.fidelity.book_sample import BookSample
    from synth_pipeline.reports.book_page import BookPanels, DepthPanel
    from synth_pipeline.ticks.messages import Messages

BOOK = "book@"
"""What the name of a comparison of books begins with; the real instrument and its day follow."""
_SOURCES = ("schema.py", "rng.py", "ticks", "market/rows.py", "fidelity", "reports", "stages/book_reports.py")
_LEAST_COMMON_S = 60.0
"""Seconds of the day that both must have in common for that time of day to be compared."""
_PIECE_NS = 600 * NS_PER_SECOND
_SHOWN, _MOMENTS, _BINS, _AT_ONCE = 200, 240, 120, 8192
"""Levels a side, moments and price bins of a heat map; messages whose books are looked at at once."""
Span = tuple[int, int]


def compare_books(
    workspace: Workspace,
    real: Instrument,
    real_day: date,
    simulated: Instrument,
    simulated_day: date,
    *,
    seconds: float = 1800.0,
    predict: bool = False,
) -> Manifest:
    """Score a simulated day's messages and book against a real day's; write HTML and JSON.

    The stretch of the day that both have is compared, of at most so many seconds; where there is none, the first of
    each. The simulated one is seen as the real source shows its market: with or without orders, at its rhythm, with as
    many levels. With `predict` a network also learns the mid's next moves from either, which takes a minute or more:
    TRADES' predictive score. Raises `NoDataError` where one of them is not stored, `InputError` for one day against
    itself.
    """
    if (real, real_day) == (simulated, simulated_day):
        raise InputError(f"{real} on {real_day} would be compared with itself: name another day")
    if not 0 < seconds < math.inf:
        raise InputError(f"{seconds:g} s are nothing to compare: give a positive number")
    days = [
        workspace.require("ticks", "ingest", real, real_day),
        workspace.require("ticks", "simulate", simulated, simulated_day),
    ]
    key = f"{simulated}/{simulated_day}/{BOOK}{real}@{real_day}"
    inputs = {each.ref: each.digest for each in days}
    draft = draft_of(workspace, "reports", key, inputs, _SOURCES, {"seconds": seconds, "predict": predict}, seeded=True)
    return materialize(workspace, draft, lambda place: _compared(workspace, days, draft, place))


def _compared(workspace: Workspace, days: list[Manifest], draft: Manifest, place: Path) -> Built:
    from synth_pipeline.fidelity.book_comparison import compare, halves
    from synth_pipeline.reports.book_page import render
    from synth_pipeline.ticks.messages import of_store

    settings = workspace.settings
    (real, real_day), (simulated, simulated_day) = (each.key.split("/") for each in days)
    spans = _spans(days, draft.config["seconds"])
    messages = of_store(settings.data, real, *spans[0], home=settings.home)
    other = _seen(workspace, simulated, spans[1], messages)
    scale = _common(messages.scale, other.scale)
    samples = sample_of(messages, scale), sample_of(other, scale)
    rng = stream(settings.seed, "compare_books", draft.key)
    found = compare(*samples, rng=rng, floor=halves(samples[0]), progress=workspace.progress)
    if not any(row.l1 for row in found.rows):
        raise TooLittleDataError(
            f"{real} has {len(samples[0])} and {simulated} {len(samples[1])} messages in the "
            f"{(spans[0][1] - spans[0][0]) / NS_PER_SECOND:g} s that are compared, too few for any statistic: "
            "give more --seconds, or longer days"
        )
    provenance = {
        "real": f"{real} {real_day}",
        "simulated": f"{simulated} {simulated_day}",
        "seconds compared": f"{(spans[0][1] - spans[0][0]) / NS_PER_SECOND:g} of the real day, "
        f"{(spans[1][1] - spans[1][0]) / NS_PER_SECOND:g} of the simulated one",
        "messages": f"{len(samples[0]):,} real, {len(samples[1]):,} simulated",
        "seed": str(settings.seed),
        "code": draft.code_version,
        "command": f"synth-pipeline evaluate-book {real} {real_day} {simulated} {simulated_day}",
    } | {f"input {name}": digest for name, digest in draft.inputs.items()}
    page, data = place / "report.html", place / "report.json"
    predicted = _predicted(samples, draft, settings.seed) if draft.config["predict"] else {}
    shown = provenance | {name.replace("_", " "): text for name, text in _in_words(predicted).items()}
    page.write_text(render(found, _panels((messages, other), samples, found, scale), shown), encoding="utf-8")
    facts = _facts(found) | predicted | {"spans": spans, "messages": [len(sample) for sample in samples]}
    told = {"provenance": provenance, **facts, "rows": [asdict(row) for row in found.rows], "absent": found.absent}
    data.write_text(json.dumps(_finite(told), indent=1), encoding="utf-8")
    return Built({"report": page, "evaluation": data}, facts, shown=("report",))


def _facts(found: BookComparison) -> dict[str, Any]:
    statistics = {
        row.name: {
            "l1": row.l1 and row.l1.value,
            "l1_floor": row.l1_floor,
            "wasserstein": row.wasserstein and row.wasserstein.value,
            "wasserstein_floor": row.wasserstein_floor,
        }
        for row in found.rows
    }
    means: dict[str, float] = {}
    for name in ("l1", "wasserstein"):
        means |= {name: found.mean(name), f"{name}_floor": found.floor_mean(name)}
    facts: dict[str, Any] = _finite({"means": means, "statistics": statistics, "impact": found.impact})
    return facts


def _predicted(samples: tuple[BookSample, BookSample], draft: Manifest, seed: int) -> dict[str, Any]:
    """Return TRADES' predictive score, or the reason why there is none."""
    from synth_pipeline.errors import MetricError
    from synth_pipeline.fidelity.book_prediction import predictive_score

    try:
        found = predictive_score(*samples, rng=stream(seed, "predict", draft.key))
    except MetricError as error:
        return {"predictive_score": {"absent": str(error)}}
    return {"predictive_score": asdict(found) | {"ratio": found.ratio}}


def _in_words(predicted: dict[str, Any]) -> dict[str, str]:
    if not predicted:
        return {}
    score = predicted["predictive_score"]
    if "absent" in score:
        return {"predictive_score": score["absent"]}
    return {
        "predictive_score": f"{score['synthetic']:.3g} ticks of error in the mid after simulated messages, "
        f"{score['replay']:.3g} after real ones, {score['persistence']:.3g} of the last price (Berti et al. 2025)"
    }


def _finite(value: Any) -> Any:
    """Return a value for JSON, with None for what is no number."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


# --- which stretch, and what is seen of it


def _spans(days: list[Manifest], seconds: float) -> tuple[Span, Span]:
    """Return the stretch of each day that is compared: the same time of day where both were watched then."""
    midnights = [day_start_ns(schema.parse_day(day.key.split("/")[1])) for day in days]
    watched = [
        (day.facts["coverage"][0][0] - midnight, day.facts["coverage"][-1][1] - midnight)
        for day, midnight in zip(days, midnights, strict=True)
    ]
    start, end = max(first for first, _ in watched), min(last for _, last in watched)
    most = round(seconds * NS_PER_SECOND)
    starts = [start, start]
    if end - start < _LEAST_COMMON_S * NS_PER_SECOND:
        starts, end = [first for first, _ in watched], min(last - first for first, last in watched)
        most, start = min(most, end), 0
    length = min(most, end - start)
    first, second = (midnight + each for midnight, each in zip(midnights, starts, strict=True))
    return (first, first + length), (second, second + length)


def _seen(workspace: Workspace, instrument: str, span: Span, like: Messages) -> Messages:
    """Return the messages of a stretch as the source of a record would show them."""
    from synth_pipeline.market.rows import observed
    from synth_pipeline.ticks import store

    places: dict[str, Any] = {
        "data": workspace.settings.data,
        "instrument": instrument,
        "home": workspace.settings.home,
    }
    has_orders = "orders" in store.days(places["data"], instrument, *span)[0].manifest.outputs
    names = ("book_levels", "orders" if has_orders else "trades", "trades")
    windows = {name: store.read(table=name, start=span[0], end=span[1], **places) for name in dict.fromkeys(names)}
    tables = {name: window.columns for name, window in windows.items()}
    levels = tables["book_levels"]
    if not (levels["flags"][:1] & Flag.SNAPSHOT).any():
        opening = _book_at(places, span[0])
        tables["book_levels"] = {name: np.concatenate((opening[name], levels[name])) for name in levels}
    if not has_orders and (like.order_id > 0).any():
        like = replace(like, order_id=np.zeros_like(like.order_id))
    return observed(tables, like, span, windows["book_levels"].scale)


def _book_at(places: Mapping[str, Any], now_ns: int) -> dict[str, np.ndarray]:
    """Return the book as it stands before a time, as a full one."""
    from synth_pipeline.ticks import store
    from synth_pipeline.ticks.book import Book

    book, midnight = Book(), now_ns // schema.NS_PER_DAY * schema.NS_PER_DAY
    for start in range(midnight, now_ns, _PIECE_NS):
        piece = start, min(start + _PIECE_NS, now_ns)
        carried = start == midnight
        book.feed(store.read(table="book_levels", start=piece[0], end=piece[1], carry_in=carried, **places).columns)
    rows = np.concatenate((book.bids, book.asks))
    flags = np.full(len(rows), Flag.SNAPSHOT, dtype=np.uint8)
    flags[-1:] |= np.uint8(Flag.LAST)
    given = {"price": rows[:, 0], "size": rows[:, 1], "flags": flags}
    given["side"] = np.repeat([1, -1], [len(book.bids), len(book.asks)])
    given |= {name: np.full(len(rows), now_ns) for name in ("recv_ns", "event_ns")}
    given |= {name: np.full(len(rows), -1) for name in ("seq", "update_id")}
    return {column.name: given[column.name].astype(column.dtype) for column in schema.BOOK_LEVELS.columns}


def _common(one: Scale, other: Scale) -> Scale:
    from synth_pipeline.ticks.store import common_scale

    return common_scale([one, other])


def sample_of(messages: Messages, scale: Scale | None = None) -> BookSample:
    """Return what the statistics see of messages, in ticks and lots of a scale: ten levels, or as many as are shown."""
    from synth_pipeline.fidelity.book_sample import LEVELS, BookSample

    levels = min(messages.depth or LEVELS, LEVELS)
    tick, lot = _factors(messages, scale)
    columns = (messages.time_ns, messages.kind, messages.side, messages.price * tick, messages.size * lot)
    ladders = _ladders(messages, levels, tick, lot)
    return BookSample.of((*columns, messages.order_id), ladders, messages.opens, levels)


def _factors(messages: Messages, scale: Scale | None) -> tuple[int, int]:
    """Return ticks and lots of a scale in one of the messages'."""
    own, common = messages.scale, scale or messages.scale
    return int(own.tick_size / common.tick_size), int(own.lot_size / common.lot_size)


def _ladders(messages: Messages, levels: int, tick: int, lot: int) -> Iterator[tuple[slice, np.ndarray]]:
    from synth_pipeline.ticks.messages import books

    for rows, ladder in books(messages, levels, _AT_ONCE):
        ladder[::2] *= tick
        ladder[1::2] *= lot
        yield rows, ladder


# --- what is drawn


def _panels(
    both: tuple[Messages, Messages], samples: tuple[BookSample, BookSample], found: BookComparison, scale: Scale
) -> BookPanels:
    from synth_pipeline.fidelity.impact import IMPACT, LAGS
    from synth_pipeline.reports.book_page import BookPanels

    impact = {name: tuple(IMPACT[name].response(sample) for sample in samples) for name in found.impact}
    ladders = [_sampled(messages, scale) for messages in both]
    edges = _edges(ladders[0])
    depth = tuple(_depth(each, edges) for each in ladders)
    return BookPanels(depth, LAGS.astype(float), impact)  # type: ignore[arg-type]


Moments = tuple[np.ndarray, np.ndarray]
"""Seconds since the start, shape (moments,), and ladders, shape (4, moments, levels)."""


def _sampled(messages: Messages, scale: Scale) -> Moments:
    """Return the book at some moments, equally far apart."""
    start, end = int(messages.spans[0, 0]), int(messages.spans[-1, 1])
    rows = np.searchsorted(messages.time_ns, np.linspace(start, end, _MOMENTS + 1)[1:], side="left")
    rows = np.unique(np.minimum(rows, len(messages) - 1))
    levels = min(messages.depth or _SHOWN, _SHOWN)
    found = np.zeros((4, rows.size, levels), dtype=np.int64)
    for piece, ladder in _ladders(messages, levels, *_factors(messages, scale)):
        here = (rows >= piece.start) & (rows < piece.stop)
        found[:, here] = ladder[:, rows[here] - piece.start]
    return (messages.time_ns[rows] - start) / NS_PER_SECOND, found


def _mids(ladders: np.ndarray) -> np.ndarray:
    mids: np.ndarray = (ladders[0, :, 0] + ladders[2, :, 0]) / 2
    return mids


def _edges(real: Moments) -> np.ndarray:
    """Return edges of price bins, ticks against the first mid, that hold nearly all levels of the real book."""
    ladders = real[1]
    prices, lots = ladders[::2].reshape(-1), ladders[1::2].reshape(-1)
    low, high = np.quantile(prices[lots > 0] - _mids(ladders)[0], (0.005, 0.995))
    return np.linspace(low, max(high, low + 1), _BINS + 1)


def _depth(moments: Moments, edges: np.ndarray) -> DepthPanel:
    from synth_pipeline.reports.book_page import DepthPanel

    seconds, ladders = moments
    mids = _mids(ladders)
    lots = np.zeros((_BINS, seconds.size))
    place = np.searchsorted(edges, ladders[::2] - mids[0], side="right") - 1
    seen = (ladders[1::2] > 0) & (place >= 0) & (place < _BINS)
    when = np.broadcast_to(np.arange(seconds.size)[np.newaxis, :, np.newaxis], place.shape)
    np.add.at(lots, (place[seen], when[seen]), ladders[1::2][seen])
    return DepthPanel(seconds, (edges[1:] + edges[:-1]) / 2, lots, mids - mids[0])

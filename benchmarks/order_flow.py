"""Calibrated order flows against real captures: the statistics of LOB-Bench on a held-out second half.

Every flow of `market/flows` is fitted on the first half of each capture and runs as long as the second half. What it
does is published as the capture was (differences at its rhythm with trades between, or order by order; as many levels),
goes through the same builders of messages, and is scored once against the second half, beside what the real first half
scores. Which flow speaks for a capture is chosen within the first half, from fits on its first half scored on its
second. Zero intelligence is what the others are to beat.

Real captures lie in SYNTH_REAL_DATA (default `../shared/data`); without them nothing is measured.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from common import Claim, arguments, report

from synth_pipeline import plugins, stages
from synth_pipeline.errors import SynthError
from synth_pipeline.fidelity.book_comparison import BookComparison, compare
from synth_pipeline.fidelity.book_sample import LEVELS, BookSample
from synth_pipeline.market import engine, flows, tape
from synth_pipeline.market.flows import OrderFlow, observing
from synth_pipeline.rng import stream
from synth_pipeline.schema import BOOK_LEVELS, NS_PER_SECOND, ORDERS, TRADES, Flag, Table
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks.messages import Messages, books, of_levels, of_orders, of_store

BASELINE = "zero_intelligence"
SEEDS, RUN_SECONDS = 50, 60.0
"""Runs of the recovery, and how long each is."""
DEEPEST = 4096
"""Levels a side of a book that is published whole."""
REAL_DATA = Path(os.environ.get("SYNTH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
CAPTURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "USD-M": (("binance_usdm_btcusdt_20240808.gz",), ("2024-08-08",)),
    "spot": (("binance_spot_btcusdt_20240808.gz", "binance_spot_btcusdt_20240809.gz"), ("2024-08-08", "2024-08-09")),
    "COIN-M": (
        ("binance_coinm_btcusd_perp_20240808.gz", "binance_coinm_btcusd_perp_20240809.gz"),
        ("2024-08-08", "2024-08-09"),
    ),
    "LOBSTER AMZN": (("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip",), ("2012-06-21",)),
    "Bitstamp L3": (("bitstamp_btcusd_l3_raw_20150501.log.xz",), ("2015-05-01",)),
}
"""Files and days."""
Columns = dict[str, np.ndarray]
Flows = Mapping[str, type[OrderFlow]]


@dataclass(frozen=True)
class Trial:
    """One flow on one capture."""

    found: BookComparison | None
    """None when it could not be fitted or broke down."""
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """All flows on one capture."""

    capture: str
    trials: dict[str, Trial]
    chosen: str
    """The flow that won within the first half; the baseline where no other could be fitted."""


# --- captures and what a flow makes of their time


def capture(name: str) -> Messages:
    """Return the messages of a capture, ingested into a store for the moment."""
    files, days = [REAL_DATA / file for file in CAPTURES[name][0]], CAPTURES[name][1]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.of(Settings(home=Path(folder), tracking=False))
        instrument = stages.identify(files, None, None)
        for day in days:
            stages.record(workspace, instrument, date.fromisoformat(day), files)
            stages.ingest(workspace, instrument, date.fromisoformat(day))
        return of_store(Path(folder), instrument, f"{days[0]}T00:00", f"{days[-1]}T23:59:59.999")


def sample_of(messages: Messages) -> BookSample:
    """Return what the statistics see of messages: ten levels, or as many as the source shows."""
    levels = min(messages.depth or LEVELS, LEVELS)
    columns = (messages.time_ns, messages.kind, messages.side, messages.price, messages.size, messages.order_id)
    return BookSample.of(columns, books(messages, levels), messages.opens, levels)


def simulated(flow: OrderFlow, fitted_on: Messages, span: tuple[int, int], *, rng: np.random.Generator) -> Messages:
    """Run a fitted flow over a time, and return its messages as the capture's venue would have let them be seen."""
    run = flow.start(span[0], rng=rng)
    opening = _standing(run.market.book, span[0])
    levels, trades, orders = _journal(run, span[1])
    if (fitted_on.order_id > 0).any():
        return of_orders(orders, opening, span=span, scale=fitted_on.scale)
    differences = _published(levels, _rhythm(fitted_on, span))
    whole = {name: np.concatenate((opening[name], column)) for name, column in differences.items()}
    return of_levels(whole, trades, span=span, scale=fitted_on.scale)


def _standing(book: engine.Book, now_ns: int) -> Columns:
    """Return the book as a full one."""
    sides = [np.stack(engine.depth(book, side, DEEPEST), axis=1) for side in (engine.BID, engine.ASK)]
    rows = np.concatenate(sides)
    side = np.repeat([1, -1], [len(each) for each in sides])
    flags = np.full(len(rows), Flag.SNAPSHOT)
    flags[-1] |= Flag.LAST
    return _table(
        BOOK_LEVELS, recv_ns=np.full(len(rows), now_ns), side=side, price=rows[:, 0], size=rows[:, 1], flags=flags
    )


def _table(form: Table, **columns: np.ndarray) -> Columns:
    """Return rows of a table; the exchange's time is that of receipt, what is not given is 0."""
    count = columns["recv_ns"].size
    given = columns | {"event_ns": columns["recv_ns"]}
    return {c.name: given.get(c.name, np.zeros(count)).astype(c.dtype) for c in form.columns}


def _journal(run: flows.Run, until_ns: int) -> tuple[Columns, Columns, Columns]:
    """Run up to a time and return level changes, trades and order events as tick rows."""
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[], [], []]
    done = False
    while not done:
        done = run.advance(until_ns)
        journal, events = run.market.journal, int(run.market.clock.events[0])
        told = run.market.tape[:events]
        for part, rows, ends in zip(
            parts,
            (journal.levels, journal.trades, journal.events),
            (told.level_rows, told.trade_rows, told.event_rows),
            strict=True,
        ):
            times = np.repeat(told.time_ns, np.diff(ends, prepend=0))
            part.append((times, np.asarray(rows[: times.size]).copy()))
        tape.rewind(run.market)
    (at, changes), (trade_at, deals), (event_at, events_) = (
        tuple(np.concatenate(each) for each in zip(*part, strict=True)) for part in parts
    )
    levels = _table(BOOK_LEVELS, recv_ns=at, side=_sign(changes["side"]), price=changes["price"], size=changes["after"])
    sides = {"side": _sign(deals["taker_side"]), "flags": np.full(deals.size, Flag.LAST)}
    trades = _table(TRADES, recv_ns=trade_at, price=deals["price"], size=deals["lots"], **sides)
    names = {"kind": events_["kind"], "order_id": events_["order_id"], "size": events_["lots"]}
    whole = {"seq": np.arange(events_.size), "flags": np.full(events_.size, Flag.LAST)}
    orders = _table(ORDERS, recv_ns=event_at, side=_sign(events_["side"]), price=events_["price"], **names, **whole)
    return levels, trades, orders


def _sign(side: np.ndarray) -> np.ndarray:
    return np.where(side == engine.BID, 1, -1)


def _rhythm(messages: Messages, span: tuple[int, int]) -> np.ndarray:
    """Return times of publication over a span: those of the messages, again and again."""
    start, end = messages.spans[0]
    times = np.unique(messages.time_ns[messages.ends])
    times = times[(times > start) & (times <= end)] - start
    rounds = -(-(span[1] - span[0]) // (end - start))
    return span[0] + np.concatenate(
        [number * (end - start) + times for number in range(int(rounds))] + [[span[1] - span[0]]]
    )


def _published(levels: Columns, times: np.ndarray) -> Columns:
    """Return of each time of publication the last size of every level that changed since the one before."""
    event = np.searchsorted(times, levels["recv_ns"])
    order = np.lexsort((np.arange(event.size), levels["price"], levels["side"], event))
    keys = np.stack((event, levels["side"], levels["price"]))[:, order]
    last = order[np.append((keys[:, 1:] != keys[:, :-1]).any(axis=0), True)[: order.size]]
    last = last[event[last] < times.size]
    found = {name: column[last] for name, column in levels.items()}
    found["recv_ns"] = found["event_ns"] = times[event[last]]
    found["seq"] = event[last]
    ends = np.append(np.diff(event[last]) > 0, True)[: last.size]
    return found | {"flags": np.where(ends, np.uint8(Flag.LAST), np.uint8(0))}


# --- trials


def known_flows(wanted: Collection[str] = ()) -> dict[str, type[OrderFlow]]:
    """Return order flows by name, all by default, the baseline first."""
    names = {BASELINE, *(wanted or plugins.names(flows))}
    return {name: plugins.load(flows, name) for name in sorted(names, key=lambda name: (name != BASELINE, name))}


def trial(made: type[OrderFlow], fit: Messages, held: Messages, seed: int) -> Trial:
    """Fit on some messages, run as long as others, and score the run against those."""
    name = made.__module__.rpartition(".")[2]
    try:
        flow = made().fit(fit, rng=stream(seed, name, "fit"))
        span = int(held.spans[0, 0]), int(held.spans[0, 0] + round(held.seconds * NS_PER_SECOND))
        run = simulated(flow, fit, span, rng=stream(seed, name, "run"))
        real = sample_of(held)
        synthetic = sample_of(run if not fit.depth else _seen(run, fit.depth))
        return Trial(compare(real, synthetic, rng=stream(seed, name, "scores"), floor=(real, sample_of(fit))))
    except SynthError as error:
        return Trial(None, str(error))


def _seen(messages: Messages, depth: int) -> Messages:
    return replace(messages, depth=depth)


def result(name: str, messages: Messages, known: Flows, seed: int = 0) -> Result:
    """Choose a flow within the first half, and score all of them once on the second."""
    first, second = messages.split(0.5)
    rivals = {other: made for other, made in known.items() if other != BASELINE}
    inner = {other: trial(made, *first.split(0.5), seed) for other, made in rivals.items()}
    able = {other: each.found.mean("l1") for other, each in inner.items() if each.found is not None}
    chosen = min(able, key=lambda other: able[other]) if able else BASELINE
    return Result(name, {other: trial(made, first, second, seed) for other, made in known.items()}, chosen)


def results(names: tuple[str, ...], known: Flows, told: Callable[[Result], None]) -> list[Result]:
    """Run all captures that there are."""
    found = []
    for name in names:
        if all((REAL_DATA / file).exists() for file in CAPTURES[name][0]):
            found.append(result(name, capture(name), known))
            told(found[-1])
    return found


# --- claims


def wins(found: list[Result]) -> Iterator[bool]:
    """Yield, for every statistic of every capture, whether the chosen flow is closer than the baseline."""
    for each in found:
        ours, base = each.trials[each.chosen].found, each.trials[BASELINE].found
        if ours is None or base is None:
            continue
        for mine, theirs in zip(ours.rows, base.rows, strict=True):
            if mine.l1 is not None and theirs.l1 is not None:
                yield mine.l1.value < theirs.l1.value


def claims(found: list[Result]) -> list[Claim]:
    """Return the three claims on held-out real data."""
    scored = {each.capture: each.trials[each.chosen].found for each in found}
    able = {name: score for name, score in scored.items() if score is not None}
    won = [*wins(found)]
    note = "; ".join(f"{each.capture}: {each.chosen}" for each in found) or f"no capture lies in {REAL_DATA}"
    made = [
        Claim(
            "flow_wins_over_zero_intelligence",
            "share of LOB-Bench statistics, held-out half, where the calibrated flow is closer than zero intelligence",
            float(np.mean(won)) if won else None,
            0.70,
            "high",
            note=note,
        )
    ]
    for claim, distance, bar in (("lob_l1_mean", "l1", 0.25), ("lob_w_mean", "wasserstein", 0.35)):
        made.append(_mean_claim(claim, distance, bar, able, found))
    return made


def _mean_claim(claim: str, distance: Any, bar: float, able: dict[str, BookComparison], found: list[Result]) -> Claim:
    peers = {f"{name}: real against real": score.floor_mean(distance) for name, score in able.items()}
    peers |= {name: score.mean(distance) for name, score in able.items()}
    for each in found:
        if (base := each.trials[BASELINE].found) is not None:
            peers[f"{each.capture}: zero intelligence"] = base.mean(distance)
    value = float(np.mean([score.mean(distance) for score in able.values()])) if able else None
    what = f"calibrated flow, mean {distance} of the applicable statistics on held-out real data, over captures"
    return Claim(claim, what, value, bar, "low", dict(sorted(peers.items())))


# --- recovery


def coverage(truth: OrderFlow, fitted_on: Messages, seeds: int, seconds: float) -> tuple[float, int]:
    """Return the share of a flow's parameters within the 95 % intervals of refits to its own runs, and how many.

    Runs are seen as the truth's source shows its market, by orders or by levels, but without the loss between two
    publications. Classes and the time of day are those of the truth (`fit_like`): what is estimated on other classes
    is another parameter.
    """
    known = truth.estimates  # type: ignore[attr-defined]
    inside: list[bool] = []
    start = int(fitted_on.spans[-1, 1])
    span = start, start + int(seconds * NS_PER_SECOND)
    for seed in range(seeds):
        run = truth.start(start, rng=stream(seed, "recovery"))
        if (fitted_on.order_id > 0).any():
            opening = _standing(run.market.book, start)
            messages = of_orders(_journal(run, span[1])[2], opening, span=span, scale=fitted_on.scale)
        else:
            noise = stream(seed, "publication")
            messages = observing.levels_of(run, span[1], fitted_on.scale, observing.CONTINUOUS, rng=noise)
        again = type(truth)(truth.parameters).fit_like(messages, truth).estimates  # type: ignore[attr-defined]
        for name, each in again.items():
            if name in known and each.error is not None and np.isfinite(each.error):
                low, high = each.interval
                inside.append(bool(low <= known[name].value <= high))
    return float(np.mean(inside)) if inside else float("nan"), len(inside)


def recovery_claim(known: Flows, *, seeds: int, seconds: float) -> Claim:
    """Return the claim on parameters recovered, the worst flow's; truths are fits to the USD-M capture."""
    what = f"parameters within the 95 % interval, refits to {seeds} own runs of {seconds:g} s, worst flow"
    if not (REAL_DATA / CAPTURES["USD-M"][0][0]).exists():
        return Claim("flow_recovery_coverage", what, None, 0.90, "high", note=f"no capture lies in {REAL_DATA}")
    messages = capture("USD-M").split(0.5)[0]
    shares, notes = {}, []
    for name, made in known.items():
        try:
            truth = made().fit(messages, rng=stream(0, name, "fit"))
            shares[name], count = coverage(truth, messages, seeds, seconds)
            notes.append(f"{name}: {count} intervals")
        except SynthError as error:
            notes.append(f"{name}: {error}")
    worst = min(shares.values()) if len(shares) == len(known) else None
    return Claim("flow_recovery_coverage", what, worst, 0.90, "high", shares, "; ".join(notes))


# --- tables


def show(each: Result) -> None:
    """Print one capture's table: L1 / Wasserstein of every flow, and of real against real."""
    names = list(each.trials)
    print(f"\n{each.capture}: fitted on the first half, scored on the second; chosen within the first: {each.chosen}")
    print(f"{'statistic':28}" + "".join(f"{name:>22}" for name in names) + f"{'real / real':>18}")
    able = {name: trial_.found for name, trial_ in each.trials.items() if trial_.found is not None}
    for row, statistic in enumerate(next(iter(able.values())).rows if able else ()):
        cells = [_cell(able[name].rows[row]) if name in able else "-" for name in names]
        floors = [table.rows[row] for table in able.values() if table.rows[row].l1_floor is not None]
        floor = f"{floors[0].l1_floor:.3f} / {floors[0].wasserstein_floor:.3f}" if floors else "-"
        print(f"{statistic.name:28}" + "".join(f"{cell:>22}" for cell in cells) + f"{floor:>18}")
    for name in sorted({name for table in able.values() for name in (*table.impact, *table.absent)}):
        cells = [
            f"{able[flow].impact[name]:.3f} ticks" if flow in able and name in able[flow].impact else "-"
            for flow in names
        ]
        print(f"{name:28}" + "".join(f"{cell:>22}" for cell in cells))
    for label, mean in (("mean", "mean"), ("median", "median"), ("IQM", "interquartile_mean")):
        cells = [
            " / ".join(f"{getattr(able[name], mean)(d):.3f}" for d in ("l1", "wasserstein")) if name in able else "-"
            for name in names
        ]
        floor = (
            " / ".join(f"{next(iter(able.values())).floor_mean(d):.3f}" for d in ("l1", "wasserstein"))
            if able and label == "mean"
            else ""
        )
        print(f"{label:28}" + "".join(f"{cell:>22}" for cell in cells) + f"{floor:>18}")
    for name, trial_ in each.trials.items():
        if trial_.reason:
            print(f"  {name}: {trial_.reason}")


def _cell(row: Any) -> str:
    return "-" if row.l1 is None else f"{row.l1.value:.3f} / {row.wasserstein.value:.3f}"


def main() -> None:
    """Print tables and claims."""
    options = arguments(__doc__)
    options.add_argument("--captures", default="", help="captures by comma; all by default")
    options.add_argument("--flows", default="", help="flows by comma; all by default")
    given = options.parse_args()
    names = tuple(filter(None, given.captures.split(","))) or (("USD-M",) if given.quick else tuple(CAPTURES))
    known = known_flows([*filter(None, given.flows.split(","))])
    told = (lambda _: None) if given.json else show
    made = claims(results(names, known, told))
    made.append(recovery_claim(known, seeds=2 if given.quick else SEEDS, seconds=20.0 if given.quick else RUN_SECONDS))
    report("order_flow", made, as_json=given.json)


if __name__ == "__main__":
    main()

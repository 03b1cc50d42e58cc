"""Calibrated order flows against real captures: the statistics of LOB-Bench on a held-out second half.

Every flow of `market/flows` is fitted on the first half of each capture and runs as long as the second half. What it
does is published as the capture was (differences at its rhythm with trades between, or order by order; as many levels),
goes through the same builders of messages, and is scored once against the second half, beside what the real first half
scores. Which flow speaks for a capture is chosen within the first half, from fits on its first half scored on its
second. Zero intelligence is what the others are to beat.

Each flow's parameters are also estimated again from its own runs: of a flow as fitted to the USD-M capture, seen by its
levels and trades, or, without captures, of one of known parameters, seen order by order.

Real captures lie in SYNTH_REAL_DATA (default `../shared/data`); without them only that is measured. The short form is
about one capture. `simulator.py` prints these claims among its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from common import Claim, arguments, report

from synth_pipeline import plugins, stages
from synth_pipeline.errors import SynthError
from synth_pipeline.fidelity.book_comparison import BookComparison, compare
from synth_pipeline.market import flows, rows
from synth_pipeline.market.flows import OrderFlow, observing, recovery
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.book_reports import sample_of
from synth_pipeline.ticks.messages import Messages, of_store

BASELINE = "zero_intelligence"
LARGE, SMALL = "USD-M", "LOBSTER AMZN"
"""The capture that the recovery's flows are fitted to, and the one that the short form compares on."""
RECOVERY, QUICK_RECOVERY = (50, 60.0, 0.5), (2, 20.0, 0.15)
"""Runs, how long each is, and the part of the capture that the flows are fitted to."""
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


def there_is(name: str) -> bool:
    """Return whether all files of a capture are there."""
    return all((REAL_DATA / file).exists() for file in CAPTURES[name][0])


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


def simulated(flow: OrderFlow, fitted_on: Messages, span: tuple[int, int], *, rng: np.random.Generator) -> Messages:
    """Run a fitted flow over a time, and return its messages as the capture's venue would have let them be seen."""
    tables = rows.joined(rows.tick_pieces(flow.start(span[0], rng=rng), span[1]))
    return rows.observed(tables, fitted_on, span, fitted_on.scale)


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
        synthetic = sample_of(run)
        return Trial(compare(real, synthetic, rng=stream(seed, name, "scores"), floor=(real, sample_of(fit))))
    except SynthError as error:
        return Trial(None, str(error))


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
    for name in filter(there_is, names):
        found.append(result(name, capture(name), known))
        told(found[-1])
    return found


# --- claims


def wins(found: list[Result]) -> Iterator[bool]:
    """Yield, for every statistic that the baseline has of every capture, whether the chosen flow is closer; a flow that
    broke down, or lacks the statistic, is not."""
    for each in found:
        ours, base = each.trials[each.chosen].found, each.trials[BASELINE].found
        for row, theirs in enumerate(base.rows if base is not None else ()):
            mine = ours.rows[row].l1 if ours is not None else None
            if theirs.l1 is not None:
                yield mine is not None and mine.value < theirs.l1.value


def claims(found: list[Result]) -> list[Claim]:
    """Return the three claims on held-out real data; of a capture whose chosen flow broke down nothing is claimed."""
    won = [*wins(found)]
    note = "; ".join(f"{each.capture}: {each.chosen}" for each in found) or f"no capture lies in {REAL_DATA}"
    broken = [f"{each.capture}: {each.trials[each.chosen].reason}" for each in found if _score(each) is None]
    wins_claim = Claim(
        "flow_wins_over_zero_intelligence",
        "share of LOB-Bench statistics, held-out half, where the calibrated flow is closer than zero intelligence",
        float(np.mean(won)) if won else None,
        0.70,
        "high",
        note=note,
    )
    means = [
        _mean_claim(claim, distance, bar, found, "; ".join(broken) or note)
        for claim, distance, bar in (("lob_l1_mean", "l1", 0.25), ("lob_w_mean", "wasserstein", 0.35))
    ]
    return [wins_claim, *means]


def _score(each: Result) -> BookComparison | None:
    return each.trials[each.chosen].found


def _mean_claim(claim: str, distance: Any, bar: float, found: list[Result], note: str) -> Claim:
    able = {each.capture: score for each in found if (score := _score(each)) is not None}
    peers = {f"{name}: real against real": score.floor_mean(distance) for name, score in able.items()}
    peers |= {name: score.mean(distance) for name, score in able.items()}
    for each in found:
        if (base := each.trials[BASELINE].found) is not None:
            peers[f"{each.capture}: zero intelligence"] = base.mean(distance)
    value = float(np.mean([score.mean(distance) for score in able.values()])) if 0 < len(able) == len(found) else None
    what = f"calibrated flow, mean {distance} of the applicable statistics on held-out real data, over captures"
    return Claim(claim, what, value, bar, "low", dict(sorted(peers.items())), note)


# --- recovery


def coverage(truth: OrderFlow, fitted_on: Messages, seeds: int, seconds: float) -> float:
    """Return the share of a flow's parameters within the 95 % intervals of refits to its own runs.

    Runs are seen as the truth's source shows its market, by levels and trades, but without the loss between two
    publications. Classes and the time of day are those of the truth (`fit_like`): what is estimated on other classes
    is another parameter.
    """
    known = truth.estimates  # type: ignore[attr-defined]
    inside: list[bool] = []
    start = int(fitted_on.spans[-1, 1])
    for seed in range(seeds):
        run, noise = truth.start(start, rng=stream(seed, "recovery")), stream(seed, "publication")
        until = start + int(seconds * NS_PER_SECOND)
        messages = observing.levels_of(run, until, fitted_on.scale, observing.CONTINUOUS, rng=noise)
        again = type(truth)(truth.parameters).fit_like(messages, truth).estimates  # type: ignore[attr-defined]
        for name, each in again.items():
            if name in known and each.error is not None and np.isfinite(each.error):
                low, high = each.interval
                inside.append(bool(low <= known[name].value <= high))
    return float(np.mean(inside)) if inside else float("nan")


def recovery_claim(known: Flows, seeds: int, seconds: float, share: float) -> Claim:
    """Return the claim on parameters recovered, the worst flow's; truths are fits to a share of a capture."""
    what = f"parameters within the 95 % interval, refits to {seeds} own runs of {seconds:g} s, worst flow"
    messages = capture(LARGE).split(share)[0] if there_is(LARGE) else None
    shares, notes = {}, [f"as fitted to {LARGE}" if messages is not None else f"no capture lies in {REAL_DATA}"]
    for name, made in known.items():
        try:
            if messages is None:
                shares[name] = recovery.recovery(name, range(seeds), seconds=seconds).coverage
            else:
                shares[name] = coverage(made().fit(messages, rng=stream(0, name, "fit")), messages, seeds, seconds)
        except SynthError as error:
            notes.append(f"{name}: {error}")
    worst = min(shares.values()) if len(shares) == len(known) else None
    return Claim("flow_recovery_coverage", what, worst, 0.90, "high", shares, "; ".join(notes))


def measured(
    *,
    quick: bool,
    captures: tuple[str, ...] = (),
    wanted: Collection[str] = (),
    told: Callable[[Result], None] = lambda _: None,
) -> list[Claim]:
    """Return the claims, of all captures and flows by default; the short form is about one capture."""
    known = known_flows(wanted)
    names = captures or ((SMALL,) if quick else tuple(CAPTURES))
    recovered = recovery_claim(known, *(QUICK_RECOVERY if quick else RECOVERY))
    return [recovered, *claims(results(names, known, told))]


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
    captures, wanted = ([*filter(None, each.split(","))] for each in (given.captures, given.flows))
    if unknown := [name for name in captures if name not in CAPTURES]:
        options.error(f"unknown capture {unknown[0]!r}: known are {', '.join(CAPTURES)}")
    told = (lambda _: None) if given.json else show
    made = measured(quick=given.quick, captures=tuple(captures), wanted=wanted, told=told)
    report("order_flow", made, as_json=given.json)


if __name__ == "__main__":
    main()

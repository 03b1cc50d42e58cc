"""Generators on market data: the table of the augmentation document, its claims, regimes, drift and sampling rates.

BTCUSDT hourly bars, trained to the end of 2022, tested on the first half of 2023. Every neural row is trained with
about the same processor time (`ROWS` says how many steps that is), with its own defaults but for the window; rows that
a document compares stand beside an iid bootstrap, a block bootstrap and the fresh data of the test period. What each
column means is in `fidelity_hours`.

Claims are of one model of ours, chosen before 2023: each of `OWN` is also trained on the bars up to the end of June
2022 and scored against the half year after it, and the one that meets most bars there is taken (`standing`). No score
of the test period chooses anything: training keeps averaged weights, or those of the least held-out loss.

    python benchmarks/generators.py --json                       all rows, two training seeds each
    python benchmarks/generators.py --markdown                   the same, and the table in docs/generator_figures.md
    python benchmarks/generators.py --rows wgan_gp,timegan       some rows

`--data` names the folder of the bars (default `SYNTH_REAL_DATA`, or `../shared/data`). Scores of long paths on order
books are those of `generators_paths.py`; sampling rates of windows are in `tsg.py`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import fidelity_hours as hours
import generators_paths
import numpy as np
import torch
from bootstrap_schemes import DATA, history
from common import Claim, arguments, machine, report

from synth_pipeline import generators, plugins
from synth_pipeline.errors import TrainingError
from synth_pipeline.generators import Generator
from synth_pipeline.generators.recipe import Watch
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series

FILE = "binance_usdm_BTCUSDT_1h_to20230630.csv.xz"
Period = tuple[str, str]
"""The first day of a test period and the first after it; what is before the period is trained on."""
TEST: Period = ("2023-01-01", "2023-07-01")
VALIDATION: Period = ("2022-07-01", "2023-01-01")
DOCUMENT = Path(__file__).parents[1] / "docs" / "generator_figures.md"
WINDOWS, PATHS, SETTLED = 3_072, 96, 256
LONG_PATHS, LONG_STEPS = 192, 720
SCENARIOS, SCENARIO_STEPS = 200, 168
MILD, GRAVE = "bull", "flash_crash"
OWN = ("window_flow", "chunk_flow")
"""The models of ours that claims may be of."""

Settings = Mapping[str, Any]
_SHORT: Settings = {"window": hours.BARS}
ROWS: Mapping[str, Settings] = {
    "vanilla_gan": {**_SHORT, "steps": 12_000},
    "dcgan": {**_SHORT, "steps": 3_000},
    "conditional_gan": {**_SHORT, "steps": 1_100},
    "wgan_gp": {**_SHORT, "steps": 1_100},
    "findiff": {**_SHORT, "steps": 3_200},
    "timegan": {**_SHORT, "steps": 450},
    "rcgan": {**_SHORT, "steps": 2_000},
    "quant_gan": {"steps": 530},
    "sig_wgan": {"steps": 3_000},
    "ar_mlp": {"window": hours.BARS, "steps": 5_800},
    "time_vae": {**_SHORT, "steps": 4_400},
    "window_flow": {**_SHORT, "steps": 4_000},
    "chunk_flow": {"steps": 4_500},
}
"""Steps make about a minute of one core; a row appears when its file does."""
SECONDS, QUICK = 60, 0.05
"""About what the steps of a row take, and the share of them in the short form."""
VARIANTS: Mapping[str, tuple[str, Settings]] = {
    "ar_mlp, drift left": ("ar_mlp", {**ROWS["ar_mlp"], "cure_drift": False}),
    "iid bootstrap": ("block_bootstrap", {"scheme": "circular", "block_length": 1.0}),
    "block bootstrap": ("block_bootstrap", {}),
}
COPY, FRESH = "training data", "fresh real data"
PUBLISHED: Mapping[str, tuple[float, float, float, str]] = {
    "vanilla_gan": (0.72, 0.18, 0.31, "poor"),
    "dcgan": (0.78, 0.12, 0.25, "moderate"),
    "conditional_gan": (0.88, 0.06, 0.14, "moderate"),
    "wgan_gp": (0.91, 0.04, 0.12, "high"),
    "findiff": (0.93, 0.03, 0.08, "very high"),
    "timegan": (0.94, 0.03, 0.05, "good"),
}
"""What the document prints: TSTR ratio, divergence, ACF difference, stability; its data and scorer are not told."""
BARS: Mapping[str, tuple[float, str, str]] = {
    "tstr": (0.97, "high", "accuracy after training on synthetic windows over that after training on real ones"),
    "kl_excess": (0.01, "low", "divergence of returns beyond that of real halves, nats"),
    "acf1": (0.02, "low", "difference of the lag-1 autocorrelation of returns"),
    "diversity": (0.92, "high", "share of real windows that synthetic ones cover"),
    "ds_vs_fresh": (1.0, "low", "discriminative score of 24-hour windows over that of fresh real data"),
    "copied_share": (0.01, "low", "share of returns in verbatim runs from training data"),
}
COLUMNS = {
    "tstr": "TSTR ratio",
    "kl_excess": "KL excess",
    "acf1": "ACF1 diff.",
    "clustering": "ACF1 of sizes",
    "diversity": "diversity",
    "ds": "DS",
    "ds_vs_fresh": "DS / fresh",
    "copied_share": "copied",
    "survival": "survival",
    "sharpe_gain": "Sharpe gain",
    "drift_z": "drift z",
    "seconds": "training, CPU s",
    "ds_spread": "seeds apart, DS",
}


@dataclass(frozen=True, eq=False)
class Market:
    """Training and test bars, and what is measured of them once."""

    train: Series
    test: Series

    @classmethod
    def of(cls, path: Path, period: Period) -> Market:
        """Read a file of hourly bars and part it."""
        bars = history(str(path.resolve()))
        days = np.array(period, dtype="datetime64[ns]").astype(np.int64)
        first, last = ((days - bars.start_ns[0]) // bars.step_ns + 1).tolist()
        return cls(bars.slice(0, first), bars.slice(first, min(last, bars.steps)))


@dataclass(frozen=True)
class Job:
    """One generator, trained once."""

    row: str
    name: str
    settings: Settings
    seed: int
    path: Path
    repeats: int
    period: Period = TEST


@dataclass
class Found:
    """What one training run gave."""

    row: str
    values: dict[str, float] = field(default_factory=dict)
    note: str = ""


@cache
def market(path: Path, period: Period = TEST) -> Market:
    """Return the market of a file; one process reads it once."""
    return Market.of(path, period)


def trained(job: Job) -> tuple[Generator, float]:
    """Fit, on the processor; return how many seconds of it that took."""
    made: Generator = plugins.load(generators, job.name).from_settings(dict(job.settings))
    if hasattr(made, "watch"):
        made.watch = Watch(accelerator="cpu")
    started = time.process_time()
    made.fit(market(job.path, job.period).train, rng=stream(job.seed, "benchmark", job.name))
    return made, time.process_time() - started


def measured(job: Job) -> Found:
    """Train and score; a run that an alarm ended says so, and has no scores."""
    torch.set_num_threads(1)
    try:
        made, seconds = trained(job)
    except TrainingError as error:
        return Found(job.row, note=str(error))
    values = scores(market(job.path, job.period), windows_of(made, job.seed), job.repeats) | {"seconds": seconds}
    if made.max_steps is None and job.period == TEST:
        values["drift_z"] = drift_z(made.sample(LONG_PATHS, LONG_STEPS, rng=stream(job.seed, "long")))
        values |= under_regimes(made, job.seed) if made.conditions and job.row in ROWS else {}
    print(f"{job.row}, seed {job.seed}, tested from {job.period[0]}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return Found(job.row, values)


def windows_of(made: Generator, seed: int) -> FloatArray:
    """Sample windows: each by itself, or cut from connected paths far from where they start."""
    if made.max_steps is not None:
        return hours.windows(made.sample(WINDOWS, hours.BARS, rng=stream(seed, "windows")))
    paths = made.sample(PATHS, SETTLED + WINDOWS // PATHS * hours.BARS, rng=stream(seed, "windows"))
    return hours.windows(paths.slice(SETTLED, paths.steps), hours.BARS)


def scores(known: Market, made: FloatArray, repeats: int) -> dict[str, float]:
    """Score windows of the shape that `fidelity_hours.windows` gives."""
    reference = Reference.of(known, repeats)
    returns = hours.read(made)[..., 0]
    acf1, clustering = hours.correlation_differences(reference.apart, returns)
    answers = hours.taught(made, reference.train, reference.test)
    both = hours.taught(half_and_half(reference.train, made), reference.train, reference.test)
    ds = hours.discriminative(reference.train, made, repeats).mean
    return {
        "tstr": hours.tstr_ratio(answers, reference.by_real),
        "tstr, direction": answers.direction / reference.by_real.direction,
        "tstr, size": answers.size / reference.by_real.size,
        "kl_excess": hours.divergence_excess(reference.returns, returns.ravel(), reference.divergence),
        "acf1": acf1,
        "clustering": clustering,
        "diversity": hours.diversity(reference.apart, returns, known.train),
        "ds": ds,
        "ds_vs_fresh": ds / reference.ds_fresh,
        "copied_share": hours.copied_share(reference.returns, returns),
        "survival": hours.survival(returns),
        "sharpe_gain": both.sharpe - reference.by_real.sharpe,
    }


def half_and_half(real: FloatArray, made: FloatArray) -> FloatArray:
    """Return real and made windows, as many of either as a learner takes of one kind, in turn."""
    some = [hours.thinned(each, hours.TAUGHT // 2) for each in (real, made)]
    return np.concatenate(some)


@dataclass(frozen=True, eq=False)
class Reference:
    """What every row is held against."""

    train: FloatArray
    test: FloatArray
    apart: FloatArray
    """Returns of training windows that share no hours, shape (n, 24)."""
    returns: FloatArray
    """All training returns, shape (steps,)."""
    by_real: hours.Taught
    divergence: float
    ds_fresh: float

    @classmethod
    @cache
    def of(cls, known: Market, repeats: int) -> Reference:
        """Measure real data against real data; once a process."""
        train, test = hours.windows(known.train), hours.windows(known.test)
        returns = known.train.log_returns()[0]
        return cls(
            train,
            test,
            hours.read(train[:: hours.READ])[..., 0],
            returns,
            hours.taught(train, train, test),
            hours.floor_of_divergence(returns),
            hours.discriminative(train, test, repeats).mean,
        )


def drift_z(paths: Series) -> float:
    """Return the mean log-return of paths over its standard error."""
    ends = paths.log_returns().sum(axis=1)
    return float(ends.mean() / (ends.std(ddof=1) / math.sqrt(len(ends))))


def under_regimes(made: Generator, seed: int) -> dict[str, float]:
    """Return how deep a week falls under the grave regime and under the mild one, and how often deeper."""
    found = {
        regime: made.sample(SCENARIOS, SCENARIO_STEPS, regime=regime, rng=stream(seed, "scenarios", regime))
        for regime in (GRAVE, MILD)
    }
    deep = {regime: hours.drawdowns(paths.column("close")) for regime, paths in found.items()}
    return {
        "regime_ordered": hours.deeper(deep[GRAVE], deep[MILD]),
        **{f"drawdown, {regime}": float(np.median(each)) for regime, each in deep.items()},
        f"survival, {GRAVE}": hours.survival(found[GRAVE].log_returns()[:, : hours.READ]),
    }


def real_rows(path: Path, repeats: int) -> list[Found]:
    """Score training windows, and those of the test period, in place of synthetic ones.

    What the test period teaches about itself is learned from its first half and asked about its second.
    """
    known = market(path)
    copy = scores(known, hours.thinned(Reference.of(known, repeats).train, WINDOWS), repeats)
    later = hours.windows(known.test)
    fresh = scores(known, hours.thinned(later, WINDOWS), repeats)
    half = len(later) // 2
    train = Reference.of(known, repeats).train
    by_fresh, by_real = (hours.taught(each, train, later[half:]) for each in (later[: half - hours.BARS], train))
    fresh["tstr"] = hours.tstr_ratio(by_fresh, by_real)
    del fresh["sharpe_gain"]
    return [Found(COPY, copy), Found(FRESH, fresh)]


# ---- all of it


def jobs(path: Path, rows: Sequence[str], seeds: int, share: float, repeats: int, period: Period = TEST) -> list[Job]:
    """Return what is to be trained, for a share of the steps."""
    there = set(plugins.names(generators))
    wanted = {name: (name, settings) for name, settings in ROWS.items() if name in there} | dict(VARIANTS)
    made = []
    for row, (name, settings) in wanted.items():
        if rows and row not in rows:
            continue
        cut = dict(settings)
        if "steps" in cut:
            cut["steps"] = max(round(cut["steps"] * share), 20)
        trainings = seeds if name in ROWS else 1
        made += [Job(row, name, cut, seed, path, repeats, period) for seed in range(trainings)]
    return made


def merged(found: Sequence[Found]) -> dict[str, Found]:
    """Return one result a row: means over seeds, and how far their discriminative scores are apart."""
    by_row: dict[str, list[Found]] = {}
    for each in found:
        by_row.setdefault(each.row, []).append(each)
    result = {}
    for row, runs in by_row.items():
        scored = [run.values for run in runs if run.values]
        values = {key: float(np.mean([each[key] for each in scored])) for key in (scored[0] if scored else {})}
        if len(scored) > 1:
            values["ds_spread"] = float(np.ptp([each["ds"] for each in scored]))
        result[row] = Found(row, values, "; ".join(dict.fromkeys(run.note for run in runs if run.note)))
    return result


def standing(values: Mapping[str, float]) -> tuple[int, float, float]:
    """Return what orders rows, the best first: bars missed, by how much in all, and the same less what is to spare.

    By how much a bar is missed is counted in the bar itself: a value of 0.8 misses one of at least 1 by 0.2.
    """
    short = [(values[key] / bar - 1) * (1 if goal == "low" else -1) for key, (bar, goal, _) in BARS.items()]
    missed = [each for each in short if each > 0]
    return len(missed), sum(missed), sum(short)


def chosen(validated: Mapping[str, Found]) -> str:
    """Return the row that claims are of: of those that were validated the best, otherwise the first."""
    known = [row for row, each in validated.items() if each.values]
    return min(known, key=lambda row: standing(validated[row].values), default=OWN[0])


def of_best(found: Mapping[str, Found], validated: Mapping[str, Found]) -> list[Claim]:
    """Return the claims of the row that was chosen."""
    name = chosen(validated)
    own = found.get(name, Found(name, note="not among the rows"))
    how = f"chosen of {', '.join(validated)} by 2022 H2" if validated else "not chosen, the first of ours"
    notes = [own.note, "" if validated else "nothing was validated: neither the short form nor other rows are"]
    note = "; ".join(filter(None, notes))
    claims = []
    for key, (bar, goal, what) in BARS.items():
        others = {row: each.values[key] for row, each in found.items() if key in each.values and row != name}
        what = f"BTCUSDT hourly, {name} ({how}): {what}"
        claims.append(Claim(f"btc_{key}", what, own.values.get(key), bar, goal, others, note))
    return claims


def of_regimes(found: Mapping[str, Found]) -> Claim:
    """Return the claim that a flash crash is deeper than a bull market, of the row that tells them apart least."""
    asked = {row: each.values for row, each in found.items() if "regime_ordered" in each.values}
    shown = {
        f"{row}: {key}": value
        for row, values in asked.items()
        for key, value in values.items()
        if key.startswith(("regime", "drawdown", "survival,"))
    }
    least = min((values["regime_ordered"] for values in asked.values()), default=None)
    what = f"how often a week under {GRAVE} falls deeper than one under {MILD}, least of the conditional rows"
    return Claim("regime_ordered", what, least, 0.9, "high", shown)


def absent() -> list[Claim]:
    """Return claims without figures."""
    note = f"{FILE} not under SYNTH_REAL_DATA"
    return [replace(claim, note=note) for claim in of_best({}, {})]


# ---- the table in the documentation


def table(found: Mapping[str, Found], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Return the Markdown table of all rows; what is missing is left empty."""
    names = [COLUMNS[key] for key in columns]
    lines = ["| row | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for row, each in found.items():
        cells = [_written(key, each.values.get(key)) for key in columns]
        lines.append(f"| `{row}` | " + " | ".join(cells) + " |" + (f" {each.note}" if each.note else ""))
    return "\n".join(lines)


def published() -> str:
    """Return what the document prints, in Markdown."""
    lines = ["| row | TSTR ratio | divergence | ACF1 diff. | stability |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [f"| `{row}` | {a:.2f} | {b:.2f} | {c:.2f} | {told} |" for row, (a, b, c, told) in PUBLISHED.items()]
    return "\n".join(lines)


def regimes_table(found: Mapping[str, Found]) -> str:
    """Return the drawdowns under regimes, in Markdown."""
    keys = (f"drawdown, {GRAVE}", f"drawdown, {MILD}", "regime_ordered", f"survival, {GRAVE}")
    lines = [f"| row | {GRAVE}: median | {MILD}: median | deeper | survival, {GRAVE} |", "| --- |" + " ---: |" * 4]
    for row, each in found.items():
        if "regime_ordered" in each.values:
            lines.append(f"| `{row}` | " + " | ".join(f"{each.values[key]:.3f}" for key in keys) + " |")
    return "\n".join(lines)


def validation(validated: Mapping[str, Found]) -> str:
    """Return how the row of the claims was chosen, in Markdown."""
    if not validated:
        return f"Nothing was validated in this run; claims are of `{OWN[0]}`, the first of {', '.join(OWN)}."
    ends = {row: standing(each.values) for row, each in validated.items() if each.values}
    told = [f"`{row}` misses {missed}, by {by:.3f} of its bars in all" for row, (missed, by, _) in ends.items()]
    return f"""Trained on the bars before {VALIDATION[0]} and scored against those from there to {VALIDATION[1]},
`{chosen(validated)}` comes first, so claims are of it. Rows stand by how many of the {len(BARS)} bars they miss; then
by how much in all, counted in the bar itself (0.8 misses one of at least 1 by 0.2); then by the same less what they
have to spare. {"; ".join(told)}.

{table(validated, (*BARS, "seconds"))}"""


def page(found: Mapping[str, Found], validated: Mapping[str, Found], seeds: int, share: float) -> str:
    """Return the document; nothing in it is typed."""
    box = machine()
    return f"""# Figures of the generators

Made by `python benchmarks/generators.py --markdown`. BTCUSDT hourly bars, trained to the end of 2022, tested on the
first half of 2023; `benchmarks/fidelity_hours.py` says what each column is. Neural rows have their defaults but for the
window of {hours.BARS} bars and their steps, about {SECONDS * share:.0f} s of one core; trainings a row: {seeds}.

{table(found)}

`drift z`: mean of {LONG_PATHS} paths of {LONG_STEPS} hours over its standard error. `survival`: share of 24-hour
windows in which a long position of {hours.LEVERAGE:g} times its equity keeps half of it.

## Which row the claims are of

{validation(validated)}

## Beside the figures that were published

{published()}

Neither the data nor the scorer of these are told, so the columns compare only roughly.

## Weeks under a regime

Largest loss within {SCENARIO_STEPS} hours, {SCENARIOS} paths a regime; `deeper`: how often one under {GRAVE} falls
deeper than one under {MILD}.

{regimes_table(found)}

Measured on: {box["cpu"]}, {box["cores"]} cores.
"""


def _written(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if key == "seconds" else f"{value:.1f}" if key == "drift_z" else f"{value:.3f}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the hourly bars")
    parser.add_argument("--rows", default="", help="train only these, by commas")
    parser.add_argument("--seeds", type=int, default=2, help="trainings a neural row")
    parser.add_argument("--share", type=float, default=1.0, help="train for this share of the steps")
    parser.add_argument("--processes", type=int, default=2, help="rows trained at a time")
    parser.add_argument("--markdown", action="store_true", help="write docs/generator_figures.md too")
    options = parser.parse_args()
    path = options.data / FILE
    if not path.exists():
        report("generators", [*absent(), *generators_paths.claims(options.data, options.quick)], as_json=options.json)
        return
    rows = [row for row in options.rows.split(",") if row]
    seeds, share, repeats = (1, QUICK, 1) if options.quick else (options.seeds, options.share, 5)
    todo = jobs(path, rows, seeds, share, repeats)
    own = [] if options.quick else [row for row in OWN if row in rows or not rows]
    earlier = jobs(path, own, seeds, share, repeats, VALIDATION) if own else []
    with ProcessPoolExecutor(options.processes) as pool:
        runs = list(pool.map(measured, [*earlier, *todo]))
    validated = merged(runs[: len(earlier)])
    found = merged([*runs[len(earlier) :], *real_rows(path, repeats)])
    claims = [*of_best(found, validated), of_regimes(found), *generators_paths.claims(options.data, options.quick)]
    report("generators", claims, as_json=options.json)
    if options.markdown:
        DOCUMENT.write_text(page(found, validated, seeds, share), encoding="utf-8")


if __name__ == "__main__":
    main()

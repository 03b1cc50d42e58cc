"""Windows of 24 steps: `window_flow` and every other neural generator on the sets that the field compares on.

Stocks and ETTh, every window of 24 rows, each column scaled to [0, 1] over the file; trained on all of them and scored
against them, as the papers do (`docs/learned-scores.md`), five repeats with 95 % t intervals. Beside each score stand
its floors: what a copy, a bootstrap of the windows, blocks of real windows against the others, and the last fifth of
time against the rest get, and the normal law of the scores, which is `window_flow` before it has learnt anything: where
it does as well, a score does not see what a network adds.

The published protocol rewards copies, so the distance to the nearest real window stands
beside it: synthetic to real over real to other real.

Training has one thread. Its budget is in seconds of a processor: a trial of a few steps tells how many fit into it, so
that all rows have the same one, whatever else the machine does. No step, setting or checkpoint is chosen by a score.
`--data` names the folder with `stock_data.csv` and `ETTh1.csv.zst` (default `SYNTH_REAL_DATA`, else `../shared/data`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fidelity_learned
import numpy as np
from bootstrap_schemes import DATA
from common import Claim, Goal, arguments, report
from fidelity_learned import ETTH, STOCKS

from synth_pipeline import generators, plugins
from synth_pipeline.errors import SynthError
from synth_pipeline.fidelity import cross, learned_scores
from synth_pipeline.fidelity.learned_scores import Repeats
from synth_pipeline.fidelity.proximity import nearest
from synth_pipeline.fidelity.windows import Windows
from synth_pipeline.generators.recipe import Watch
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray

OURS = "window_flow"
ROWS = (
    "ar_mlp",
    "conditional_gan",
    "dcgan",
    "findiff",
    "quant_gan",
    "rcgan",
    "sig_wgan",
    "time_vae",
    "timegan",
    "vanilla_gan",
    "wgan_gp",
)
GAN = "vanilla_gan"
TRIAL = 30
_COMPARED = 4_000
"""Windows of ETTh whose neighbours are looked for: all pairs of 17,000 would take gigabytes."""
BARS: dict[str, tuple[str, float, Goal]] = {
    "stocks_ds": ("Stocks: discriminative score", 0.030, "low"),
    "stocks_cfid": ("Stocks: Context-FID", 0.06, "low"),
    "stocks_corr": ("Stocks: correlational score", 0.010, "low"),
    "stocks_ps": ("Stocks: predictive score", 0.0375, "low"),
    "stocks_nn_ratio": ("Stocks: distance to the nearest real window, over that of real windows", 0.9, "high"),
    "etth_ds": ("ETTh: discriminative score", 0.04, "low"),
    "rank_window_flow": ("Stocks: the worse of the ranks on discriminative score and Context-FID", 1, "equal"),
    "sample_rate_window_flow": ("windows of 24 steps and 6 features a second", 1_000, "high"),
    "sample_rate_gan": (f"the same of {GAN}", 20_000, "high"),
}


@dataclass(frozen=True)
class Effort:
    """How much a run spends."""

    ours: float
    """Processor seconds of training of `window_flow`."""
    etth: float
    rows: float
    """Of every row of the table, `window_flow` among them."""
    names: tuple[str, ...] = ROWS
    most: int = 10**9
    """Windows of a set, evenly spread."""
    floors: bool = True
    """Whether there are other floors than that of a copy."""
    sampled: int = 32_768
    """Windows of the GAN whose rate is measured; a sixteenth of it of ours."""
    repeats: int = learned_scores.REPEATS
    discriminative: int = learned_scores.DISCRIMINATIVE_STEPS
    predictive: int = learned_scores.PREDICTIVE_STEPS
    encoder: int | None = None


FULL = Effort(ours=120.0, etth=480.0, rows=40.0)
QUICK = Effort(2.0, 2.0, 1.0, ("findiff", GAN), 300, False, 8_192, 2, 200, 200, 10)


@dataclass(frozen=True)
class Row:
    """What a generator made of a set and what that took."""

    generator: Any
    windows: FloatArray
    seconds: float
    """Processor time of training."""
    steps: int


def trained(name: str, real: FloatArray, seconds: float) -> Row:
    """Train for a budget and sample as many windows as there are real ones."""
    steps = round(seconds / _step_seconds(name, real))
    generator, spent = _fitted(name, real, max(steps, TRIAL))
    made = generator.sample_windows(len(real), rng=stream(0, "tsg", "sample", name))
    return Row(generator, made, spent, generator.history.steps)


def _step_seconds(name: str, real: FloatArray) -> float:
    """Return the processor time of a step, without that of what surrounds training."""
    seen: list[float] = []
    _fitted(name, real, TRIAL, Watch(on_losses=lambda *_: seen.append(time.process_time())))
    return max(seen[-1] - seen[0], 1e-3) / (len(seen) - 1)


def _fitted(name: str, real: FloatArray, steps: int, watch: Watch | None = None) -> tuple[Any, float]:
    generator = plugins.load(generators, name).from_settings({"steps": steps, "window": real.shape[1]})
    generator.watch = watch
    started = time.process_time()
    generator.fit_windows(real, rng=stream(0, "tsg", "fit", name))
    return generator, time.process_time() - started


Score = Callable[[FloatArray, FloatArray], Repeats]


def scores(effort: Effort, repeats: int) -> dict[str, Score]:
    """Return the scores of two sets of windows by name."""

    def learned(score: Any, steps: int | None, label: str) -> Score:
        return lambda real, made: score(real, made, rng=stream(0, "tsg", label), repeats=repeats, steps=steps)

    def correlational(real: FloatArray, made: FloatArray) -> Repeats:
        return Repeats(
            np.array([cross.correlational(real, made, rng=stream(at, "tsg", "corr")) for at in range(repeats)])
        )

    predictive = learned(learned_scores.predictive, effort.predictive, "ps")
    return {
        "ds": learned(learned_scores.discriminative, effort.discriminative, "ds"),
        "cfid": learned(learned_scores.context_fid, effort.encoder, "cfid"),
        "corr": correlational,
        "ps": lambda real, made: predictive(made, real),
    }


def floors(real: FloatArray, *, more: bool) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return a real set and another that a score is compared with, by what it is."""
    if not more:
        return {"a copy": (real, real)}
    normal = _fitted(OURS, real, 1)[0].sample_windows(len(real), rng=stream(0, "tsg", "normal"))
    rng = stream(0, "tsg", "floors")
    length = real.shape[1]
    sides = rng.permutation(-(-len(real) // length)) % 2
    dealt = np.repeat(sides, length)[: len(real)]
    cut = int(0.8 * len(real))
    return {
        "a copy": (real, real),
        "the normal law of the scores, nothing learnt": (real, normal),
        "a bootstrap of the windows": (real, real[rng.integers(0, len(real), len(real))]),
        "blocks of real windows against the others": learned_scores.like_sized(
            real[dealt == 0], real[dealt == 1], rng=rng
        ),
        "the last fifth of time against the rest": learned_scores.like_sized(real[cut + length :], real[:cut], rng=rng),
    }


def scored(claim: str, real: FloatArray, row: Row, score: Score, *, more: bool) -> Claim:
    """Score a row beside the floors."""
    what, bar, goal = BARS[claim]
    found = score(real, row.windows)
    beside = {"±": found.half_width} | {
        f"floor: {name}": score(*pair).mean for name, pair in floors(real, more=more).items()
    }
    beside |= {"training, processor seconds": row.seconds, "training steps": float(row.steps)}
    return Claim(claim, what, found.mean, bar, goal, beside)


def neighbour_distances(real: FloatArray, made: FloatArray) -> tuple[float, float]:
    """Return the median distance of made windows to the nearest real one, and of real ones to the nearest other."""
    names = tuple(map(str, range(real.shape[2])))
    known, ours = Windows(real, names), Windows(made, names)
    return tuple(float(np.median(nearest(each, known, known).distance)) for each in (ours, known))  # type: ignore[return-value]


def neighbours(real: FloatArray, row: Row) -> Claim:
    """Say how near synthetic windows lie to real ones."""
    what, bar, goal = BARS["stocks_nn_ratio"]
    made, other = neighbour_distances(real, row.windows)
    shown = {"synthetic to real": made, "real to other real": other}
    return Claim("stocks_nn_ratio", what, made / other, bar, goal, shown)


def table(real: FloatArray, effort: Effort) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return the scores of every row at one budget, and which rows failed and why."""
    found: dict[str, dict[str, float]] = {}
    failed = []
    measures = scores(effort, effort.repeats)
    for name in (OURS, *effort.names):
        try:
            row = trained(name, real, effort.rows)
        except SynthError as error:
            failed.append(str(error))
            continue
        made, other = neighbour_distances(real, row.windows)
        found[name] = {"seconds": row.seconds, "steps": row.steps}
        found[name] |= {key: score(real, row.windows).mean for key, score in measures.items()} | {"nn": made / other}
    return found, failed


def ranked(found: Mapping[str, Mapping[str, float]], failed: list[str], effort: Effort) -> Claim:
    """Rank ours among all rows; a row that failed to train ranks last."""
    what, bar, goal = BARS["rank_window_flow"]
    ranks = {key: 1 + sum(row[key] < found[OURS][key] for row in found.values()) for key in ("ds", "cfid")}
    shown = {f"rank on {key}": float(rank) for key, rank in ranks.items()}
    shown |= {f"{name}, {key}": value for name, row in found.items() for key, value in row.items()}
    note = f"{len(found)} rows, {effort.rows:g} processor seconds of training each; " + "; ".join(failed)
    return Claim("rank_window_flow", what, max(ranks.values()), bar, goal, shown, note.rstrip("; "))


def sample_rate(claim: str, generator: Any, count: int) -> Claim:
    """Measure how many windows a second a fitted generator makes."""
    what, bar, goal = BARS[claim]
    generator.sample_windows(count // 4, rng=stream(0, "tsg", "warm"))
    started, worked = time.perf_counter(), time.process_time()
    generator.sample_windows(count, rng=stream(0, "tsg", "rate"))
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    return Claim(claim, what, count / seconds, bar, goal, {"a second of one processor": count / processor})


def measured(effort: Effort, data: Path, only: frozenset[str]) -> list[Claim]:
    """Return the claims, unmeasured where a file is missing or others were asked for."""
    found: dict[str, Claim] = {}
    if (data / STOCKS).exists():
        found |= _stocks(_spread(STOCKS, data, effort.most), effort, only)
    if (data / ETTH).exists() and "etth_ds" in only:
        real = _spread(ETTH, data, effort.most)
        found["etth_ds"] = _etth(real, effort)
    note = f"{STOCKS} or {ETTH} is not under {data}, or it was not asked for"
    return [found.get(name, Claim(name, what, None, bar, goal, note=note)) for name, (what, bar, goal) in BARS.items()]


def _etth(real: FloatArray, effort: Effort) -> Claim:
    """Score ETTh; so long a training may learn windows by heart, so how near they lie stands beside it."""
    row = trained(OURS, real, effort.etth)
    claim = scored("etth_ds", real, row, scores(effort, effort.repeats)["ds"], more=effort.floors)
    every = -(-len(real) // _COMPARED)
    made, other = neighbour_distances(real[::every], row.windows[::every])
    return replace(
        claim, peers=claim.peers | {"distance to the nearest real window, over that of real ones": made / other}
    )


def _spread(name: str, data: Path, most: int) -> FloatArray:
    real = fidelity_learned.windows(name, data)
    return real[np.unique(np.linspace(0, len(real) - 1, min(most, len(real))).astype(np.int64))]


def _stocks(real: FloatArray, effort: Effort, only: frozenset[str]) -> dict[str, Claim]:
    claims: list[Claim] = []
    row = trained(OURS, real, effort.ours if any(name.startswith("stocks") for name in only) else TRIAL / 30)
    for key, score in scores(effort, effort.repeats).items():
        if f"stocks_{key}" in only:
            claims.append(scored(f"stocks_{key}", real, row, score, more=effort.floors))
    claims.append(neighbours(real, row))
    claims.append(sample_rate("sample_rate_window_flow", row.generator, effort.sampled // 16))
    claims.append(sample_rate("sample_rate_gan", _fitted(GAN, real, TRIAL)[0], effort.sampled))
    if "rank_window_flow" in only:
        claims.append(ranked(*table(real, effort), effort))
    return {claim.id: claim for claim in claims if claim.id in only}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the two files")
    parser.add_argument("--only", nargs="*", default=list(BARS), choices=list(BARS), help="some of the claims")
    options = parser.parse_args()
    claims = measured(QUICK if options.quick else FULL, options.data, frozenset(options.only))
    report("tsg", claims, as_json=options.json)


if __name__ == "__main__":
    main()

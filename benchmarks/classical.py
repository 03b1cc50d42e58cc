"""Classical generators: speed and accuracy of the Hawkes fit, honesty of standard errors, martingales that are some.

Peers of the Hawkes fit run in a process of their own, timed inside it: `--peers` names a Python that has `intensify`
and `hawkes-rs` installed (by default this one). Where they are not, the figure is absent and says so.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install intensify hawkes-rs
    python benchmarks/classical.py --peers /tmp/peers/bin/python
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from common import Claim, arguments, report

from synth_pipeline import generators, plugins
from synth_pipeline.features.transforms import Anchor
from synth_pipeline.generators import (
    conditional_variance,
    garch,
    hawkes,
    heston,
    jump_filter,
    merton_jump_diffusion,
    regime_switching,
    rough_volatility,
    self_exciting_jump_diffusion,
)
from synth_pipeline.generators.basket import Basket
from synth_pipeline.generators.diurnal import FLAT
from synth_pipeline.generators.filtered_historical_simulation import FilteredHistoricalSimulation
from synth_pipeline.generators.filtered_historical_simulation import Law as FilteredLaw
from synth_pipeline.generators.geometric_brownian_motion import GeometricBrownianMotion
from synth_pipeline.generators.geometric_brownian_motion import Law as BrownianLaw
from synth_pipeline.generators.pieces import counts_of
from synth_pipeline.generators.price_process import PriceProcess, Returns
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series

EVENTS, BASE, BRANCHING, DECAY = 500_000, 1.0, 0.5, 2.0
HALF_SECOND_NS, FOUR_HOURS_S = 500_000_000, 4 * 3600
SECONDS_OF_PEERS = 120
SLOW = frozenset({"self_exciting_jump_diffusion", "heston", "rough_volatility"})
"""What the short form does not fit again and again."""

PEER = """
import json, sys, time
import numpy as np
name, path, end = sys.argv[1], sys.argv[2], float(sys.argv[3])
times = np.load(path)
if name == "intensify":
    import intensify
    def fit(t, T):
        model = intensify.Hawkes(mu=0.5, kernel=intensify.ExponentialKernel(alpha=0.3, beta=1.0))
        found = model.fit(t, T=T).params
        return found["mu"], found["kernel"].alpha, found["kernel"].beta
else:
    from hawkes import univariate
    def fit(t, T):
        found = univariate.fit(t, horizon=T).parameters
        return found.baseline, found.excitation, found.decay
fit(times[:2000].copy(), float(times[2000]))
started = time.perf_counter()
found = fit(times, end)
print(json.dumps({"seconds": time.perf_counter() - started, "found": [float(x) for x in found]}))
"""


def events(seed: int) -> tuple[FloatArray, float]:
    """Return about half a million event times, and the end of their record."""
    end = EVENTS * (1 - BRANCHING) / BASE
    return hawkes.simulated(stream(seed, "benchmark"), end, BASE, BRANCHING, DECAY), end


def peer(python: str, name: str, path: Path, end: float) -> dict[str, Any] | str:
    """Return seconds and estimates of a peer, or why there are none."""
    try:
        command = [python, "-c", PEER, name, str(path), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_OF_PEERS, check=False)
    except subprocess.TimeoutExpired:
        return f"{name} had not finished after {SECONDS_OF_PEERS} s"
    if done.returncode:
        return f"{name} is not there to compare with: {done.stderr.strip().splitlines()[-1]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(python: str, rounds: int) -> list[Claim]:
    """Time our fit and the peers' in turn on the same events; estimates must agree to one part in a hundred."""
    times, end = events(0)
    ours = hawkes.fit(times, end)
    seconds: dict[str, list[float]] = {"intensify": [], "hawkes-rs": [], "ours": []}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events.npy")
        np.save(path, times)
        for _ in range(rounds):
            started = time.perf_counter()
            hawkes.fit(times, end)
            seconds["ours"].append(time.perf_counter() - started)
            for name in ("intensify", "hawkes-rs"):
                found = absent.get(name) or peer(python, name, path, end)
                if isinstance(found, str):
                    absent[name] = found
                    continue
                np.testing.assert_allclose(found["found"], (ours.base, ours.branching_ratio, ours.decay), rtol=0.01)
                seconds[name].append(found["seconds"])
    own = statistics.median(seconds["ours"])
    claims = []
    for name in ("intensify", "hawkes-rs"):
        theirs = statistics.median(seconds[name]) if seconds[name] else None
        claims.append(
            Claim(
                f"hawkes_vs_{name.replace('-', '_')}",
                f"likelihood fit of {len(times):,} events: our time over that of {name}",
                own / theirs if theirs else None,
                1.0,
                "low",
                {"ours, s": own} | ({f"{name}, s": theirs} if theirs else {}),
                absent.get(name, ""),
            )
        )
    return claims


def accuracy(seeds: int) -> list[Claim]:
    """Fit simulated events: errors of the estimates, and the time-rescaled residuals."""
    errors, levels = [], []
    for seed in range(seeds):
        times, end = events(seed)
        fit = hawkes.fit(times, end)
        pairs = ((fit.base, BASE), (fit.branching_ratio, BRANCHING), (fit.decay, DECAY))
        errors.append(max(abs(found / truth - 1) for found, truth in pairs))
        levels.append(fit.residual_p(times))
    note = f"median of {seeds} seeds"
    return [
        Claim(
            "hawkes_error",
            "worst relative error of a parameter, half a million events",
            statistics.median(errors),
            0.01,
            "low",
            {"worst seed": max(errors)},
            note,
        ),
        Claim(
            "hawkes_residual_p",
            "Kolmogorov-Smirnov p-value of the time-rescaled waiting times",
            statistics.median(levels),
            0.05,
            "high",
            {"lowest seed": min(levels)},
            note,
        ),
    ]


JUMPS = jump_filter.Law(2e-5, 0.4, 0.5, 0.5, 1e-4, 3.0, 5.0, 0.05, 2.0)
GJR = np.array([0.05, 0.05, 0.06, 0.87])
STATES = regime_switching.Law(
    np.array([5e-5, 1e-4, 3e-4]),
    np.zeros(3),
    np.array([[0.985, 0.01, 0.005], [0.02, 0.96, 0.02], [0.01, 0.04, 0.95]]),
)


_ANCHOR = Anchor(("mid",), "mid", HALF_SECOND_NS, 0.0, 0.0, price=1.0, next_ns=0)


def unfitted(kind: type[PriceProcess], law: Any, **settings: Any) -> PriceProcess:
    """Return a process with a law of our choice."""
    made = kind.from_settings(settings)
    made.law, made.notes, made.anchor = law, [], _ANCHOR
    return made


@cache
def processes() -> dict[str, tuple[PriceProcess, int, dict[str, float]]]:
    """Return every process with a law per half second, returns of a fit, and true values by name of the estimate."""
    residuals = stream(0, "residuals").standard_t(6, 5_000) * np.sqrt(4 / 6)
    residuals = (residuals - residuals.mean()) / residuals.std()
    laws = {
        "brownian": BrownianLaw(1e-4),
        "merton": merton_jump_diffusion.Law(1e-4, 0.05, -1e-4, 5e-4),
        "heston": heston.Law(0.05, 1e-8, 3e-5, -0.5),
        "rough": rough_volatility.Law(0.15, 0.02, 0.8, 1e-8, -0.5),
    }
    member = conditional_variance.Law("gjr", "normal", 1e-4, GJR, np.empty(0))
    jumps = self_exciting_jump_diffusion.Law(np.array(JUMPS), FLAT, 0.0)
    of_garch = dict(zip(("omega", "alpha", "gamma", "beta"), GJR.tolist(), strict=True))
    stays = dict(zip(("stay_low", "stay_normal", "stay_high"), np.diag(STATES.transitions), strict=True))
    levels = zip(("volatility_low", "volatility_normal", "volatility_high"), STATES.volatilities, strict=True)
    return {
        "geometric_brownian_motion": (
            unfitted(GeometricBrownianMotion, laws["brownian"]),
            2_000,
            laws["brownian"]._asdict(),
        ),
        "merton_jump_diffusion": (
            unfitted(merton_jump_diffusion.MertonJumpDiffusion, laws["merton"]),
            4_000,
            laws["merton"]._asdict(),
        ),
        "self_exciting_jump_diffusion": (
            unfitted(self_exciting_jump_diffusion.SelfExcitingJumpDiffusion, jumps),
            6_000,
            JUMPS._asdict(),
        ),
        "garch": (unfitted(garch.Garch, member, volatility="gjr", distribution="normal"), 4_000, of_garch),
        "filtered_historical_simulation": (
            unfitted(FilteredHistoricalSimulation, FilteredLaw(1e-4, GJR, residuals)),
            4_000,
            of_garch,
        ),
        "heston": (unfitted(heston.Heston, laws["heston"]), 6_000, laws["heston"]._asdict()),
        "rough_volatility": (
            unfitted(rough_volatility.RoughVolatility, laws["rough"]),
            24_000,
            laws["rough"]._asdict(),
        ),
        "regime_switching": (
            unfitted(regime_switching.RegimeSwitching, STATES, states=3),
            6_000,
            stays | dict(levels),
        ),
    }


def coverage(repeats: int, left_out: frozenset[str]) -> Claim:
    """Simulate and fit every process again and again; count how often the 95 % intervals hold the truth."""
    shares: dict[str, float] = {}
    jobs = [(name, seed) for name in processes() if name not in left_out for seed in range(repeats)]
    with ProcessPoolExecutor() as pool:
        hits = dict(zip(jobs, pool.map(recovered, *zip(*jobs, strict=True), chunksize=5), strict=True))
    for name in dict.fromkeys(name for name, _ in jobs):
        found = [hits[name, seed] for seed in range(repeats)]
        by_parameter = {parameter: float(np.mean([each[parameter] for each in found])) for parameter in found[0]}
        shares[name] = float(np.mean(list(by_parameter.values())))
        worst = min(by_parameter, key=lambda parameter: by_parameter[parameter])
        shares[f"{name}, {worst} alone"] = by_parameter[worst]
    whole = {name: share for name, share in shares.items() if " alone" not in name}
    return Claim(
        "recovery_coverage",
        "share of simulated histories whose 95 % intervals hold the truth, worst process",
        min(whole.values()),
        0.90,
        "high",
        shares,
        f"{repeats} repeats a process; an estimate without a standard error counts as a miss"
        + (f"; left out: {', '.join(sorted(left_out))}" if left_out else ""),
    )


def recovered(name: str, seed: int) -> dict[str, bool]:
    """Return, of one simulated history, whether the interval of each parameter holds the truth."""
    truth, count, values = processes()[name]
    made = refitted(truth, stream(seed, "recovery", name), count)
    found = {}
    for parameter, value in in_units(values, truth, made).items():
        estimate = made.estimates[parameter]
        low, high = estimate.interval
        found[parameter] = estimate.error is not None and low <= value <= high
    return found


def refitted(truth: PriceProcess, rng: np.random.Generator, count: int) -> PriceProcess:
    """Return the process fitted to one simulated history."""
    values = truth.draw(rng, count)
    labels = np.arange(1, count + 1) * HALF_SECOND_NS
    returns = Returns(values, np.arange(count) == 0, labels, 0.0, HALF_SECOND_NS)
    made = type(truth)(truth.parameters)
    made.notes, made.anchor = [], _ANCHOR
    made.estimate(returns, rng=stream(0, "diagnostics"), report=_silent)
    return made


def _silent(*_: object) -> None:
    """Report nothing."""


def in_units(values: dict[str, float], truth: PriceProcess, made: PriceProcess) -> dict[str, float]:
    """Return the true values in the units of the estimates: ω of a GARCH is in units of the sample variance."""
    if "omega" not in values:
        return values
    return values | {"omega": values["omega"] * (truth.law.scale / made.law.scale) ** 2}


def martingales(paths: int, stride: int) -> Claim:
    """Return the worst z-score of mean exp(log price) after four hours, in steps of `stride` half seconds."""
    steps = FOUR_HOURS_S * 2 // stride
    names = plugins.names(generators)
    with ProcessPoolExecutor() as pool:
        found = dict(zip(names, pool.map(score_of, names, repeat(paths), repeat(steps)), strict=True))
    scores = {name: score for name, score in found.items() if score is not None}
    return Claim(
        "martingale_z",
        f"mean exp(log price) of {paths:,} paths of {steps:,} steps: worst z-score among martingale laws",
        max(scores.values()),
        3.0,
        "low",
        scores,
        "of a generator of several assets, the worst asset",
    )


def grown(process: PriceProcess | Basket, rng: np.random.Generator, steps: int) -> FloatArray:
    """Return exp(log price) - 1 of every asset at the end of one path."""
    pieces = [np.reshape(piece, (len(piece), -1)).sum(axis=0) for piece in process.run(rng, counts_of(steps))]
    return np.asarray(np.expm1(np.sum(pieces, axis=0)))


def score_of(name: str, paths: int, steps: int) -> float | None:
    """Return the worst z-score of a generator's assets; None for one that is no law of returns or no martingale."""
    kind = plugins.load(generators, name)
    process: PriceProcess | Basket
    if issubclass(kind, Basket):
        process = kind().fit(basket(4_000), rng=stream(0, "basket"))
    elif issubclass(kind, PriceProcess):
        process, _, _ = processes()[name]
    else:
        return None
    if not getattr(process, "martingale", True):
        return None
    ends = np.array([grown(process, stream(path, "martingale", name), steps) for path in range(paths)])
    return float(np.abs(ends.mean(axis=0) / (ends.std(axis=0) / np.sqrt(paths))).max())


def basket(steps: int) -> Series:
    """Return mids of three assets whose returns have one volatility that clusters, and a correlation of 0.6."""
    shared = conditional_variance.Law("gjr", "normal", 1e-4, GJR, np.empty(0))
    rng = stream(0, "market")
    common = rng.standard_normal(steps)
    parts = {}
    for name in ("A", "B", "C"):
        scores = np.sqrt(0.6) * common + np.sqrt(0.4) * rng.standard_normal(steps)
        logs = np.cumsum(conditional_variance.path(shared, scores) * scores)
        parts[name] = Series(100 * np.exp(logs)[None, :, None], ("mid",), HALF_SECOND_NS, np.array([0]), 0.0)
    return Series.joined(parts)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--peers", default=sys.executable, help="a Python that has intensify and hawkes-rs")
    options = parser.parse_args()
    quick = options.quick
    claims = [
        *speed(options.peers, 1 if quick else 7),
        *accuracy(5 if quick else 20),
        coverage(20, SLOW) if quick else coverage(100, frozenset()),
        martingales(2_000, 10) if quick else martingales(10_000, 1),
    ]
    report("classical", claims, as_json=options.json)


if __name__ == "__main__":
    main()

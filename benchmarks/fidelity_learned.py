"""The learned scores reproduce their protocol: exact copies of the benchmark sets, and how long five repeats take.

An exact copy of the training windows is the best that the published protocol knows; what it scores is the floor under
every printed number. Beside it, in the full form, what a bootstrap of the windows scores, and what the last fifth of
real time scores against the rest: a value between the two says more about copying than about realism. Windows are of
24 rows at every step, each column scaled by its least and greatest value in the whole file. Needs `stock_data.csv` and
`ETTh1.csv.zst` under `SYNTH_REAL_DATA` (default `../shared/data`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard
from bootstrap_schemes import DATA
from common import Claim, arguments, report

from synth_pipeline.fidelity import learned_scores, recurrent
from synth_pipeline.fidelity.learned_scores import Repeats
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray

STOCKS, ETTH = "stock_data.csv", "ETTh1.csv.zst"
LENGTH = 24
PUBLISHED_PS, TOLERANCE = 0.0367, 0.001


def windows(name: str, folder: Path = DATA) -> FloatArray:
    """Return every window of a benchmark file in [0, 1], shape (n, 24, columns); dates are left out."""
    data = (folder / name).read_bytes()
    lines = (zstandard.decompress(data) if name.endswith(".zst") else data).decode().splitlines()
    cells = [line.split(",") for line in lines]
    first = 1 if cells[0][0] == "date" else 0
    rows = np.array([line[first:] for line in cells[1:]], dtype=np.float64)
    rows = (rows - rows.min(axis=0)) / (rows.max(axis=0) - rows.min(axis=0))
    return np.lib.stride_tricks.sliding_window_view(rows, LENGTH, axis=0).transpose(0, 2, 1).copy()


def _discriminative(real: FloatArray, synthetic: FloatArray, label: str, repeats: int, overlap: int = 0) -> Repeats:
    return learned_scores.discriminative(
        real, synthetic, rng=stream(0, "benchmark", label), repeats=repeats, overlap=overlap
    )


def copy_ds(name: str, claim: str, bar: float, repeats: int, *, quick: bool) -> tuple[Claim, float]:
    """Score a copy; the time that it took comes with the claim."""
    real = windows(name)
    _discriminative(real[:300], real[:300], "warm", 1)  # compile first
    started = time.perf_counter()
    found = _discriminative(real, real, name, repeats)
    seconds = time.perf_counter() - started
    shown = {
        "±": found.half_width,
        "lowest repeat": float(found.values.min()),
        "highest repeat": float(found.values.max()),
    }
    if not quick:
        shown |= _around(real, name, repeats)
    what = f"discriminative score of a copy of {name.partition('.')[0]}, mean of {repeats} repeats"
    return Claim(claim, what, found.mean, bar, "low", shown), seconds


def _around(real: FloatArray, name: str, repeats: int) -> dict[str, float]:
    """Score what lies between a copy and another time."""
    rng = stream(0, "benchmark", "around")
    drawn = real[rng.integers(0, len(real), len(real))]
    cut = int(0.8 * len(real))
    later, earlier = learned_scores.like_sized(real[cut + LENGTH :], real[:cut], rng=rng)
    gap = LENGTH - 1
    return {
        "bootstrap of the windows": _discriminative(real, drawn, f"{name} bootstrap", repeats).mean,
        "bootstrap, tested on rows not learned from": _discriminative(real, drawn, name, repeats, gap).mean,
        "last fifth of time against the rest": _discriminative(later, earlier, f"{name} later", repeats).mean,
        "noise": _discriminative(real, rng.random(real.shape), f"{name} noise", repeats).mean,
    }


def copy_ps(repeats: int) -> Claim:
    """Score a copy; a score far below the published one would be of another protocol, and is refused."""
    real = windows(STOCKS)
    started = time.perf_counter()
    found = learned_scores.predictive(real, real, rng=stream(0, "benchmark", "predictive"), repeats=repeats)
    shown = {"±": found.half_width, "published": PUBLISHED_PS, "seconds": time.perf_counter() - started}
    assert found.mean > PUBLISHED_PS - TOLERANCE, f"{found.mean} is better than real data can be"
    what = f"predictive score of a copy of Stocks (published {PUBLISHED_PS} ± {TOLERANCE}), mean of {repeats} repeats"
    return Claim("copy_ps", what, found.mean, PUBLISHED_PS + TOLERANCE, "low", shown)


def ds_seconds(seconds: float) -> Claim:
    """Say how long five repeats took, and how long one thread would have worked."""
    what = "five repeats of the discriminative score on Stocks, 2 cores, seconds"
    return Claim("ds_seconds", what, seconds, 90.0, "low", {"threads": float(recurrent.threads(5))})


def context_fid() -> dict[str, float]:
    """Return Context-FID of a copy and of a bootstrap of Stocks, two repeats each, and the seconds of a repeat."""
    real = windows(STOCKS)
    rng = stream(0, "benchmark", "context")
    drawn = real[rng.integers(0, len(real), len(real))]
    started = time.perf_counter()
    found = {
        name: learned_scores.context_fid(real, each, rng=stream(0, "benchmark", "fid"), repeats=2).mean
        for name, each in (("Context-FID of a copy", real), ("Context-FID of a bootstrap", drawn))
    }
    return found | {"Context-FID, seconds a repeat": (time.perf_counter() - started) / 4}


def measured(quick: bool) -> list[Claim]:
    """Return the claims of the learned scores; what lacks its file is said to."""
    bars = {"copy_ps": PUBLISHED_PS + TOLERANCE, "copy_ds": 0.026, "ds_seconds": 90.0, "copy_ds_etth": 0.010}
    if missing := [name for name in (STOCKS, ETTH) if not (DATA / name).exists()]:
        note = f"{' and '.join(missing)} not under SYNTH_REAL_DATA"
        return [Claim(claim, "learned scores of a copy", None, bar, "low", note=note) for claim, bar in bars.items()]
    stocks, seconds = copy_ds(STOCKS, "copy_ds", bars["copy_ds"], 5, quick=quick)
    work: list[Callable[[], Claim]] = [
        lambda: copy_ps(2 if quick else 5),
        lambda: copy_ds(ETTH, "copy_ds_etth", bars["copy_ds_etth"], 2 if quick else 5, quick=quick)[0],
    ]
    claims = [stocks, ds_seconds(seconds), *(each() for each in work)]
    if not quick:
        claims[0] = Claim(**{**vars(stocks), "peers": {**stocks.peers, **context_fid()}})
    return claims


def main() -> None:
    options = arguments(__doc__).parse_args()
    report("fidelity_learned", measured(options.quick), as_json=options.json)


if __name__ == "__main__":
    main()

"""The record of one evaluation: every number beside its floor, and the statistics that the report draws.

It is plain data, lossless as JSON, and holds no row of anybody's market beyond thinned price paths; the report is
rendered from it alone. Nothing here computes a statistic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity.checklists import Checklist

FORMAT = 2
"""Version of the JSON; raised when an older reader would misread it."""

Verdict = Literal["indistinguishable", "close", "off", "absent"]
"""No worse than real against real; a little worse; worse; not computed, for the reason given."""
Conclusion = Literal["invalid", "memorised", "indistinguishable", "close", "off"]
"""What the evaluation as a whole says, the gravest first."""
GRAVEST_FIRST: tuple[Conclusion, ...] = ("invalid", "memorised", "off", "close", "indistinguishable")
Numbers = list[float]
Gappy = list[float | None]
"""Numbers with None where a gap is."""
Grade = Literal["A", "B", "C", "D", "E", "F", "withheld"]
"""The whole in one letter (`grade` says how): F where values are invalid, none where training data are replayed."""
Permission = Literal["yes", "no", "unknown"]
"""`unknown` where what it takes was not measured."""

MANY_OFF = 0.05
"""Share of metrics that are off above which a sample is called off, whatever its fidelity; chance gives none."""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of real data score: the middle of several draws, and what holds 90 % of them."""

    value: float | None = None
    interval: tuple[float, float] | None = None
    """5 % to 95 % of the draws; None for a single one."""
    draws: int = 0
    reason: str = ""
    """Why there is none."""


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """The same number four times between real data, by what plays the synthetic part."""

    split_half: Floor
    """One half of the training period, against the other."""
    bootstrap: Floor
    """Resamples of real data in blocks."""
    fresh: Floor
    """The held-out period, which nobody has seen, against the training period."""
    copy: Floor
    """The training data, replayed as if synthetic: good scores here are no merit."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that synthetic data are used for."""

    name: str
    title: str
    permission: Permission
    because: str
    """The faults that forbid it, or what was not measured; empty where it is permitted."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One metric: its value, the same number for real against real, and the verdict."""

    name: str
    family: str
    title: str
    goal: str
    unit: str
    citation: str
    what: str
    """What it measures."""
    meaning: str
    """What is wrong when it is off, for the side on which it is."""
    reference: str
    """The real sample that the value is measured against: holdout or train."""
    verdict: Verdict
    reason: str = ""
    """Why the metric is absent."""
    value: float | None = None
    """Mean over synthetic paths."""
    spread: float | None = None
    """Standard deviation over synthetic paths; None for a single one."""
    paths: int = 0
    """Synthetic paths on which it is defined."""
    training: float | None = None
    """The same with the training data in place of the held-out ones: a distance must be small to both."""
    floor: float | None = None
    """The same number for fresh real data; `floors` has the other kinds."""
    floors: Floors | None = None
    """None where the metric is absent."""
    band: tuple[float, float] | None = None
    """5 % to 95 % of the same number between real data of equal size; None for a metric of copying on returns."""
    excess: float | None = None
    """How far the judged number lies beyond real ones, in half-widths of the band; `limit` and below is inside."""
    limit: float = 0.0
    """By how many half-widths every band of the evaluation was widened, so that chance seldom leaves any."""
    exposes: bool = False
    """Whether only replayed training data make it off."""
    cost: str = "cheap"
    margin: float = 0.0
    """Difference too small to matter."""
    weight: float | None = None
    """Weight in the fidelity."""
    statistic_unit: str = ""
    real: float | None = None
    """The number that is compared, of the held-out data; None for a metric that compares more than one number."""
    fresh: float | None = None
    synthetic: float | None = None
    real_band: tuple[float, float] | None = None
    """5 % to 95 % of that number over resamples of real data, training and held-out."""


class Check(msgspec.Struct, frozen=True):
    """One property that every synthetic price must have."""

    name: str
    title: str
    share: float
    """Share of what was looked at that has the property; must be 1."""
    failures: int
    total: int
    unit: str
    """What was looked at."""
    rule: str
    """The property, in plain words."""


class Sizes(msgspec.Struct, frozen=True):
    """What was compared."""

    price: str
    step_ns: int
    tick_size: float
    train_steps: int
    holdout_steps: int
    synthetic_paths: int
    synthetic_steps: int
    compared_returns: int
    """Returns of every path that enters a comparison, real or synthetic."""
    train_windows: int
    holdout_windows: int
    synthetic_windows: int
    train_missing: int
    """Returns that gaps hide."""
    holdout_missing: int
    block_length: float
    """Mean block length of the bootstrap, in returns."""
    resamples: int
    holdout: str = "given"
    """Where the held-out data come from."""
    thinned: tuple[str, ...] = ()
    """What was left out to keep cost bounded, and what windows were cut, in words."""


class PathPanel(msgspec.Struct, frozen=True):
    """Paths over time, in percent, thinned."""

    seconds: Numbers
    real: Gappy
    fresh: Gappy
    quantiles: dict[str, Gappy]
    """Of the synthetic paths at each time, by percentage: "5" … "95"."""
    examples: list[Gappy]
    """A few synthetic paths."""


class HistogramPanel(msgspec.Struct, frozen=True):
    """Densities of log-returns in standard deviations of the held-out ones; the outer bins hold what lies beyond."""

    edges: Numbers
    real: Numbers
    fresh: Numbers
    synthetic: Numbers
    sigma: float
    """That standard deviation, as a log-return."""


class QuantilePanel(msgspec.Struct, frozen=True):
    """Quantiles of log-returns in standard deviations of the held-out ones."""

    probabilities: Numbers
    real: Numbers
    fresh: Numbers
    synthetic: Numbers


class AutocorrelationPanel(msgspec.Struct, frozen=True):
    """Autocorrelations by lag, with the 5-95 % band of real resamples."""

    lags: list[int]
    real: Numbers
    fresh: Numbers
    synthetic: Numbers
    low: Numbers
    high: Numbers


class Panels(msgspec.Struct, frozen=True):
    """What the figures show; None where the data are too short."""

    price: PathPanel
    """The price above its start."""
    drawdown: PathPanel
    """The price above its highest value so far: 0 or less."""
    histogram: HistogramPanel
    quantiles: QuantilePanel
    return_acf: AutocorrelationPanel | None
    absolute_return_acf: AutocorrelationPanel | None


class Curves(msgspec.Struct, frozen=True):
    """Three curves over one axis."""

    at: Numbers
    real: Gappy
    fresh: Gappy
    synthetic: Gappy


class CorrelationPanel(msgspec.Struct, frozen=True):
    """Correlations of all features as they change from step to step, row by row."""

    names: list[str]
    real: list[Gappy]
    """Of the held-out data; None where a feature does not vary."""
    synthetic: list[Gappy]


class MapPanel(msgspec.Struct, frozen=True):
    """Windows as points of the plane on which the training windows spread most."""

    train: list[Numbers]
    holdout: list[Numbers]
    synthetic: list[Numbers]
    explained: float
    """Share of the variance of the training windows that the plane shows."""


class NeighbourPair(msgspec.Struct, frozen=True):
    """A synthetic window and the training window nearest to it, in one feature."""

    synthetic: Numbers
    training: Numbers
    distance: float
    """Over all features, as `proximity` defines it."""


class NeighbourPanel(msgspec.Struct, frozen=True):
    """The synthetic windows that lie nearest to training windows, nearest first."""

    pairs: list[NeighbourPair]
    typical: float
    """Median distance of held-out windows to their nearest training window."""
    nearest: float
    """The smallest of those distances."""
    feature: str
    """What is drawn, with its unit."""


class StressPlace(msgspec.Struct, frozen=True):
    """Where the synthetic episodes of a regime lie among the real ones in one respect."""

    title: str
    unit: str
    real: float | None
    """Median; None where most never end."""
    synthetic: float | None
    percentile: float
    """50 is typical."""
    milder: float
    """Share of the synthetic episodes that are milder than every real one."""
    graver: float


class StressPanel(msgspec.Struct, frozen=True):
    """Severity of one regime."""

    regime: str
    real: int
    """Episodes."""
    synthetic: int
    places: tuple[StressPlace, ...] = ()
    reason: str = ""
    """Why there is none."""


class Exhibits(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader wants to see beyond the metrics; None where the data are too short for it."""

    returns: PathPanel | None = None
    """In percent a step."""
    losses: Curves | None = None
    """Shares of returns beyond a size, in standard deviations of the held-out ones, below zero and above."""
    gains: Curves | None = None
    squared_return_acf: Curves | None = None
    volatility_by_scale: Curves | None = None
    """Standard deviation of returns over so many steps, of single held-out ones and the root of the steps; 1: none."""
    rolling_volatility: PathPanel | None = None
    """In percent a step."""
    correlations: CorrelationPanel | None = None
    map: MapPanel | None = None
    neighbours: NeighbourPanel | None = None
    stress: tuple[StressPanel, ...] = ()
    checklists: tuple[Checklist, ...] = ()


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How a synthetic series compares with held-out real data, and how fresh real data compare with them."""

    format: int = FORMAT
    fidelity: float
    """0-100, the weighted mean similarity of the twelve weighted metrics, mean over synthetic paths."""
    fidelity_spread: float | None
    floor: float
    """The fidelity of fresh real data."""
    fidelity_floors: Floors
    fidelity_band: tuple[float, float]
    """5 % to 95 % of the fidelity between resamples of real data."""
    fidelity_verdict: Verdict
    fidelity_weight: float
    """Share of the total weight whose metrics could be computed."""
    results: tuple[Result, ...]
    checks: tuple[Check, ...]
    sizes: Sizes
    grade: Grade = "E"
    """`grade.graded` writes it, the reason and the uses."""
    grade_because: str = ""
    """Why it is no better, or not given, in one sentence."""
    uses: tuple[Use, ...] = ()
    panels: Panels | None = None
    """None for a series of several assets, which has the panels of each."""
    exhibits: Exhibits | None = None
    """`exhibits.exhibited` writes them; None in a record that nobody is to look at."""
    provenance: dict[str, str] = {}
    """Where the data come from, and the commands that make the record again."""
    assets: dict[str, Evaluation] = {}
    """Of a series of several assets, the record of each by itself; `results` are then of their dependence."""

    @property
    def is_valid(self) -> bool:
        """Whether every validity check passes everywhere."""
        return all(check.failures == 0 for check in self.checks)

    @property
    def is_copied(self) -> bool:
        """Whether the synthetic paths replay training data beyond what real data do by chance."""
        return any(result.exposes and result.verdict == "off" for result in self.results)

    @property
    def judged(self) -> tuple[Result, ...]:
        """The metrics of quality with a verdict; two that compare the same number count once, copies not at all."""
        known: dict[object, Result] = {}
        for result in self.results:
            if not result.exposes and result.verdict != "absent":
                number = None if result.real is None else (result.real, result.fresh, result.synthetic)
                known[number or result.name] = result
        return tuple(known.values())

    @property
    def score(self) -> float:
        """The 0-100 fidelity."""
        return self.fidelity

    @property
    def conclusion(self) -> Conclusion:
        """The verdict on the whole: validity, then copying, then quality; of several assets the gravest of all."""
        found = [asset.conclusion for asset in self.assets.values()] + [self._own_conclusion]
        return next(each for each in GRAVEST_FIRST if each in found)

    @property
    def _own_conclusion(self) -> Conclusion:
        if not self.is_valid:
            return "invalid"
        if self.is_copied:
            return "memorised"
        verdicts = [self.fidelity_verdict, *(result.verdict for result in self.judged)]
        if self.fidelity_verdict == "off" or self.share_off > MANY_OFF:
            return "off"
        return "indistinguishable" if set(verdicts) <= {"indistinguishable"} else "close"

    @property
    def share_off(self) -> float:
        """Share of the judged metrics that are off."""
        return sum(result.verdict == "off" for result in self.judged) / max(len(self.judged), 1)

    def table(self) -> list[dict[str, str | float | None]]:
        """Return one flat row a metric, ready for a data frame; of several assets those of each, with its name."""
        rows = [{**row, "asset": name} for name, asset in self.assets.items() for row in asset.table()]
        for result in self.results:
            row = msgspec.structs.asdict(result)
            for name in ("band", "real_band"):
                row[f"{name}_low"], row[f"{name}_high"] = row.pop(name) or (None, None)
            floors = row.pop("floors")
            for kind in Floors.__struct_fields__:
                floor = getattr(floors, kind, Floor())
                row[kind] = floor.value
                row[f"{kind}_low"], row[f"{kind}_high"] = floor.interval or (None, None)
            rows.append(row)
        return rows

    def to_json(self) -> bytes:
        """Return the record as JSON; the same record gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    def save(self, path: Path) -> Path:
        """Write the record as JSON and return where."""
        path.write_bytes(self.to_json())
        return path

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote. Raises `InputError` for anything else."""
        return cls.from_json(path.read_bytes())

    @classmethod
    def from_json(cls, data: bytes | str) -> Evaluation:
        """Read what `to_json` wrote. Raises `InputError` for anything else."""
        try:
            record = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"this is not a fidelity record: {error}; evaluate again to write one") from error
        if record.format != FORMAT:
            raise InputError(f"fidelity record has format {record.format}, this version reads {FORMAT}; evaluate again")
        return record

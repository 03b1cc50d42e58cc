"""Hawkes: orders that excite each other, in the state of the book.

Multivariate Hawkes order flow: Large (2007), J. Financ. Mark. 10; Bacry, Mastromatteo and Muzy (2015), Market
Microstruct. Liq. 1. Events are of six kinds on two sides (`hawkes_events`). With the process of `multivariate_hawkes`,
events of type e come at the rate

    λ_e(t) = f_e(x_t) [ μ_e a(t) + Σ_j Σ_k n_ejk Σ_{t_i < t, e_i = j} β_k e^{-β_k (t - t_i)} ]

whose decays β_k are fixed and spread over milliseconds to minutes, less those that the record cannot tell: shorter
than half the source's resolution, longer than a twentieth of its time. Bids and asks are mirror images unless
`mirrored` is False. f is a product of powers of the spread and of the sizes at the touch (after Morariu-Patrichi and
Pakkanen 2022); of which, the likelihood of the last third of the record decides, under fits on the first two thirds.
Behind the touch, each resting order is as likely to be cancelled as any other at its distance, which keeps the book
from growing without end.

a(t), the time of day, scales μ. A spectral radius above `_MOST_BRANCHING` is lowered to it, with a note, and so are the
factors of spreads in which it would be. Sizes, prices inside and behind, and which orders are cancelled are drawn from
those seen. Simulation is exact: the next event of each part of the total rate (base, one a decay) has a law with an
explicit inverse (Dassios and Zhao 2013, Electron. Commun. Probab. 18), the first of them happens, and rates change
only there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Self

import numpy as np

from synth_pipeline.errors import InputError
from synth_pipeline.generators.inference import Estimate
from synth_pipeline.market.flows import calibrated
from synth_pipeline.market.flows import hawkes_events as seen
from synth_pipeline.market.flows import multivariate_hawkes as hawkes
from synth_pipeline.market.flows.calibrated import Calibrated, Loop, Opening
from synth_pipeline.market.flows.day_shape import FLAT, shape_of
from synth_pipeline.market.flows.hawkes_events import BEHIND, CANCEL_BEHIND, INSIDE, KINDS, TAKE, TOUCH, TYPES
from synth_pipeline.market.flows.hawkes_run import TAKE_CLASSES, Law, advance, start_state
from synth_pipeline.market.flows.opening import deepened, opening_of
from synth_pipeline.market.flows.pace import Pace
from synth_pipeline.market.flows.placement import Distances, distances_up_to, reach_of
from synth_pipeline.market.flows.replaying import Record, Rows, record_of
from synth_pipeline.market.flows.sizes import Sizes, sizes_of
from synth_pipeline.market.flows.tallying import rates_of, tally, waiting_tests
from synth_pipeline.market.tape import Market
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Scale
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import Messages

_MOST_BRANCHING = 0.97
_SLOWEST = 0.05
"""Of the time of the record, the longest decay."""
_BURN_IN = 2.0
"""Longest decays at the start of each stretch whose events only excite."""
_TRAINED = 2 / 3
_COMPARED = 150_000
"""Events on which states are compared, at most."""
_STATES = ((), ("spread", "one_tick"), ("spread", "one_tick", "own_size", "other_size"))


@dataclass(frozen=True)
class Parameters(calibrated.Parameters):
    """What a user may set. Raises `InputError` for values out of range."""

    decay_times_s: tuple[float, ...] = (0.0005, 0.005, 0.05, 0.5, 5.0, 50.0)
    """[1 / β] seconds after which an excitation has fallen to 1 / e."""
    mirrored: bool = True
    """Whether bids and asks share their parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        times = tuple(self.decay_times_s)
        object.__setattr__(self, "decay_times_s", times)
        if not times or not all(x > 0 for x in times) or list(times) != sorted(set(times)):
            raise InputError(f"decay_times_s is {times}: give one or more positive times, ascending")


class Hawkes(Calibrated[Law]):
    """The mutually exciting flow of twelve types of events."""

    Parameters = Parameters
    Law = Law

    @classmethod
    def example(cls, parameters: calibrated.Parameters | None = None) -> Self:
        """Return a flow of round numbers in which each kind excites itself, to try things on without data."""
        flow = cls(parameters)
        decays, rates, own = np.array([50.0, 1.0]), np.array([0.25, 0.75, 2.0, 0.5, 2.0, 0.5]), np.array([0.2, 0.3])
        distances = distances_up_to(flow.parameters.reach_ticks or 40)
        classes, reach = distances.edges.size - 1, distances.class_of.size - 1
        jumps = np.zeros((TYPES, TYPES, decays.size))
        jumps[np.arange(TYPES), np.arange(TYPES)] = own * decays
        by_own = np.ones((TYPES, seen.CLASSES))
        by_own[2 * CANCEL_BEHIND :][:2] = np.exp(seen.offsets()[CANCEL_BEHIND, :: seen.CLASSES][: seen.CLASSES])
        one, lots, groups = np.ones(1, dtype=np.int64), np.arange(1, 21), classes + 2 + TAKE_CLASSES
        flow._law = Law(
            base=np.repeat(rates, 2),
            jumps=jumps,
            decays=decays,
            by_spread=np.ones((TYPES, seen.SPREADS)),
            by_own=by_own,
            by_other=np.ones((TYPES, seen.CLASSES)),
            typical=seen.Typical(2, 30.0, 10.0 * reach),
            features=0,
            distances=distances,
            placed=np.arange(1, classes + 1) / classes,
            joining=np.full(classes, 0.5),
            leaving=np.ones(classes),
            inside=sizes_of(one, 0 * one, [np.arange(seen.SPREADS)] * seen.SPREADS),
            sweeps=sizes_of(one, 0 * one, [np.arange(1)]),
            sizes=sizes_of(lots, 0 * lots, [np.arange(groups)] * groups),
            day=FLAT,
            most=1e5,
        )
        levels = [(side, 10_000 + (2 * side - 1) * away, 105) for side in (0, 1) for away in range(1, reach + 1)]
        flow._opening = Opening(np.array(levels), Scale(Decimal("0.01"), Decimal("1")), reach, 2.0, 10.5)
        for kind, rate in zip(KINDS, rates.tolist(), strict=True):
            flow.estimates[f"base_{kind}"] = Estimate(rate, None, "real")
            for source in (f"{each}_{side}" for each in KINDS for side in ("same", "other")):
                share = float(own.sum()) if source == f"{kind}_same" else 0.0
                flow.estimates[f"excitation_{source}_to_{kind}"] = Estimate(share, None, "real")
        return flow

    def fit(self, messages: Messages, *, rng: np.random.Generator, progress: Progress = silent) -> Self:
        """Estimate from messages, as `OrderFlow.fit` says."""
        progress(0, 4, "reading events")
        found = record_of(messages)
        distances = distances_up_to(self.parameters.reach_ticks or reach_of(found.placed, messages.depth))
        day, flat = shape_of(messages.time_ns, messages.spans)
        rows = seen.spread_out(found.rows, messages.ends, found.unit, rng)
        events, profile = seen.events_of(rows, distances.class_of.size - 1, found.unit)
        typical = seen.typical_of(events)
        resolution = seen.resolution_of(found.rows) / NS_PER_SECOND
        decays, dropped = _decays(self.parameters.decay_times_s, resolution, messages.seconds)
        record = _record(rows, events, seen.cells_of(events, typical), day, decays)
        progress(1, 4, "comparing states")
        features = _best_state(record, decays, typical, self.parameters.mirrored)
        progress(2, 4, "fitting")
        fitted = hawkes.fit(record, _design(decays, typical, features, self.parameters.mirrored))
        steady = fitted.stationary(_MOST_BRANCHING)
        self.notes = (*found.notes, *([flat] if flat else []), *dropped, *_notes(fitted, features, resolution))
        progress(3, 4, "testing")
        self._keep(record, steady, features)
        self._law = _law(events, profile, distances, typical, features, steady, day)
        if (self.law.by_spread < _factors(events, typical, steady)[0] * (1 - 1e-9)).any():
            self.notes = (*self.notes, "rates at spreads that would feed on themselves are lowered until they do not")
        reach = distances.class_of.size - 1
        levels = opening_of(messages, reach)
        if messages.depth:
            levels = self._deepen(found, messages.depth, events, levels, rng)
        self._opening = Opening(levels, messages.scale, reach, found.spread, found.unit)
        progress(4, 4, "fitted")
        return self

    def fit_like(self, messages: Messages, truth: Self) -> Self:
        """Estimate with the decays, states and time of day of another one, whose parameters can thus be compared."""
        law, found = truth.law, replace(record_of(messages), unit=truth.opening.unit)
        rows = seen.spread_out(found.rows, messages.ends, found.unit, stream(0, "hawkes", "ties"))
        events, _ = seen.events_of(rows, law.distances.class_of.size - 1, found.unit)
        record = _record(rows, events, seen.cells_of(events, law.typical), law.day, law.decays)
        design = _design(law.decays, law.typical, law.features, truth.parameters.mirrored)
        self._keep(record, hawkes.fit(record, design), law.features)
        return self

    def _keep(self, record: hawkes.Record, fitted: hawkes.Fit, features: int) -> None:
        """Keep estimates and tests."""
        waits = hawkes.residuals(record, fitted.design, fitted.theta, fitted.factors)
        known = ~np.isnan(waits)
        by_kind = {name: waits[known & (record.types // 2 == kind)] for kind, name in enumerate(KINDS)}
        self.diagnostics = {"spectral_radius": fitted.spectral_radius} | waiting_tests(by_kind)
        self.estimates = _estimates(fitted, features)

    def _deepen(
        self, found: Record, depth: int, events: seen.Events, levels: IntArray, rng: np.random.Generator
    ) -> IntArray:
        """Add what stands beyond the levels seen, and, where nothing is seen there, what comes and goes."""
        law = self.law
        limit_rates, cancel_rates = _extrapolated(found, law.distances, law.day)
        if depth == 1:
            rows = found.rows
            seconds = float((rows.ends_ns - rows.starts_ns).sum()) / NS_PER_SECOND
            rate = 0.5 * float((events.types // 2 <= TOUCH).sum()) / seconds
            self._law = _with_depth(law, rate, int(found.spread), limit_rates, cancel_rates)
            self.notes = (
                *self.notes,
                "nothing is seen behind the touch: as many orders as at it are taken to come there, and to leave",
            )
        return deepened(levels, law.distances, limit_rates, cancel_rates, law.sizes, rng)

    def _loop(self, market: Market, pace: Pace, rng: np.random.Generator) -> Loop:
        law, state = self.law, start_state(market, self.law)
        return lambda until_ns, guide: int(advance(market, law, pace, state, guide, until_ns, rng))


def _decays(times: tuple[float, ...], resolution: float, seconds: float) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the decays that a record can tell, and a note of those left out."""
    shortest, longest = 0.5 * resolution, _SLOWEST * seconds
    kept = [each for each in times if shortest <= each <= longest]
    if not kept:
        kept = [min(times, key=lambda each: abs(np.log(each / np.sqrt(shortest * longest))))]
    if len(kept) == len(times):
        return 1.0 / np.array(kept), ()
    left_out = ", ".join(f"{each:g}" for each in times if each not in kept)
    known = f"{seconds:.0f} s at a resolution of {resolution:.2g} s"
    return 1.0 / np.array(kept), (f"decay times of {left_out} s are left out: {known} do not tell them",)


def _record(rows: Rows, events: seen.Events, cells: IntArray, day: FloatArray, decays: FloatArray) -> hawkes.Record:
    """Return the events in order of time, those counted of which the state and enough of the past are known."""
    stretch = np.searchsorted(rows.opens, events.at, side="right") - 1
    times = (rows.time_ns[events.at] - rows.starts_ns[0]) / NS_PER_SECOND
    order = np.lexsort((times, stretch))
    stretch, times = stretch[order], times[order]
    fresh = np.append(True, np.diff(stretch) != 0)
    first = np.flatnonzero(fresh)
    begun, length = times[first], times[np.append(first[1:], len(times)) - 1] - times[first]
    burn_in = np.minimum(_BURN_IN / decays.min(), 0.1 * length)
    number = np.cumsum(fresh) - 1
    time_ns = rows.starts_ns[0] + (times * NS_PER_SECOND).astype(np.int64)
    return hawkes.Record(
        times=times,
        types=events.types[order],
        fresh=fresh,
        counted=~fresh & (times > (begun + burn_in)[number]) & (events.spread[order] > 0),
        cells=cells[order],
        shape=day[time_ns % NS_PER_DAY * day.size // NS_PER_DAY],
    )


def _design(decays: FloatArray, typical: seen.Typical, features: int, mirrored: bool) -> hawkes.Design:
    types = np.arange(TYPES)
    # Arrays of one layout, whichever way they were made: kernels are compiled for each.
    loadings, offsets = np.ascontiguousarray(seen.loadings(features, typical)), seen.offsets()
    if not mirrored:
        twice = types // 2
        return hawkes.Design(types, np.tile(types, (TYPES, 1)), decays, loadings[twice], offsets[twice])
    across = types // 2 * 2 + (types % 2 ^ types[:, None] % 2)
    return hawkes.Design(types // 2, across, decays, loadings, offsets)


def _best_state(record: hawkes.Record, decays: FloatArray, typical: seen.Typical, mirrored: bool) -> int:
    """Return how many features of the state the rest of a record likes best, fitted on its beginning."""
    record = record.head(_COMPARED)
    cut = int(_TRAINED * len(record.times))
    is_early = np.arange(len(record.times)) < cut
    early, late = (record._replace(counted=record.counted & half) for half in (is_early, ~is_early))
    scores = {
        len(names): hawkes.score(late, hawkes.fit(early, _design(decays, typical, len(names), mirrored)))
        for names in _STATES
    }
    return max(scores, key=lambda each: scores[each])


def _notes(fitted: hawkes.Fit, features: int, resolution: float) -> list[str]:
    names = ", ".join(_STATES[-1][:features]).replace("_", " ") or "no state"
    found = [f"rates depend on {names}, by the likelihood of the last third of the record"]
    if resolution > 1e-6:
        found.append(f"changes at one time are spread over the {1000 * resolution:.3g} ms before")
    if fitted.spectral_radius > _MOST_BRANCHING:
        found.append(
            f"the spectral radius is estimated at {fitted.spectral_radius:.3f} and lowered to {_MOST_BRANCHING}: "
            "the rate of events drifts within the record"
        )
    return found


def _estimates(fitted: hawkes.Fit, features: int) -> dict[str, Estimate]:
    """Return μ, Σ_k n and φ by name; errors are None where the record does not tell."""
    decays, sets = len(fitted.design.decays), len(fitted.theta)
    ends = ("",) if sets == len(KINDS) else ("_bid", "_ask")
    sides = ("same", "other") if sets == len(KINDS) else ("bid", "ask")
    names = [f"{kind}{end}" for kind in KINDS for end in ends]
    found: dict[str, Estimate] = {}
    for own, name in enumerate(names):
        theta, errors = fitted.theta[own], fitted.covariance[own]
        if theta.sum() == 0:
            continue
        found[f"base_{name}"] = _estimate(theta[0], errors[0, 0])
        for column in range((len(theta) - 1) // decays):
            part = slice(1 + column * decays, 1 + (column + 1) * decays)
            source = f"{KINDS[column // 2]}_{sides[column % 2]}"
            found[f"excitation_{source}_to_{name}"] = _estimate(theta[part].sum(), np.nansum(errors[part, part]))
        for feature, each in enumerate(_STATES[-1][:features]):
            at = len(theta) + feature
            found[f"state_{each}_{name}"] = _estimate(fitted.log_factors[own, feature], errors[at, at])
    return found


def _estimate(value: float, variance: float) -> Estimate:
    return Estimate(float(value), float(np.sqrt(variance)) if variance > 0 else None, "real")


def _law(
    events: seen.Events, profile: FloatArray, distances: Distances, typical: seen.Typical,
    features: int, fitted: hawkes.Fit, day: FloatArray,
) -> Law:  # fmt: skip
    decays = fitted.design.decays
    kind, which = events.types // 2, distances.class_of[np.clip(events.offset, 0, distances.class_of.size - 1)]
    classes = distances.edges.size - 1
    placed, joined, left = (
        np.bincount(which[of_kind], minlength=classes).astype(np.float64)
        for of_kind in (kind == BEHIND, (kind == BEHIND) & (events.joins > 0), kind == CANCEL_BEHIND)
    )
    resting = np.bincount(distances.class_of[1:], profile[1:], classes)
    leaving = (left + _PRIOR) / np.maximum(resting + _PRIOR * resting.sum() / max(left.sum(), 1.0), 1e-9)
    by_spread, by_own, by_other = map(np.ascontiguousarray, _factors(events, typical, fitted))
    return Law(
        base=fitted.base,
        jumps=np.ascontiguousarray((fitted.weights * decays).transpose(1, 0, 2)),
        decays=decays,
        by_spread=_calmed(fitted.weights.sum(axis=2), by_spread),
        by_own=by_own,
        by_other=by_other,
        typical=typical,
        features=features,
        distances=distances,
        placed=np.cumsum(placed + 1e-9) / (placed + 1e-9).sum(),
        joining=(joined + _PRIOR) / (placed + 2 * _PRIOR),
        leaving=leaving / leaving.max(),
        inside=_improvements(events),
        sweeps=_sweeps(events),
        sizes=_sizes(events, which, typical, classes),
        day=day,
        most=_EXPLODED * max(_still_to_come(fitted), 1.0),
    )


def _factors(
    events: seen.Events, typical: seen.Typical, fitted: hawkes.Fit
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return factors of each type by spread, by what stands where it acts, and by what stands beside it.

    What was hardly ever seen has the factor of the nearest class that was.
    """
    factors = fitted.factors.reshape(-1, seen.SPREADS, seen.CLASSES, seen.CLASSES)[fitted.design.group]
    usual, middle = seen.spread_class(typical.spread), seen.CLASSES // 2
    spreads = [seen.spread_class(each) for each in np.quantile(events.spread[events.spread > 0], _SEEN)]
    lots = [seen.lots_class(typical, each) for each in np.quantile(events.lots[events.spread > 0], _SEEN)]
    by_own = factors[:, usual, np.clip(np.arange(seen.CLASSES), lots[0], lots[1]), middle]
    counted = [2 * CANCEL_BEHIND, 2 * CANCEL_BEHIND + 1]
    by_own[counted] = factors[counted, usual, :, middle]
    return (
        factors[:, np.clip(np.arange(seen.SPREADS), spreads[0], spreads[1]), middle, middle],
        by_own,
        factors[:, usual, middle, np.clip(np.arange(seen.CLASSES), lots[0], lots[1])],
    )


_SEEN = (0.002, 0.998)
"""Quantiles of the states between which factors are taken as estimated."""


def _calmed(branching: FloatArray, by_spread: FloatArray) -> FloatArray:
    """Return factors by class of the spread, lowered until no class is explosive for as long as it lasts.

    Orders inside are left as they are: they end a wide spread. All others would go on, and empty the book.
    """
    found, first = by_spread.copy(), 2 * TOUCH
    for each in range(seen.SPREADS):
        rates = found[first:, each, None] * branching[first:, first:]
        radius = float(np.abs(np.linalg.eigvals(rates)).max())
        found[first:, each] *= min(1.0, _MOST_BRANCHING / max(radius, 1e-300))
    return found


def _still_to_come(fitted: hawkes.Fit) -> float:
    """Return how many events past ones still excite, on average over the record."""
    excited = (fitted.theta * fitted.met)[:, 1:].reshape(-1, len(fitted.design.decays)).sum(axis=0)
    seconds = fitted.whole[:, 0].max() * len(fitted.theta) / TYPES
    return float((excited / fitted.design.decays).sum() / seconds)


_EXPLODED = 300.0
"""Times as many events still to come as on average are an explosion."""
_PRIOR = 0.5
"""Events that each class of distance is given beside its own."""


def _improvements(events: seen.Events) -> Sizes:
    """Return by how many ticks orders inside the spread improve the best price, by class of the spread."""
    inside = (events.types // 2 == INSIDE) & (events.spread > 1) & (events.offset < 0)
    if not inside.any():
        return sizes_of(
            np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64), [np.arange(seen.SPREADS)] * seen.SPREADS
        )
    spreads = np.array([seen.spread_class(each) for each in events.spread[inside]])
    wider = [np.arange(max(each - 1, 0), min(each + 2, seen.SPREADS)) for each in range(seen.SPREADS)]
    return sizes_of(-events.offset[inside], spreads, wider)


def _sweeps(events: seen.Events) -> Sizes:
    """Return how many ticks market orders go that are larger than the touch that they hit."""
    side = events.types % 2
    swept = (events.types // 2 == TAKE) & (events.size > events.lots[np.arange(len(side)), side]) & (events.sweep > 0)
    ticks = events.sweep[swept] if swept.any() else np.ones(1, dtype=np.int64)
    return sizes_of(ticks, np.zeros(ticks.size, dtype=np.int64), [np.arange(1)])


def _sizes(events: seen.Events, which: IntArray, typical: seen.Typical, classes: int) -> Sizes:
    """Return sizes by group, of neighbouring groups where one has too few."""
    kind, side = events.types // 2, events.types % 2
    own = events.lots[np.arange(len(side)), side]
    hit = np.array([seen.lots_class(typical, lots) for lots in own]) * TAKE_CLASSES // seen.CLASSES
    groups = np.select(
        (kind == BEHIND, kind == TOUCH, kind == INSIDE), (which, classes, classes + 1), classes + 2 + hit
    )
    orders = (kind <= BEHIND) | (kind == TAKE)
    near = [np.append(np.arange(max(each - 2, 0), min(each + 3, classes)), classes) for each in range(classes)]
    takes = np.arange(classes + 2, classes + 2 + TAKE_CLASSES)
    close = [takes[max(each - 1, 0) : each + 2] for each in range(TAKE_CLASSES)]
    touch = np.arange(classes, classes + 2)
    return sizes_of(events.size[orders], groups[orders], [*near, touch, touch, *close])


def _extrapolated(found: Record, distances: Distances, day: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return rates of limit orders per tick and of cancellations per order, by distance from the other side's best."""
    rates, _ = rates_of(tally(found.rows, distances, day, found.unit), distances)
    return rates.limit, rates.cancel


def _with_depth(law: Law, rate: float, spread: int, limit_rates: FloatArray, cancel_rates: FloatArray) -> Law:
    """Return a law with a constant rate of orders behind each touch, which rest there as many as `_extrapolated`."""
    reach = law.distances.class_of.size - 1
    offsets = np.arange(1, reach + 1)
    beyond = law.distances.class_of[np.minimum(offsets + spread, reach)]
    resting = limit_rates[beyond] / cancel_rates[beyond]
    placed = np.bincount(law.distances.class_of[offsets], resting, law.distances.edges.size - 1)
    base, jumps = law.base.copy(), law.jumps.copy()
    for kind in (BEHIND, CANCEL_BEHIND):
        types = slice(2 * kind, 2 * kind + 2)
        base[types], jumps[types], jumps[:, types] = rate, 0.0, 0.0
    return law._replace(
        base=base,
        jumps=jumps,
        placed=np.cumsum(placed) / placed.sum(),
        leaving=np.ones_like(placed),
        typical=law.typical._replace(orders=max(float(resting.sum()), 1.0)),
    )

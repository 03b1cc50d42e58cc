"""What a record means, in plain words: headline, how far to trust it, and why it fails.

Sentences only: every number is read from the record, and formatted by `numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from synth_pipeline.fidelity.evaluation import Evaluation, Grade, Permission, Result, Verdict
from synth_pipeline.reports import numbers
from synth_pipeline.schema import NS_PER_SECOND

FEW_RETURNS, SOME_RETURNS = 500, 5_000
"""Returns a window below which only gross faults, and below which only clear ones, can be told from chance."""

_HEADLINES = {
    "invalid": "Not usable: some synthetic values cannot exist in a market",
    "memorised": "A replay, not a model: training data reappear word for word",
    "indistinguishable": "As close to the held-out market as fresh real data are",
    "close": "Near the real market, with faults that show",
    "off": "Not like the real market",
}
_ADVICE = {
    "invalid": "Do not use these data: they break a rule that every market obeys. The list below says which.",
    "memorised": (
        "Scores below are those of the training data themselves. Do not take them for realism, and do not share these "
        "data where the training data could not be shared."
    ),
    "indistinguishable": (
        "On everything measured here, a model tested on these data is tested on something as market-like as another "
        "stretch of the same market. What is not measured here is not vouched for."
    ),
    "close": "Usable where the faults listed below do not matter to the question; check the list against the use.",
    "off": "The faults listed below are larger than any difference between stretches of real data. Mend them first.",
}
_GRADE_VERDICTS: dict[Grade, Verdict] = {
    "A": "indistinguishable",
    "B": "close",
    "C": "off",
    "D": "off",
    "E": "off",
    "F": "off",
    "withheld": "off",
}
PERMISSIONS: dict[Permission, str] = {"yes": "✓ yes", "no": "✕ no", "unknown": "– not examined"}
SYMBOLS: dict[Verdict, str] = {"indistinguishable": "●", "close": "◐", "off": "✕", "absent": "–"}


@dataclass(frozen=True)
class Finding:
    """One fault: what it is, and the numbers that show it."""

    title: str
    verdict: Verdict
    meaning: str
    evidence: str


@dataclass(frozen=True)
class Card:
    """One summary number with its floor beneath."""

    title: str
    value: str
    floor: str
    verdict: Verdict
    note: str


def headline(evaluation: Evaluation) -> str:
    """Return the conclusion as a headline."""
    return _HEADLINES[evaluation.conclusion]


def provisos(provenance: Mapping[str, str]) -> list[str]:
    """Return what has to be known before the verdict is read: that it is of a scenario, or of chosen paths."""
    told = []
    if scenario := provenance.get("scenario"):
        told.append(
            f"This is a scenario, not the market as it was: {scenario}. The held-out data know nothing of it, so what "
            f"the scenario brings about shows below as a fault."
        )
    if selected := provenance.get("selected_on"):
        told.append(
            f"These paths were selected on {selected}. The score that they were chosen by says nothing more about "
            f"them: judge them by the other metrics, and by what is copied."
        )
    return told


def summary(evaluation: Evaluation) -> list[str]:
    """Return what it is, how good it is, and whether to trust it: one short paragraph each."""
    return [
        _what(evaluation),
        _how_good(evaluation),
        _trust(evaluation),
        _ADVICE[evaluation.conclusion],
    ]


def cards(evaluation: Evaluation) -> list[Card]:
    """Return the summary numbers, each with the same number for real data."""
    judged = evaluation.judged
    inside = sum(result.verdict == "indistinguishable" for result in judged)
    worst: Verdict = "indistinguishable"
    for verdict in ("close", "off"):
        worst = verdict if any(result.verdict == verdict for result in judged) else worst
    failures = sum(check.failures for check in evaluation.checks)
    made = [
        Card(
            "Grade",
            evaluation.grade,
            "fresh real data: A, in 95 of 100 cases",
            _GRADE_VERDICTS[evaluation.grade],
            f"{evaluation.grade_because[:1].upper()}{evaluation.grade_because[1:]}.",
        ),
        Card(
            "Fidelity",
            f"{numbers.number(evaluation.fidelity)} / 100",
            _floors(evaluation),
            evaluation.fidelity_verdict,
            "Weighted mean similarity of twelve statistics. It is good when it reaches what fresh real data score.",
        ),
        Card(
            "Tests within real data",
            f"{inside} of {len(judged)}",
            "real data: all of them, in 95 of 100 cases",
            worst,
            "How many different numbers lie where those of real data lie.",
        ),
        Card(
            "Valid values",
            numbers.percent(min((check.share for check in evaluation.checks), default=1.0)),
            "real data: 100 %",
            "off" if failures else "indistinguishable",
            "Finite, positive, on the tick grid, moving. Must be 100 %; no part of the quality score.",
        ),
    ]
    return made + [
        Card(
            "Copied steps",
            numbers.percent(result.value),
            f"fresh real data {numbers.percent(result.floor or 0.0)}",
            result.verdict,
            "Share of steps inside verbatim pieces of the training data.",
        )
        for result in evaluation.results
        if result.name == "verbatim_share" and result.value is not None
    ]


def _floors(evaluation: Evaluation) -> str:
    floors = evaluation.fidelity_floors
    named = {"fresh real data": floors.fresh, "split halves": floors.split_half, "bootstrap": floors.bootstrap}
    told = [f"{name} {numbers.number(floor.value)}" for name, floor in {**named, "a copy": floors.copy}.items()]
    return "; ".join(told)


def findings(evaluation: Evaluation) -> list[Finding]:
    """Return what is wrong, the gravest first: broken rules, copies, then metrics that are off or close.

    Of several assets, what is wrong between them comes before what is wrong with one.
    """
    if evaluation.assets:
        alone = [
            replace(each, title=f"{name}: {each.title}")
            for name, own in evaluation.assets.items()
            for each in findings(own)
        ]
        return sorted([*findings_of(evaluation.judged), *alone], key=lambda each: each.verdict != "off")
    broken = [
        Finding(
            check.title,
            "off",
            f"The rule: {check.rule}.",
            f"{check.failures:,} of {check.total:,} {check.unit} break it.",
        )
        for check in evaluation.checks
        if check.failures
    ]
    copies = [result for result in evaluation.results if result.exposes]
    return broken + findings_of((*copies, *evaluation.judged))


def findings_of(results: Sequence[Result]) -> list[Finding]:
    """Return which of some metrics are off or close: what tells copies first, then the gravest."""
    faulty = [result for result in results if result.verdict in ("off", "close")]
    faulty.sort(key=lambda result: (not result.exposes, result.verdict != "off", -(result.weight or 0.0)))
    return [Finding(result.title, result.verdict, result.meaning, _evidence(result)) for result in faulty]


def absences(evaluation: Evaluation) -> list[Result]:
    """Return the metrics that could not be computed."""
    return [result for result in evaluation.results if result.verdict == "absent"]


def _what(evaluation: Evaluation) -> str:
    sizes = evaluation.sizes
    seconds = sizes.compared_returns * sizes.step_ns / NS_PER_SECOND
    return (
        f"{_count(sizes.synthetic_windows, 'synthetic path')} of {sizes.compared_returns:,} returns "
        f"({numbers.span(seconds)} each) {_are(sizes.synthetic_windows)} compared with "
        f"{_count(sizes.holdout_windows, 'window')} of real prices that the generator never saw. "
        f"The same comparison is made of {_count(sizes.holdout_windows, 'such window')} with "
        f"{_count(sizes.train_windows, 'window')} of the real prices it was fitted on: fresh real data."
    )


def _how_good(evaluation: Evaluation) -> str:
    counts = dict.fromkeys(SYMBOLS, 0)
    for result in evaluation.judged:
        counts[result.verdict] += 1
    low, high = evaluation.fidelity_band
    return (
        f"Fidelity is {numbers.number(evaluation.fidelity)} of 100 where fresh real data reach "
        f"{numbers.number(evaluation.floor)} and resampled real data {low:.0f} to {high:.0f}. "
        f"Of {len(evaluation.judged)} different tests, {counts['indistinguishable']} cannot be told from real data, "
        f"{counts['close']} {_are(counts['close'])} close and {counts['off']} {_are(counts['off'])} off."
    )


def _trust(evaluation: Evaluation) -> str:
    returns = evaluation.sizes.compared_returns
    low, high = evaluation.fidelity_band
    if returns < FEW_RETURNS:
        power = f"Little: {returns:,} returns a window show gross faults only, and passing proves little"
    elif returns < SOME_RETURNS:
        power = f"Fair: {returns:,} returns a window show clear faults, not fine ones"
    else:
        power = f"Good: {returns:,} returns a window show even small faults"
    single = " One synthetic path alone is as accidental as one real stretch; sample more." * (
        evaluation.sizes.synthetic_windows == 1
    )
    missing = len(absences(evaluation))
    absent = f" {_count(missing, 'metric')} could not be computed; the tables say why." * (missing > 0)
    scatter = f"real data scatter over {high - low:.0f} points of fidelity here"
    return f"How far to trust this. {power}; {scatter}.{single}{absent}"


def _evidence(result: Result) -> str:
    if result.real is not None:
        unit = result.statistic_unit
        return (
            f"Synthetic {numbers.quantity(result.synthetic, unit)}, held-out real "
            f"{numbers.quantity(result.real, unit)}; real data range from {numbers.interval(result.real_band, unit)}."
        )
    limit = f", at most {numbers.number(result.band[1])} by chance" if result.band else ""
    value, training, floor = (
        numbers.quantity(number, result.unit) for number in (result.value, result.training, result.floor)
    )
    unit = "" if result.unit in ("", "share") else f" {result.unit}"
    if result.reference == "train":
        return f"Synthetic {value}{unit}, fresh real data {floor}{unit}."
    if result.training is None:
        band = f", training data kept apart {numbers.interval(result.band, result.unit)}" if result.band else ""
        return f"Synthetic {value}{unit}, fresh real data {floor}{unit}{band}."
    return f"{value}{unit} to the held-out data, {training} to the training data; real to real {floor}{limit}."


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"

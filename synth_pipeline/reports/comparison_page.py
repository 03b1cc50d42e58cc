"""`render`: two synthetic samples beside each other, every number beside the floors of its own evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from synth_pipeline.errors import InputError
from synth_pipeline.fidelity.evaluation import Evaluation, Result
from synth_pipeline.reports import figures, numbers, sections, words
from synth_pipeline.reports.page import page, plotly_library, specification

_SHOWN = {
    "price": "Price change",
    "histogram": "Density of returns",
    "losses": "Tail of the losses",
    "absolute_return_acf": "Autocorrelation of the size of returns",
    "rolling_volatility": "Volatility of the last 20 returns",
    "correlations_difference": "Correlations of features, synthetic less real",
    "map": "Windows on the plane on which the training windows spread most",
}


class _Row(NamedTuple):
    title: str
    unit: str
    both: tuple[Result, Result]
    nearer: str
    """Name of the sample that is nearer to real data; a dash where neither is."""


def render(records: Mapping[str, Evaluation]) -> str:
    """Return the page of two records by name; the same records give the same bytes.

    Raises `InputError` for another number of records, or records of different markets: of other assets, steps or price.
    """
    if len(records) != 2:
        raise InputError(f"{len(records)} records are given: two are compared, so name another dataset")
    (first, one), (second, two) = records.items()
    _require_alike(records)
    rows = _rows(records)
    drawn = [figures.figures(each) for each in (one, two)]
    shown = {name: caption for name, caption in _SHOWN.items() if all(name in each for each in drawn)}
    return page(
        "comparison.html",
        title=f"{first} beside {second}",
        names=[first, second],
        evaluations=[one, two],
        cards=[words.cards(each) for each in (one, two)],
        headlines=[words.headline(each) for each in (one, two)],
        sentence=_sentence(records, rows),
        groups=_grouped(rows),
        shown=shown,
        drawn=[{name: specification(each[name]) for name in shown} for each in drawn],
        provenance={
            f"{key} of {name}": value for name, each in records.items() for key, value in each.provenance.items()
        },
        plotly=plotly_library(),
    )


def _require_alike(records: Mapping[str, Evaluation]) -> None:
    for name, what in (("step_ns", "steps, in ns,"), ("train_steps", "numbers of training steps")):
        found = {each: getattr(record.sizes, name) for each, record in records.items()}
        if len(set(found.values())) > 1:
            told = " and ".join(f"{value:,} ({each})" for each, value in found.items())
            raise InputError(f"the two were evaluated against real data with {what} of {told}: take the same real data")
    if len({tuple(record.assets) for record in records.values()}) > 1:
        raise InputError("the two are of different assets: compare datasets of one market")


def _rows(records: Mapping[str, Evaluation]) -> list[_Row]:
    (first, one), (second, two) = records.items()
    others = {each.name: each for each in two.results}
    return [
        _Row(each.title, each.unit, (each, others[each.name]), _nearer(first, each, second, others[each.name]))
        for each in one.results
        if each.name in others
    ]


def _nearer(first: str, one: Result, second: str, two: Result) -> str:
    """Tell by the excess beyond real data; what lies within is equally good."""
    beyond = [0.0 if each.verdict == "indistinguishable" else each.excess for each in (one, two)]
    if beyond[0] is None or beyond[1] is None or beyond[0] == beyond[1]:
        return numbers.DASH
    return first if beyond[0] < beyond[1] else second


def _sentence(records: Mapping[str, Evaluation], rows: list[_Row]) -> str:
    first, second = records
    won = {name: sum(row.nearer == name for row in rows) for name in records}
    same = len(rows) - sum(won.values())
    copied = [name for name, each in records.items() if each.is_copied]
    warning = (
        f" {' and '.join(copied)} {'replays' if len(copied) == 1 else 'replay'} training data: what that scores counts "
        f"for nothing."
    )
    return (
        f"Of {len(rows)} numbers, {first} is nearer to real data on {won[first]} and {second} on {won[second]}; on "
        f"{same} neither can be preferred, since both lie within real data or one has no value.{warning * bool(copied)}"
    )


def _grouped(rows: list[_Row]) -> list[tuple[str, list[_Row]]]:
    families = dict.fromkeys(row.both[0].family for row in rows)
    titles = {**sections.FAMILIES, "weighted": "The twelve weighted metrics"}
    return [
        (titles.get(family, family.capitalize()), [row for row in rows if row.both[0].family == family])
        for family in families
    ]

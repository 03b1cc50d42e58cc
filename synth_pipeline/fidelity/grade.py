"""The grade: what an evaluation comes to in one letter, and what the data may be used for.

- withheld: training data are replayed; scores are theirs, so a letter would praise the copy.
- F: invalid: some values cannot exist in a market.
- A: everything indistinguishable from real data, the fidelity too.
- B: nothing off. C: at most 5 % of the metrics off, the fidelity not. D: at most 30 % off. E: more.

A use is permitted when nothing that it rests on is off, forbidden otherwise, unknown where nothing of it was measured.
What a use rests on is a set of families; of the twelve weighted metrics, by name.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from synth_pipeline.fidelity.evaluation import MANY_OFF, Evaluation, Grade, Result, Use

MOST_OFF = 0.30
_LETTERS: tuple[Grade, ...] = ("A", "B", "C", "D", "E", "F", "withheld")
_SHAPE = {"volatility", "skewness", "kurtosis", "max_drawdown"}
_TIMING = {"volatility_clustering", "arch_lm_p", "volatility_persistence", "absolute_return_acf_error"}
_DIRECTION = {"acf_lag_1", "acf_sum_10", "hurst_exponent", "ljung_box_p", "rsi_correlation", "return_acf_error"}


class _Purpose(NamedTuple):
    name: str
    title: str
    families: set[str]
    metrics: set[str]
    lacking: str
    """What to say where nothing of it was measured."""


_PURPOSES = (
    _Purpose(
        "risk",
        "Risk and tails: value at risk, expected shortfall, drawdowns",
        {"marginal"},
        _SHAPE | {"drawdown_distance"},
        "sizes of returns were not measured",
    ),
    _Purpose(
        "volatility",
        "Volatility: position sizes, stops, option-like payoffs",
        set(),
        {"volatility", "standard_deviation", *_TIMING},
        "the timing of volatility was not measured",
    ),
    _Purpose(
        "strategies",
        "Strategies on prices: trend, reversion, timing",
        {"temporal"},
        _TIMING | _DIRECTION,
        "the order of returns was not measured",
    ),
    _Purpose(
        "features",
        "Models on several features: training, pre-training, augmentation",
        {"cross", "coverage", "signature", "learned", "utility"},
        set(),
        "features beside the price were not measured",
    ),
    _Purpose(
        "portfolios",
        "Portfolios: diversification, hedges, pairs",
        {"dependence"},
        set(),
        "this is one market; its dependence on others was not measured",
    ),
    _Purpose(
        "execution",
        "Execution: queues, impact, cost of trading",
        {"order_book"},
        set(),
        "no order book was measured, and prices alone say nothing of it",
    ),
    _Purpose(
        "sharing",
        "Sharing where the training data may not be shared",
        {"copying", "privacy"},
        set(),
        "copies and near neighbours of the training data were not looked for",
    ),
)


def graded(record: Evaluation) -> Evaluation:
    """Return the record with its grade, the reason for it, and the uses that it permits."""
    grade, because = _grade(record)
    for name, asset in record.assets.items():
        if _LETTERS.index(asset.grade) > _LETTERS.index(grade):
            grade, because = asset.grade, f"{name}: {asset.grade_because}"
    blocked = "values are invalid" if grade == "F" else "training data are replayed" if grade == "withheld" else ""
    return msgspec.structs.replace(
        record, grade=grade, grade_because=because, uses=tuple(_use(each, record, blocked) for each in _PURPOSES)
    )


def _grade(record: Evaluation) -> tuple[Grade, str]:
    if not record.is_valid:
        broken = ", ".join(check.title for check in record.checks if check.failures)
        return "F", f"some values cannot exist in a market: {broken}"
    if record.is_copied:
        exposed = ", ".join(each.title for each in record.results if each.exposes and each.verdict == "off")
        return "withheld", f"training data are replayed, and scores are theirs: {exposed}"
    off = [each.title for each in record.judged if each.verdict == "off"]
    close = [each.title for each in record.judged if each.verdict == "close"]
    told = f"{len(off)} of {len(record.judged)} metrics are off: {_listed(off)}"
    if not off and record.fidelity_verdict != "off":
        if close or record.fidelity_verdict == "close":
            return "B", f"nothing is off, but close only: {_listed(close or ['Fidelity'])}"
        return "A", "nothing measured can be told from real data"
    if record.fidelity_verdict != "off" and record.share_off <= MANY_OFF:
        return "C", told
    return ("D" if record.share_off <= MOST_OFF else "E"), told if off else "the fidelity is off"


def _use(purpose: _Purpose, record: Evaluation, blocked: str) -> Use:
    results = [result for each in (record, *record.assets.values()) for result in each.results]
    rests_on = [each for each in results if each.family in purpose.families or each.name in purpose.metrics]
    measured = [each for each in rests_on if each.verdict != "absent"]
    if blocked:
        return Use(name=purpose.name, title=purpose.title, permission="no", because=blocked)
    if not measured:
        return Use(name=purpose.name, title=purpose.title, permission="unknown", because=purpose.lacking)
    faults: list[Result] = [each for each in measured if each.verdict == "off"]
    return Use(
        name=purpose.name,
        title=purpose.title,
        permission="no" if faults else "yes",
        because=f"off: {_listed([each.title for each in faults])}" if faults else "",
    )


def _listed(titles: list[str], most: int = 4) -> str:
    unique = list(dict.fromkeys(titles))
    return ", ".join(unique[:most]) + (f" and {len(unique) - most} more" if len(unique) > most else "")

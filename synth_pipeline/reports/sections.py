"""What each section of the page rests on, and why it fails there, in plain words."""

from __future__ import annotations

from typing import NamedTuple

from synth_pipeline.fidelity.evaluation import Evaluation, Result
from synth_pipeline.reports import words
from synth_pipeline.reports.words import Finding

FAMILIES = {
    "marginal": "Marginal: how returns are distributed",
    "temporal": "Temporal: how they follow each other",
    "cross": "Cross-feature: how columns move together",
    "coverage": "Coverage: whether all that the market does is there",
    "signature": "Signatures: the shape of paths",
    "learned": "Learned: what trained judges tell apart",
    "utility": "Utility: what models and rules learn from it",
    "dependence": "Dependence between assets",
}
"""Titles of the families that are no copies, in the order of the page; what is not named here comes after them."""
COPYING = ("copying", "privacy")
EXTREME = 90.0
"""Percentile among real episodes beyond which, on either side, scenarios are called too mild or too grave."""


class _Rests(NamedTuple):
    families: set[str]
    metrics: set[str]
    about: str


SECTIONS = {
    "prices": _Rests(set(), {"max_drawdown", "drawdown_distance", "drift", "mean_return"}, "direction and drawdowns"),
    "returns": _Rests({"marginal"}, {"skewness", "kurtosis"}, "sizes of returns"),
    "memory": _Rests(
        set(),
        {
            *("return_acf_error", "absolute_return_acf_error", "squared_return_acf_error", "ljung_box_per_observation"),
            *("arch_lm_per_observation", "acf_lag_1", "acf_sum_10", "hurst_exponent", "ljung_box_p", "arch_lm_p"),
            *("rsi_correlation", "leverage_effect", "zumbach_effect", "ranked_leverage", "change_memory_error"),
            "activity_memory_error",
        },
        "the order of returns",
    ),
    "volatility": _Rests(
        set(),
        {
            *(
                "volatility",
                "standard_deviation",
                "volatility_clustering",
                "volatility_persistence",
                "volatility_hurst",
            ),
            *("volatility_asymmetry", "aggregation_error", "conditional_kurtosis", "intermittency"),
        },
        "volatility",
    ),
    "features": _Rests({"cross"}, {"level_distance", "change_distance"}, "features together"),
    "windows": _Rests({"coverage", "signature", "learned", "utility"}, set(), "whole windows"),
    "copying": _Rests({*COPYING}, set(), "copies and near neighbours"),
    "twelve": _Rests({"weighted"}, set(), "the weighted metrics"),
    "dependence": _Rests({"dependence"}, set(), "assets together"),
}


class Why(NamedTuple):
    """How many numbers of a section are wrong, and which."""

    sentence: str
    findings: list[Finding]


def why(evaluation: Evaluation, section: str) -> Why:
    """Return what is off and what is close among the metrics that a section is about."""
    rests = SECTIONS[section]
    about = [each for each in evaluation.results if each.family in rests.families or each.name in rests.metrics]
    judged = [each for each in about if each.verdict != "absent"]
    if not judged:
        return Why(f"It cannot be told: nothing of {rests.about} was measured.", [])
    found = words.findings_of(judged)
    off = sum(each.verdict == "off" for each in found)
    if not found:
        count = "The one number" if len(judged) == 1 else f"Not one of the {len(judged)} numbers"
        verb = "can be told from real data" if len(judged) > 1 else "cannot be told from real data"
        return Why(f"{count} on {rests.about} {verb}.", [])
    return Why(
        f"Of {len(judged)} numbers on {rests.about}, {off} {'is' if off == 1 else 'are'} off and "
        f"{len(found) - off} {'is' if len(found) - off == 1 else 'are'} close.",
        found,
    )


def why_invalid(evaluation: Evaluation) -> Why:
    """Return which rules are broken."""
    broken = [each for each in evaluation.checks if each.failures]
    if not broken:
        return Why(f"All {len(evaluation.checks)} rules hold everywhere.", [])
    told = "; ".join(f"{each.title} ({each.failures:,} of {each.total:,} {each.unit})" for each in broken)
    return Why(f"Of {len(evaluation.checks)} rules {len(broken)} are broken: {told}.", [])


def why_stress(evaluation: Evaluation) -> Why:
    """Return in which regimes synthetic episodes are far from the typical real one, or lacking."""
    panels = evaluation.exhibits.stress if evaluation.exhibits else ()
    lacking = [_plain(each.regime) for each in panels if each.real and not each.synthetic]
    told = [f"never in the synthetic data: {', '.join(lacking)}"] if lacking else []
    for word, low, high in (("too mild", 0.0, 100.0 - EXTREME), ("too grave", EXTREME, 100.0)):
        found = [
            f"{_plain(panel.regime)} ({place.title.lower()})"
            for panel in panels
            for place in panel.places
            if low <= place.percentile <= high
        ]
        told += [f"{word}: {', '.join(found)}"] if found else []
    if told:
        return Why(f"As a rule {'; '.join(told)}.", [])
    placed = any(each.places for each in panels)
    return Why("Nothing is far from history." if placed else "It cannot be told: there are too few episodes.", [])


def why_checklists(evaluation: Evaluation) -> Why:
    """Return the checks that fresh real data pass and the synthetic data do not."""
    lists = evaluation.exhibits.checklists if evaluation.exhibits else ()
    checks = [each for one in lists for each in one.checks]
    missed = [each.title for each in checks if each.applies and each.floor_passed and not each.passed]
    asked = sum(each.floor is not None and not each.floor_passed for each in checks)
    told = f"Failed where those pass: {', '.join(missed)}." if missed else "Whatever those pass is passed."
    return Why(f"Fresh real data themselves fail {asked} of {len(checks)} checks. {told}", [])


def _plain(regime: str) -> str:
    return regime.replace("_", " ")


def by_family(results: tuple[Result, ...]) -> list[tuple[str, list[Result]]]:
    """Return the results that are neither weighted nor of copying, family by family, with its title."""
    names = [*FAMILIES, *dict.fromkeys(each.family for each in results if each.family not in FAMILIES)]
    grouped = {
        name: [each for each in results if each.family == name and not each.weight and name not in COPYING]
        for name in names
    }
    return [(FAMILIES.get(name, name.capitalize()), found) for name, found in grouped.items() if found]
